"""References in a space's network section: ``$levels`` stands for a parameter's value, ``$levels[0]`` for a part."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pyconv_search.fields import ABSENT, Path, Problems, cut, kind_of, path_text, shown, suggestion
from pyconv_search.space.domains import Domain

_REFERENCE = re.compile(r"^\$([A-Za-z][A-Za-z0-9_]*)((?:\[\d+\])*)$")


def reference(value: Any) -> tuple[str, tuple[int, ...]] | None:
    """The name and indices of a reference such as ``$levels[0]``; None for any other value."""
    match = _REFERENCE.match(value) if isinstance(value, str) else None
    return (match[1], tuple(int(i) for i in re.findall(r"\d+", match[2]))) if match else None


def check_references(value: Any, domains: Mapping[str, Domain | None], path: Path, problems: Problems) -> None:
    """Every reference names a parameter, and its index exists in every value of the domain (None: not known)."""
    known: dict[str, tuple[Path | None, str]] = {}
    unknown: set[str] = set()  # names that are reported once, since the mistake may be in the parameter's own name
    for where, text in _texts(value, path):
        if not text.startswith("$") or problems.full:
            continue
        name = (reference(text) or (text,))[0]
        if text not in known:
            known[text] = _wrong(text, domains)
        place, wrong = known[text]
        if wrong and name not in unknown:
            problems.add(where if place is None else place, wrong, own=True)
        unknown |= set() if name in domains else {name}


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Every text inside ``value`` with its key path."""
    if isinstance(value, str):
        yield path, value
    children: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _texts(child, (*path, key))


def _wrong(text: str, domains: Mapping[str, Domain | None]) -> tuple[Path | None, str]:
    """What is wrong with a reference, or nothing, and where if not there: in one of the parameter's values."""
    read = reference(text)
    if read is None:
        return None, f"{shown(text)} is not a reference; for example: $levels or $levels[0]"
    name, indices = read
    if name not in domains:
        known = ", ".join(domains) or "none"
        return None, f"unknown parameter {shown(name)}{suggestion(name, domains)}; known: {known}"
    domain = domains[name]
    lacking = [v for v in domain.values if not _has(v, indices)] if domain and indices else []
    if not domain or not lacking:
        return None, ""
    said = f"{cut(text)} does not exist where {name} is {shown(lacking[0])}"
    return (None if len(lacking) == len(domain) else ("parameters", name, *domain.place(lacking[0]))), said


def _has(value: Any, indices: tuple[int, ...]) -> bool:
    try:
        indexed(value, indices)
    except (TypeError, IndexError, KeyError):
        return False
    return True


def references(value: Any, path: Path = ()) -> Iterator[tuple[Path, str, tuple[int, ...]]]:
    """Every reference inside ``value``: its key path, the parameter's name, and its indices."""
    read = reference(value)
    if read is not None:
        yield path, *read
    children: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from references(child, (*path, key))


def indexed(value: Any, indices: tuple[int, ...]) -> Any:
    """The part of ``value`` at ``indices``; raises TypeError or IndexError where there is none."""
    for i in indices:
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"{kind_of(value)} has no index")
        value = value[i]
    return value


def filled(value: Any, values: Mapping[str, Any], path: Path, problems: Problems, inactive: Any = ABSENT) -> Any:
    """``value`` with every reference replaced.

    One to an inactive parameter becomes ABSENT as the value of a key, which leaves the default, and null in a list.
    """
    if isinstance(value, dict):
        return {key: filled(child, values, (*path, key), problems) for key, child in value.items()}
    if isinstance(value, list):
        return [filled(child, values, (*path, i), problems, None) for i, child in enumerate(value)]
    read = reference(value)
    if read is None:
        return value
    found = values.get(read[0])
    try:
        return inactive if found is None else indexed(found, read[1])
    except (TypeError, IndexError):
        problems.add(path, f"{value} does not exist where {read[0]} is {shown(found)} ({path_text(path)})")
        return inactive


def typed(section: Any, path: Path) -> tuple[str, tuple[int, ...], Path] | None:
    """The reference through which the value at ``path`` of a filled section came, and where it stands inside of that.

    None where the value is written out in the section itself.
    """
    value, rest = section, path
    while (read := reference(value)) is None:
        if not rest:
            return None
        try:
            value, rest = value[rest[0]], rest[1:]
        except (LookupError, TypeError):
            return None
    return (*read, rest)
