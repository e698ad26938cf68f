"""Operators timed by their plans, beside a standard convolution and the roofline of the machine."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pyconv_search.arch.plans.choice import DIRECTIONS, Choice, Setting, choose, forced_parts
from pyconv_search.arch.plans.network import plans_text
from pyconv_search.arch.plans.operation import Operation
from pyconv_search.arch.plans.operators import Operator
from pyconv_search.arch.plans.traffic import NOTHING, Work, executed, nominal
from pyconv_search.arch.plans.ways import ways
from pyconv_search.arch.spec import Conv, Level
from pyconv_search.errors import UserError
from pyconv_search.ops.build import build_conv
from pyconv_search.ops.fused import obstacle
from pyconv_search.ops.fused_work import CHOICE, FUSED, fused_work
from pyconv_search.ops.planning import executed_as, fused, setting_of
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
        forced = list(forcible(operator.operation, place)) if all_plans and operator.planned else []
        for mode in MODES:
            candidates = [_standard(operator, mode, place)]
            for each in [way, *forced]:
                found = candidate(operator, mode, module, x, each)
                if found.what not in [other.what for other in candidates]:
                    candidates.append(found)
            yield _compared(operator, mode, candidates, x, (place, roofline))


def check_way(operators: Sequence[Operator], way: str, place: Place) -> None:
    """Raise UserError if a ``way`` is named that none of the operators has in this place."""
    own = [one.operation for one in operators if one.planned]
    known = dict.fromkeys(name for one in own for name in forcible(one, place))
    if way and way not in known and all(forced_parts(one, way) is None for one in own):
        raise UserError(
            f"plan must be one of {', '.join(known) or 'none'} for these operators, or the name of a whole plan, "
            f"but got {way!r}"
        )


def forcible(operation: Operation, place: Place) -> dict[str, str]:
    """Every way that can be forced on all levels that have it, with the name of the plan that it makes."""
    count = len(operation.conv.levels)
    every = tuple(range(count))
    names = ["plain", *(way for i in every for way in ways(operation, (i,)))]
    if count > 1:
        names += [way.replace("grouped", "merged") for way in ways(operation, every)]
    plans = {name: choose(operation, Setting("cpu"), forced=name).plan.name for name in names}
    fits = obstacle(operation, place.device, str(place.dtype).removeprefix("torch.")) is None
    return {**plans, FUSED: FUSED} if fits else plans


def call(mode: str, module: nn.Module, x: Tensor, way: str = "") -> Callable[[], object]:
    """What is timed: the output, or in ``training`` the output and the gradients of input and weights."""

    def forward() -> object:
        with torch.no_grad(), _forced(way):
            return module(x)

    if mode == "forward":
        return forward
    leaf, weights = x.detach().requires_grad_(), list(module.parameters())
    grad = torch.randn_like(module(leaf))

    def training() -> object:
        with _forced(way):
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


class Candidate(NamedTuple):
    """A module with the plans by which it is executed and the work of each direction of the mode, on a whole batch.

    ``what`` says the plans in words, ``way`` is the forced one, if any, ``nominal`` the work of one direction.
    """

    what: str
    module: nn.Module
    way: str
    choices: dict[str, Choice]
    nominal: Work
    works: list[Work]


def _standard(operator: Operator, mode: str, place: Place) -> Candidate:
    """A 3×3 convolution of the same channels and stride."""
    own = operator.operation
    module = nn.Conv2d(own.in_channels, own.conv.width, 3, own.stride, 1, bias=False)
    operation = Operation(own.in_channels, Conv((Level(3, own.conv.width),)), own.stride)
    least = nominal(operation, *operator.sizes(place.batch), place.dtype.itemsize)
    return Candidate(STANDARD, place.module(module), "", {}, least, [least] * len(MODES[mode]))


def candidate(operator: Operator, mode: str, module: nn.Module, x: Tensor, way: str) -> Candidate:
    """The operator by the plans that are chosen, or by a forced way."""
    own, setting = operator.operation, setting_of(x)
    sizes = operator.sizes(len(x))
    least = nominal(own, *sizes, x.element_size())
    if not operator.planned:
        return Candidate("one convolution of PyTorch", module, "", {}, least, [least] * len(MODES[mode]))
    with _forced(way):
        in_one = fused(module.signature, x) is not None  # type: ignore[arg-type]
    work = fused_work(own, setting.dtype, sizes, x.element_size()) if in_one else None
    if work is not None:
        return Candidate(FUSED, module, way, dict.fromkeys(MODES[mode], CHOICE), least, [work[d] for d in MODES[mode]])
    choices = {d: choose(own, setting, d, way) for d in MODES[mode]}
    works = [executed(choice.plan, *sizes, x.element_size()) for choice in choices.values()]
    return Candidate(plans_text(choices), module, way, choices, least, works)


def _forced(way: str) -> AbstractContextManager[None]:
    return executed_as(way) if way else nullcontext()


def _compared(
    operator: Operator, mode: str, candidates: Sequence[Candidate], x: Tensor, at: tuple[Place, Roofline]
) -> list[Row]:
    place, roofline = at
    actions = {one.what: call(mode, one.module, x, one.way) for one in candidates}
    taken = compared(actions, STANDARD, place.device, place.seconds)
    rows = []
    for one in candidates:
        times, needed = taken[one.what], one.nominal.times(len(one.works))
        assert times.ratio is not None
        share = roofline.share(needed.macs, needed.bytes, times.seconds.median)
        work = (needed, sum(one.works, NOTHING))
        rows.append(Row(operator, mode, one.what, one.choices, *work, times.seconds, times.ratio, times.rounds, share))
    return rows
