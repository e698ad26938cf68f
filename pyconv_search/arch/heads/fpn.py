"""The feature pyramid network, by which a backbone of any kind serves a detector.

Lin et al.: Feature Pyramid Networks for Object Detection, 2017, section 3 and figure 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyconv_search.arch.heads.head import Backbone
from pyconv_search.arch.trace import Shape, Tensor, Trace
from pyconv_search.fields import Fields, Path, Problems


@dataclass(frozen=True, slots=True)
class FPN:
    """Puts out one feature map of ``width`` channels for every stage from ``first`` (counted from 1) on.

    The features of each stage pass a 1×1 convolution; to that is added what stands on the next smaller map, resized to
    the nearest neighbour; a 3×3 convolution ends it. Convolutions have biases, and nothing is normalised or rectified.
    ``extra`` adds every second pixel of the smallest map as one more map (section 4.1).
    """

    width: int = 256
    extra: bool = False
    first: int = 1
    kind: str = "fpn"

    def taps(self, stages: int) -> tuple[int, ...]:
        return tuple(range(self.first - 1, stages))

    def check(self, features: Sequence[Shape], path: Path, problems: Problems) -> None:
        stages = len(features)
        if self.first > stages:
            what = f"must be one of the {stages} stages, counted from 1"
            problems.add((*path, "first"), f"{what}, but got {self.first}; nearest: {stages}")

    def trace(self, t: Trace, features: Sequence[Tensor], classes: int, image: Shape) -> Sequence[Tensor]:
        """The maps, largest first."""
        t = t.within("head")
        maps = [t.conv(f"lateral.{i}", x, self.width, 1, bias=True) for i, x in enumerate(features)]
        for i in reversed(range(len(maps) - 1)):
            maps[i] = t.add(maps[i], t.resize(maps[i + 1], maps[i].shape[1:]))
        maps = [t.conv(f"output.{i}", x, self.width, 3, bias=True) for i, x in enumerate(maps)]
        return [*maps, t.pool("extra", maps[-1], "max-pool", 1, 2)] if self.extra else maps


def read(kind: str, fields: Fields, backbone: Backbone) -> FPN:
    """The head that a mapping describes; what it leaves out is as in the paper, with the extra map."""
    return FPN(fields.integer("width", 256), fields.flag("extra", True), fields.integer("first", 1))
