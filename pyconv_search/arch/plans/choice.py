"""Which way of executing an operation is fastest: as measured, or estimated where nothing was measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

from pyconv_search.arch.plans.estimate import estimated
from pyconv_search.arch.plans.operation import Operation, side
from pyconv_search.arch.plans.pieces import Piece, Plan
from pyconv_search.arch.plans.ways import pieces, ways
from pyconv_search.errors import UserError

DIRECTIONS = ("output", "input", "weight")

# Levels that are executed together, and the way: ((0,), "grouped-1"), ((1, 2), "grouped-4").
Parts = tuple[tuple[tuple[int, ...], str], ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """Where an operation runs: a device (``cpu``, ``cuda`` …), a type (``float32`` …) and a memory format.

    ``instructions`` names the vector instructions of a CPU as PyTorch does (``AVX512``).

    Raises UserError if the device has a number, or device or type is no text of this kind.
    """

    device: str
    dtype: str = "float32"
    channels_last: bool = False
    instructions: str = ""

    def __post_init__(self) -> None:
        for name, value, example in (("device", self.device, "cuda"), ("dtype", self.dtype, "bfloat16")):
            if not isinstance(value, str) or not value.isalnum():
                raise UserError(f"{name} must be a text such as {example!r}, but got {value!r}")

    @property
    def half(self) -> bool:
        """Whether numbers have 16 bits."""
        return self.dtype in ("bfloat16", "float16")

    def __str__(self) -> str:
        device = f"{self.device} ({self.instructions})" if self.instructions else self.device
        return f"{device}, {self.dtype}, {'channels_last' if self.channels_last else 'contiguous'}"


@dataclass(frozen=True, slots=True)
class Choice:
    """A plan for one direction (``output``, or the gradient of the ``input`` or the ``weight``), and why it."""

    plan: Plan
    reason: str


@lru_cache(maxsize=4096)
def choose(operation: Operation, setting: Setting, direction: str = "output", forced: str = "") -> Choice:
    """The plan for an operation.

    ``forced`` names a way for every level that has it, as :func:`forced_parts` reads it. Otherwise the plan that was
    measured to be fastest is taken, or else the one with the lowest estimate. Where the type of device is not known
    it is the first way, which multiplies no zeros.
    """
    if forced and (parts := forced_parts(operation, forced)):
        return Choice(plan_of(operation, parts), f"forced: {forced}")
    found = measured(operation, setting, direction)
    if found:
        return Choice(plan_of(operation, parts_of(operation, found)), f"measured fastest on {setting}")
    if setting.device not in ("cpu", "cuda"):
        return Choice(plan_of(operation, plain(operation)), f"multiplies no zeros; nothing is known of {setting}")
    parts = least(operation, setting, direction)
    return Choice(plan_of(operation, parts), f"lowest estimate for {setting}")


@lru_cache(maxsize=8192)
def plan_of(operation: Operation, parts: Parts) -> Plan:
    """The plan that executes each part its way; the same object whenever it is asked for."""
    found: list[Piece] = []
    for numbers, way in parts:
        found += pieces(operation, numbers, way)
    return Plan(name_of(parts), tuple(found))


def plain(operation: Operation) -> Parts:
    """Every level by itself, without zeros: in the groups that it has, or split by dilation."""
    return tuple(((i,), _plain_way(operation, i)) for i in range(len(operation.conv.levels)))


def _plain_way(operation: Operation, number: int) -> str:
    level = operation.conv.levels[number]
    return "split" if len(level.pattern) > 1 else f"grouped-{level.groups}"


def name_of(parts: Parts) -> str:
    """The parts as text: ``split``, or for several levels, counted from 1, ``1:grouped-1 2+3:grouped-4``."""
    if len(parts) == 1 and parts[0][0] == (0,):
        return parts[0][1]
    return " ".join(f"{'+'.join(str(i + 1) for i in numbers)}:{way}" for numbers, way in parts)


def parts_of(operation: Operation, name: str) -> Parts:
    """The parts that a name of :func:`name_of` stands for; raises ValueError if they are not those of the operation."""
    count = len(operation.conv.levels)
    parts: list[tuple[tuple[int, ...], str]] = []
    for text in name.split():
        numbers, colon, way = text.rpartition(":")
        own = tuple(int(number) - 1 for number in numbers.split("+")) if colon else (0,)
        if not set(own) <= set(range(count)) or way not in ways(operation, own):
            raise ValueError(f"{text} is no way to execute {key_of(operation)}")
        parts.append((own, way))
    if sorted(i for numbers, _ in parts for i in numbers) != list(range(count)):
        raise ValueError(f"{name} does not execute every level of {key_of(operation)} once")
    return tuple(parts)


def forced_parts(operation: Operation, name: str) -> Parts | None:
    """The parts by a forced name: one of :func:`name_of`, or a way for the levels that have it.

    ``plain`` is every level by itself without zeros. ``grouped`` and ``masked`` have the groups of the level,
    ``grouped-4`` has 4; ``merged-2`` is all levels as one convolution of 2 groups. Levels that do not have the way are
    executed plainly. None if no level has it.
    """
    if name == "plain":
        return plain(operation)
    if ":" in name:
        try:
            return parts_of(operation, name)
        except ValueError:
            return None
    every = tuple(range(len(operation.conv.levels)))
    if name.startswith("merged-") and len(every) > 1:
        way = name.replace("merged", "grouped")
        return ((every, way),) if way in ways(operation, every) else None
    found: list[tuple[tuple[int, ...], str]] = []
    some = False
    for i, level in enumerate(operation.conv.levels):
        own = ways(operation, (i,))
        wanted = next((way for way in (name, f"{name}-{level.groups}") if way in own), None)
        some = some or wanted is not None
        found.append(((i,), wanted or _plain_way(operation, i)))
    return tuple(found) if some else None


def least(operation: Operation, setting: Setting, direction: str) -> Parts:
    """The parts of the lowest estimate, among all in which neighbouring levels may be one convolution."""
    best: list[tuple[float, Parts]] = [(0.0, ())]
    for end in range(1, len(operation.conv.levels) + 1):
        options = []
        for begin in range(end):
            numbers = tuple(range(begin, end))
            for way in ways(operation, numbers):
                cost = estimated(
                    operation, pieces(operation, numbers, way), direction, setting.channels_last, setting.half
                )
                total, before = best[begin]
                options.append((total + cost, (*before, (numbers, way))))
        best.append(min(options, key=lambda option: option[0]))
    return best[-1][1]


def key_of(operation: Operation) -> str:
    """An operation in the table of measurements: ``64: 3×3 16 g1, 9×9 16 g16``; ``{1,2,1,4}``; stride 1 is left out."""
    levels = []
    for level in operation.conv.levels:
        height, width = side(level)
        pattern = "" if level.pattern == (1,) else f" {{{','.join(map(str, level.pattern))}}} {level.axes}"
        levels.append(f"{height}×{width} {level.width} g{level.groups}{pattern}")
    stride = "" if operation.stride == (1, 1) else f" /{operation.stride[0]},{operation.stride[1]}"
    order = f"{' sorted-in' * operation.sorted_in}{' sorted-out' * operation.sorted_out}"
    return f"{operation.in_channels}: {', '.join(levels)}{stride}{order}"


def measured(operation: Operation, setting: Setting, direction: str) -> str | None:
    """The name of the plan that was fastest where it was measured, if it was."""
    return _table().get(f"{setting}; {direction}", {}).get(key_of(operation))


@lru_cache(maxsize=1)
def _table() -> dict[str, dict[str, str]]:
    text = resources.files(__package__).joinpath("measured.json").read_text(encoding="utf-8")
    plans: dict[str, dict[str, str]] = json.loads(text)["plans"]
    return plans
