"""The small expression language of ``when`` and ``constraints``, evaluated by our own whitelist, never by ``eval``.

An expression compares and combines numbers, texts, lists and names: ``levels == [1, 1, 1, 1]``, ``gmacs <= 4.2``,
``params <= 26M``, ``levels[0] >= levels[1] and len(pattern) in [1, 2, 4]``. Its syntax is a part of Python's, with the
number suffixes k, M and G (10³, 10⁶, 10⁹). Functions: len, sum, min, max, abs.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pyconv_search.errors import UserError

MOST_CHARACTERS = 500
FUNCTIONS: dict[str, Callable[..., Any]] = {"len": len, "sum": sum, "min": min, "max": max, "abs": abs}
_SUFFIX = re.compile(r"('[^']*'|\"[^\"]*\")|(?<![\w.])(\d+(?:\.\d+)?)([kMG])\b")
_SCALE = {"k": 10**3, "M": 10**6, "G": 10**9}
_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
_COMPARE: dict[type[ast.AST], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip


class ExpressionError(UserError):
    """An expression that cannot be read or evaluated."""


@dataclass(frozen=True)
class Expression:
    """A parsed expression: its ``source``, the ``names`` it reads, and its syntax ``tree``, of allowed nodes alone."""

    source: str
    names: frozenset[str]
    tree: ast.expr = field(repr=False, compare=False)

    @property
    def is_condition(self) -> bool:
        """Whether it compares something, so that it is true or false and not, say, a number."""
        tree = self.tree
        return isinstance(tree, (ast.Compare, ast.BoolOp)) or (
            isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not)
        )

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Its value, with every name taken from ``values``.

        Raises:
            ExpressionError: if the values do not go together (a list compared with a number, a division by zero, …).
        """
        try:
            return _evaluate(self.tree, values)
        except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise ExpressionError(f"{self.source!r} cannot be evaluated: {error}") from None


def parse(source: Any) -> Expression:
    """The expression that ``source`` spells. Raises ExpressionError with the part that is not understood."""
    if not isinstance(source, str):
        raise ExpressionError(f"must be a text such as 'gmacs <= 4.2', but got {source!r}")
    if len(source) > MOST_CHARACTERS:
        raise ExpressionError(f"must be at most {MOST_CHARACTERS} characters, but got {len(source)}")
    text = _SUFFIX.sub(_scaled, source.strip())
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ExpressionError(f"{source!r} is not an expression; for example: gmacs <= 4.2, levels == [1, 1]") from None
    names: set[str] = set()
    try:
        _check(tree, names)
    except RecursionError:
        raise ExpressionError(f"{source[:40]!r}… is nested too deeply") from None
    return Expression(source.strip(), frozenset(names), tree)


def _scaled(match: re.Match[str]) -> str:
    if match[1] is not None:
        return match[1]
    number = float(match[2]) * _SCALE[match[3]]
    return str(int(number)) if number.is_integer() else repr(number)


def _check(node: ast.expr, names: set[str]) -> None:
    """Walk the tree, note the names, and refuse everything outside the language."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str()):
            return
        case ast.Name(id=name):
            names.add(name)
            return
        case ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Tuple(elts=parts):
            pass
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=part):
            parts = [part]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            parts = [left, right]
        case ast.Compare(left=left, ops=ops, comparators=rest) if all(type(op) in _COMPARE for op in ops):
            parts = [left, *rest]
        case ast.Subscript(value=value, slice=ast.Constant() | ast.UnaryOp() | ast.Name() | ast.BinOp() as index):
            parts = [value, index]
        case ast.Call(func=ast.Name(id=name), args=parts, keywords=[]) if name in FUNCTIONS and parts:
            pass
        case _:
            raise ExpressionError(
                f"{ast.unparse(node)!r} is not allowed; use comparisons, and/or/not, arithmetic, lists, indices "
                f"and {', '.join(FUNCTIONS)}"
            )
    for part in parts:
        _check(part, names)


def _evaluate(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return values[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_evaluate(item, values) for item in items]
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_evaluate(part, values) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_evaluate(part, values) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return not _evaluate(part, values)
        case ast.UnaryOp(operand=part):
            return -_evaluate(part, values)
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_number(left, values), _number(right, values))
        case ast.Compare(left=left, ops=ops, comparators=rest):
            return _compare(left, ops, rest, values)
        case ast.Subscript(value=value, slice=index):
            return _evaluate(value, values)[_evaluate(index, values)]
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return FUNCTIONS[name](*(_evaluate(argument, values) for argument in arguments))
    raise TypeError(ast.dump(node))  # _check lets nothing else through


def _number(node: ast.expr, values: Mapping[str, Any]) -> Any:
    """Arithmetic is for numbers alone: a text or list times a large number would fill the memory."""
    value = _evaluate(node, values)
    if not isinstance(value, (int, float)):
        raise TypeError(f"arithmetic needs numbers, but {ast.unparse(node)} is {value!r}")
    return value


def _compare(left: ast.expr, ops: list[ast.cmpop], rest: list[ast.expr], values: Mapping[str, Any]) -> bool:
    first = _evaluate(left, values)
    for op, node in zip(ops, rest, strict=True):
        second = _evaluate(node, values)
        if not _COMPARE[type(op)](first, second):
            return False
        first = second
    return True
