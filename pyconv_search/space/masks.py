"""Conditions and constraints over many rows of choices at once, with the truth that the space gives each row.

An expression is evaluated once for every distinct combination of what it reads; comparisons of a cost with a number,
whose combinations are as many as the networks, are left to numpy.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from pyconv_search.fields import Path
from pyconv_search.space.constraints import Expression
from pyconv_search.space.space import Space, holds

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_WIDEST = 2**62
_EXACT = 2**53  # up to here a float holds every integer
_COMPARE: dict[type[ast.cmpop], Any] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}  # fmt: skip


def distinct(columns: Sequence[Ints], rows: int) -> tuple[Ints, Ints]:
    """The first row of every distinct combination of the columns, and for every row the number of its combination."""
    code, size = np.zeros(rows, np.int64), 1
    for column in columns if rows else ():
        low, span = int(column.min()), int(column.max()) - int(column.min()) + 1
        if size * span >= _WIDEST:
            (code, size), (column, span) = _compact(code), _compact(column)
            low = 0
        code, size = code * span + (column - low), size * span
    if size > 4 * rows:
        _, first, number = np.unique(code, return_index=True, return_inverse=True)
        return first, number
    row_of = np.full(size, -1)
    row_of[code[::-1]] = np.arange(rows)[::-1]
    present = np.flatnonzero(row_of >= 0)
    number_of = np.empty(size, np.int64)
    number_of[present] = np.arange(len(present))
    return row_of[present], number_of[code]


def _compact(column: Ints) -> tuple[Ints, int]:
    """The column with its values numbered, and how many there are."""
    values, number = np.unique(column, return_inverse=True)
    return number, len(values)


def active(space: Space, name: str, choices: Ints) -> Mask:
    """The rows in which the parameter matters, given the choices of those above it.

    Raises:
        SpecError: where its condition cannot be evaluated.
    """
    when = space.by_name[name].when
    if when is None:
        return np.ones(len(choices), bool)
    return _Rows(space, choices, {}, ("parameters", name, "when"), when).truth(otherwise=False)


def satisfied(space: Space, choices: Ints, costs: Mapping[str, npt.NDArray[Any]] | None = None) -> list[Mask]:
    """For every constraint the rows that satisfy it; without ``costs``, a constraint that asks for one holds.

    Raises:
        SpecError: where a constraint's values do not go together.
    """
    return [
        _Rows(space, choices, costs or {}, ("constraints", i), constraint).truth(otherwise=True)
        for i, constraint in enumerate(space.constraints)
    ]


@dataclass(frozen=True)
class _Rows:
    """One expression, and the rows over which it is evaluated."""

    space: Space
    choices: Ints
    costs: Mapping[str, npt.NDArray[Any]]
    path: Path
    expression: Expression

    def truth(self, otherwise: bool) -> Mask:
        """Where the expression holds; ``otherwise`` where it asks for an inactive parameter or an absent cost."""
        found = np.full(len(self.choices), otherwise)
        chosen = [self._choices(name) for name in self.expression.names if name in self.space.by_name]
        if len(chosen) + len(self.expression.names & self.costs.keys()) < len(self.expression.names):
            return found
        rows = np.flatnonzero(np.all([column >= 0 for column in chosen], axis=0)) if chosen else np.arange(len(found))
        found[rows] = self._truth(self.expression.tree, rows)
        return found

    def _choices(self, name: str) -> Ints:
        return self.choices[:, list(self.space.by_name).index(name)]

    def _truth(self, node: ast.expr, rows: Ints) -> Mask:
        """The truth of a part of the expression in these rows; ``and`` and ``or`` stop as early as Python's."""
        match node:
            case ast.BoolOp(op=op, values=parts):
                return self._joined(parts, rows, isinstance(op, ast.And))
            case ast.UnaryOp(op=ast.Not(), operand=part):
                return ~self._truth(part, rows)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                a, b = self._operand(left, rows), self._operand(right, rows)
                if a is not None and b is not None and type(op) in _COMPARE:
                    return np.broadcast_to(_COMPARE[type(op)](a, b), len(rows))
            case ast.Compare(left=left, ops=ops, comparators=rest):
                pairs = zip([left, *rest[:-1]], ops, rest, strict=True)
                return self._joined([ast.Compare(a, [op], [b]) for a, op, b in pairs], rows, True)
        return self._one_by_one(node, rows)

    def _joined(self, parts: Sequence[ast.expr], rows: Ints, every: bool) -> Mask:
        found = np.full(len(rows), every)
        open_ = np.arange(len(rows))
        for part in parts:
            held = self._truth(part, rows[open_])
            found[open_] = held
            open_ = open_[held == every]
        return found

    def _operand(self, node: ast.expr, rows: Ints) -> Any:
        """A cost's column or a number that numpy compares with it exactly; None for anything else."""
        match node:
            case ast.Name(id=name) if name in self.costs:
                column = self.costs[name][rows]
                return column if column.max(initial=0) < _EXACT else None
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and abs(value) < _EXACT:
                return value
        return None

    def _one_by_one(self, node: ast.expr, rows: Ints) -> Mask:
        called = {call.func for call in ast.walk(node) if isinstance(call, ast.Call)}
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and n not in called}
        chosen = {name: self._choices(name)[rows] for name in names if name in self.space.by_name}
        costs = {name: self.costs[name][rows] for name in names if name not in chosen}
        first, number = distinct([*chosen.values(), *(_compact(column)[0] for column in costs.values())], len(rows))
        part = replace(self.expression, tree=node)
        found = np.zeros(len(first), bool)
        for i, row in enumerate(first):
            values: dict[str, Any] = {n: self.space.by_name[n].domain.values[c[row]] for n, c in chosen.items()}
            found[i] = holds(part, values | {n: c[row].item() for n, c in costs.items()}, self.path)
        return found[number]
