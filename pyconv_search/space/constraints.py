"""The small expression language of ``when`` and ``constraints``, evaluated by our own whitelist, never by ``eval``.

An expression compares and combines numbers, texts, lists and names: ``levels == [1, 1, 1, 1]``, ``gmacs <= 4.2``,
``params <= 26M``, ``levels[0] >= levels[1] and len(pattern) in [1, 2, 4]``. Its syntax is a part of Python's, with the
number suffixes k, M and G (10³, 10⁶, 10⁹). Functions: len, sum, min, max, abs.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from pyconv_search.errors import UserError
from pyconv_search.fields import cut, kind_of, shown

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


_TRUTH = {"true": True, "false": False}
_PARTS = "every part of and, or, not compares something: gmacs <= 4.2, levels == [1, 1], groups in [1, 2]"
_EXAMPLES = "gmacs <= 4.2, levels == [1, 1]"
_SIGNS = {"≤": "<=", "≥": ">=", "≠": "!=", "−": "-", "×": "*", "·": "*", "“": '"', "”": '"', "‘": "'", "’": "'"}


class ExpressionError(UserError):
    """An expression that cannot be read or evaluated; ``offset`` is the character of its source at which it fails."""

    def __init__(self, text: str, offset: int | None = None) -> None:
        super().__init__(text)
        self.offset = offset


@dataclass(frozen=True)
class Expression:
    """A parsed expression: its ``source``, the ``names`` it reads, and its syntax ``tree``, of allowed nodes alone.

    ``places`` has, for the characters of the text that was parsed, where they stand in the source.
    """

    source: str
    names: frozenset[str]
    tree: ast.expr = field(repr=False, compare=False)
    places: tuple[int, ...] = field(default=(), repr=False, compare=False)

    def offset(self, node: ast.expr) -> int:
        """Where a part of the tree begins in the source."""
        return self.places[min(node.col_offset, len(self.places) - 1)]

    def spelled(self, node: ast.expr) -> str:
        """A part of the tree as the source writes it."""
        end = node.end_col_offset or 0
        return self.source[self.offset(node) : self.places[min(end, len(self.places) - 1)]].strip()

    def names_at(self) -> Iterator[tuple[str, int]]:
        """Its names, each once, with the offset at which it first stands."""
        found = [(node.id, self.offset(node)) for node in ast.walk(self.tree) if _named(node)]
        yield from dict(sorted(found, key=lambda pair: -pair[1])).items()

    def unconditional(self) -> Iterator[tuple[str, int]]:
        """What keeps it from being a condition, part by part, each with its offset.

        A condition is a comparison, or and, or, not of conditions; a comparison reads at least one name.
        """
        walked = [] if _is_condition(self.tree) else [self.tree]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.BoolOp):
                walked += [part for part in node.values if not _is_condition(part)]
            elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
                walked += [] if _is_condition(node.operand) else [node.operand]
            elif isinstance(node, ast.Compare) and _constant(node):
                said = "is the same for every network; compare a parameter or a cost"
                yield f"{shown(self.spelled(node))} {said}", self.offset(node)
        for node in walked:
            yield f"{shown(self.spelled(node))} is no condition; {_PARTS}", self.offset(node)

    def compared(self) -> Iterator[tuple[str, list[Any], bool, int]]:
        """Every comparison of a name with constants by ==, != or in: the name, the constants, whether any will do,
        and the offset of the constants."""
        for node in ast.walk(self.tree):
            if not isinstance(node, ast.Compare) or len(node.ops) != 1:
                continue
            left, op, right = node.left, node.ops[0], node.comparators[0]
            if isinstance(op, (ast.Eq, ast.NotEq)):
                name, other = (left, right) if isinstance(left, ast.Name) else (right, left)
            elif isinstance(op, (ast.In, ast.NotIn)) and isinstance(right, (ast.List, ast.Tuple)):
                name, other = left, right
            else:
                continue
            if _named(name) and not any(_named(part) for part in ast.walk(other)):
                value = _evaluate(other, {})
                listed = isinstance(op, (ast.In, ast.NotIn))
                yield name.id, value if listed else [value], listed, self.offset(other)

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """Its value, with every name taken from ``values``.

        Raises:
            ExpressionError: if the values do not go together (a list compared with a number, a division by zero, …).
        """
        try:
            return _evaluate(self.tree, values)
        except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise ExpressionError(f"{shown(self.source)} cannot be evaluated: {cut(str(error), 200)}") from None


def parse(source: Any) -> Expression:
    """The expression that ``source`` spells. Raises ExpressionError with the part that is not understood."""
    if not isinstance(source, str):
        raise ExpressionError(f"must be a text such as 'gmacs <= 4.2', but got {kind_of(source)}")
    if len(source) > MOST_CHARACTERS:
        raise ExpressionError(f"must be at most {MOST_CHARACTERS} characters, but got {len(source):,}")
    source = source.strip()
    text, places = _scaled(source)
    try:
        tree = _Truth().visit(ast.parse(text, mode="eval")).body
    except SyntaxError as error:
        offset = places[min((error.offset or len(places)) - 1, len(places) - 1)] if error.lineno == 1 else None
        raise ExpressionError(f"{shown(source)} is not an expression{_meant(source)}", offset) from None
    except (ValueError, RecursionError, MemoryError):
        raise ExpressionError(f"{shown(source)} is not an expression; for example: {_EXAMPLES}") from None
    # Nodes count in bytes of UTF-8.
    wide = tuple(place for letter, place in zip(text, places, strict=False) for _ in letter.encode("utf-8", "replace"))
    found = Expression(source, frozenset(), tree, (*wide, len(source)))
    names: set[str] = set()
    try:
        _check(tree, names, found)
    except RecursionError:
        raise ExpressionError(f"{shown(source)} is nested too deeply") from None
    return Expression(source, frozenset(names), tree, found.places)


class _Truth(ast.NodeTransformer):
    """Reads true and false as YAML writes them."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.copy_location(ast.Constant(_TRUTH[node.id]), node) if node.id in _TRUTH else node


