"""Every way of executing random operations against one ``F.conv2d`` for each pair of channels, in float64.

The tolerance of a number is in units of u·A: u is the rounding of the type (half its epsilon) and A the sum of the
absolute values of all products that make the number. A sum of n products is off by n roundings at most and by √n as a
rule, of the type that it is accumulated in, which is float32 for 16 bits; 4·√n are allowed. Each of the pieces that add
to a number, and each sum of two, is rounded once more to the type itself. Where a CPU has no float16, PyTorch adds up the taps of a gradient of the input
in float16.

Images are so wide that the output has two columns or more where the stride along the width is not 1, but in float64:
oneDNN 3 computes such convolutions to one column wrongly, those of nn.Conv2d too (PyTorch 2.13, float32 and bfloat16).
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import dataclass
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pyconv_search.arch.plans.choice import Parts, key_of, parts_of, plan_of
from pyconv_search.arch.plans.operation import Operation, side
from pyconv_search.arch.plans.pieces import Plan, columns
from pyconv_search.arch.plans.ways import COUNTED, ways
from pyconv_search.arch.spec import Conv, Level
from pyconv_search.ops import execute as executor
from pyconv_search.ops.execute import Programs, execute
from pyconv_search.ops.program import program

CASES = 150
MOST_KERNELS = 260
FORMATS = (torch.contiguous_format, torch.channels_last)
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Case:
    """An operation on tensors that a type holds exactly, what it gives, and A for each of these numbers."""

    operation: Operation
    tensors: list[Tensor]
    direction: Tensor
    expected: list[Tensor]
    absolute: list[Tensor]


def exact(dtype: torch.dtype, *shape: int) -> Tensor:
    """Random numbers that the type holds, as float64."""
    return torch.randn(shape, dtype=torch.float64).to(dtype).double()


def derived(reference, operation: Operation, tensors: list[Tensor], direction: Tensor) -> list[Tensor]:
    """Output, gradient of the input and gradients of the weights."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    out = reference(leaves[0], leaves[1:], operation)
    return [out.detach(), *torch.autograd.grad(out, leaves, direction)]


