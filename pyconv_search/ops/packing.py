"""The weights of a plan's steps from those of the levels, and the gradients back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pyconv_search.arch.plans.pieces import Piece
from pyconv_search.ops.program import Block, Program, Share, Step
from pyconv_search.ops.sums import index


def pack(weights: Sequence[Tensor], program: Program) -> list[Tensor]:
    """The weight of every step, by differentiable operations."""
    return [_stripped(_packed(weights, step), step.piece) for step in program.steps]


def _packed(weights: Sequence[Tensor], step: Step) -> Tensor:
    own = [weights[share.level] for share in step.shares]
    if step.whole:
        return own[0] if own[0].shape == step.shape else own[0].reshape(step.shape)
    if step.blocks is not None:
        return torch.cat([part for block in step.blocks for part in _rows(weights[block.level], block)])
    table = _table(own, step.piece.kernel)
    kernels = table.index_select(0, index(step.kernels, table.device))
    return kernels.view(step.shape)


def _table(weights: Sequence[Tensor], kernel: tuple[int, int]) -> Tensor:
    """The kernels of these weights below one another, in the middle of ``kernel``, and one of zeros at the end."""
    size = kernel[0] * kernel[1]
    parts = [centred(weight, kernel).reshape(-1, size) for weight in weights]
    return torch.cat([*parts, weights[0].new_zeros(1, size)])


def centred(weight: Tensor, kernel: tuple[int, int]) -> Tensor:
    """The kernels of a weight with zeros around them, or their middle alone, so that they are this large."""
    height, width = (kernel[0] - weight.shape[2]) // 2, (kernel[1] - weight.shape[3]) // 2
    return F.pad(weight, (width, width, height, height)) if height or width else weight


def _stripped(weight: Tensor, piece: Piece) -> Tensor:
    """The filters of every group for each pixel of a strip, their kernels shifted to where the pixel stands."""
    if piece.strip == 1:
        return weight
    own, shift = weight.unflatten(0, (piece.groups, -1)), piece.extra // (piece.strip - 1)
    shifted = [F.pad(own, (j * shift, piece.extra - j * shift)) for j in range(piece.strip)]
    return torch.stack(shifted, 1).flatten(0, 2).contiguous()


def _unstripped(grad: Tensor, piece: Piece) -> Tensor:
    """The adjoint of :func:`_stripped`."""
    if piece.strip == 1:
        return grad
    own, shift = grad.unflatten(0, (piece.groups, piece.strip, -1)), piece.extra // (piece.strip - 1)
    parts = [own[:, j, ..., j * shift : j * shift + piece.kernel[1]] for j in range(piece.strip)]
    return sum(parts[1:], parts[0]).flatten(0, 1)


def unpack(grads: Sequence[Tensor], weights: Sequence[Tensor], program: Program) -> list[Tensor]:
    """The gradients of the levels' weights from those of the steps' weights."""
    blocks = all(step.blocks is not None for step in program.steps)
    found = [torch.empty_like(weight) if blocks else weight.new_empty(weight.shape) for weight in weights]
    for step, packed in zip(program.steps, grads, strict=True):
        grad = _unstripped(packed, step.piece)
        if step.whole:
            level = step.shares[0].level
            found[level] = grad.reshape(weights[level].shape)
        elif step.blocks is not None:
            begin = 0
            for block in step.blocks:
                begin = _fill(found[block.level], grad, block, begin)
        else:
            for share in step.shares:
                _put(grad, share, found[share.level])
    return found


def _rows(weight: Tensor, block: Block) -> list[Tensor]:
    """The weights of a block, one tensor for each slice of its rows."""
    parts = [[weight[rows, columns] for columns in block.columns] for rows in block.rows]
    return [own[0] if len(own) == 1 else torch.cat(own, 1) for own in parts]


def _fill(into: Tensor, grad: Tensor, block: Block, begin: int) -> int:
    """Write the gradients of a block, the rows of ``grad`` from ``begin`` on; returns where they end."""
    for rows in block.rows:
        count, column = len(range(*rows.indices(into.shape[0]))), 0
        for columns in block.columns:
            width = len(range(*columns.indices(into.shape[1])))
            into[rows, columns] = grad[begin : begin + count, column : column + width]
            column += width
        begin += count
    return begin


def _put(grad: Tensor, share: Share, into: Tensor) -> None:
    """Write the gradients of a level's kernels into those of its weight."""
    size = into.shape[2] * into.shape[3]
    kernels = centred(grad, (into.shape[2], into.shape[3])).reshape(-1, size)
    own, places = index(share.own, grad.device), index(share.places, grad.device)
    into.view(-1, size).index_copy_(0, own, kernels.index_select(0, places))
