"""Families of networks: the stem and the stages, call by call. A family is one file and one line in ``FAMILIES``."""

from __future__ import annotations

from typing import Protocol

from pyconv_search.arch import residual
from pyconv_search.arch.blocks import Place
from pyconv_search.arch.spec import Stage, Stem
from pyconv_search.arch.trace import Tensor, Trace


class Family(Protocol):
    """What a module of this package holds to be a family."""

    def stem(self, t: Trace, x: Tensor, stem: Stem, form: str) -> Tensor:
        """From the image to what reaches the first stage."""
        ...

    def into(self, width: int, index: int) -> int:
        """The channels that reach the blocks of stage ``index``, of ``width`` that the stage before puts out."""
        ...

    def transition(self, t: Trace, x: Tensor, index: int) -> Tensor:
        """What stands before the blocks of stage ``index`` (from 0); ``x`` itself where there is nothing."""
        ...

    def block(self, t: Trace, x: Tensor, stage: Stage, form: str, place: Place) -> Tensor:
        """One block of a stage."""
        ...

    def final(self, t: Trace, x: Tensor, form: str) -> Tensor:
        """What stands behind the last stage; ``x`` itself where there is nothing."""
        ...


FAMILIES: dict[str, Family] = {"resnet": residual}
