"""The layers of a network in the order in which they are called, without torch: what every cost is a fold over.

A family or a head is written as a function on :class:`Trace`, call by call, as the ``forward`` of its module is. Shapes
are those of one image: (channels, height, width), or (channels, time, height, width) for video.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from pyconv_search.arch.dilation import dilations_used
from pyconv_search.arch.spec import Conv, Level

Shape = tuple[int, ...]
Size = int | tuple[int, ...]


class Tensor(NamedTuple):
    """What a layer reads or puts out: ``storage`` numbers its memory, which views and in-place layers share.

    ``field`` is its receptive field, ``near`` what that would be if every spatial convolution of the specification were
    1×1, and ``jump`` the distance of two of its pixels, all along the width in pixels of what the trace began with.
    """

    storage: int
    shape: Shape
    field: int = 1
    near: int = 1
    jump: int = 1

    @property
    def size(self) -> int:
        """Elements of one image."""
        return math.prod(self.shape)


class Layer(NamedTuple):
    """One call of one leaf module, or of a function (``name`` empty).

    ``kernel`` is as the module is given it, so a square pooling window has one number; ``level`` counts the levels of
    a spatial convolution from 1 and is 0 elsewhere. ``fan_in`` counts the inputs of one output number: those that a
    convolution or a linear layer multiplies, or the length of the inner products of a matrix product. ``training``
    marks a layer that is called in training only. The first level of a padded convolution of the specification carries
    that whole convolution, ``conv``, and its ``stride``.
    """

    kind: str
    name: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    kernel: tuple[int, ...] = ()
    fan_in: int = 0
    bias: bool = False
    level: int = 0
    training: bool = False
    conv: Conv | None = None
    stride: Size = 1

    @property
    def params(self) -> int:
        """Trainable numbers."""
        if self.kind in ("conv", "linear"):
            return self.output.shape[0] * (self.fan_in + self.bias)
        return 2 * self.output.shape[0] if self.kind == "norm" else 0


class Trace:
    """Records the calls on tensors of ``shapes``; every method returns what its layer puts out."""

    def __init__(self, *shapes: Shape) -> None:
        self.inputs = tuple(Tensor(i, shape) for i, shape in enumerate(shapes))
        self.layers: list[Layer] = []
        self._prefix, self._training = "", False
        self._storages = itertools.count(len(shapes))

    def within(self, name: str, training: bool = False) -> Trace:
        """The same record, with names that begin with ``name``; ``training``: of layers called in training only."""
        inner = copy.copy(self)
        inner._prefix, inner._training = f"{self._prefix}{name}.", self._training or training
        return inner

    def _new(
        self, shape: Shape, inputs: Sequence[Tensor], reach: int = 0, stride: int = 1, near: int | None = None
    ) -> Tensor:
        """What is computed from pixels of ``inputs`` within ``reach``, or ``near`` without spatial convolutions."""
        jump = inputs[0].jump
        field = max(x.field for x in inputs) + reach * jump
        closest = max(x.near for x in inputs) + (reach if near is None else near) * jump
        return Tensor(next(self._storages), shape, field, closest, jump * stride)

    def _add(self, kind: str, name: str, inputs: Sequence[Tensor], output: Tensor, **details: object) -> Tensor:
        full = self._prefix + name if name else ""
        self.layers.append(
            Layer(kind, full, tuple(inputs), output, training=self._training, **details)  # type: ignore[arg-type]
        )
        return output

    def _same(self, kind: str, name: str, inputs: Sequence[Tensor], in_place: bool = False) -> Tensor:
        """A layer that puts out a tensor of its first input's shape."""
        x = inputs[0]
        output = x if in_place else self._new(x.shape, inputs)
        return self._add(kind, name, inputs, output)

    def conv(
        self,
        name: str,
        x: Tensor,
        width: int,
        kernel: Size,
        stride: Size = 1,
        *,
        groups: int = 1,
        bias: bool = False,
        dilation: int = 1,
        padded: bool = True,
        level: int = 0,
    ) -> Tensor:
        """A convolution, zero-padded by half its kernel or, if not ``padded``, not at all."""
        kernels, strides = each(kernel, len(x.shape) - 1), each(stride, len(x.shape) - 1)
        sides = tuple(window(n, k, s, dilation, padded) for n, k, s in zip(x.shape[1:], kernels, strides, strict=True))
        reach = (kernels[-1] - 1) * dilation
        output = self._new((width, *sides), (x,), reach, strides[-1], 0 if level else reach)
        fan_in = x.shape[0] // groups * math.prod(kernels)
        return self._add("conv", name, (x,), output, kernel=kernels, fan_in=fan_in, bias=bias, level=level)

    def convolution(self, name: str, x: Tensor, conv: Conv, stride: Size = 1, padded: bool = True) -> Tensor:
        """The convolution of a specification: one layer a level, concatenated where there are several."""
        one, begin = len(conv.levels) == 1, len(self.layers)
        levels = [
            self.conv(
                name if one else f"{name}.levels.{j}",
                x,
                level.width,
                level.kernel,
                stride,
                groups=level.groups,
                dilation=farthest(level, x.shape[0]),
                padded=padded,
                level=j + 1 if level.kernel != 1 or not one else 0,
            )
            for j, level in enumerate(conv.levels)
        ]
        if padded:
            self.layers[begin] = self.layers[begin]._replace(conv=conv, stride=stride)
        return self.cat(levels)

    def norm(self, name: str, x: Tensor) -> Tensor:
        """Batch normalisation."""
        return self._same("norm", name, (x,))

    def relu(self, name: str, x: Tensor, in_place: bool = True) -> Tensor:
        """A rectifier."""
        return self._same("relu", name, (x,), in_place)

    def pool(self, name: str, x: Tensor, kind: str, kernel: Size, stride: Size, padded: bool = True) -> Tensor:
        """A pooling of ``kind`` ``max-pool`` or ``avg-pool``."""
        kernels, strides = each(kernel, len(x.shape) - 1), each(stride, len(x.shape) - 1)
        sides = tuple(window(n, k, s, 1, padded) for n, k, s in zip(x.shape[1:], kernels, strides, strict=True))
        output = self._new((x.shape[0], *sides), (x,), kernels[-1] - 1, strides[-1])
        return self._add(kind, name, (x,), output, kernel=(kernel,) if isinstance(kernel, int) else kernel)

    def adaptive_pool(self, name: str, x: Tensor, bins: int = 1) -> Tensor:
        """Average pooling to ``bins`` along every side; its field is not counted."""
        output = self._new((x.shape[0], *[bins] * (len(x.shape) - 1)), (x,))
        return self._add("adaptive-pool", name, (x,), output, kernel=tuple(n // bins for n in x.shape[1:]))

    def linear(self, name: str, x: Tensor, width: int, bias: bool = True) -> Tensor:
        """A linear layer over the channels of a tensor of one position."""
        output = self._new((width,), (x,))
        return self._add("linear", name, (x,), output, fan_in=x.shape[0], bias=bias)

    def sigmoid(self, name: str, x: Tensor) -> Tensor:
        return self._same("sigmoid", name, (x,))

    def softmax(self, x: Tensor) -> Tensor:
        return self._same("softmax", "", (x,))

    def dropout(self, name: str, x: Tensor) -> Tensor:
        """Zeroes whole channels while training; otherwise puts out what it reads."""
        return self._same("dropout", name, (x,))

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        return self._same("add", "", (x, y))

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        """``x`` with each channel scaled by ``y``."""
        return self._same("mul", "", (x, y))

    def matmul(self, x: Tensor, y: Tensor, shape: Shape, inner: int) -> Tensor:
        """A matrix product of inner products of length ``inner``."""
        return self._add("matmul", "", (x, y), self._new(shape, (x,)), fan_in=inner)

    def view(self, x: Tensor, shape: Shape) -> Tensor:
        """The same numbers in another shape."""
        return x._replace(shape=shape)

    def rearrange(self, x: Tensor, shape: Shape) -> Tensor:
        """The same numbers in another order, which takes a copy."""
        return self._add("copy", "", (x,), self._new(shape, (x,)))

    def cat(self, parts: Sequence[Tensor]) -> Tensor:
        """Along the first axis, usually the channels."""
        if len(parts) == 1:
            return parts[0]
        shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        return self._add("cat", "", parts, self._new(shape, parts))

    def resize(self, x: Tensor, sides: Shape) -> Tensor:
        """Interpolation to the height and width ``sides``; nothing is done where they are so already."""
        if x.shape[1:] == sides:
            return x
        return self._add("resize", "", (x,), self._new((x.shape[0], *sides), (x,)))


def each(size: Size, dimensions: int) -> tuple[int, ...]:
    """``size`` along every dimension."""
    return (size,) * dimensions if isinstance(size, int) else size


def window(side: int, kernel: int, stride: int, dilation: int = 1, padded: bool = True) -> int:
    """The output side of a sliding window, padded by half its extent or not at all."""
    extent = dilation * (kernel - 1)
    return (side + (extent // 2 * 2 if padded else 0) - extent - 1) // stride + 1


def farthest(level: Level, in_width: int) -> int:
    """The largest dilation of a level in its place."""
    return max(dilations_used(in_width, level.width, level.pattern, level.axes, level.groups))
