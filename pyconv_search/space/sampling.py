"""Seeded random samples of a space: a function of (seed, number) alone, the same on every machine and for ever."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass

from pyconv_search.arch.cost import Cost
from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.space.space import Assignment, Space
from pyconv_search.units import sides

PATIENCE = 2000
Same = Callable[[Assignment, Architecture], Hashable]


@dataclass(frozen=True, slots=True)
class Sample:
    """One network of a space, with the assignment it came from and its cost."""

    values: Assignment
    architecture: Architecture
    cost: Cost


def draw(space: Space, seed: int, number: int) -> Assignment:
    """Assignment ``number`` of the endless stream of ``seed``: every active parameter uniform and independent.

    Each value comes from SHA-256 of (seed, number, name), so it depends neither on a library's random generator nor on
    the other draws.
    """
    values: Assignment = {}
    for parameter in space.parameters:
        if parameter.active(values):
            digest = hashlib.sha256(f"{seed}/{number}/{parameter.name}".encode()).digest()
            values[parameter.name] = parameter.domain.values[int.from_bytes(digest) % len(parameter.domain)]
    return values


def sample(
    space: Space,
    n: int,
    seed: int,
    input: tuple[int, ...] | None = None,
    classes: int | None = None,
    same: Same | None = None,
) -> Iterator[Sample]:
    """``n`` networks that satisfy the constraints, all different, be it in their recipe alone.

    Where a study's recipe decides which recipes are alike, ``same`` gives it: equal values stand for equal networks.

    Raises:
        UserError: if PATIENCE draws in a row bring no new network: the space is exhausted or its constraints too tight.
    """
    key = same or (lambda values, arch: (arch.arch_id, json.dumps(space.overrides(values), sort_keys=True)))
    seen: set[Hashable] = set()
    number = last = 0
    while len(seen) < n:
        values = draw(space, seed, number)
        fit = space.fit(values, input, classes)
        number += 1
        if fit is not None and (known := key(values, fit[0])) not in seen:
            seen.add(known)
            last = number
            yield Sample(values, *fit)
        elif number - last >= PATIENCE:
            raise UserError(
                f"{space.document.file}: found {len(seen)} of {n} different networks and none in the next {PATIENCE:,} "
                f"draws; the space holds {space.size:,} assignments before its {len(space.constraints)} constraints "
                f"(costs are at {sides(input or space.input)})"
            )
