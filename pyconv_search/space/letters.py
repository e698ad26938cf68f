"""Characters that are not what they look like: blanks that are none, and those that hide or reorder others."""

from __future__ import annotations

import re
import unicodedata

# Characters at which YAML ends a line and an editor does not, so that a comment or a value ends unseen.
LINE_ENDS = re.compile("[\u0085\u2028\u2029]")
# Those that turn the order of what stands around them (Unicode Standard Annex 9).
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UNSEEN = frozenset("\u00ad\u200b\u2060\ufeff")


def blank(letter: str) -> bool:
    """Whether it looks like a blank, or like nothing, but is another character to YAML."""
    return letter in _UNSEEN or (letter.isspace() and letter not in " \t\n\r")


def hidden(letter: str) -> bool:
    """Whether it changes how the text around it looks: control characters, directions, halves of a character."""
    return letter in _DIRECTIONS or (unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\t\n\r")


def name_of(letter: str) -> str:
    """What a message calls it: ``a no-break space (U+00A0)``."""
    name = unicodedata.name(letter, "a control character").lower()
    article = "" if name.startswith("a ") else "an " if name[0] in "aeio" else "a "
    return f"{article}{name} (U+{ord(letter):04X})"
