"""What many networks of a space cost, as columns of integers: millions of them in a second on one core, once learned.

Every cost is a sum over the parts of a network (stem, stage1, …, head), and a part depends on few of the parameters
(:mod:`pyconv_search.space.influence`). So the ordinary path, ``Space.resolved`` and ``cost``, is taken for one row
of every combination of a part's parameters, and the rest is looking up and adding. Every network that takes the
ordinary path is held against what is already known of its parts, too.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pyconv_search.arch.cost import COUNTS, Cost, cost
from pyconv_search.arch.spec import Architecture
from pyconv_search.fields import SpecError
from pyconv_search.space.choices import INACTIVE, decode
from pyconv_search.space.influence import influences
from pyconv_search.space.masks import Ints, Mask, distinct
from pyconv_search.space.parts import BAD, GOOD, UNKNOWN, PartTable
from pyconv_search.space.space import Space

COLUMNS = (*COUNTS, "receptive_field")
CHUNK = 2**15  # rows whose temporary columns stay in a processor's cache


@dataclass(frozen=True)
class CostColumns:
    """The costs of N networks: one int64 column for every name in COLUMNS.

    ``valid`` is False where the space's numbers do not fit together, so that there is no network; its costs are -1.
    """

    columns: dict[str, Ints]
    valid: Mask

    def __getitem__(self, name: str) -> Ints:
        return self.columns[name]

    @cached_property
    def gmacs(self) -> npt.NDArray[np.float64]:
        """Multiply-adds in units of 10⁹."""
        return self.columns["macs"] / 1e9


class Costs:
    """The costs of a space's networks, for its own input and classes unless others are given.

    What is learned of the parts stays for the next call. Rows that are no network are mostly found one by one, so a
    space that is full of mistakes is slow.
    """

    def __init__(self, space: Space, input: tuple[int, ...] | None = None, classes: int | None = None) -> None:
        self._space, self._input, self._classes = space, input, classes
        self._parts = [PartTable(influence, len(COLUMNS)) for influence in influences(space)]
        self._failed: set[tuple[int, ...]] = set()

    def __call__(self, choices: npt.NDArray[Any]) -> CostColumns:
        """The costs of an N-by-P array of choices: indices into the domains, -1 where a parameter is inactive.

        Raises:
            ValueError: if the array has another shape or type, or an index is not in its domain.
            UserError: if a cost is too large for int64.
        """
        _check(self._space, choices)
        found = np.zeros((len(COLUMNS), len(choices)), np.int64)
        valid = np.ones(len(choices), bool)
        for rows in _chunks(choices):
            codes = self._codes(choices[rows])
            valid[rows] = self._valid(codes)
            for i, column in enumerate(found):
                for part, code in zip(self._parts, codes, strict=True):
                    column[rows] += part.values[i][code]
        found[:, ~valid] = -1
        return CostColumns(dict(zip(COLUMNS, found, strict=True)), valid)

    def same(self, choices: npt.NDArray[Any]) -> Ints:
        """A number for every row, from 0 without a gap, equal where the architectures are; every row must be valid."""
        _check(self._space, choices)
        columns = np.empty((len(self._parts), len(choices)), np.int64)
        for rows in _chunks(choices):
            codes = self._codes(choices[rows])
            for column, part, code in zip(columns, self._parts, codes, strict=True):
                column[rows] = part.values[-1][code]
        return distinct(list(columns), len(choices))[1]

    def unknown(self, choices: npt.NDArray[Any]) -> int:
        """About how many networks would have to take the ordinary path before these rows can be costed."""
        _check(self._space, choices)
        for rows in _chunks(choices):
            columns = np.ascontiguousarray(choices[rows].T)
            for part in self._parts:
                part.codes(columns)
        return max(int((part.state[: part.count] == UNKNOWN).sum()) for part in self._parts)

    def _codes(self, choices: npt.NDArray[Any]) -> list[Ints]:
        """The codes of the rows in every part; what can be learned of them is learned."""
        columns = np.ascontiguousarray(choices.T)
        codes = [part.codes(columns) for part in self._parts]
        if not all(part.complete for part in self._parts):
            self._learn(choices, codes)
        return codes

    def _states(self, codes: list[Ints]) -> npt.NDArray[np.int8]:
        return np.array([part.state[code] for part, code in zip(self._parts, codes, strict=True)])

    def _valid(self, codes: list[Ints]) -> Any:
        return all(part.complete for part in self._parts) or (self._states(codes) == GOOD).all(axis=0)

    def _learn(self, choices: npt.NDArray[Any], codes: list[Ints]) -> None:
        """Take the ordinary path until every row is good in all parts, bad in one, or known to be no network.

        Raises:
            RuntimeError: if the ordinary path contradicts the rules of influence.
        """
        while len(rows := self._undecided(codes)):
            unknown = self._states([code[rows] for code in codes]) == UNKNOWN
            # A failure tells which part is bad where no more than one is unknown; so these rows come first.
            order = np.argsort(unknown.sum(axis=0), kind="stable")
            for part, code, new in zip(self._parts, codes, unknown[:, order], strict=True):
                candidates = rows[order][new]
                for row in candidates[np.unique(code[candidates], return_index=True)[1]]:
                    if part.state[code[row]] == UNKNOWN:
                        self._try(choices[row], tuple(int(c[row]) for c in codes))
        for failed in self._failed:
            if all(part.state[code] == GOOD for part, code in zip(self._parts, failed, strict=True)):
                raise RuntimeError(
                    "parts that fit in other networks do not fit together: the rules of influence miss it"
                )

    def _undecided(self, codes: list[Ints]) -> Ints:
        """One row of every combination of codes of which it is not known whether it is a network."""
        states = self._states(codes)
        rows = np.flatnonzero((states == UNKNOWN).any(axis=0) & ~(states == BAD).any(axis=0))
        rows = rows[distinct([code[rows] for code in codes], len(rows))[0]]
        known = [tuple(int(code[row]) for code in codes) in self._failed for row in rows] if self._failed else []
        return rows[~np.array(known, bool)] if known else rows

    def _try(self, row: npt.NDArray[Any], codes: tuple[int, ...]) -> None:
        """Learn the codes of a row from its network, or what follows from there being none."""
        states = [part.state[code] for part, code in zip(self._parts, codes, strict=True)]
        if BAD in states or codes in self._failed:  # learned since the row was chosen
            return
        try:
            arch = self._space.resolved(decode(self._space, row), self._input, self._classes)
        except SpecError:
            self._failed.add(codes)
            if states.count(UNKNOWN) == 1:
                bad = states.index(UNKNOWN)
                self._parts[bad].state[codes[bad]] = BAD
            return
        found = cost(arch)
        for i, (part, code) in enumerate(zip(self._parts, codes, strict=True)):
            head = i == len(self._parts) - 1
            part.learn(code, _summed(found, i, head), _specification(arch, i, head))


def _summed(found: Cost, i: int, head: bool) -> tuple[int, ...]:
    """The costs of part ``i``: 0 the stem, then the stages, and the head with all that is neither."""
    backbone = {"stem"} | {f"stage{n}" for n in range(1, i)}
    own = {"stem" if not i else f"stage{i}"}
    parts = [p for p in found.parts if (p.name not in backbone if head else p.name in own)]
    reach = sum(part.reach for part in parts) + (i == 0)
    return *(sum(getattr(part, name) for part in parts) for name in COUNTS), reach


def _specification(arch: Architecture, i: int, head: bool) -> Any:
    """What the architecture says of part ``i``; None of a stage that it has not."""
    if head:
        return tuple(getattr(arch, f.name) for f in fields(arch) if f.name not in {"stem", "stages"})
    return (arch.stem, *arch.stages)[i] if i <= len(arch.stages) else None


def _chunks(choices: npt.NDArray[Any]) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, len(choices), CHUNK)]


def _check(space: Space, choices: npt.NDArray[Any]) -> None:
    if choices.ndim != 2 or choices.shape[1] != len(space.parameters) or choices.dtype.kind != "i":
        raise ValueError(
            f"choices must be an N-by-{len(space.parameters)} array of signed integers, but got "
            f"{'×'.join(map(str, choices.shape))} of {choices.dtype}"
        )
    if not len(choices):
        return
    for parameter, low, high in zip(space.parameters, choices.min(axis=0), choices.max(axis=0), strict=True):
        if low < INACTIVE or high >= len(parameter.domain):
            raise ValueError(
                f"{parameter.name}: an index must be between {INACTIVE} and {len(parameter.domain) - 1}, but got "
                f"{low if low < INACTIVE else high}"
            )
