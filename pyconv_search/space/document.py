"""Reading a YAML file into plain values while remembering where each of them stands.

The dialect is the safe core of YAML 1.2: mappings with text keys, lists, texts, integers, numbers (``1e-3`` is one),
true/false and null. Tags, duplicate keys, self-containing anchors and oversized files are refused, and so are
characters that look like a blank or turn the order of others around; ``yes``, ``no``, ``off`` and ``12:30`` are texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path as FilePath
from typing import Any

import yaml

from pyconv_search.errors import UserError
from pyconv_search.fields import MOST_TEXT, Path, Problem, Problems, SpecError, cut
from pyconv_search.files import expanded, read_plain
from pyconv_search.space.letters import LINE_ENDS, blank, hidden, name_of

MOST_BYTES = 1_000_000
MOST_NODES = 50_000  # values and keys, about half a second
MOST_DEPTH = 40
Place = tuple[int, int]

# libyaml's parser, which PyYAML's wheels contain, is 20 times as fast as the one in Python.
_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BRACKET_HINT = "inside { } a text that holds [ ] stands in quotes: when: 'levels == [1, 1]', levels: '$levels[0]'"
_KINDS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("bool", r"true|false|True|False|TRUE|FALSE"),
        ("null", r"~|null|Null|NULL|"),
        ("int", r"[-+]?[0-9]+"),
        ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?"),
    )
)
_STANDARD = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its plain ``value`` and, by key path, where each value (``marks``) and key (``keys``) stands.

    ``refused`` are mistakes after which reading went on, to be reported together with those of the values.
    """

    file: str
    text: str
    value: Any
    marks: dict[Path, Place]
    keys: dict[Path, Place]
    refused: tuple[Problem, ...] = ()

    def problems(self) -> Problems:
        """A collection of mistakes that begins with those that the document has already."""
        return Problems(list(self.refused))

    def locate(self, path: Path, key: bool = False) -> Place:
        """(line, column) of a value (or of its key), or of the nearest thing around it that exists."""
        if key and path in self.keys:
            return self.keys[path]
        while path not in self.marks:
            path = path[:-1]
        return self.marks[path]

    def inside(self, path: Path, offset: int) -> Place | None:
        """Where the character ``offset`` of a text stands; None where it does not stand there as it reads."""
        value: Any = self.value
        try:
            for part in path:
                value = value[part]
            line, column = self.marks[path]
            written = self.text.splitlines()[line - 1][column - 1 :]
        except (LookupError, TypeError):
            return None
        quoted = written[:1] in ("'", '"')
        alike = isinstance(value, str) and written[quoted:].startswith(value[:offset])
        return (line, column + quoted + offset) if alike else None

    def error(self, problems: Iterable[Problem]) -> DocumentError:
        """The problems as an error that tells each with its place, from the top of the file down."""
        found = [(problem.at or self.locate(problem.path, problem.key), problem) for problem in problems]
        found.sort(key=lambda pair: pair[0])
        return DocumentError([(f"{self.file}:{line}:{column}", problem) for (line, column), problem in found])


class DocumentError(SpecError):
    """Mistakes in files, one line each: ``file:line:column key.path: what is wrong and what would be right``."""

    def __init__(self, located: Sequence[tuple[str, Problem]]) -> None:
        super().__init__([problem for _, problem in located])
        self.located = tuple(located)
        lines = [f"{place} {problem}" if problem.path else f"{place}: {problem}" for place, problem in located]
        self.args = ("\n".join(lines),)


