"""Plans against what they stand for: every weight exactly once, counted position by position."""

from __future__ import annotations

import itertools
import math
import random
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from pyconv_search.arch.dilation import dilations_used
from pyconv_search.arch.plans.choice import (
    DIRECTIONS,
    Setting,
    choose,
    forced_parts,
    key_of,
    least,
    name_of,
    parts_of,
    plain,
    plan_of,
)
from pyconv_search.arch.plans.estimate import estimated
from pyconv_search.arch.plans.operation import Operation, class_order, cosets, dilations, side, sortable
from pyconv_search.arch.plans.pieces import Piece
from pyconv_search.arch.plans.ways import pieces, ways
from pyconv_search.arch.spec import Conv, Level, divisors
from pyconv_search.errors import UserError

# A fifth of the random operations, or all of them.
sampled = pytest.mark.parametrize(
    "seeds", [range(0, 3000, 5), pytest.param(range(3000), marks=pytest.mark.slow)], ids=["fifth", "all"]
)
CPU = Setting("cpu", instructions="AVX512")


def sorted_order(size: int, pattern: tuple[int, ...]) -> list[int]:
    """Of a sorted group, channel by channel, which one of the interleaved order it is."""
    return [channel for residue in class_order(pattern) for channel in range(residue, size, len(pattern))]


def weights_of(operation: Operation) -> np.ndarray:
    """Output channels by input channels: the dilation of every kernel by equation 3 and appendix A, 0 for none."""
    matrix = np.zeros((operation.conv.width, operation.in_channels), dtype=np.int64)
    for number, level in enumerate(operation.conv.levels):
        t, groups = len(level.pattern), level.groups
        fan_in, filters = operation.in_channels // groups, level.width // groups
        rows = sorted_order(filters, level.pattern) if operation.sorted_out else range(filters)
        columns = sorted_order(fan_in, level.pattern) if operation.sorted_in else range(fan_in)
        for g, (i, c), (j, k) in itertools.product(range(groups), enumerate(rows), enumerate(columns)):
            along = {"both": k - c, "input": k, "output": c}[level.axes]
            number_in_cycle = g if groups == operation.in_channels > 1 else along
            row, column = operation.offset(number) + g * filters + i, g * fan_in + j
            matrix[row, column] = level.pattern[number_in_cycle % t]
    return matrix


