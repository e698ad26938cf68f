"""Which weights connect which channels of a multi-scale convolution: arrays over (output, input) channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pyconv_search.errors import UserError
from pyconv_search.ops.kernels.level import Level

Shape = tuple[int, int, int]  # height and width of a kernel, and its dilation


@dataclass(frozen=True, slots=True, eq=False)
class Connections:
    """All kernels of a multi-scale convolution of C input and K output channels (all levels' together).

    Attributes:
        shapes: the distinct (height, width, dilation) of the kernels.
        shape: K-by-C index into ``shapes``, −1 where no kernel connects the channels.
        bits: K-by-C set of that one shape, 1 shifted by its index, or 0.
        first: K-by-C position of the kernel's first number among all weights, the levels' one after the other.
        input_labels, output_labels: numbers that are equal where channels have the same kernels' shapes, by channel.
        interval: (t_in, t_out) if all levels have the same ones interleaved, else 1 in its place.
        weights: how many numbers the weights of all levels hold.
    """

    shapes: tuple[Shape, ...]
    shape: np.ndarray
    bits: np.ndarray
    first: np.ndarray
    input_labels: np.ndarray
    output_labels: np.ndarray
    interval: tuple[int, int]
    weights: int


def connections(levels: Sequence[Level], in_channels: int) -> Connections:
    """The kernels of ``levels`` on ``in_channels`` input channels; raises UserError where groups do not divide them."""
    shapes: dict[Shape, int] = {}
    parts, labels_in, labels_out, offset = [], [], [], 0
    for number, level in enumerate(levels):
        width, fan_in, kh, kw = level.weight_shape(in_channels)
        inputs, outputs = level.input_classes(fan_in), level.output_classes()
        rows = [[shapes.setdefault(_shape(kh, kw, d), len(shapes)) for d in row] for row in level.dilations]
        tile = np.asarray(rows, np.int16)[outputs[:, None], inputs[None, :]]
        shape = np.kron(np.eye(level.groups, dtype=np.int16), tile + np.int16(1)) - np.int16(1)
        group = np.arange(width) // (width // level.groups)
        own = np.arange(in_channels)[None, :] - group[:, None] * fan_in
        parts.append((shape, offset + (np.arange(width)[:, None] * fan_in + own) * kh * kw))
        labels_in.append(np.arange(in_channels) // fan_in * len(level.dilations[0]) + np.tile(inputs, level.groups))
        labels_out.append(np.stack([np.full(width, number), group, np.tile(outputs, level.groups)], 1))
        offset += width * fan_in * kh * kw
    if len(shapes) > 63:
        raise UserError(f"levels must have 63 kernels of different size or dilation at most, but got {len(shapes)}")
    shape = np.concatenate([shape for shape, _ in parts])
    return Connections(
        tuple(shapes),
        shape,
        np.where(shape < 0, 0, np.int64(1) << np.maximum(shape, 0).astype(np.int64)),
        np.concatenate([first for _, first in parts]),
        _numbered(np.stack(labels_in, 1)),
        _numbered(np.concatenate(labels_out)),
        _interval(levels),
        offset,
    )


def _shape(kh: int, kw: int, dilation: int) -> Shape:
    return (kh, kw, 1 if kh == kw == 1 else dilation)


def _numbered(rows: np.ndarray) -> np.ndarray:
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)


def _interval(levels: Sequence[Level]) -> tuple[int, int]:
    inputs = {len(level.dilations[0]) if level.sorted_in is None else 1 for level in levels}
    outputs = {len(level.dilations) if level.sorted_out is None else 1 for level in levels}
    return inputs.pop() if len(inputs) == 1 else 1, outputs.pop() if len(outputs) == 1 else 1
