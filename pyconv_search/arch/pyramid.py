"""From a human's description of one stage's convolution (levels, kernels, groups, split, pattern) to a Conv."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from pyconv_search.arch.dilation import AXES
from pyconv_search.arch.spec import Conv, Level, divisors
from pyconv_search.arch.trace import each
from pyconv_search.fields import Fields, Path, Problems, integer, kind_of, nearest, shown, suggestion

CONV_KEYS = ("levels", "kernels", "groups", "split", "pattern", "axes")
GROUPS = ("pyramid", "matched")
SPLITS = ("equal", "top-heavy", "bottom-heavy")


class StageKeys:
    """The convolution keys of one stage: its own, or those that stand at the network and hold for every stage."""

    def __init__(self, own: Fields, common: Fields, stage: int, video: bool = False) -> None:
        self.own, self.common, self.stage, self.video, self.problems = own, common, stage, video, own.problems

    def pick(self, key: str, default: Any = None) -> tuple[Any, Path]:
        """The value of ``key`` and where it stands."""
        shared = self.common.take(key, None)
        value = self.own.take(key, None)
        if value is not None:
            return value, (*self.own.path, key)
        return (default if shared is None else shared), (*self.common.path, key)


def conv(keys: StageKeys, width: int, in_widths: set[int]) -> Conv:
    """The convolution of ``width`` output channels that is fed ``in_widths`` channels wherever the stage uses it."""
    problems = keys.problems
    given, path = keys.pick("levels")
    by_stage = isinstance(given, (list, tuple)) and not all(isinstance(n, Mapping) for n in given)
    if by_stage and path[:-1] == keys.common.path:
        given, path = (given[keys.stage] if keys.stage < len(given) else 1), (*path, keys.stage)
    if isinstance(given, (list, tuple)):
        explicit = [Fields(values, (*path, j), problems) for j, values in enumerate(given)]
        count = len(explicit)
    else:
        kernels = keys.pick("kernels")[0]
        explicit = []
        count = integer(
            given if given is not None else len(kernels) if isinstance(kernels, (list, tuple)) else 1,
            path,
            problems,
            1,
            16,
        )
    if not count:
        problems.add(path, "must hold at least one level")
        return Conv((Level(3, width),))
    lists = _Lists(keys, count, problems)
    widths = _widths(keys, explicit, count, width)
    return Conv(
        tuple(
            _level(explicit[j] if explicit else Fields({}, (*path, j), problems), lists, j, w, in_widths)
            for j, w in enumerate(widths)
        )
    )


class _Lists:
    """What the keys kernels, groups, pattern and axes say of each level, bottom first."""

    def __init__(self, keys: StageKeys, count: int, problems: Problems) -> None:
        self.keys, self.count, self.problems = keys, count, problems

    def of(self, key: str, j: int, default: Any) -> tuple[Any, Path]:
        """The value for level j; a list gives one value a level, its surplus at the top is not used."""
        value, path = self.keys.pick(key, default)
        if value is default:
            return value, path
        if (
            key == "pattern"
            and isinstance(value, (list, tuple))
            and not any(isinstance(v, (list, tuple)) for v in value)
        ):
            return value, path
        if not isinstance(value, (list, tuple)):
            return value, path
        if j >= len(value):
            self.problems.add(path, f"must have one entry for each of the {self.count} levels, but got {shown(value)}")
            return default, path
        return value[j], (*path, j)


def _level(own: Fields, lists: _Lists, j: int, width: int, in_widths: set[int]) -> Level:
    """Level j: what its own mapping says, else what the stage's or the network's keys say."""
    problems = own.problems

    def pick(key: str, plural: str, default: Any) -> tuple[Any, Path]:
        value = own.take(key, None)
        return (value, (*own.path, key)) if value is not None else lists.of(plural, j, default)

    side = 3 + 2 * j
    size = kernel(*pick("kernel", "kernels", [max(3, side - 2), side, side] if lists.keys.video else side), problems)
    sides = each(size, 3 if lists.keys.video else 2)
    groups = _groups(*pick("groups", "groups", "pyramid"), problems, (j, width, sides, in_widths))
    pattern = _pattern(*pick("pattern", "pattern", (1,)), problems)
    axes, axes_path = pick("axes", "axes", "both")
    if axes not in AXES:
        problems.add(axes_path, f"must be one of {', '.join(AXES)}, but got {shown(axes)}{suggestion(axes, AXES)}")
        axes = "both"
    own.take("width", None)
    own.close()
    return Level(size, width, groups, pattern, axes)


def kernel(value: Any, path: Path, problems: Problems) -> int | tuple[int, int, int]:
    """An odd kernel: one number, or [time, height, width]."""
    sides = value if isinstance(value, (list, tuple)) else (value,)
    if len(sides) not in (1, 3):
        problems.add(path, f"must be one number or [time, height, width], but got {shown(value)}")
        return 3
    odd = []
    for i, side in enumerate(sides):
        number = integer(side, (*path, i) if sides is value else path, problems)
        if number % 2 == 0:
            problems.add(path, f"must be odd, but got {number}; nearest: {number - 1}, {number + 1}")
        odd.append(number | 1)
    return odd[0] if len(odd) == 1 else (odd[0], odd[1], odd[2])


def _pattern(value: Any, path: Path, problems: Problems) -> tuple[int, ...]:
    if isinstance(value, dict):
        problems.add(path, f"must be a list such as [1, 2, 1, 4], but got {kind_of(value)}")
        return (1,)
    if not isinstance(value, (list, tuple)):
        return (integer(value, path, problems, 1, 64),)
    if not value:
        problems.add(path, "must hold at least one dilation, but got an empty list; a standard convolution is [1]")
    return tuple(integer(d, (*path, i), problems, 1, 64) for i, d in enumerate(value)) or (1,)


def _groups(value: Any, path: Path, problems: Problems, level: tuple[int, int, tuple[int, ...], set[int]]) -> int:
    """The groups of one level: a number that must divide, or a named rule that takes the nearest divisor.

    ``pyramid`` is what the PyConv networks use (1, 4, 8, 16, 16, … from the bottom up, Table 1); ``matched`` keeps the
    cost of every level equal to the bottom one's (equation 1: K_j² / K_1², with time K_j³ / K_1³, here with K_1 = 3).
    """
    j, width, sides, in_widths = level
    legal = divisors(math.gcd(width, *in_widths))
    if value == "pyramid":
        target: float = min(4 * 2 ** (j - 1), 16) if j else 1
    elif value == "matched":
        target = math.prod(side / 3 for side in sides)
    elif isinstance(value, str):
        problems.add(
            path, f"must be an integer or one of {', '.join(GROUPS)}, but got {shown(value)}{suggestion(value, GROUPS)}"
        )
        return 1
    else:
        groups = integer(value, path, problems)
        for count, what in [
            *((n, "input channels") for n in sorted(in_widths)),
            (width, "output channels of the level"),
        ]:
            if count % groups:
                problems.add(path, f"{groups} does not divide {count} {what}; nearest: {nearest(groups, legal)}")
                return 1
        return groups
    return min(legal, key=lambda d: (abs(d - target), d))


def _widths(keys: StageKeys, explicit: Sequence[Fields], count: int, width: int) -> list[int]:
    """The output channels of each level, bottom first."""
    given = [level.integer("width", None) for level in explicit]
    if given and all(given):
        if sum(given) != width:
            keys.problems.add(
                (*keys.own.path, "levels"),
                f"the widths of the levels must sum to {width}, but {' + '.join(map(str, given))} = {sum(given)}",
            )
        return given
    if any(given):
        keys.problems.add((*keys.own.path, "levels"), "give the width of every level, or of none")
    value, path = keys.pick("split", "equal")
    shares = _shares(value, path, count, keys.problems)
    unit, rest = divmod(width, sum(shares))
    if rest or not unit:
        whole = sum(shares)
        hint = nearest(width, (whole * n for n in {max(unit, 1), unit + 1}))
        keys.problems.add(
            path,
            f"cannot split {width} channels {':'.join(map(str, shares))} over {count} levels; nearest width: {hint}",
        )
    return [max(share * unit, 1) for share in shares]


def _shares(value: Any, path: Path, count: int, problems: Problems) -> list[int]:
    """The split as whole shares, bottom first.

    ``equal`` gives every level a power-of-two share, as even as can be, the larger ones at the top: 1:1, 1:1:2,
    1:1:1:1, 1:1:2:2:2 (the splits of PyConv, Tables 1 and 2). ``top-heavy`` doubles from level to level, so that the
    top level has half of the channels; ``bottom-heavy`` is its mirror image. A list gives the shares themselves.
    """
    doubling = [1, *(2**j for j in range(count - 1))]
    if value == "top-heavy":
        return doubling
    if value == "bottom-heavy":
        return doubling[::-1]
    if isinstance(value, (list, tuple)):
        shares = [integer(share, (*path, j), problems) for j, share in enumerate(value)]
        if len(shares) >= count:
            return shares[:count]
        problems.add(path, f"must have one share for each of the {count} levels, but got {shown(value)}")
    elif value != "equal":
        problems.add(
            path,
            f"must be a list of shares or one of {', '.join(SPLITS)}, but got {kind_of(value)}"
            f"{suggestion(value, SPLITS)}",
        )
    power = 2 ** math.ceil(math.log2(count))
    return [1 if j < 2 * count - power else 2 for j in range(count)]
