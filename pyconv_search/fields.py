"""Reading plain values (from YAML or JSON) key by key, collecting every mistake instead of stopping at the first."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyconv_search.errors import UserError

Path = tuple[str | int, ...]
MOST_PROBLEMS = 50
MOST_TEXT = 1000  # characters of a message
MOST_KEY = 60  # characters of a key in a message
MOST = 2**16  # channels, kernels, blocks …: far more than any network has, few enough to count through


def path_text(path: Path) -> str:
    """A key path as people write it: ``stages[1].levels[2].groups``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{cut(str(part))}" if text else cut(str(part))
    return text


def cut(text: str, most: int = MOST_KEY) -> str:
    """The text in one line, its end left out when it is long."""
    text = text[: most + 1].replace("\n", " ")
    return text if len(text) <= most else text[: most - 1] + "…"


def kind_of(value: Any) -> str:
    """What a YAML value is, in words for a message."""
    if value is None or value is ABSENT:
        return "nothing"
    names = {bool: "true/false", int: "an integer", float: "a number", str: "a text", list: "a list", dict: "a mapping"}
    return f"{names.get(type(value), type(value).__name__)} ({shown(value)})"


def shown(value: Any, most: int = MOST_KEY) -> str:
    """A value in a message, cut when long."""
    if isinstance(value, str):
        return cut(repr(value[: most + 1]), most)
    if isinstance(value, bool):
        return str(value).lower()
    try:
        return cut(str(value), most)
    except ValueError:  # an integer of thousands of digits
        return "a very long number"


