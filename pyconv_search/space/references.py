"""References in a space's network section: ``$levels`` stands for a parameter's value, ``$levels[0]`` for a part."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pyconv_search.fields import Path, Problems, kind_of, path_text, shown, suggestion
from pyconv_search.space.domains import Domain

_REFERENCE = re.compile(r"^\$([A-Za-z][A-Za-z0-9_]*)((?:\[\d+\])*)$")


def reference(value: Any) -> tuple[str, tuple[int, ...]] | None:
    """The name and indices of a reference such as ``$levels[0]``; None for any other value."""
    match = _REFERENCE.match(value) if isinstance(value, str) else None
    return (match[1], tuple(int(i) for i in re.findall(r"\d+", match[2]))) if match else None


def check_references(value: Any, domains: Mapping[str, Domain], path: Path, problems: Problems) -> None:
    """Every reference names a parameter, and its index exists in every value of the domain."""
    children: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        check_references(child, domains, (*path, key), problems)
    if not isinstance(value, str) or not value.startswith("$"):
        return
    read = reference(value)
    if read is None:
        problems.add(path, f"{value!r} is not a reference; for example: $levels or $levels[0]")
    elif read[0] not in domains:
        known = list(domains)
        problems.add(
            path,
            f"unknown parameter {read[0]!r}{suggestion(read[0], known)}; known: {', '.join(known) or 'none'}",
        )
    elif read[1]:
        for candidate in domains[read[0]].values:
            try:
                indexed(candidate, read[1])
            except (TypeError, IndexError, KeyError):
                problems.add(path, f"{value} does not exist where {read[0]} is {shown(candidate)}")
                break


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


def filled(value: Any, values: Mapping[str, Any], path: Path, problems: Problems) -> Any:
    """``value`` with every reference replaced; one to an inactive parameter becomes null, which leaves the default."""
    if isinstance(value, dict):
        return {key: filled(child, values, (*path, key), problems) for key, child in value.items()}
    if isinstance(value, list):
        return [filled(child, values, (*path, i), problems) for i, child in enumerate(value)]
    read = reference(value)
    if read is None:
        return value
    found = values.get(read[0])
    try:
        return None if found is None else indexed(found, read[1])
    except (TypeError, IndexError):
        problems.add(path, f"{value} does not exist where {read[0]} is {shown(found)} ({path_text(path)})")
        return None
