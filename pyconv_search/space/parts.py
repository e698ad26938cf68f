"""What is known of one part of a space's networks: its costs, by the combination of the parameters it depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pyconv_search.errors import UserError
from pyconv_search.space.influence import Influence
from pyconv_search.space.masks import Ints

UNKNOWN, GOOD, BAD = 0, 1, 2
DENSE = 2**22  # combinations up to which a table is addressed by the combination itself
LARGEST = 2**56  # the sum over all parts must fit into int64
WIDEST_GROUP = 2**31  # combinations that one number may stand for


class PartTable:
    """Values of one part by *code*: 0, 1, … for the combinations of parameters in the order in which they were met.

    ``state`` says of every code whether it is UNKNOWN, GOOD, or BAD (no network has such a part); ``values`` has one
    row for each of ``columns`` columns and a last one that numbers the part's different specifications.
    """

    def __init__(self, influence: Influence, columns: int) -> None:
        self._name = influence.name
        self._groups = _groups(influence)
        self._specifications: dict[Any, int] = {}
        self._good = 0
        self.state = np.zeros(16, np.int8)
        self.values = np.zeros((columns + 1, 16), np.int64)

    @property
    def complete(self) -> bool:
        """Whether every code that was met is good."""
        return self._good == self.count

    @property
    def count(self) -> int:
        """How many codes were met."""
        return self._groups[-1].count

    def codes(self, choices: Ints) -> Ints:
        """The codes of a P-by-N array of choices (a row for each parameter)."""
        code = np.zeros(choices.shape[1], np.int64)
        for group in self._groups:
            code = group.codes(code, choices)
        missing = self.count - len(self.state)
        if missing > 0:
            room = max(missing, len(self.state))
            self.state = np.pad(self.state, (0, room))
            self.values = np.pad(self.values, ((0, 0), (0, room)))
        return code

    def learn(self, code: int, values: Sequence[int], specification: Any) -> None:
        """Note what a network says of a code.

        Raises:
            UserError: if a value is too large for sums in int64.
            RuntimeError: if another network said something else: the rules of influence miss a parameter.
        """
        if max(values) >= LARGEST:
            raise UserError(f"{self._name} costs {max(values):,}, which is too large for an array; at most {LARGEST:,}")
        row = (*values, self._specifications.setdefault(specification, len(self._specifications)))
        if self.state[code] == UNKNOWN:
            self.values[:, code] = row
            self.state[code] = GOOD
            self._good += 1
        elif tuple(self.values[:, code].tolist()) != row:
            raise RuntimeError(f"{self._name} depends on a parameter that the rules of influence miss: {specification}")


class _Numbers:
    """Numbers distinct combinations in the order in which they come, and keeps the numbers."""

    def __init__(self, inputs: Sequence[tuple[int, Ints]], size: int, first: bool) -> None:
        self._inputs, self._size = inputs, size
        self._dense = np.zeros(size, np.int32) if first and size <= DENSE else None  # number + 1; 0 where not met
        self._known: dict[int, int] = {}
        self.count = 0

    def codes(self, before: Ints, choices: Ints) -> Ints:
        """The number of each combination of a code from ``before`` and the inputs' classes."""
        combined = before
        for column, classes in self._inputs:
            combined = combined * len(classes) + classes[choices[column]]
        return self._sparsely(combined) if self._dense is None else self._densely(combined, self._dense)

    def _densely(self, combined: Ints, dense: Any) -> Ints:
        found = dense[combined]
        if not found.all():
            new = np.unique(combined[found == 0])
            dense[new] = np.arange(self.count, self.count + len(new)) + 1
            self.count += len(new)
            found = dense[combined]
        return found - 1

    def _sparsely(self, combined: Ints) -> Ints:
        values, inverse = np.unique(combined, return_inverse=True)
        numbers = np.array([self._known.setdefault(value, len(self._known)) for value in values.tolist()], np.int64)
        self.count = len(self._known)
        return numbers[inverse]


def _groups(influence: Influence) -> list[_Numbers]:
    """The inputs in groups of which each, together with the number of the group before, fits into int64."""
    groups: list[_Numbers] = []
    inputs: list[tuple[int, Ints]] = []
    size = 1
    for column, classes in influence.inputs:
        if size * len(classes) >= WIDEST_GROUP:
            groups.append(_Numbers(inputs, size, not groups))
            inputs, size = [], 1
        inputs.append((column, classes))
        size *= len(classes)
    return [*groups, _Numbers(inputs, size, not groups)]