def kernels_of(operation: Operation) -> int:
    return sum(level.width * operation.in_channels // level.groups for level in operation.conv.levels)


def make_case(reference, operation: Operation, dtype: torch.dtype, seed: int) -> Case:
    torch.manual_seed(seed)
    levels, height, width = operation.conv.levels, 1 + seed % 7, 1 + seed % 9
    if operation.stride[1] > 1 and dtype != torch.float64:
        width = max(width, operation.stride[1] + 1)
    weights = [exact(dtype, w.width, operation.in_channels // w.groups, *side(w)) for w in levels]
    tensors = [exact(dtype, 3, operation.in_channels, height, width), *weights]
    out = [(length - 1) // step + 1 for length, step in zip((height, width), operation.stride, strict=True)]
    direction = exact(dtype, 3, operation.conv.width, *out)
    expected = derived(reference, operation, tensors, direction)
    absolute = derived(reference, operation, [tensor.abs() for tensor in tensors], direction.abs())
    return Case(operation, tensors, direction, expected, absolute)


def small_operations(random_operation) -> list[tuple[int, Operation]]:
    """Random operations of at most 260 kernels, with their seeds; and some whose classes are 8 channels wide, which
    are moved 16 bytes at a time in 16 bits.
    """
    drawn = ((seed, random_operation(seed, 4)) for seed in itertools.count())
    found = list(itertools.islice((one for one in drawn if kernels_of(one[1]) <= MOST_KERNELS), CASES))
    conv = Conv((Level(3, 32, 1, (1, 2, 1, 4)),))
    return [
        *found,
        *((i, Operation(32, conv, (1, 1), *sides)) for i, sides in enumerate(product((False, True), repeat=2))),
    ]


def parts_to_test(operation: Operation, seed: int) -> list[Parts]:
    """Every way of every level at least once, with random ways of the others, and every way of merging two or all."""
    r, numbers = random.Random(seed), range(len(operation.conv.levels))
    own = {i: ways(operation, (i,)) for i in numbers}
    found = [tuple(((j,), way if i == j else r.choice(own[j])) for j in numbers) for i in numbers for way in own[i]]
    for merged in {tuple(numbers), tuple(sorted(r.sample(numbers, min(2, len(numbers)))))}:
        if len(merged) > 1:
            rest = [((j,), r.choice(own[j])) for j in numbers if j not in merged]
            found += [((merged, way), *rest) for way in ways(operation, merged)]
    return list(dict.fromkeys(found))


def kind_of(operation: Operation, parts: Parts) -> str:
    """What a plan is counted under in the table of errors."""
    kinds = set()
    for numbers, way in parts:
        name, _, groups = way.rpartition("-")
        if groups.isdigit():
            wider = len(numbers) == 1 and int(groups) < operation.conv.levels[numbers[0]].groups
            kinds.add("merged levels" if len(numbers) > 1 else f"{name}, wider" if wider else name)
        else:
            kinds.add(way)
    return kinds.pop() if len(kinds) == 1 else "merged levels" if "merged levels" in kinds else "several ways"


def most_terms(plan: Plan, of_input: bool) -> int:
    """How many pieces add to one channel at most."""
    count = Counter(channel for piece in plan.pieces for channel in set(piece.source if of_input else piece.target))
    return max(count.values())


def tolerances(case: Case, plans: tuple[Plan, Plan, Plan], dtype: torch.dtype) -> list[float]:
    """In units of u·A for the output, the gradient of the input, and that of every weight."""
    levels = case.operation.conv.levels
    inner = torch.finfo(torch.promote_types(dtype, torch.float32)).eps / torch.finfo(dtype).eps
    taps = [side(level)[0] * side(level)[1] for level in levels]
    fan_in = max(case.operation.in_channels // level.groups * t for level, t in zip(levels, taps, strict=True))
    fan_out = sum(level.width // level.groups * t for level, t in zip(levels, taps, strict=True))
    half_taps = max(taps) * (dtype == torch.float16)
    pixels = case.direction.numel() // case.operation.conv.width
    return [
        4 * fan_in**0.5 * inner + most_terms(plans[0], of_input=False) + 2,
        4 * fan_out**0.5 * inner + most_terms(plans[1], of_input=True) + 2 + half_taps,
        *[4 * pixels**0.5 * inner + 3] * len(levels),
    ]


def roundings(found: Tensor, expected: Tensor, absolute: Tensor) -> float:
    """The largest error in units of u·A; what float16 cannot hold below its smallest number is no error."""
    info = torch.finfo(found.dtype)
    unit = info.eps / 2 * absolute + info.smallest_normal * info.eps
    return ((found.double() - expected).abs() / unit).max().item()


def run(case: Case, programs: Programs, dtype: torch.dtype, memory_format: torch.memory_format) -> list[Tensor]:
    x, *weights = (tensor.to(dtype=dtype, memory_format=memory_format).requires_grad_() for tensor in case.tensors)
    out = execute(x, weights, programs)
    grads = torch.autograd.grad(out, [x, *weights], case.direction.to(dtype))
    for images in (out, grads[0]):
        assert images.is_contiguous(memory_format=memory_format)
    return [out, *grads]


def programs_of(operation: Operation, found: list[Parts], i: int) -> tuple[tuple[Plan, Plan, Plan], Programs]:
    """The i-th plan for the output, the two after it for the gradients."""
    plans = tuple(plan_of(operation, found[(i + j) % len(found)]) for j in range(3))
    return plans, Programs(*(program(operation, plan) for plan in plans))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def test_every_way_gives_the_definition_and_its_gradients(
    operation_reference, random_operation, dtype, worst_errors, monkeypatch
):
    name = str(dtype).removeprefix("torch.")
    for number, operation in small_operations(random_operation):
        case = make_case(operation_reference, operation, dtype, number)
        found = parts_to_test(case.operation, number)
        for i in range(len(found)):
            plans, programs = programs_of(case.operation, found, i)
            tolerance = tolerances(case, plans, dtype)
            memory_format = FORMATS[(i + number) % 2]
            image = case.tensors[0][0].numel() * dtype.itemsize
            monkeypatch.setattr(executor, "FEWEST", 0)
            monkeypatch.setattr(executor, "PORTION", (2**23, image, 2 * image)[(i + number) % 3])
            results = zip(run(case, programs, dtype, memory_format), case.expected, case.absolute, strict=True)
            for j, (result, expected, absolute) in enumerate(results):
                assert result.dtype == dtype
                assert result.shape == expected.shape
                direction = ("output", "input", "weight")[min(j, 2)]
                at = min(j, 2)
                error = roundings(result, expected, absolute)
                told = f"{key_of(case.operation)} as {plans[at].name}, {memory_format}"
                kind = kind_of(case.operation, found[(i + at) % len(found)])
                worst_errors[kind, name][direction].append((error, tolerance[j], told))
                assert error <= tolerance[j], f"{direction}: {told}"
    seen = {kind for kind, dtype_name in worst_errors if dtype_name == name}
    counted = {name + wider for name in COUNTED for wider in ("", ", wider")}
    alone = {"split", "per-class", "depthwise", *counted}
    assert seen == alone | {"merged levels", "several ways"}


def test_every_plan_executes_the_multiply_adds_that_it_tells(random_operation):
    """For every column that its pieces compute: those of strips are more where the last one goes over the end."""
    for number, operation in small_operations(random_operation):
        width = (1, 3, 8)[number % 3]
        x = torch.randn(2, operation.in_channels, 5, width * operation.stride[1])
        weights = [torch.randn(w.width, operation.in_channels // w.groups, *side(w)) for w in operation.conv.levels]
        found = parts_to_test(operation, number)
        for i in range(len(found)):
            plans, programs = programs_of(operation, found, i)
            with FlopCounterMode(display=False) as counter:
                out = execute(x, weights, programs)
            rows = 2 * out.shape[2]
            executed = sum(piece.macs * rows * columns(piece, width) for piece in plans[0].pieces)
            assert counter.get_total_flops() == 2 * executed, (key_of(operation), plans[0].name)


def test_gradients_of_many_portions_are_added_up_exactly(monkeypatch):
    """A hundred portions of one image each, in bfloat16: as exact as one."""
    monkeypatch.setattr(executor, "FEWEST", 0)
    monkeypatch.setattr(executor, "PORTION", 1)
    operation = Operation(8, Conv((Level(3, 8, 1, (1, 2)),)))
    plan = plan_of(operation, (((0,), "split"),))
    torch.manual_seed(0)
    x, weight = (torch.rand(shape).bfloat16() for shape in ((100, 8, 6, 6), (8, 8, 3, 3)))
    programs = Programs(*[program(operation, plan)] * 3)
    found = gradient_of_weight(x, weight, programs)
    expected = gradient_of_weight(x.double(), weight.double(), programs)
    torch.testing.assert_close(found.double(), expected, rtol=2 * torch.finfo(torch.bfloat16).eps, atol=0)


def gradient_of_weight(x: Tensor, weight: Tensor, programs: Programs) -> Tensor:
    leaf = weight.clone().requires_grad_()
    (grad,) = torch.autograd.grad(execute(x, [leaf], programs).sum(), leaf)
    return grad


@pytest.mark.parametrize("way", ["1+2:grouped-1", "1+2:grouped-2"])
def test_one_convolution_is_not_copied_together_from_portions(way, monkeypatch):
    """Nothing is added up, so nothing has to stay in the cache."""
    monkeypatch.setattr(executor, "FEWEST", 0)
    monkeypatch.setattr(executor, "PORTION", 1)
    operation = Operation(8, Conv((Level(3, 4, 2), Level(5, 4, 4))))
    programs = Programs(*[program(operation, plan_of(operation, parts_of(operation, way)))] * 3)
    x, weights = torch.randn(4, 8, 6, 6), [torch.randn(4, 4, 3, 3), torch.randn(4, 2, 5, 5)]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        execute(x, weights, programs)
    calls = {event.key: event.count for event in profile.key_averages()}
    assert calls["aten::convolution"] == 1
