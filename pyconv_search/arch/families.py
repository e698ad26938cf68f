"""Families of networks: the stem and the stages, call by call. A family is one file and one line in ``FAMILIES``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pyconv_search.arch import inception, residual
from pyconv_search.arch.blocks import Block, Place
from pyconv_search.arch.spec import Architecture, Stage, Stem
from pyconv_search.arch.trace import Tensor, Trace
from pyconv_search.fields import Problems


class Family(Protocol):
    """What a module of this package holds to be a family."""

    @property
    def BLOCKS(self) -> Mapping[str, Block]:
        """The kinds of block that its stages may hold."""
        ...

    def check(self, arch: Architecture, problems: Problems) -> None:
        """Add what does not fit this family, before anything is traced; all values are of the right kind."""
        ...

    def stride(self, arch: Architecture) -> int:
        """How many input pixels one pixel of the last feature map stands for, along one side."""
        ...

    def stem(self, t: Trace, x: Tensor, stem: Stem, form: str) -> Tensor:
        """From the image to what reaches the first stage."""
        ...

    def into(self, width: int, index: int) -> int:
        """The channels that reach the blocks of stage ``index``, of ``width`` that the stage before puts out."""
        ...

    def transition(self, t: Trace, x: Tensor, index: int) -> Tensor:
        """What stands before the blocks of stage ``index`` (from 0); ``x`` itself where there is nothing."""
        ...

    def alike(self, form: str) -> bool:
        """Whether all blocks of a stage but the first are one and the same."""
        ...

    def block(self, t: Trace, x: Tensor, stage: Stage, form: str, place: Place) -> Tensor:
        """One block of a stage."""
        ...

    def final(self, t: Trace, x: Tensor, form: str) -> Tensor:
        """What stands behind the last stage; ``x`` itself where there is nothing."""
        ...


FAMILIES: dict[str, Family] = {"resnet": residual, "inception-resnet": inception}
