"""How long the pieces of a plan take, estimated: what PyTorch does to grouped convolutions, in multiply-adds.

The unit is a multiply-add of a wide convolution. The constants are fitted to measurements on a CPU with AVX512 (oneDNN
3, fp32 and bf16): convolutions work on blocks of 16 output channels of a group, those of the gradient of the input on
blocks of 16 input channels; in the contiguous format both are padded, and groups of fewer than 4 filters (8 for the
gradient of the weight) fall back to matrix products of unfolded images. Depthwise convolutions have kernels of their
own, but a slow one for the gradient of the weight. A number that is read or written takes as long as 9 multiply-adds,
one that is moved alone takes 150 where channels come last, and the gradients of strips of strided convolutions are
slow. The call of an operator takes as long as 200 multiply-adds of every pixel, on images as small as those for which
that matters. Where nothing else is known, tensor cores are taken to be alike, since they too work on blocks of 16
channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from pyconv_search.arch.plans.operation import Operation
from pyconv_search.arch.plans.pieces import Piece

BLOCK = 16
UNFOLDED = 45.0
DEPTHWISE = {"output": 4.5, "input": 3.5, "weight": 40.0}
NUMBER = 9.0
STRIDED = 4.0
CALL = 200.0
SCATTERED = 150.0


def estimated(operation: Operation, pieces: Sequence[Piece], direction: str, channels_last: bool, half: bool) -> float:
    """The multiply-adds of a wide convolution that take as long as these pieces, for one output pixel.

    ``direction`` is ``output``, or ``input`` or ``weight`` for their gradients; ``half`` says that the numbers have 16
    bits.
    """
    everything = tuple(range(operation.in_channels))
    pixels = operation.stride[0] * operation.stride[1]
    time = 0.0
    for piece in pieces:
        time += CALL * _calls(operation, piece)
        strided = STRIDED if piece.strip > 1 and pixels > 1 and direction != "output" else 1
        time += strided * _computed(piece, direction, channels_last, half)
        time += NUMBER * (len(piece.target) + len(piece.source) * pixels)
        if piece.source != everything:
            time += _moved(piece.source, channels_last) * len(piece.source) * pixels
        outputs = tuple(dict.fromkeys(piece.target))  # what a depthwise convolution sums up is read in passing
        time += _moved(outputs, channels_last) * len(outputs)
    return time


def _moved(channels: Sequence[int], channels_last: bool) -> float:
    """What it takes to gather, or to add up, one number of these channels."""
    runs = 1 + sum(b != a + 1 for a, b in itertools.pairwise(channels))
    return SCATTERED if channels_last and len(channels) < BLOCK * runs else 2 * NUMBER


def _calls(operation: Operation, piece: Piece) -> int:
    """About how many operators are called for a piece, in both directions."""
    shapes = {(level.groups, level.width) for level in operation.conv.levels}
    plain = (piece.groups, len(piece.target)) in shapes
    return 1 + 3 * (not plain) + 5 * (piece.strip > 1) + 2 * (len(set(piece.target)) < len(piece.target))


def _computed(piece: Piece, direction: str, channels_last: bool, half: bool) -> float:
    taps, inputs = piece.kernel[0] * (piece.kernel[1] + piece.extra), piece.fan_in
    filters = len(piece.target) // piece.groups * piece.strip
    if inputs == filters == 1:
        return DEPTHWISE[direction] * (1 + half) * piece.groups * taps
    if not channels_last and piece.groups > 1 and filters < (8 if direction == "weight" else 4):
        return UNFOLDED * len(piece.source) * taps / piece.strip
    if piece.swapped and direction == "weight":
        inputs, filters = filters, inputs
    if direction == "input" or not channels_last:
        inputs = _blocks(inputs)
    if direction != "input" or not channels_last:
        filters = _blocks(filters)
    return float(piece.groups * taps * inputs * filters) / piece.strip


def _blocks(channels: int) -> int:
    """Channels in whole blocks."""
    return -(-channels // BLOCK) * BLOCK
