"""Operators timed by their plans, beside a standard convolution and the roofline of the machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyconv_search.arch.plans.choice import DIRECTIONS, Choice, Setting, choose
from pyconv_search.arch.plans.network import plans_text
from pyconv_search.arch.plans.operation import Operation
from pyconv_search.arch.plans.operators import Operator
from pyconv_search.arch.plans.traffic import NOTHING, Work, executed, nominal
from pyconv_search.arch.plans.ways import ways
from pyconv_search.arch.spec import Conv, Level
from pyconv_search.errors import UserError
from pyconv_search.ops.build import build_conv
from pyconv_search.ops.planning import executed_as, setting_of
from pyconv_search.ops.roofline import LONG_ENOUGH, Roofline
from pyconv_search.ops.timing import Spread, Times, clock_of, interleaved

STANDARD = "nn.Conv2d 3×3"
# The directions that each mode computes.
MODES = {"forward": DIRECTIONS[:1], "training": DIRECTIONS}
# Of the middle half of the times, the longest over the shortest: beyond, something else used the machine.
QUIET = 1.15


@dataclass(frozen=True, slots=True)
class Place:
    """Where and on what operators are timed; ``seconds`` is how long one comparison lasts at least."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    channels_last: bool = True
    batch: int = 16
    seconds: float = 1.0

    @property
    def layout(self) -> torch.memory_format:
        """The memory format of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def images(self, channels: int, height: int, width: int) -> Tensor:
        """Normally distributed numbers, batch×channels×height×width."""
        shape = (self.batch, channels, height, width)
        return torch.randn(shape, device=self.device, dtype=self.dtype).contiguous(memory_format=self.layout)

    def module(self, module: nn.Module) -> nn.Module:
        """The module in this place."""
        return module.to(self.device, self.dtype).to(memory_format=self.layout)  # type: ignore[call-overload]


@dataclass(frozen=True, slots=True)
class Row:
    """One operator timed in one of MODES by one plan.

    ``choices`` holds the plan of each direction, nothing for one convolution of PyTorch as it stands; ``what`` says it
    in words. Work and times are of the whole batch; ``ratio`` is to STANDARD in the same rounds, ``share`` the part of
    the roofline: the least time for the nominal work over the median time.
    """

    operator: Operator
    mode: str
    what: str
    choices: dict[str, Choice]
    nominal: Work
    executed: Work
    seconds: Spread
    ratio: Spread
    rounds: int
    share: float

    @property
    def disturbed(self) -> bool:
        """Whether the times lie so far apart that something else must have used the machine."""
        return self.seconds.upper_quartile > QUIET * self.seconds.lower_quartile


def bench(
    operators: Sequence[Operator], place: Place, roofline: Roofline, way: str = "", all_plans: bool = False
) -> Iterator[list[Row]]:
    """Time operators one after the other, each in both MODES; gives the rows of one comparison at a time.

    Every comparison has a row for STANDARD, of the same channels, stride, layout and dtype, and for the plan that is
    chosen, or the ``way`` if an operator has it, and with ``all_plans`` for all that can be forced; they take turns.
    """
    for operator in operators:
        module = place.module(
            build_conv(operator.operation.conv, operator.operation.in_channels, operator.operation.stride)
        )
        x = place.images(operator.operation.in_channels, operator.height, operator.width)
        forced = list(forcible(operator.operation)) if all_plans and operator.planned else []
        for mode in MODES:
            candidates = [_standard(operator, place)]
            for each in [way, *forced]:
                candidate = _candidate(operator, mode, module, setting_of(x), each)
                if candidate.what not in [other.what for other in candidates]:
                    candidates.append(candidate)
            yield _compared(operator, mode, candidates, x, (place, roofline))


def check_way(operators: Sequence[Operator], way: str) -> None:
    """Raise UserError if a ``way`` is named that none of the operators has."""
    own = [one.operation for one in operators if one.planned]
    setting = Setting("cpu")
    if way and not any(choose(one, setting, forced=way).reason.startswith("forced") for one in own):
        known = dict.fromkeys(name for one in own for name in forcible(one))
        raise UserError(
            f"plan must be one of {', '.join(known) or 'none'} for these operators, or the name of a whole plan, "
            f"but got {way!r}"
        )


def forcible(operation: Operation) -> dict[str, str]:
    """Every way that can be forced on all levels that have it, with the name of the plan that it makes."""
    count = len(operation.conv.levels)
    every = tuple(range(count))
    names = ["plain", *(way for i in every for way in ways(operation, (i,)))]
    if count > 1:
        names += [way.replace("grouped", "merged") for way in ways(operation, every)]
    return {name: choose(operation, Setting("cpu"), forced=name).plan.name for name in names}


def call(mode: str, module: nn.Module, x: Tensor, way: str = "") -> Callable[[], object]:
    """What is timed: the output, or in ``training`` the output and the gradients of input and weights."""
    context = executed_as if way else nullcontext

    def forward() -> object:
        with torch.no_grad(), context(way):
            return module(x)

    if mode == "forward":
        return forward
    leaf, weights = x.detach().requires_grad_(), list(module.parameters())
    grad = torch.randn_like(module(leaf))

    def training() -> object:
        with context(way):
            out = module(leaf)
        return torch.autograd.grad(out, [leaf, *weights], grad)

    return training


def compared(
    actions: Mapping[str, Callable[[], object]], baseline: str, device: torch.device, seconds: float
) -> dict[str, Times]:
    """:func:`~.interleaved`, each action called so often in a row that the ``baseline`` takes long enough to be timed.

    The seconds are those of one call.
    """
    clock = clock_of(device)
    actions[baseline]()
    alone = min(clock(actions[baseline])() for _ in range(3))
    count = max(1, math.ceil(LONG_ENOUGH / max(alone, 1e-7)))

    def clock_of_one(action: Callable[[], object]) -> Callable[[], float]:
        def several() -> None:
            for _ in range(count):
                action()

        read = clock(several)
        return lambda: read() / count

    return interleaved(actions, baseline, seconds=seconds / count, clock=clock_of_one)


class _Candidate(NamedTuple):
    """A module with the plans by which it is executed, what it computes, and the way that is forced, if any."""

    what: str
    operation: Operation
    module: nn.Module
    choices: dict[str, Choice]
    way: str


def _standard(operator: Operator, place: Place) -> _Candidate:
    """A 3×3 convolution of the same channels and stride."""
    own = operator.operation
    module = nn.Conv2d(own.in_channels, own.conv.width, 3, operator.operation.stride, 1, bias=False)
    operation = Operation(own.in_channels, Conv((Level(3, own.conv.width),)), own.stride)
    return _Candidate(STANDARD, operation, place.module(module), {}, "")


def _candidate(operator: Operator, mode: str, module: nn.Module, setting: Setting, way: str) -> _Candidate:
    """The operator by the plans that are chosen, or by a forced way."""
    if not operator.planned:
        return _Candidate("one convolution of PyTorch", operator.operation, module, {}, "")
    choices = {d: choose(operator.operation, setting, d, way) for d in MODES[mode]}
    return _Candidate(plans_text(choices), operator.operation, module, choices, way)


def _compared(
    operator: Operator, mode: str, candidates: Sequence[_Candidate], x: Tensor, at: tuple[Place, Roofline]
) -> list[Row]:
    place, roofline = at
    actions = {one.what: call(mode, one.module, x, one.way) for one in candidates}
    taken = compared(actions, STANDARD, place.device, place.seconds)
    sizes = (*operator.sizes(place.batch), place.dtype.itemsize)
    rows = []
    for one in candidates:
        least, seconds, ratio = nominal(one.operation, *sizes), taken[one.what].seconds, taken[one.what].ratio
        assert ratio is not None
        works = [executed(one.choices[d].plan, *sizes) if one.choices else least for d in MODES[mode]]
        needed, rounds = least.times(len(works)), taken[one.what].rounds
        share = roofline.share(needed.macs, needed.bytes, seconds.median)
        work = (needed, sum(works, NOTHING))
        rows.append(Row(operator, mode, one.what, one.choices, *work, seconds, ratio, rounds, share))
    return rows
