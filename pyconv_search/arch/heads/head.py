"""What every head offers; a head is one file beside this one and one line in the table of ``heads/__init__.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from pyconv_search.arch.trace import Shape, Tensor, Trace
from pyconv_search.fields import Path, Problems


class Backbone(NamedTuple):
    """What the defaults of heads depend on: the channels of the last features and the pixels that one stands for."""

    width: int
    stride: int


class Head(Protocol):
    """A frozen value that says what stands behind the stages. ``kind`` is its name in ``HEADS``."""

    @property
    def kind(self) -> str: ...

    def __hash__(self) -> int: ...

    def taps(self, stages: int) -> tuple[int, ...]:
        """The stages whose features it reads, ascending, counted from 0, of a network of ``stages``."""
        ...

    def check(self, features: Sequence[Shape], path: Path, problems: Problems) -> None:
        """Add what does not fit the features of all stages, before anything is built."""
        ...

    def trace(self, t: Trace, features: Sequence[Tensor], classes: int, image: Shape) -> Sequence[Tensor]:
        """Record its layers for the tapped features; ``image`` is the network's input. Gives what it puts out."""
        ...
