"""Multi-scale convolutions to try, and what they should give: one plain convolution for every pair of channels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from pyconv_search.arch.dilation import dilation_matrix
from pyconv_search.ops.kernels import Level


@dataclass(frozen=True)
class Part:
    """One level as the papers describe it."""

    width: int
    kernel: tuple[int, int] = (3, 3)
    groups: int = 1
    pattern: tuple[int, ...] = (1,)
    axes: str = "both"
    sorted_in: tuple[int, ...] | None = None
    sorted_out: tuple[int, ...] | None = None

    def level(self) -> Level:
        t = len(self.pattern)
        dilations = {
            "both": tuple(tuple(self.pattern[(i - o) % t] for i in range(t)) for o in range(t)),
            "input": (self.pattern,),
            "output": tuple((d,) for d in self.pattern),
        }[self.axes]
        return Level(self.width, self.kernel, self.groups, dilations, self.sorted_in, self.sorted_out)


@dataclass(frozen=True)
class Example:
    channels: int
    parts: tuple[Part, ...]
    stride: tuple[int, int] = (1, 1)
    size: tuple[int, int] = (6, 5)
    batch: int = 2
    dtype: torch.dtype = torch.float32
    bias: bool = False

    @property
    def levels(self):
        return tuple(part.level() for part in self.parts)

    def draw(self, device="cpu"):
        """The image, the weights and the bias, reproducible."""
        generator = torch.Generator().manual_seed(0)
        shapes = [(self.batch, self.channels, *self.size)]
        shapes += [(p.width, self.channels // p.groups, *p.kernel) for p in self.parts]
        shapes += [(sum(p.width for p in self.parts),)] * self.bias
        drawn = [torch.randn(s, generator=generator).to(device, self.dtype).requires_grad_() for s in shapes]
        return drawn[0], drawn[1 : len(self.parts) + 1], drawn[-1] if self.bias else None


def natural(channels, t, order):
    """The channel of the natural order that stands at each place of a group."""
    return [k for r in order for k in range(channels) if k % t == r] if order else list(range(channels))


def reference(x, weights, bias, example):
    outputs = []
    for weight, part in zip(weights, example.parts, strict=True):
        fan_in, fan_out = example.channels // part.groups, part.width // part.groups
        # One group's matrix: in a depthwise convolution that function runs the pattern over the groups.
        matrix = dilation_matrix(fan_in, fan_out, part.pattern, part.axes)
        own = natural(fan_in, len(part.pattern), part.sorted_in)
        other = natural(fan_out, len(part.pattern), part.sorted_out)
        for c in range(part.width):
            group, row = divmod(c, fan_out)
            total = 0
            for k in range(fan_in):
                d = matrix[other[row]][own[k]]
                source, kernel = x[:, group * fan_in + k][:, None], weight[c, k][None, None]
                padding = [d * (side // 2) for side in part.kernel]
                total = total + F.conv2d(source, kernel, None, example.stride, padding, d)
            outputs.append(total)
    out = torch.cat(outputs, 1)
    return out if bias is None else out + bias[:, None, None]


FOUR, ORDER = (1, 2, 1, 4), (0, 2, 1, 3)
PYRAMID = (Part(8), Part(8, (5, 5), 2), Part(8, (7, 7), 4), Part(8, (9, 9), 8))
PLAIN = Example(8, (Part(8, pattern=FOUR),))

EXAMPLES = {
    "standard": Example(8, (Part(8),)),
    "1x1 with stride": Example(8, (Part(16, (1, 1)),), (2, 2)),
    "1x1 with a pattern": Example(8, (Part(8, (1, 1), pattern=(1, 2)),)),
    "psconv": PLAIN,
    "psconv with bias": replace(PLAIN, bias=True),
    "psconv 1112": Example(8, (Part(12, pattern=(1, 1, 1, 2)),)),
    "psconv 12 in groups": Example(8, (Part(12, (5, 5), 2, (1, 2)),)),
    "psconv 8": Example(4, (Part(4, pattern=(8,)),), size=(9, 10)),
    "psconv of eight": Example(8, (Part(8, pattern=(1, 2, 3, 4, 5, 6, 7, 8)),)),
    "psconv of eight, few channels": Example(5, (Part(3, pattern=(1, 2, 1, 1, 3, 1, 1, 4)),)),
    "input axis": Example(8, (Part(6, pattern=FOUR, axes="input"),)),
    "output axis": Example(8, (Part(6, pattern=FOUR, axes="output"),)),
    "input axis, sorted": Example(8, (Part(8, (3, 5), 1, FOUR, "input", ORDER),), (1, 2)),
    "output axis, sorted": Example(8, (Part(8, (5, 3), 2, FOUR, "output", None, ORDER),), (2, 1)),
    "sorted": Example(8, (Part(8, (3, 3), 1, FOUR, "both", ORDER, ORDER),)),
    "sorted in, stride": Example(8, (Part(8, (3, 3), 1, FOUR, "both", ORDER),), (2, 2), (7, 8)),
    "sorted out, groups": Example(16, (Part(16, (3, 3), 2, FOUR, "both", None, ORDER),)),
    "sorted, uneven classes": Example(6, (Part(7, (3, 3), 1, FOUR, "both", ORDER, (3, 1, 0, 2)),)),
    "classes that t does not divide": Example(10, (Part(14, (3, 3), 2, FOUR),), (2, 1)),
    "four groups": Example(16, (Part(16, (3, 3), 4, (1, 2)),)),
    "stride 1, 2": Example(8, (Part(8, (7, 3), 2, (2,)),), (1, 2), (8, 7)),
    "stride 3": Example(8, (Part(8, pattern=(1, 2)),), (3, 3), (8, 7)),
    "image of one pixel": Example(8, (Part(8, pattern=FOUR),), size=(1, 1)),
    "image of one row, batch of one": Example(8, (Part(8, pattern=FOUR),), size=(1, 9), batch=1),
    "several shares of rows": Example(16, (Part(16, (1, 1)),), size=(17, 31)),
    "pyconv4": Example(16, PYRAMID),
    "pyconv4, stride and bias": Example(16, PYRAMID, (2, 2), (9, 8), bias=True),
    "pyconv3": Example(8, (Part(8), Part(4, (5, 5), 2), Part(4, (7, 7), 4))),
    "pyconv2": Example(8, (Part(4), Part(4, (5, 5), 4)), (2, 2)),
    "pyramid of patterns": Example(8, (Part(8, pattern=FOUR), Part(4, (5, 5), 2, (1, 2)), Part(4, (1, 1)))),
    "pyramid of axes": Example(8, (Part(4, pattern=(1, 3), axes="input"), Part(4, (3, 1), 4, (2, 1), "output"))),
    "bf16": replace(PLAIN, dtype=torch.bfloat16, bias=True),
    "bf16 pyramid": Example(16, PYRAMID, dtype=torch.bfloat16, size=(4, 4)),
    "fp16": replace(PLAIN, dtype=torch.float16, stride=(2, 1)),
}
