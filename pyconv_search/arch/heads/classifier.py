"""Global average pooling and one linear layer: the head of a network that names none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyconv_search.arch.trace import Shape, Tensor, Trace
from pyconv_search.fields import Path, Problems


@dataclass(frozen=True, slots=True)
class Classifier:
    """Averages the last features over all positions and puts out one number a class."""

    kind: str = "classifier"

    def taps(self, stages: int) -> tuple[int, ...]:
        return (stages - 1,)

    def check(self, features: Sequence[Shape], path: Path, problems: Problems) -> None:
        """Every feature map can be averaged."""

    def trace(self, t: Trace, features: Sequence[Tensor], classes: int, image: Shape) -> Sequence[Tensor]:
        return (t.linear("head", t.adaptive_pool("pool", features[0]), classes),)
