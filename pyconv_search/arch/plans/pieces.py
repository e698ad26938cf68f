"""A plan: the ordinary convolutions as which an operation is executed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Piece:
    """One grouped convolution: of the input channels ``source``, in that order, added to the output channels
    ``target``, which may name a channel several times; both have equal parts in every group.

    Its weights are those of the operation between these channels whose dilation is this one, and zero elsewhere; a
    kernel larger than that of the operation has zeros around it. ``strip`` neighbouring pixels of a row are computed at
    once, as further filters whose kernels are ``extra`` columns wider. ``swapped`` says that the gradient of the
    weight is computed as that of the convolution from the output to the input.
    """

    kernel: tuple[int, int]
    dilation: int
    groups: int
    source: tuple[int, ...]
    target: tuple[int, ...]
    strip: int = 1
    extra: int = 0
    swapped: bool = False

    @property
    def fan_in(self) -> int:
        """Input channels of one output channel."""
        return len(self.source) // self.groups

    @property
    def macs(self) -> int:
        """Multiply-adds of one output pixel, zeros included."""
        return len(self.target) * self.fan_in * self.kernel[0] * (self.kernel[1] + self.extra)


def columns(piece: Piece, width: int) -> int:
    """The columns that a piece computes for an output of ``width``: whole strips, and two of them at least.

    For a single one, a strided convolution to a width of 1, oneDNN 3 gives wrong numbers (PyTorch 2.13, in float32 and
    bfloat16). No method, since compilers look into frozen dataclasses for fields alone.
    """
    return width if piece.strip == 1 else max(2, -(-width // piece.strip)) * piece.strip


@dataclass(frozen=True, eq=False)
class Plan:
    """How an operation is executed: a name for each of its parts, and the pieces of all."""

    name: str
    pieces: tuple[Piece, ...]

    @property
    def macs(self) -> int:
        """Multiply-adds of one output pixel, those with weights that are zero by construction included."""
        return sum(piece.macs for piece in self.pieces)