def printable(text: str) -> str:
    """The text without control characters, which a terminal would obey; line ends stay."""
    return "".join(c if c == "\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def nearest(value: float, legal: Iterable[int]) -> str:
    """The nearest legal number, or the two around ``value``: ``4, 8``."""
    numbers = sorted(legal)
    below = [n for n in numbers if n <= value][-1:]
    above = [n for n in numbers if n > value][:1]
    return ", ".join(map(str, below + above))


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like ``word``, if one is."""
    close = difflib.get_close_matches(str(word)[:MOST_KEY], list(known), n=1, cutoff=0.5)
    return close[0] if close else None


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean …?`` where one known word is close, else an empty text."""
    close = closest(word, known)
    return f"; did you mean {close}?" if close else ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the key path of the value and what would be right.

    ``key``: it is the key that is wrong, not its value. ``own``: it is wrong whatever else the file says.
    ``context`` says of which of many networks. ``at``: its (line, column), where that is not the value's.
    """

    path: Path
    text: str
    key: bool = False
    own: bool = False
    context: str = ""
    at: tuple[int, int] | None = None

    @property
    def said(self) -> str:
        """The whole message, without its place."""
        return cut(self.text, MOST_TEXT) + cut(self.context, MOST_TEXT)

    def __str__(self) -> str:
        return f"{path_text(self.path)}: {self.said}" if self.path else self.said


class SpecError(UserError):
    """One or more mistakes in a specification; ``problems`` holds each with its key path."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(slots=True)
class Problems:
    """The mistakes found so far, one a place; beyond MOST_PROBLEMS they are only counted as one more.

    After a value that is wrong by itself reading goes on with another one in its place. What is found wrong with that
    one, or inside of it, is not a mistake of the user's and is not kept.
    """

    found: list[Problem] = field(default_factory=list)
    _places: set[tuple[Path, tuple[int, int] | None]] = field(default_factory=set)
    _around: set[Path] = field(default_factory=set)  # every path at or above a mistake
    _closed: set[Path] = field(default_factory=set)  # of values that are wrong by themselves

    def __post_init__(self) -> None:
        given, self.found = self.found, []
        for problem in given:
            self.note(problem)

    @property
    def full(self) -> bool:
        """Whether no further mistake would be reported."""
        return len(self.found) > MOST_PROBLEMS

    def add(self, path: Path, text: str, *, key: bool = False, own: bool = False) -> None:
        """Note a mistake at ``path``; the flags are those of :class:`Problem`."""
        self.note(Problem(path, text, key, own))

    def note(self, problem: Problem) -> None:
        """Note a mistake, unless one is known at its place or around it that explains it."""
        path = problem.path
        place = (path, problem.at)
        if place in self._places or any(path[:n] in self._closed for n in range(len(path) + 1)) or self.full:
            return
        self._places.add(place)
        self._around |= {path[:n] for n in range(len(path) + 1)}
        if problem.own:
            self._closed.add(path)
        self.found.append(problem if len(self.found) < MOST_PROBLEMS else Problem((), "and more mistakes"))

    def sound(self, *paths: Path) -> bool:
        """Whether there is no mistake at these paths nor below them, so that what was read there is what is written."""
        return not any(
            path in self._around or any(path[:n] in self._closed for n in range(len(path) + 1)) for path in paths
        )

    def withdraw(self, path: Path) -> None:
        """Forget what was found at ``path`` itself."""
        kept = [problem for problem in self.found if problem.path != path]
        self.found, self._places, self._around, self._closed = [], set(), set(), set()
        for problem in kept:
            self.note(problem)

    def check(self) -> None:
        """Raise a SpecError if there is any."""
        if self.found:
            raise SpecError(self.found)


class _Absent:
    """The type of ABSENT."""

    def __repr__(self) -> str:
        return "ABSENT"


# What stands where a reference names an inactive parameter: as if the key were not there, unlike a key without a value.
ABSENT: Any = _Absent()
_REQUIRED: Any = object()
_COMMA = re.compile(r"^[-+]?\d+,\d+$")
_DECIMALS = re.compile(r"^\d+(e-?\d+)?$")
_NO_BLANK = re.compile(r"^([A-Za-z_][\w-]*):(\S.*)$", re.S)
_NO_COLON = re.compile(r"^([A-Za-z_][\w-]*)\s+(\S.*)$", re.S)


class Fields:
    """One mapping, read key by key; every mistake goes to ``problems`` and reading goes on with a legal value.

    A key whose value is ABSENT counts as not there, so that an inactive parameter leaves the default in force. A key
    without a value (null) is a mistake.
    """

    def __init__(self, values: Any, path: Path, problems: Problems) -> None:
        self.path, self.problems = path, problems
        self._known: dict[str, None] = {}
        if not isinstance(values, Mapping):
            match = _NO_BLANK.match(values) if isinstance(values, str) else None
            hint = f"; write a blank after the colon: {cut(match[1])}: {cut(match[2])}" if match else ""
            problems.add(path, f"must be a mapping of keys to values, but got {kind_of(values)}{hint}", own=True)
            values = {}
        self.values = {key: value for key, value in values.items() if value is not ABSENT}

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def names(self) -> list[str]:
        """The keys that are present, in the order in which they are written."""
        return [str(key) for key in self.values]

    def add(self, key: str | int, text: str, *, own: bool = False) -> None:
        """Note a mistake in the value of ``key``; ``own``: by itself, whatever else is written."""
        self.problems.add((*self.path, key), text, own=own)

    def sound(self, *keys: str | int) -> bool:
        """Whether nothing is wrong with the values of these keys, so that they are what is written (or the default)."""
        return self.problems.sound(*((*self.path, key) for key in keys))

    def take(self, key: str, default: Any = _REQUIRED) -> Any:
        """The value as it stands; the default, or None, where it is null or a required one is missing: mistakes."""
        self._known[key] = None
        if key not in self.values:
            if default is _REQUIRED:
                self.problems.add((*self.path, key), "is required, but missing", key=True, own=True)
                return None
            return default
        if self.values[key] is None:
            hint = "" if default is _REQUIRED else ", or leave the key out"
            self.problems.add((*self.path, key), f"has no value; write one behind it{hint}", key=True, own=True)
            return None if default is _REQUIRED else default
        return self.values[key]

    def drop(self, key: str) -> None:
        """Read on as if ``key`` were absent."""
        self._known[key] = None
        self.values.pop(key, None)

    def section(self, key: str, default: Any = _REQUIRED) -> Fields:
        """A nested mapping."""
        value = self.take(key, default)
        return Fields({} if value is None else value, (*self.path, key), self.problems)

    def items(self, key: str, default: Any = _REQUIRED) -> list[Any]:
        """A list of anything."""
        value = self.take(key, default)
        if value is None or isinstance(value, (list, tuple)):
            return list(value or ())
        self.add(key, f"must be a list, but got {kind_of(value)}", own=True)
        return []

    def integer(self, key: str, default: Any = _REQUIRED, low: int | None = 1, high: int | None = MOST) -> Any:
        """An integer between ``low`` and ``high``, both included."""
        value = self.take(key, default)
        if value is default or value is None:
            return value if value is default else low
        return integer(value, (*self.path, key), self.problems, low, high, default)

    def number(self, key: str, default: Any = _REQUIRED, low: float = 0.0, high: float | None = None) -> Any:
        """A finite real number between ``low`` and ``high``, both included."""
        value = self.take(key, default)
        if value is default or value is None:
            return value
        bounds = f"{low:g} or more" if high is None else f"between {low:g} and {high:g}"
        fallback = low if default is _REQUIRED else default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            comma = _COMMA.match(value) if isinstance(value, str) else None
            hint = f"; with a decimal point: {comma[0].replace(',', '.')}" if comma else ""
            self.add(key, f"must be a number ({bounds}), but got {kind_of(value)}{hint}", own=True)
            return fallback
        if not low <= value <= (float("inf") if high is None else high) or value in (float("inf"), float("-inf")):
            self.add(key, f"must be {bounds}, but got {shown(value)}", own=True)
            return fallback
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.take(key, default)
        if not isinstance(value, bool):
            self.add(key, f"must be true or false, but got {kind_of(value)}", own=True)
            return default
        return value

    def text(self, key: str, default: Any = _REQUIRED, choices: Sequence[str] | None = None) -> Any:
        """A text, one of ``choices`` where these are given; None where a required one cannot be read."""
        value = self.take(key, default)
        if value is default or value is None:
            return value
        if isinstance(value, str) and (choices is None or value in choices):
            return value
        wanted = f"one of {', '.join(choices)}" if choices else "a text"
        if isinstance(value, str):
            self.add(key, f"must be {wanted}, but got {shown(value)}{suggestion(value, choices or ())}", own=True)
        else:
            self.add(key, f"must be {wanted}, but got {kind_of(value)}", own=True)
        return None if default is _REQUIRED else default

    def name(self, key: str, default: Any = _REQUIRED) -> Any:
        """A text of one line that tables can show."""
        value = self.text(key, default)
        if isinstance(value, str) and value is not default:
            if len(value.splitlines()) > 1 or not value.strip():
                self.add(key, f"must be one line of text, but got {shown(value)}", own=True)
            elif len(value) > MOST_NAME:
                self.add(key, f"must be at most {MOST_NAME} characters, but got {len(value):,}", own=True)
        return value

    def strangers(self) -> list[str]:
        """The keys that nobody has asked for so far."""
        return [str(key) for key in self.values if key not in self._known]

    def close(self) -> None:
        """Report every key that nobody asked for, with the nearest known one."""
        before: tuple[str, Any] = ("", None)
        for key, value in self.values.items():
            if self.problems.full:
                return
            if key not in self._known:
                self._unknown(str(key), value, before)
            before = (str(key), value)

    def _unknown(self, key: str, value: Any, before: tuple[str, Any]) -> None:
        """Report an unknown key; where it is another one misspelt, that this one is missing is no second mistake."""
        known = sorted(set(self._known))
        match = (_NO_BLANK.match(key) or _NO_COLON.match(key)) if value is None else None
        near = closest(match[1] if match else key, [word for word in known if word not in self.values] or known)
        near = near or closest(key, known)
        if match and near:
            what = "a blank after the colon" if ":" in match[0][: len(match[1]) + 1] else "a colon"
            hint = f"; here it has no value. Write {what}: {near}: {cut(match[2])}"
        elif value is None and _DECIMALS.match(key) and type(before[1]) is int:
            hint = (
                f"; a comma ends a value inside {{ }}. With a decimal point: {cut(before[0])}: {before[1]}.{cut(key)}"
            )
        elif near:
            hint = f"; did you mean {near}?"
        else:
            hint = f"; known here: {', '.join(known)}"
        if near and near not in self.values:
            self.problems.withdraw((*self.path, near))
        self.problems.add((*self.path, key), f"unknown key{hint}", key=True, own=True)


MOST_NAME = 200  # characters


def integer(
    value: Any, path: Path, problems: Problems, low: int | None = 1, high: int | None = MOST, default: Any = None
) -> int:
    """``value`` as an integer between ``low`` and ``high``.

    A mistake is noted and ``default`` returned if it is an integer, else the nearest legal one.
    """
    bounds = "" if low is None else f" of {low} or more" if high in (None, MOST) else f" between {low} and {high}"
    usual = default if isinstance(default, int) else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        problems.add(path, f"must be an integer{bounds}, but got {kind_of(value)}", own=True)
        return usual if usual is not None else low or 0
    for bound, wrong in ((low, low is not None and value < low), (high, high is not None and value > high)):
        if wrong and bound is not None:
            legal = bounds if bound == low else f" between {low} and {high}"
            problems.add(path, f"must be an integer{legal}, but got {shown(value)}; nearest: {bound}", own=True)
            return usual if usual is not None else bound
    return value


def integers(value: Any, path: Path, problems: Problems, low: int | None = 1) -> tuple[int, ...]:
    """``value`` as a tuple of integers; a single integer counts as a list of one."""
    if isinstance(value, (list, tuple)):
        return tuple(integer(item, (*path, i), problems, low) for i, item in enumerate(value))
    return (integer(value, path, problems, low),)
