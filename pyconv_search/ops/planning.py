"""The plan of a module: what was chosen for an input, why, and how to force another."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pyconv_search.arch.plans.choice import DIRECTIONS, Setting, choose, key_of, plain, plan_of
from pyconv_search.arch.plans.operation import Operation, side
from pyconv_search.arch.plans.ways import COUNTED, WAYS
from pyconv_search.arch.spec import Conv, Level
from pyconv_search.errors import UserError
from pyconv_search.fields import kind_of, suggestion
from pyconv_search.ops import kernels
from pyconv_search.ops.arguments import autocast_dtype, check_input
from pyconv_search.ops.execute import Programs
from pyconv_search.ops.fused import levels_of, obstacle
from pyconv_search.ops.program import program
from pyconv_search.ops.sound import layout, transformed

FUSED = "fused"
INSTRUCTIONS = torch.backends.cpu.get_cpu_capability()

# What can be forced: ways by their names, some with a number of groups, or every part of a plan with its levels.
_NAMES = ("plain", *WAYS, FUSED)
_WAY = re.compile(rf"{'|'.join(_NAMES)}|({'|'.join(COUNTED)}|merged)-[1-9]\d*")
_PART = re.compile(
    rf"\d+(\+\d+)*:({'|'.join(name for name in WAYS if name not in COUNTED)}|({'|'.join(COUNTED)})-[1-9]\d*)"
)

# A list and no context variable, which compilers cannot read.
_forced = [""]


@contextmanager
def executed_as(way: str) -> Iterator[None]:
    """Inside, convolutions are executed this way, where they can be, in all directions and threads.

    A convolution, or a level of a pyramid, that does not have the way is executed as ever. What is exported is always
    the plain plan. A backward pass goes by the way of its forward pass, but what activation checkpointing computes
    again goes by the way that is forced then: force it around both.

    Ways that multiply zeros (``masked``, ``merged``, strips, fewer groups than a level's own, ``fused``) make not a
    number of a zero times a pixel that is infinite or not a number itself. Plans that are chosen may be such.

    Args:
        way: ``plain`` (every level by itself, no zeros), ``split``, ``per-class`` or ``masked`` (poly-scale levels),
            ``grouped``, ``grouped-4``, ``swapped-4``, ``strips2-4``, ``strips4-4`` or ``depthwise`` (others),
            ``merged-2`` (all levels of a pyramid), ``fused`` (one Triton kernel), or the name of a whole plan as
            :func:`plan` tells it: ``1:grouped-1 2+3:grouped-4``.

    Raises:
        UserError: (a ValueError) on entry, if there is no such way.
    """
    _check_way(way)
    _forced.append(way)
    try:
        yield
    finally:
        _forced.pop()


def _check_way(way: str) -> None:
    whole = isinstance(way, str) and ":" in way and all(_PART.fullmatch(part) for part in way.split())
    if not whole and not (isinstance(way, str) and _WAY.fullmatch(way)):
        raise UserError(
            f"way must be one of {', '.join(_NAMES)}, a number of groups as in grouped-4, masked-4 or merged-4, "
            f"or a whole plan such as '1:grouped-1 2+3:grouped-4', but got {way!r}{suggestion(way, _NAMES)}"
        )


# What a module computes, in tuples that a compiler can take for constants: of every level what ``Level`` holds, and of
# all what ``Operation`` holds: (in_channels, levels, stride, sorted_in, sorted_out).
LevelTuple = tuple[tuple[int, int], int, int, tuple[int, ...], str]
Signature = tuple[int, tuple[LevelTuple, ...], tuple[int, int], bool, bool]


@lru_cache(maxsize=4096)
def operation_of(signature: Signature) -> Operation:
    """The operation of a signature."""
    in_channels, levels, stride, sorted_in, sorted_out = signature
    return Operation(in_channels, Conv(tuple(Level(*level) for level in levels)), stride, sorted_in, sorted_out)


def setting_of(x: Tensor) -> Setting:
    """Where an operation on ``x``, N×C×H×W, runs."""
    return Setting(*_place(x))


def _place(x: Tensor) -> tuple[str, str, bool, str]:
    device, dtype = x.device.type, str(x.dtype).removeprefix("torch.")
    return device, dtype, layout(x) == torch.channels_last, INSTRUCTIONS if device == "cpu" else ""


def programs(signature: Signature, x: Tensor) -> Programs:
    """What executes an operation on ``x``; what is exported is the plain plan, whatever is fastest here."""
    forced = "plain" if torch.compiler.is_exporting() else _forced[-1]
    if torch.compiler.is_compiling():
        return _constant(signature, _place(x), forced)
    return _programs(signature, _place(x), forced)


def fused(signature: Signature, x: Tensor) -> tuple[kernels.Level, ...] | None:
    """The levels of one kernel for all of the operation, if it is executed so: on a GPU that can, or where forced.

    Function transforms have no rule for the kernel.
    """
    if torch.compiler.is_exporting() or not _may_fuse(x.device.type):
        return None
    place = (str(x.device), str(x.dtype).removeprefix("torch."))
    if torch.compiler.is_compiling():
        return _constant_fused(signature, *place)
    return None if transformed() else _fused(signature, *place)


def _may_fuse(device: str) -> bool:
    """Whether one kernel is wanted on this type of device: forced, or on a GPU if nothing is."""
    return _forced[-1] == FUSED or (device == "cuda" and not _forced[-1])


@lru_cache(maxsize=4096)
def _fused(signature: Signature, device: str, dtype: str) -> tuple[kernels.Level, ...] | None:
    operation = operation_of(signature)
    return None if obstacle(operation, torch.device(device), dtype) else levels_of(operation)


def _constant_fused(signature: Signature, device: str, dtype: str) -> tuple[kernels.Level, ...] | None:
    return _fused(signature, device, dtype)


@lru_cache(maxsize=4096)
def _programs(signature: Signature, place: tuple[str, str, bool, str], forced: str) -> Programs:
    operation, setting = operation_of(signature), Setting(*place)
    return Programs(*(program(operation, choose(operation, setting, d, forced).plan) for d in DIRECTIONS))


def _constant(signature: Signature, place: tuple[str, str, bool, str], forced: str) -> Programs:
    return _programs(signature, place, forced)


# What torch.compiler.assume_constant_result does, which would import all of Dynamo, and Triton with it.
_constant._dynamo_marked_constant = True  # type: ignore[attr-defined]
_constant_fused._dynamo_marked_constant = True  # type: ignore[attr-defined]


class Planned(NamedTuple):
    """What was chosen for one direction, why, and the multiply-adds that it executes for one output pixel."""

    name: str
    reason: str
    macs: float


@dataclass(frozen=True)
class Plans:
    """How an operation is executed in a setting: the output, and the gradients of the input and of the weight."""

    operation: Operation
    setting: Setting
    output: Planned
    input: Planned
    weight: Planned

    @property
    def nominal(self) -> int:
        """Multiply-adds of one output pixel by the operation's definition, one for each of its weights."""
        levels = self.operation.conv.levels
        return sum(
            level.width * (self.operation.in_channels // level.groups) * math.prod(side(level)) for level in levels
        )

    @property
    def executed(self) -> dict[str, float]:
        """Of each direction the multiply-adds that its plan executes, in multiples of the nominal ones."""
        return {direction: getattr(self, direction).macs / self.nominal for direction in DIRECTIONS}

    def __str__(self) -> str:
        """One line for the operation and one for each direction: name, executed over nominal multiply-adds, reason."""
        titles = {"output": "output", "input": "input gradient", "weight": "weight gradient"}
        width = max(len(getattr(self, direction).name) for direction in DIRECTIONS)
        lines = [f"{key_of(self.operation)} on {self.setting}: {self.nominal:,} multiply-adds a pixel"]
        for direction in DIRECTIONS:
            planned, share = getattr(self, direction), f"×{self.executed[direction]:.2f}"
            lines.append(f"  {titles[direction]:<15}  {planned.name:<{width}}  {share:>6}  {planned.reason}")
        return "\n".join(lines)


def plan(module: nn.Module, x: Tensor | Setting) -> Plans:
    """How a module is executed for an input, and why; nothing is computed.

    Inside :func:`executed_as` it tells what is forced. Where it is no kernel of its own, a compiled or transformed
    module takes its gradients from the output's plan, and an exported one executes the plain plan.

    Args:
        module: a :class:`~pyconv_search.ops.PSConv2d` or a :class:`~pyconv_search.ops.PyConv2d`.
        x: an input, N×in_channels×H×W or without N; or a :class:`Setting`, to ask about another device, type or
            memory format.

    Raises:
        UserError: (a ValueError) if the module is no such operator, has no plan because a level was replaced or is
            watched by a hook, or if the input does not fit.
    """
    operation = operation_of(_signature(module))
    setting = x if isinstance(x, Setting) else _setting(module, x)
    if isinstance(module, nn.Conv2d) and len(operation.conv.levels[0].pattern) == 1:
        alone = plan_of(operation, plain(operation))
        return Plans(operation, setting, *[Planned(alone.name, "one dilation: PyTorch's own", alone.macs)] * 3)
    why_not = ""
    if _may_fuse(setting.device):
        device = torch.device(setting.device) if isinstance(x, Setting) else x.device
        why_not = obstacle(operation, device, setting.dtype) or ""
        if not why_not:
            return _fused_plans(operation, setting)
    choices = [choose(operation, setting, direction, _forced[-1]) for direction in DIRECTIONS]
    more = f"; not {FUSED}: {why_not}" if why_not else ""
    return Plans(operation, setting, *(Planned(one.plan.name, one.reason + more, one.plan.macs) for one in choices))


def _fused_plans(operation: Operation, setting: Setting) -> Plans:
    levels = levels_of(operation)
    assert levels is not None
    work = kernels.executed_macs(levels, operation.in_channels, operation.stride)
    reason = f"forced: {FUSED}" if _forced[-1] == FUSED else "one kernel, wherever the GPU can"
    each = (work.forward, work.grad_input, work.grad_weight)
    return Plans(operation, setting, *(Planned(FUSED, reason, macs) for macs in each))


def _signature(module: Any) -> Signature:
    if not isinstance(getattr(type(module), "signature", None), property):
        raise UserError(f"module must be a PSConv2d or a PyConv2d, but got {type(module).__name__}")
    found: Signature | None = module.signature
    if found is None:
        raise UserError(
            "module must have levels of nn.Conv2d or PSConv2d without hooks, as they were made, but some of its levels "
            "were replaced or are watched: each is called by itself, and there is no plan"
        )
    return found


def _setting(module: Any, x: Tensor) -> Setting:
    """Where the module computes for this input, after the casts of autocast."""
    if not isinstance(x, Tensor):
        raise UserError(f"x must be a tensor or a Setting, but got {kind_of(x)}")
    weights = [module.weight] if isinstance(module, nn.Conv2d) else [level.weight for level in module.levels]
    check_input(x, module.in_channels, *weights)
    images = x if x.dim() == 4 else x.unsqueeze(0)
    last = any(layout(each) == torch.channels_last for each in (images, *weights))
    dtype = autocast_dtype(x) or x.dtype
    return replace(setting_of(images), dtype=str(dtype).removeprefix("torch."), channels_last=last)
