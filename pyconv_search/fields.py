"""Reading plain values (from YAML or JSON) key by key, collecting every mistake instead of stopping at the first."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyconv_search.errors import UserError

Path = tuple[str | int, ...]
MOST_PROBLEMS = 50
MOST = 2**16  # channels, kernels, blocks …: far more than any network has, few enough to count through


def path_text(path: Path) -> str:
    """A key path as people write it: ``stages[1].levels[2].groups``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def kind_of(value: Any) -> str:
    """What a YAML value is, in words for a message."""
    if value is None:
        return "nothing"
    names = {bool: "true/false", int: "an integer", float: "a number", str: "a text", list: "a list", dict: "a mapping"}
    return f"{names.get(type(value), type(value).__name__)} ({shown(value)})"


def shown(value: Any, most: int = 60) -> str:
    """A value in a message, cut when long."""
    text = str(value).replace("\n", " ") if not isinstance(value, str) else repr(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def printable(text: str) -> str:
    """The text without control characters, which a terminal would obey; line ends stay."""
    return "".join(c if c == "\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def nearest(value: float, legal: Iterable[int]) -> str:
    """The nearest legal number, or the two around ``value``: ``4, 8``."""
    numbers = sorted(legal)
    below = [n for n in numbers if n <= value][-1:]
    above = [n for n in numbers if n > value][:1]
    return ", ".join(map(str, below + above))


def suggestion(word: str, known: Iterable[str]) -> str:
    """`` (did you mean …?)`` where one known word is close, else an empty text."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the key path of the value and what would be right."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"{path_text(self.path)}: {self.text}" if self.path else self.text


class SpecError(UserError):
    """One or more mistakes in a specification; ``problems`` holds each with its key path."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(slots=True)
class Problems:
    """The mistakes found so far, each once; beyond MOST_PROBLEMS they are only counted as one more."""

    found: list[Problem] = field(default_factory=list)
    _known: set[Problem] = field(default_factory=set)

    def add(self, path: Path, text: str) -> None:
        problem = Problem(path, text)
        if problem in self._known or len(self.found) > MOST_PROBLEMS:
            return
        self._known.add(problem)
        self.found.append(problem if len(self.found) < MOST_PROBLEMS else Problem((), "and more mistakes"))

    def check(self) -> None:
        """Raise a SpecError if there is any."""
        if self.found:
            raise SpecError(self.found)


_REQUIRED: Any = object()


class Fields:
    """One mapping, read key by key; every mistake goes to ``problems`` and reading goes on with a legal value.

    A key whose value is null counts as absent, so that an inactive parameter reference leaves the default in force.
    """

    def __init__(self, values: Any, path: Path, problems: Problems) -> None:
        self.path, self.problems = path, problems
        self._known: list[str] = []
        if not isinstance(values, Mapping):
            problems.add(path, f"must be a mapping of keys to values, but got {kind_of(values)}")
            values = {}
        self._values = {key: value for key, value in values.items() if value is not None}

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def names(self) -> list[str]:
        """The keys that are present, in the order in which they are written."""
        return [str(key) for key in self._values]

    def add(self, key: str | int, text: str) -> None:
        self.problems.add((*self.path, key), text)

    def take(self, key: str, default: Any = _REQUIRED) -> Any:
        """The value as it stands; a missing required key is a mistake and reads as None."""
        self._known.append(key)
        if key in self._values:
            return self._values[key]
        if default is _REQUIRED:
            self.problems.add((*self.path, key), "is required, but missing")
            return None
        return default

    def drop(self, key: str) -> None:
        """Read on as if ``key`` were absent."""
        self._known.append(key)
        self._values.pop(key, None)

    def section(self, key: str, default: Any = _REQUIRED) -> Fields:
        """A nested mapping."""
        value = self.take(key, default)
        return Fields({} if value is None else value, (*self.path, key), self.problems)

    def items(self, key: str, default: Any = _REQUIRED) -> list[Any]:
        """A list of anything."""
        value = self.take(key, default)
        if value is None or isinstance(value, (list, tuple)):
            return list(value or ())
        self.add(key, f"must be a list, but got {kind_of(value)}")
        return []

    def integer(self, key: str, default: Any = _REQUIRED, low: int | None = 1, high: int | None = MOST) -> Any:
        """An integer between ``low`` and ``high``, both included."""
        value = self.take(key, default)
        if value is default or value is None:
            return value if value is default else low
        return integer(value, (*self.path, key), self.problems, low, high)

    def number(self, key: str, default: Any = _REQUIRED, low: float = 0.0, high: float | None = None) -> Any:
        """A finite real number between ``low`` and ``high``, both included."""
        value = self.take(key, default)
        if value is default or value is None:
            return value
        bounds = f"{low:g} or more" if high is None else f"between {low:g} and {high:g}"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.add(key, f"must be a number ({bounds}), but got {kind_of(value)}")
            return low
        if not low <= value <= (float("inf") if high is None else high) or value in (float("inf"), float("-inf")):
            self.add(key, f"must be {bounds}, but got {value}")
            return low
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.take(key, default)
        if not isinstance(value, bool):
            self.add(key, f"must be true or false, but got {kind_of(value)}")
            return default
        return value

    def text(self, key: str, default: Any = _REQUIRED, choices: Sequence[str] | None = None) -> Any:
        """A text, one of ``choices`` where these are given."""
        value = self.take(key, default)
        if value is default or value is None:
            return value
        if not isinstance(value, str):
            wanted = f"one of {', '.join(choices)}" if choices else "a text"
            self.add(key, f"must be {wanted}, but got {kind_of(value)}")
            return choices[0] if choices else str(value)
        if choices and value not in choices:
            self.add(key, f"must be one of {', '.join(choices)}, but got {shown(value)}{suggestion(value, choices)}")
            return choices[0]
        return value

    def close(self) -> None:
        """Report every key that nobody asked for, with the nearest known one."""
        for key in self._values:
            if key not in self._known:
                known = sorted(set(self._known))
                hint = suggestion(key, known) or f"; known here: {', '.join(known)}"
                self.problems.add((*self.path, key), f"unknown key{hint}")


def integer(value: Any, path: Path, problems: Problems, low: int | None = 1, high: int | None = MOST) -> int:
    """``value`` as an integer between ``low`` and ``high``; a mistake is noted and the nearest legal one returned."""
    bounds = "" if low is None else f" of {low} or more" if high in (None, MOST) else f" between {low} and {high}"
    fallback = 0 if low is None else low
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        problems.add(path, f"must be an integer{bounds}, but got {kind_of(value)}")
        return fallback
    if low is not None and value < low:
        problems.add(path, f"must be an integer{bounds}, but got {value}; nearest: {low}")
        return low
    if high is not None and value > high:
        problems.add(path, f"must be an integer between {low} and {high}, but got {value}; nearest: {high}")
        return high
    return value


def integers(value: Any, path: Path, problems: Problems, low: int | None = 1) -> tuple[int, ...]:
    """``value`` as a tuple of integers; a single integer counts as a list of one."""
    if isinstance(value, (list, tuple)):
        return tuple(integer(item, (*path, i), problems, low) for i, item in enumerate(value))
    return (integer(value, path, problems, low),)