def read(file: str | FilePath) -> Document:
    """The document in ``file``.

    Raises:
        UserError: if the file cannot be read; DocumentError, with the place, if it is not of the dialect above.
    """
    path = expanded(file)
    data = read_plain(path, MOST_BYTES, "a space or a study")
    try:
        return parse(data.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: is not UTF-8 text (byte 0x{data[error.start]:02x})") from None


def parse(text: str, file: str = "<text>") -> Document:
    """The document in ``text``; ``file`` is the name that messages give.

    Raises:
        UserError: as :func:`read`; what is found afterwards is in the document's ``refused``.
    """
    if match := LINE_ENDS.search(text):
        before = text[: match.start()]
        place = f"{file}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"
        raise UserError(
            f"{place}: is not valid YAML: {name_of(match[0])} ends a line unseen; write an ordinary line end"
        )
    events = _events(text, file)
    if not events:
        raise UserError(f"{file}: is empty; see spaces/ and studies/ for examples")
    builder = _Builder(file, events, text.splitlines())
    value, _ = builder.build(0, (), 0)
    return Document(file, text, value, builder.marks, builder.keys, tuple(builder.refused))


def _events(text: str, file: str) -> list[Any]:
    """What stands in the one document of ``text``, one event for each value, key and end; never more than allowed."""
    found: list[Any] = []
    depth = nodes = documents = 0
    try:
        for event in yaml.parse(text, Loader=_PARSER):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _failure(
                        file, event, (), "is not valid YAML: a second document begins here; write one a file"
                    )
            if not isinstance(event, (yaml.NodeEvent, yaml.CollectionEndEvent)):
                continue
            found.append(event)
            nodes += isinstance(event, yaml.NodeEvent)
            if nodes > MOST_NODES:
                raise _failure(file, event, (), f"the file holds more than {MOST_NODES:,} values")
            if isinstance(event, yaml.NodeEvent) and depth >= MOST_DEPTH:
                raise _failure(file, event, (), f"is nested too deeply; at most {MOST_DEPTH} levels")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
    except yaml.MarkedYAMLError as error:
        raise _invalid(text, file, error) from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise UserError(f"{file}: is not valid YAML: {cut(' '.join(str(error).split()), MOST_TEXT)}") from None
    return found


def _invalid(text: str, file: str, error: yaml.MarkedYAMLError) -> UserError:
    """What the parser says, and what it mostly means."""
    mark = error.problem_mark or error.context_mark
    said = cut(str(error.problem or error.context), MOST_TEXT)
    if mark is None:
        return UserError(f"{file}: is not valid YAML: {said}")
    lines = text.splitlines()
    marks = [m.line for m in (error.context_mark, mark) if m is not None]
    nearby = [lines[n] for n in (*marks, mark.line - 1) if 0 <= n < len(lines)]
    hint = ""
    if "expected ',' or" in said and lines[mark.line : mark.line + 1] and lines[mark.line][mark.column :][:1] == "[":
        hint = f" ({_BRACKET_HINT})"
    elif unspaced := next((m for line in nearby if (m := re.match(r"[\s-]*([\w-]+):([^\s/:][^:]*)$", line))), None):
        hint = f" (is a blank missing after the colon? {cut(unspaced[1])}: {cut(unspaced[2])})"
    elif odd := next((c for line in nearby for c in line if blank(c)), None):
        hint = f" (here stands {name_of(odd)}; write an ordinary blank)"
    return UserError(f"{file}:{mark.line + 1}:{mark.column + 1}: is not valid YAML: {said}{hint}")


def _failure(file: str, event: Any, path: Path, text: str) -> DocumentError:
    line, column = _place(event)
    return DocumentError([(f"{file}:{line}:{column}", Problem(path, text))])


def _place(event: Any) -> Place:
    return event.start_mark.line + 1, event.start_mark.column + 1


class _Builder:
    """Turns the parser's events into plain values and marks."""

    def __init__(self, file: str, events: list[Any], lines: list[str]) -> None:
        self.file, self.events, self.lines = file, events, lines
        self.marks: dict[Path, Place] = {}
        self.keys: dict[Path, Place] = {}
        self.refused: list[Problem] = []
        self._anchors: dict[str, int] = {}
        self._open: set[int] = set()
        self._nodes = self._letters = 0

    def build(self, i: int, path: Path, depth: int) -> tuple[Any, int]:
        """The value of event ``i`` and the index of the event after it."""
        event = self.events[i]
        self._nodes += 1
        self._letters += len(getattr(event, "value", ""))
        if self._nodes > MOST_NODES or self._letters > MOST_BYTES:
            raise self._fail(event, path, f"the file expands to more than {MOST_NODES:,} values")
        if depth >= MOST_DEPTH:
            raise self._fail(event, path, f"is nested too deeply; at most {MOST_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, path, depth), i + 1
        self.marks[path] = _place(event)
        if event.anchor is not None and self._anchors.setdefault(event.anchor, i) != i:
            raise self._fail(event, path, f"the anchor {cut(event.anchor)} stands here twice")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path), i + 1
        mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", f"{_STANDARD}{'map' if mapping else 'seq'}"):
            raise self._fail(event, path, f"the tag {cut(event.tag)} is not allowed; write a plain value")
        self._open.add(i)
        found = (self._mapping if mapping else self._sequence)(i + 1, path, depth + 1)
        self._open.discard(i)
        return found

    def _alias(self, event: Any, path: Path, depth: int) -> Any:
        start = self._anchors.get(event.anchor)
        if start is None:
            raise self._fail(event, path, f"there is no anchor {cut(event.anchor)} above")
        if start in self._open:
            raise self._fail(self.events[start], path, "an anchor contains itself")
        return self.build(start, path, depth)[0]

    def _mapping(self, i: int, path: Path, depth: int) -> tuple[dict[str, Any], int]:
        result: dict[str, Any] = {}
        while not isinstance(self.events[i], yaml.CollectionEndEvent):
            event = self.events[i]
            if not isinstance(event, yaml.ScalarEvent):
                raise self._fail(event, path, "a key must be a plain text")
            key, own = event.value, (*path, event.value)
            if key in result:
                text = "this key stands here twice; leave one of them out"
                self.refused.append(Problem(own, text, at=_place(event)))
                _, i = self.build(i + 1, (*path, f"{key} "), depth)
                continue
            self._check_letters(event, own)
            self._nodes += 1
            self._letters += len(key)
            self.keys[own] = _place(event)
            result[key], i = self.build(i + 1, own, depth)
        return result, i + 1

    def _sequence(self, i: int, path: Path, depth: int) -> tuple[list[Any], int]:
        result: list[Any] = []
        first = i
        while not isinstance(self.events[i], yaml.CollectionEndEvent):
            value, i = self.build(i, (*path, len(result)), depth)
            result.append(value)
        if self.events[first - 1].flow_style and len(result) == i - first:
            self._check_commas(self.events[first:i], path, result)
        return result, i + 1

    def _check_commas(self, events: Sequence[Any], path: Path, values: list[Any]) -> None:
        """Where some commas of a list of numbers have a blank behind them, one without is a decimal comma."""
        gaps = [b.start_mark.index - a.end_mark.index for a, b in pairwise(events)]
        if not gaps or max(gaps) == 1:
            return
        for n in (n for n, gap in enumerate(gaps) if gap == 1 and type(values[n]) is int):
            if str(events[n + 1].value).isdigit():
                pair = f"{events[n].value},{events[n + 1].value}"
                point = pair.replace(",", ".")
                text = f"{pair} is two numbers here; with a decimal point: {point}; else put a blank behind the comma"
                self.refused.append(Problem((*path, n), text, own=True))

    def _scalar(self, event: Any, path: Path) -> Any:
        kind, text = self._kind(event, path), event.value
        self._check_letters(event, path)
        if kind == "str":
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if re.match(r"[-+]?0[0-9]+$", text):
            plain = cut(text.lstrip("+-0") or "0")
            said = (
                f"{cut(text)} begins with 0; write {plain}, or quotes around a text (a decimal comma is a point here)"
            )
            self.refused.append(Problem(path, said, own=True))
            return int(text[:MOST_DEPTH])
        try:
            number = int(text) if kind == "int" else float(text)
        except ValueError:
            raise self._fail(event, path, f"{cut(text, 40)} is not a number") from None
        if not abs(number) < 1e18:  # so that NaN is refused, too
            raise self._fail(event, path, f"{cut(text, 40)} is too large a number")
        return number

    def _kind(self, event: Any, path: Path) -> str:
        """What a scalar is: as its tag says, and a plain one without a tag as it looks."""
        if event.tag not in (None, "!"):
            kind = str(event.tag).removeprefix(_STANDARD)
            if kind not in ("str", "null", "bool", "int", "float"):
                raise self._fail(event, path, f"the tag {cut(event.tag)} is not allowed; write a plain value")
            return kind
        if event.tag == "!" or not event.implicit[0]:
            return "str"
        return next((kind for kind, pattern in _KINDS if pattern.fullmatch(event.value)), "str")

    def _check_letters(self, event: Any, path: Path) -> None:
        """Refuse characters that are not what they look like: odd blanks outside of quotes, hidden ones everywhere."""
        text, plain = event.value, event.style in (None, "")
        further = range(event.start_mark.line + 1, event.end_mark.line + 1) if plain else ()
        for n in (n for n in further if re.match(r"\s*- ", self.lines[n])):
            text = "is a line of the text above, since it is indented more; align its dash, or put the text in quotes"
            self.refused.append(Problem(path, text, own=True, at=(n + 1, len(self.lines[n].partition("-")[0]) + 1)))
            return
        if text.isascii() and text.isprintable():
            return
        for n, letter in enumerate(text):
            if not hidden(letter) and not (plain and blank(letter)):
                continue
            (line, column), single = _place(event), event.start_mark.line == event.end_mark.line
            at = (line, column + n) if plain and single else (line, column)
            advice = "leave it out" if hidden(letter) else "write an ordinary blank, or put the text in quotes"
            self.refused.append(Problem(path, f"holds {name_of(letter)}; {advice}", own=True, at=at))
            return

    def _fail(self, event: Any, path: Path, text: str) -> DocumentError:
        return _failure(self.file, event, path, text)