def positions(piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    """The output and the input channel of every kernel that a piece multiplies with."""
    target = np.array(piece.target).reshape(piece.groups, -1, 1)
    source = np.array(piece.source).reshape(piece.groups, 1, -1)
    rows, columns = np.broadcast_arrays(target, source)
    return rows.reshape(-1), columns.reshape(-1)


def covered(operation: Operation, found: list[Piece], matrix: np.ndarray) -> np.ndarray:
    """How many pieces hold the weight between each pair of channels."""
    count = np.zeros_like(matrix)
    for piece in found:
        rows, columns = positions(piece)
        own = matrix[rows, columns] == piece.dilation
        np.add.at(count, (rows[own], columns[own]), 1)
    return count


def partitions(numbers: tuple[int, ...]):
    """All ways to part these levels."""
    if not numbers:
        yield []
        return
    first, *rest = numbers
    for size in range(len(rest) + 1):
        for others in itertools.combinations(rest, size):
            left = tuple(n for n in rest if n not in others)
            for more in partitions(left):
                yield [(first, *others), *more]


def all_parts(operation: Operation):
    """Every plan of an operation by its parts."""
    for partition in partitions(tuple(range(len(operation.conv.levels)))):
        for chosen in itertools.product(*(ways(operation, numbers) for numbers in partition)):
            yield tuple(zip(partition, chosen, strict=True))


def nominal(operation: Operation, number: int) -> int:
    """Multiply-adds of one output pixel of a level: the size of its weight."""
    level = operation.conv.levels[number]
    return level.width * (operation.in_channels // level.groups) * math.prod(side(level))


@sampled
def test_every_way_holds_every_weight_exactly_once(random_operation, seeds):
    seen = Counter()
    for seed in seeds:
        operation = random_operation(seed)
        matrix = weights_of(operation)
        for numbers in itertools.chain.from_iterable(partitions(tuple(range(len(operation.conv.levels))))):
            for way in ways(operation, numbers):
                found = pieces(operation, numbers, way)
                own = np.zeros_like(matrix)
                for number in numbers:
                    begin = operation.offset(number)
                    rows = slice(begin, begin + operation.conv.levels[number].width)
                    own[rows] = matrix[rows] > 0
                assert (covered(operation, found, matrix) == own).all(), (key_of(operation), numbers, way)
                heights, widths = zip(*(side(operation.conv.levels[n]) for n in numbers), strict=True)
                assert {piece.kernel for piece in found} == {(max(heights), max(widths))}, (key_of(operation), way)
                seen[way.split("-")[0], len(numbers) > 1, operation.sorted_in, operation.sorted_out] += 1
    ways_seen = {key[0] for key in seen}
    assert ways_seen == {"grouped", "swapped", "strips2", "strips4", "depthwise", "split", "per", "masked"}
    for flags in itertools.product([True, False], repeat=2):
        assert seen[("split", False, *flags)] > len(seeds) / 150, "the random operations have lost sorted sides"
    assert seen["grouped", True, False, False] > len(seeds) / 30, "the random operations have lost merges"


@sampled
def test_pieces_have_equal_groups_and_legal_channels(random_operation, seeds):
    for seed in seeds[::5]:
        operation = random_operation(seed)
        for parts in itertools.islice(all_parts(operation), 50):
            for piece in plan_of(operation, parts).pieces:
                assert len(piece.source) % piece.groups == len(piece.target) % piece.groups == 0
                assert set(piece.source) <= set(range(operation.in_channels))
                assert set(piece.target) <= set(range(operation.conv.width))
                assert len(set(piece.source)) == len(piece.source), "an input channel is gathered twice"


@sampled
def test_the_matrix_of_dilations_is_that_of_the_operation(random_operation, seeds):
    for seed in seeds[::3]:
        operation = random_operation(seed)
        matrix = weights_of(operation)
        for number, level in enumerate(operation.conv.levels):
            begin = operation.offset(number)
            rows = [[int(d) for d in row if d] for row in matrix[begin : begin + level.width]]
            assert dilations(operation, number) == rows, key_of(operation)


@sampled
def test_multiply_adds_are_what_the_way_says(random_operation, seeds):
    """Split, per-class, depthwise and the level's own groups multiply no zeros; others do by closed forms."""
    for seed in seeds:
        operation = random_operation(seed)
        for number, level in enumerate(operation.conv.levels):
            shape = (operation.in_channels, level.width, level.pattern, level.axes, level.groups)
            for way in ways(operation, (number,)):
                name, _, groups = way.rpartition("-")
                widened = level.groups // int(groups) if groups.isdigit() else 1
                repeated = len(dilations_used(*shape)) if name == "masked" else 1
                columns = side(level)[1]
                if name.startswith("strips"):
                    columns += (int(name[-1]) - 1) * operation.stride[1]
                expected = Fraction(nominal(operation, number) * widened * repeated * columns, side(level)[1])
                macs = plan_of(operation, (((number,), way),)).macs
                assert macs == expected, (key_of(operation), way)
                assert macs >= nominal(operation, number)


def test_merging_costs_the_largest_kernel_of_all():
    operation = Operation(16, Conv((Level(5, 8, 4), Level((3, 7), 16, 8))))
    merged = plan_of(operation, (((0, 1), "grouped-2"),))
    assert merged.macs == 24 * (16 // 2) * 5 * 7
    assert [piece.groups for piece in merged.pieces] == [2]


@sampled
def test_names_are_read_back(random_operation, seeds):
    for seed in seeds[::6]:
        operation = random_operation(seed)
        for parts in itertools.islice(all_parts(operation), 100):
            assert parts_of(operation, name_of(parts)) == parts
            assert forced_parts(operation, name_of(parts)) == parts
            assert plan_of(operation, parts) is plan_of(operation, parts), "programs are kept by the plan"
            assert plan_of(operation, parts).name == name_of(parts)


def test_names_as_people_read_them():
    pyramid = Operation(64, Conv((Level(3, 16), Level(5, 16, 4), Level(7, 16, 8))))
    assert name_of(plain(pyramid)) == "1:grouped-1 2:grouped-4 3:grouped-8"
    assert name_of((((0,), "grouped-1"), ((1, 2), "grouped-4"))) == "1:grouped-1 2+3:grouped-4"
    assert name_of(plain(Operation(8, Conv((Level(3, 8, 1, (1, 2)),))))) == "split"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("split", "split is no way to execute 8: 3×3 8 g1, 5×5 8 g4"),
        ("1:split 2:grouped-4", "1:split is no way"),
        ("1:grouped-1", "1:grouped-1 does not execute every level"),
        ("1:grouped-1 1:grouped-1", "does not execute every level"),
        ("1:grouped-1 3:grouped-4", "3:grouped-4 is no way"),
        ("1+2:grouped-4", "is no way"),
        ("", "does not execute every level"),
    ],
)
def test_names_of_other_operations_are_refused(name, message):
    operation = Operation(8, Conv((Level(3, 8), Level(5, 8, 4))))
    with pytest.raises(ValueError, match=re.escape(message)):
        parts_of(operation, name)
    assert ":" not in name or forced_parts(operation, name) is None


def test_forced_names():
    scale = Operation(16, Conv((Level(3, 16, 4, (1, 2, 1, 4)),)))
    pyramid = Operation(16, Conv((Level(3, 8, 2), Level(5, 8, 4), Level(3, 8, 1, (1, 2)))))
    own = (((0,), "split"),)
    assert forced_parts(scale, "split") == forced_parts(scale, "plain") == own
    assert forced_parts(scale, "masked") == (((0,), "masked-4"),)
    assert forced_parts(scale, "masked-2") == (((0,), "masked-2"),)
    for nothing in ("masked-3", "grouped", "grouped-4", "depthwise", "merged-1", "1:grouped-4", "unheard-of"):
        assert forced_parts(scale, nothing) is None
    assert forced_parts(pyramid, "grouped-1") == (((0,), "grouped-1"), ((1,), "grouped-1"), ((2,), "split"))
    assert forced_parts(pyramid, "grouped-4") == (((0,), "grouped-2"), ((1,), "grouped-4"), ((2,), "split"))
    assert forced_parts(pyramid, "per-class") == (((0,), "grouped-2"), ((1,), "grouped-4"), ((2,), "per-class"))
    assert forced_parts(pyramid, "merged-1") is None, "a pattern cannot be merged"
    plain_pyramid = replace(pyramid, conv=Conv(pyramid.conv.levels[:2]))
    assert forced_parts(plain_pyramid, "merged-2") == (((0, 1), "grouped-2"),)
    assert forced_parts(plain_pyramid, "merged-4") is None
    forced = choose(scale, CPU, "input", "masked")
    assert (forced.plan.name, forced.reason) == ("masked-4", "forced: masked")
    assert choose(scale, CPU, "input", "depthwise") == choose(scale, CPU, "input"), "no level has it"


@sampled
def test_choices_are_legal_and_told(random_operation, seeds):
    for seed in seeds[::10]:
        operation, r = random_operation(seed), random.Random(seed)
        setting = Setting(r.choice(["cpu", "cuda"]), r.choice(["float32", "bfloat16"]), r.random() < 0.5)
        for direction in DIRECTIONS:
            found = choose(operation, setting, direction)
            assert found.plan is plan_of(operation, parts_of(operation, found.plan.name))
            assert str(setting) in found.reason
            assert found is choose(operation, setting, direction)


@pytest.mark.parametrize("device", ["meta", "mps", "xpu"])
@sampled
def test_unknown_devices_multiply_no_zeros(random_operation, device, seeds):
    for seed in seeds[::30]:
        operation = random_operation(seed)
        for direction in DIRECTIONS:
            found = choose(operation, Setting(device), direction)
            assert found.plan.macs == sum(nominal(operation, i) for i in range(len(operation.conv.levels)))
            assert found.reason == f"multiplies no zeros; nothing is known of {device}, float32, contiguous"


@sampled
def test_the_lowest_estimate_is_the_lowest_of_all(random_operation, seeds):
    """Against every partition into neighbouring levels, one by one."""
    for seed in seeds[::20]:
        operation, r = random_operation(seed), random.Random(seed)
        last, half = r.random() < 0.5, r.random() < 0.5
        setting = Setting("cpu", "bfloat16" if half else "float32", last)
        for direction in DIRECTIONS:

            def cost(parts, direction=direction, operation=operation, last=last, half=half):
                return sum(estimated(operation, pieces(operation, *part), direction, last, half) for part in parts)

            neighbours = [p for p in all_parts(operation) if all(n == tuple(range(n[0], n[-1] + 1)) for n, _ in p)]
            assert cost(least(operation, setting, direction)) == pytest.approx(min(map(cost, neighbours)))


def test_narrow_groups_of_large_kernels_are_not_run_as_they_stand():
    """They are padded to blocks of 16 channels (contiguous) or slow (channels_last): PyConv4's top level at 56 px."""
    top, wide = (Operation(64, Conv((Level(9, 16, 16),))), Operation(512, Conv((Level(3, 512, 1, (1, 2, 1, 4)),))))
    for setting in (CPU, replace(CPU, channels_last=True)):
        assert choose(top, setting).plan.name != "grouped-16"
        assert choose(wide, setting).plan.name == "split"


def test_cosets_partition_every_cycle():
    r = random.Random(0)
    patterns = [p for t in range(1, 6) for p in itertools.product([1, 2, 3], repeat=t)]
    patterns += [tuple(r.choice([1, 1, 2, 4]) for _ in range(t)) for t in (6, 7, 8) for _ in range(100)]
    for pattern in patterns:
        t = len(pattern)
        found = [j for coset in cosets(pattern) for j in range(coset.offset, t, coset.modulus)]
        assert sorted(found) == list(range(t)), pattern
        for coset in cosets(pattern):
            assert t % coset.modulus == 0
            assert 0 <= coset.offset < coset.modulus
            assert {pattern[j] for j in range(coset.offset, t, coset.modulus)} == {coset.dilation}
            for k, c in itertools.product(range(t), repeat=2):
                into = (k - c) % coset.modulus == coset.offset
                assert into == (coset.output(k % coset.modulus) == c % coset.modulus), (pattern, coset)


def test_no_cosets_make_up_a_coarser_one():
    for pattern in itertools.product([1, 2], repeat=6):
        found = [set(range(offset, 6, modulus)) for _, modulus, offset in cosets(pattern)]
        for modulus in divisors(6):
            for offset in range(modulus):
                whole = set(range(offset, 6, modulus))
                inside = [members for members in found if members < whole]
                parts = len({pattern[j] for j in whole}) == 1 and set().union(*inside) == whole
                assert not parts, (pattern, modulus, offset)


def test_class_order_keeps_cosets_together():
    assert class_order((1, 2, 1, 4)) == (0, 2, 1, 3)
    assert class_order((1, 1, 1, 2)) == (0, 2, 1, 3)
    assert class_order((1, 2, 1, 3, 1, 2, 1, 4)) == (0, 4, 2, 6, 1, 5, 3, 7)
    assert class_order((1, 2)) == (0, 1)
    for t in (1, 2, 4, 8):
        for pattern in itertools.product([1, 2, 4], repeat=t) if t < 8 else itertools.product([1, 2], repeat=8):
            order = class_order(pattern)
            assert sorted(order) == list(range(t))
            for coset in cosets(pattern):
                for residue in range(coset.modulus):
                    places = sorted(order.index(r) for r in range(residue, t, coset.modulus))
                    assert places == list(range(places[0], places[0] + len(places))), (pattern, coset)


def test_nothing_is_gathered_where_classes_stand_together():
    """All pieces of a sorted operation read the input as it is, and write each class as one block."""
    for pattern in ((1, 2, 1, 4), (1, 1, 1, 2), (1, 2), (1, 2, 1, 3, 1, 2, 1, 4)):
        operation = Operation(16, Conv((Level(3, 32, 1, pattern),)), sorted_in=True, sorted_out=True)
        for piece in pieces(operation, (0,), "split"):
            assert piece.source == tuple(range(16)), pattern
            each = 32 // piece.groups
            blocks = [piece.target[begin : begin + each] for begin in range(0, 32, each)]
            assert all(block == tuple(range(block[0], block[0] + each)) for block in blocks), pattern
        interleaved = replace(operation, sorted_in=False, sorted_out=False)
        assert any(piece.source != tuple(range(16)) for piece in pieces(interleaved, (0,), "split"))


def test_sides_that_can_be_sorted():
    level = Level(3, 16, 2, (1, 2, 1, 4))
    assert sortable(16, level)
    assert not sortable(12, level), "groups of 6 have no four equal classes"
    assert not sortable(16, Level(3, 16, 2))
    assert not sortable(16, Level(3, 16, 16, (1, 2, 1, 4))), "depthwise: the pattern runs over the groups"


def test_planning_loads_neither_torch_nor_numpy():
    names = ("choice", "estimate", "operation", "pieces", "ways")
    code = "; ".join(f"import pyconv_search.arch.plans.{name}" for name in names)
    code += "; import sys; print([name for name in ('torch', 'numpy', 'ray', 'pandas') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("values", [("cuda:0",), ("cpu", "torch.bfloat16"), (None,), ("cpu", 16)])
def test_a_setting_is_of_texts(values):
    with pytest.raises(UserError, match=r"must be a text such as '(cuda|bfloat16)', but got"):
        Setting(*values)