def _scaled(source: str) -> tuple[str, tuple[int, ...]]:
    """The source in Python's syntax, with numbers for 4.2M and the like, and where each character of it comes from."""
    text, places, end = "", list[int](), 0
    for match in _SUFFIX.finditer(source):
        if match[1] is None:
            number = float(match[2]) * _SCALE[match[3]]
            digits = str(int(number)) if number.is_integer() else repr(number)
            text += source[end : match.start()] + digits
            places += [*range(end, match.start()), *([match.start()] * len(digits))]
            end = match.end()
    return text + source[end:], (*places, *range(end, len(source) + 1))


def _meant(source: str) -> str:
    """What was probably meant by something that is not an expression."""
    if odd := next((c for c in source if not c.isascii() and (c.isspace() or c in _SIGNS)), None):
        return f": {odd!r} stands in it; write {_SIGNS.get(odd, 'an ordinary blank')}"
    for wrong, right in (("&&", "and"), ("||", "or")):
        if wrong in source:
            return f": write {right} for {wrong}"
    if re.search(r"(?<![=!<>])=(?!=)", source):
        return ": write == to compare"
    return f"; for example: {_EXAMPLES}"


def _check(node: ast.expr, names: set[str], whole: Expression) -> None:
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
                f"{shown(whole.spelled(node))} is not allowed; use comparisons, and/or/not, arithmetic, lists, indices "
                f"and {', '.join(FUNCTIONS)}",
                whole.offset(node),
            )
    for part in parts:
        _check(part, names, whole)


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


def _named(node: ast.AST) -> TypeGuard[ast.Name]:
    """Whether a node is a name, of a parameter or a cost."""
    return isinstance(node, ast.Name) and node.id not in FUNCTIONS


def _constant(node: ast.Compare) -> bool:
    """Whether a comparison is true, or false, whatever the names stand for."""
    same = len({ast.dump(side) for side in (node.left, *node.comparators)}) == 1
    return same or not any(_named(part) for part in ast.walk(node))


def _is_condition(node: ast.expr) -> bool:
    negation = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    return negation or isinstance(node, (ast.Compare, ast.BoolOp))


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
