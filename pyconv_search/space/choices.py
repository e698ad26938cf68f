"""Assignments as rows of integers: one column a parameter, the index of its value in its domain, -1 where inactive."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pyconv_search.space.masks import Ints, active
from pyconv_search.space.space import Assignment, Space

INACTIVE = -1


def encode(space: Space, assignments: Iterable[Assignment]) -> Ints:
    """The assignments as an N-by-P array of choices. Raises ValueError for a value that is not in its domain."""
    rows = [[_index(space, values, i) for i in range(len(space.parameters))] for values in assignments]
    return np.array(rows, np.int64).reshape(len(rows), len(space.parameters))


def _index(space: Space, values: Assignment, column: int) -> int:
    parameter = space.parameters[column]
    if values.get(parameter.name) is None:
        return INACTIVE
    index = parameter.domain.index(values[parameter.name])
    if index is None:
        raise ValueError(f"{parameter.name}: {values[parameter.name]!r} is not in its domain")
    return index


def decode(space: Space, row: Iterable[int]) -> Assignment:
    """The assignment of one row of choices."""
    pairs = zip(space.parameters, row, strict=True)
    return {p.name: p.domain.values[index] for p, index in pairs if index != INACTIVE}


def draws(space: Space, n: int, seed: int) -> Ints:
    """``n`` random assignments as an N-by-P array: every active parameter uniform and independent.

    The law is that of :func:`pyconv_search.space.sampling.draw`, the stream is another one (PCG64). Row i does not
    depend on ``n``.
    """
    # The raw stream: NumPy keeps that of a bit generator for ever, but not what Generator makes of it.
    raw = np.random.PCG64(seed).random_raw(n * len(space.parameters)).reshape(n, len(space.parameters))
    found = np.full((n, len(space.parameters)), INACTIVE, np.int64)
    for i, parameter in enumerate(space.parameters):
        rows = active(space, parameter.name, found)
        found[rows, i] = (raw[rows, i] % np.uint64(len(parameter.domain))).astype(np.int64)
    return found


def every(space: Space) -> Ints:
    """All assignments before constraints, in the order of ``Space.assignments``, as a size-by-P array."""
    found = np.full((1, len(space.parameters)), INACTIVE, np.int64)
    for i, parameter in enumerate(space.parameters):
        rows = active(space, parameter.name, found)
        counts = np.where(rows, len(parameter.domain), 1)
        index = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
        found = np.repeat(found, counts, axis=0)
        found[:, i] = np.where(np.repeat(rows, counts), index, INACTIVE)
    return found
