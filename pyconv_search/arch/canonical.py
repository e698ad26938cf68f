"""An architecture as plain JSON values and back, and the one text by which it is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from pyconv_search.arch.heads import HEADS
from pyconv_search.arch.heads.head import Head
from pyconv_search.arch.spec import Architecture
from pyconv_search.fields import Fields, Path, Problem, Problems, SpecError, kind_of

# What no architecture comes near, so that whatever is larger is refused before anything is computed of it.
MOST_VALUES, MOST_DEPTH, MOST_TEXT, MOST_BITS = 100_000, 32, 256, 64


def to_dict(value: Any) -> Any:
    """An architecture (or a part of one) as plain JSON values.

    Fields that hold their default are left out, so that a field which a later version adds leaves every ``arch_id`` as
    it was; a head's ``kind`` stays, by which :func:`from_dict` knows it.
    """
    if isinstance(value, tuple):
        return [to_dict(item) for item in value]
    if not hasattr(value, "__dataclass_fields__"):
        return value
    pairs = ((f, getattr(value, f.name)) for f in fields(value))
    return {f.name: to_dict(v) for f, v in pairs if f.default is MISSING or v != f.default or f.name == "kind"}


def from_dict(values: Any) -> Architecture:
    """The architecture that :func:`to_dict` made.

    Raises:
        SpecError: with the place of every value that is missing, unknown or of another kind, or with what
            :class:`pyconv_search.arch.spec.Architecture` finds.
    """
    _bounded(values)
    problems = Problems()
    found = _record(Architecture, values, (), problems)
    problems.check()
    return found


def _bounded(values: Any) -> None:
    """SpecError at the first value that is not plain JSON, or is larger than in any architecture; reads no further."""
    waiting: list[tuple[Path, Any]] = [((), values)]
    count = 1
    while waiting:
        path, value = waiting.pop()
        if problem := _unfit(value):
            raise SpecError([Problem(path, problem)])
        if not isinstance(value, (Mapping, list, tuple)):
            continue
        count += len(value)
        if count > MOST_VALUES:
            raise SpecError([Problem((), f"must hold {MOST_VALUES:,} values at most, but holds more")])
        if len(path) >= MOST_DEPTH:
            raise SpecError([Problem(path[:3], f"must be nested {MOST_DEPTH} deep at most, but is deeper")])
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        waiting += [((*path, key), item) for key, item in items]


def _unfit(value: Any) -> str:
    """What is wrong with a value by itself, its items left aside; empty where nothing is."""
    if isinstance(value, Mapping):
        other = next((key for key in value if not isinstance(key, str) or len(key) > MOST_TEXT), None)
        if other is None and None not in value:
            return ""
        got = f"one of {len(other):,}" if isinstance(other, str) else f"a {type(other).__name__}"
        return f"must have texts of {MOST_TEXT} characters at most as its keys, but got {got}"
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        return f"must be an integer of {MOST_BITS} bits at most, but has {value.bit_length():,} bits"
    if isinstance(value, str) and len(value) > MOST_TEXT:
        return f"must be a text of {MOST_TEXT} characters at most, but has {len(value):,}"
    if value is None or isinstance(value, (list, tuple, bool, int, float, str)):
        return ""
    return f"must be plain JSON, but got a {type(value).__name__}"


def _record(kind: Any, values: Any, path: Path, problems: Problems) -> Any:
    """A dataclass of ``kind`` with these ``values``; None where there is a mistake anywhere."""
    written = Fields(values, path, problems)
    found = {}
    for f in fields(kind):
        value = written.take(f.name) if f.default is MISSING else written.take(f.name, f.default)
        if f.name in written:
            found[f.name] = _value(_types(kind)[f.name], value, (*path, f.name), problems)
    written.close()
    if problems.found:
        return None
    try:
        return kind(**found)
    except SpecError as error:
        for problem in error.problems:
            problems.add((*path, *problem.path), problem.text)
        return None


def _value(kind: Any, value: Any, path: Path, problems: Problems) -> Any:
    """``value`` as a field of type ``kind`` holds it; a mistake is noted."""
    options = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    for option in options:
        if isinstance(value, (list, tuple)) and get_origin(option) is tuple:
            items = get_args(option)
            if items[-1] is Ellipsis or len(items) == len(value):
                return tuple(_value(items[0], item, (*path, i), problems) for i, item in enumerate(value))
        elif option is Head and isinstance(value, Mapping):
            name = Fields(value, path, problems).text("kind", choices=tuple(HEADS))
            return _record(HEADS[name], value, path, problems) if name in HEADS else None
        elif is_dataclass(option) and isinstance(value, Mapping):
            return _record(option, value, path, problems)
        elif type(value) is option:
            return value
    problems.add(path, f"must be {' or '.join(map(_word, options))}, but got {kind_of(value)}")
    return None


def _word(option: Any) -> str:
    """What a type is called in a message."""
    if get_origin(option) is tuple:
        return "a list"
    return {int: "an integer", str: "a text", bool: "true/false", NoneType: "nothing"}.get(option, "a mapping")


@cache
def _types(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, localns={"Head": Head})


def canonical_json(arch: Architecture) -> str:
    """The one JSON text of this architecture: sorted keys, no spaces, defaults left out."""
    return json.dumps(to_dict(arch), sort_keys=True, separators=(",", ":"))
