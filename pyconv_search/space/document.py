"""Reading a YAML file into plain values while remembering where each of them stands.

The dialect is the safe core of YAML 1.2: mappings with text keys, lists, texts, integers, numbers (``1e-3`` is one),
true/false and null. Tags, duplicate keys, self-containing anchors and oversized files are refused; ``yes``, ``no``,
``off`` and ``12:30`` are texts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import yaml

from pyconv_search.errors import UserError
from pyconv_search.fields import Path, Problem, SpecError, path_text
from pyconv_search.files import expanded

MOST_BYTES = 1_000_000
MOST_NODES = 100_000
MOST_DEPTH = 40


_BRACKET_HINT = "inside { } a text that holds [ ] stands in quotes: when: 'levels == [1, 1]', levels: '$levels[0]'"


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 – PyYAML's own class attribute, emptied here


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false|True|False|TRUE|FALSE)$", "tfTF"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its plain ``value`` and, by key path, where each value (``marks``) and key (``keys``) stands."""

    file: str
    text: str
    value: Any
    marks: dict[Path, tuple[int, int]]
    keys: dict[Path, tuple[int, int]]

    def locate(self, path: Path, key: bool = False) -> tuple[int, int]:
        """(line, column) of a value (or of its key), or of the nearest thing around it that exists."""
        if key and path in self.keys:
            return self.keys[path]
        while path not in self.marks:
            path = path[:-1]
        return self.marks[path]

    def error(self, problems: Sequence[Problem]) -> DocumentError:
        """The problems as an error that tells each with its place, from the top of the file down."""
        found = [(self.locate(p.path, p.text.startswith("unknown key")), p) for p in problems]
        found.sort(key=lambda pair: pair[0])
        return DocumentError([(f"{self.file}:{line}:{column}", problem) for (line, column), problem in found])


class DocumentError(SpecError):
    """Mistakes in a file, one line each: ``file:line:column key.path: what is wrong and what would be right``."""

    def __init__(self, located: Sequence[tuple[str, Problem]]) -> None:
        super().__init__([problem for _, problem in located])
        lines = [f"{place} {path_text(p.path)}: {p.text}" if p.path else f"{place}: {p.text}" for place, p in located]
        self.args = ("\n".join(lines),)


def read(file: str | FilePath) -> Document:
    """The document in ``file``.

    Raises:
        UserError: if the file cannot be read; DocumentError, with the place, if it is not of the dialect above.
    """
    path = expanded(file)
    try:
        with path.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise UserError(f"{path}: is larger than {MOST_BYTES:,} bytes; a space or study is a few kilobytes")
    try:
        return parse(data.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{path}:{line}: is not UTF-8 text (byte 0x{data[error.start]:02x})") from None


def parse(text: str, file: str = "<text>") -> Document:
    """The document in ``text``; ``file`` is the name that messages give."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        problem = f"{error.problem or error.context}"
        hint = f" ({_BRACKET_HINT})" if problem.endswith("but got '['") else ""
        raise UserError(f"{place}: is not valid YAML: {problem}{hint}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file}: is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{file}: is nested too deeply; at most {MOST_DEPTH} levels") from None
    if node is None:
        raise UserError(f"{file}: is empty; see spaces/ and studies/ for examples")
    builder = _Builder(file)
    value = builder.build(node, (), ())
    return Document(file, text, value, builder.marks, builder.keys)


class _Builder:
    """Turns PyYAML's nodes into plain values and marks."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.marks: dict[Path, tuple[int, int]] = {}
        self.keys: dict[Path, tuple[int, int]] = {}
        self.count = 0

    def fail(self, node: yaml.Node, path: Path, text: str) -> DocumentError:
        line, column = _mark(node)
        return DocumentError([(f"{self.file}:{line}:{column}", Problem(path, text))])

    def build(self, node: yaml.Node, path: Path, parents: tuple[int, ...]) -> Any:
        self.count += 1
        if self.count > MOST_NODES:
            raise self.fail(node, path, f"the file expands to more than {MOST_NODES:,} values")
        if id(node) in parents:
            raise self.fail(node, path, "an anchor contains itself")
        if len(parents) >= MOST_DEPTH:
            raise self.fail(node, path, f"is nested too deeply; at most {MOST_DEPTH} levels")
        self.marks[path] = _mark(node)
        inside = (*parents, id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, path, inside)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.build(item, (*path, i), inside) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        raise self.fail(node, path, f"the tag {node.tag} is not allowed; write a plain value")

    def _mapping(self, node: yaml.MappingNode, path: Path, inside: tuple[int, ...]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.fail(key_node, path, "a key must be a plain text")
            key = key_node.value
            if key in result:
                raise self.fail(key_node, (*path, key), "this key stands here twice")
            self.keys[(*path, key)] = _mark(key_node)
            result[key] = self.build(value_node, (*path, key), inside)
        return result

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        kind, text = node.tag.rpartition(":")[2], node.value
        if kind == "str":
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind not in ("int", "float"):
            raise self.fail(node, path, f"the tag {node.tag} is not allowed; write a plain value")
        try:
            number = int(text) if kind == "int" else float(text)
        except ValueError:
            raise self.fail(node, path, f"{text[:40]} is not a number") from None
        if not abs(number) < 1e18:  # so that NaN is refused, too
            raise self.fail(node, path, f"{text[:40]} is too large a number")
        return number


def _mark(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
