"""The plan of a module: what was chosen for an input, why, and how to force another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from pyconv_search.arch.plans.choice import DIRECTIONS, Choice, Setting, choose, key_of, plain, plan_of
from pyconv_search.arch.plans.operation import Operation, side
from pyconv_search.arch.plans.ways import WAYS
from pyconv_search.arch.spec import Conv, Level
from pyconv_search.errors import UserError
from pyconv_search.fields import kind_of, suggestion
from pyconv_search.ops.arguments import autocast, check_input
from pyconv_search.ops.execute import Programs, layout
from pyconv_search.ops.program import program

INSTRUCTIONS = torch.backends.cpu.get_cpu_capability()

# What can be forced: ways by their names, some with a number of groups, or every part of a plan with its levels.
_COUNTED = ("grouped", "masked")
_NAMES = ("plain", *WAYS)
_WAY = re.compile(rf"{'|'.join(_NAMES)}|({'|'.join(_COUNTED)}|merged)-[1-9]\d*")
_PART = re.compile(
    rf"\d+(\+\d+)*:({'|'.join(name for name in WAYS if name not in _COUNTED)}|({'|'.join(_COUNTED)})-[1-9]\d*)"
)

# A list and no context variable, which compilers cannot read.
_forced = [""]


@contextmanager
def executed_as(way: str) -> Iterator[None]:
    """Inside, convolutions are executed this way, where they can be, in all directions and threads.

    A convolution, or a level of a pyramid, that does not have the way is executed as ever. What is exported is always
    the plain plan.

    Args:
        way: ``plain`` (every level by itself, no zeros), ``split``, ``per-class`` or ``masked`` (poly-scale levels),
            ``grouped``, ``grouped-4`` or ``depthwise`` (others), ``merged-2`` (all levels of a pyramid), or the name of
            a whole plan as :func:`plan` tells it: ``1:grouped-1 2+3:grouped-4``.

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


@lru_cache(maxsize=4096)
def _programs(signature: Signature, place: tuple[str, str, bool, str], forced: str) -> Programs:
    operation, setting = operation_of(signature), Setting(*place)
    return Programs(*(program(operation, choose(operation, setting, d, forced).plan) for d in DIRECTIONS))


@torch.compiler.assume_constant_result
def _constant(signature: Signature, place: tuple[str, str, bool, str], forced: str) -> Programs:
    return _programs(signature, place, forced)


@dataclass(frozen=True)
class Plans:
    """How an operation is executed in a setting: a choice for the output and for the gradients of input and weight."""

    operation: Operation
    setting: Setting
    output: Choice
    input: Choice
    weight: Choice

    @property
    def nominal(self) -> int:
        """Multiply-adds of one output pixel by the operation's definition, one for each of its weights."""
        levels = self.operation.conv.levels
        fan_ins = [self.operation.in_channels // level.groups for level in levels]
        kernels = [side(level)[0] * side(level)[1] for level in levels]
        return sum(
            level.width * fan_in * kernel for level, fan_in, kernel in zip(levels, fan_ins, kernels, strict=True)
        )

    @property
    def executed(self) -> dict[str, float]:
        """Of each direction the multiply-adds that its plan executes, in multiples of the nominal ones."""
        return {direction: getattr(self, direction).plan.macs / self.nominal for direction in DIRECTIONS}

    def __str__(self) -> str:
        """One line for the operation and one for each direction: name, executed over nominal multiply-adds, reason."""
        titles = {"output": "output", "input": "input gradient", "weight": "weight gradient"}
        choices = {direction: getattr(self, direction) for direction in DIRECTIONS}
        width = max(len(choice.plan.name) for choice in choices.values())
        lines = [f"{key_of(self.operation)} on {self.setting}: {self.nominal:,} multiply-adds a pixel"]
        for direction, choice in choices.items():
            share = f"×{self.executed[direction]:.2f}"
            lines.append(f"  {titles[direction]:<15}  {choice.plan.name:<{width}}  {share:>6}  {choice.reason}")
        return "\n".join(lines)


def plan(module: nn.Module, x: Tensor | Setting) -> Plans:
    """How a module is executed for an input, and why; nothing is computed.

    Inside :func:`executed_as` it tells what is forced. A compiled or transformed module takes its gradients from the
    output's plan, and an exported one executes the plain plan.

    Args:
        module: a :class:`~pyconv_search.ops.PSConv2d` or a :class:`~pyconv_search.ops.PyConv2d`.
        x: an input, N×in_channels×H×W or without N; or a :class:`Setting`, to ask about another device, type or
            memory format.

    Raises:
        UserError: (a ValueError) if the module is no such operator, has no plan because a level was replaced or is
            watched by a hook, or if the input does not fit.
    """
    found = _signature(module)
    operation = operation_of(found)
    setting = x if isinstance(x, Setting) else _setting(module, x)
    if isinstance(module, nn.Conv2d) and len(operation.conv.levels[0].pattern) == 1:
        alone = Choice(plan_of(operation, plain(operation)), "one dilation: PyTorch's own convolution")
        return Plans(operation, setting, alone, alone, alone)
    return Plans(operation, setting, *(choose(operation, setting, d, _forced[-1]) for d in DIRECTIONS))


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
    cast = autocast(x.device.type) and x.dtype != torch.float64
    dtype = torch.get_autocast_dtype(x.device.type) if cast else x.dtype
    return replace(setting_of(images), dtype=str(dtype).removeprefix("torch."), channels_last=last)
