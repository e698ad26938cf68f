"""The weights of a plan's steps from those of the levels, and the gradients back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pyconv_search.ops.program import Program, Step
from pyconv_search.ops.sums import index


def pack(weights: Sequence[Tensor], program: Program) -> list[Tensor]:
    """The weight of every step, by differentiable operations."""
    tables: dict[tuple[int, int], Tensor] = {}
    return [_packed(weights, step, tables) for step in program.steps]


def _packed(weights: Sequence[Tensor], step: Step, tables: dict[tuple[int, int], Tensor]) -> Tensor:
    piece = step.piece
    if step.whole:
        return weights[0].reshape(len(piece.target), piece.fan_in, *piece.kernel)
    if step.blocks is not None:
        return torch.cat([weights[block.level][block.rows, block.columns] for block in step.blocks])
    if piece.kernel not in tables:
        tables[piece.kernel] = _table(weights, piece.kernel)
    table = tables[piece.kernel]
    kernels = table.index_select(0, index(step.kernels % len(table), table.device))
    return kernels.view(len(piece.target), piece.fan_in, *piece.kernel)


def _table(weights: Sequence[Tensor], kernel: tuple[int, int]) -> Tensor:
    """The kernels of all levels below one another, in the middle of ``kernel``, and one of zeros at the end."""
    size = kernel[0] * kernel[1]
    parts = [centred(weight, kernel).reshape(-1, size) for weight in weights]
    return torch.cat([*parts, weights[0].new_zeros(1, size)])


def centred(weight: Tensor, kernel: tuple[int, int]) -> Tensor:
    """The kernels of a weight with zeros around them, or their middle alone, so that they are this large."""
    height, width = (kernel[0] - weight.shape[2]) // 2, (kernel[1] - weight.shape[3]) // 2
    return F.pad(weight, (width, width, height, height)) if height or width else weight


def unpack(grads: Sequence[Tensor], weights: Sequence[Tensor], program: Program) -> list[Tensor]:
    """The gradients of the levels' weights from those of the steps' weights."""
    if program.steps[0].whole:
        return [grads[0].reshape(weights[0].shape)]
    found = [weight.new_empty(weight.shape) for weight in weights]
    for step, grad in zip(program.steps, grads, strict=True):
        if step.blocks is not None:
            for block, part in zip(step.blocks, grad.chunk(len(step.blocks)), strict=True):
                found[block.level][block.rows, block.columns] = part
            continue
        for share in step.shares:
            weight = found[share.level]
            size = weight.shape[2] * weight.shape[3]
            kernels = centred(grad, (weight.shape[2], weight.shape[3])).reshape(-1, size)
            own, places = index(share.own, grad.device), index(share.places, grad.device)
            weight.view(-1, size).index_copy_(0, own, kernels.index_select(0, places))
    return found
