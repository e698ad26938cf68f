"""Poly-scale convolution.

Li, Yao, Chen: PSConv: Squeezing Feature Pyramid into One Compact Poly-Scale Convolutional Layer, ECCV 2020; equation 3,
section 3.2 and appendices A and B. https://arxiv.org/abs/2007.06191

How it is computed. Channels are counted inside their group and sorted into residue classes modulo t, the length of the
pattern. Kernels of one dilation connect whole classes, so they are gathered into smaller convolutions without a single
masked weight (appendix B). Below, tensors carry their channels as two axes, (groups, channels of a group), at ``axis``
and ``axis + 1``; ``axis`` is 1, or 3 for images stored with the channels last.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyconv_search.arch.spec import divisors, shortest_period
from pyconv_search.errors import UserError
from pyconv_search.ops.arguments import Size, check_channels, checked_pattern, odd_pair, pair


class PSConv2d(nn.Conv2d):
    """A 2-D convolution whose dilation varies from kernel to kernel, zero-padded so that all are centred on one pixel.

    The entry (c, k) of :func:`pyconv_search.arch.dilation.dilation_matrix` is the dilation of the kernel from input
    channel k to output channel c. Weight, bias, their initialisation and the state dict are those of ``nn.Conv2d`` with
    the same channels, kernel and groups, and so is the number of multiply-adds executed; dilation d pads by
    ``d·(K − 1)/2``.

    Shape:
        N×in_channels×H×W (or without N) to N×out_channels×H'×W', where H' = ⌊(H − 1)/stride⌋ + 1 and W' alike.

    Args:
        in_channels, out_channels, groups, bias, device, dtype: as in ``nn.Conv2d``.
        kernel_size, stride: one integer, or (height, width); kernels are odd.
        pattern: the dilations of one cyclic interval.
        axes: ``both``, ``input`` or ``output``: the channel axes along which the pattern runs (Table 5). In a depthwise
            convolution (groups = in_channels) it runs over the groups (appendix A).

    Raises:
        UserError: (a ValueError) if an argument is out of its range, and in ``forward`` if the input does not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        groups: int = 1,
        bias: bool = True,
        pattern: Sequence[int] = (1, 2, 1, 4),
        axes: str = "both",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_channels(in_channels, out_channels, groups)
        kernel, strides = odd_pair("kernel_size", kernel_size), pair("stride", stride)
        dilations = checked_pattern(pattern, axes)
        half = (kernel[0] // 2, kernel[1] // 2)
        super().__init__(in_channels, out_channels, kernel, strides, half, 1, groups, bias, device=device, dtype=dtype)
        self.pattern, self.axes = dilations, axes
        self.cycle = (1,) if kernel == (1, 1) else shortest_period(dilations)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        text += f", groups={self.groups}" * (self.groups != 1) + ", bias=False" * (self.bias is None)
        return f"{text}, pattern={self.pattern}" + f", axes={self.axes!r}" * (self.axes != "both")

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (3, 4) or input.shape[-3] != self.in_channels:
            raise UserError(
                f"input must have {self.in_channels} channels, as {self.in_channels}×H×W or N×{self.in_channels}×H×W, "
                f"but got a tensor of shape {tuple(input.shape)}"
            )
        return self._batch(input) if input.dim() == 4 else self._batch(input.unsqueeze(0)).squeeze(0)

    def _batch(self, x: Tensor) -> Tensor:
        if len(set(self.cycle)) == 1:
            return self._convolve(x, self.weight, self.cycle[0], self.groups, self.bias)
        axis = 3 if _channels_last(x) or _channels_last(self.weight) else 1
        x = x.movedim(1, axis).unflatten(axis, (self.groups, self.in_channels // self.groups))
        weight = self.weight.unflatten(0, (self.groups, self.out_channels // self.groups))
        if self.groups == self.in_channels and self.groups > 1:
            out = self._over_filters(x, weight, axis, along=0)
        elif self.axes == "output":
            out = self._over_filters(x, weight, axis, along=1)
        else:
            out = (self._over_input if self.axes == "input" else self._over_both)(x, weight, axis)
        out = out.flatten(axis, axis + 1).movedim(axis, 1)
        return out if self.bias is None else out + self.bias.to(out.dtype).view(-1, 1, 1)

    def _convolve(self, x: Tensor, weight: Tensor, dilation: int, groups: int, bias: Tensor | None = None) -> Tensor:
        padding = (self.kernel_size[0] // 2 * dilation, self.kernel_size[1] // 2 * dilation)
        return F.conv2d(x, weight, bias, self.stride, padding, dilation, groups)

    def _parts(self, x: Tensor, weight: Tensor, dilation: int, axis: int) -> Tensor:
        """One convolution of a single dilation on tensors with both channel axes, as many groups as ``x`` has."""
        groups, filters = weight.shape[:2]
        source, kernels = x.flatten(axis, axis + 1).movedim(axis, 1), weight.flatten(0, 1).contiguous()
        out = self._convolve(source, kernels, dilation, groups)
        return out.movedim(1, axis).unflatten(axis, (groups, filters))

    def _by_dilation(self, present: int) -> list[tuple[int, list[int]]]:
        """Every dilation with the residues that have it, of those that are ``present``."""
        cycle = self.cycle[:present]
        return [(d, [r for r, other in enumerate(cycle) if other == d]) for d in sorted(set(cycle))]

    def _over_input(self, x: Tensor, weight: Tensor, axis: int) -> Tensor:
        """The sum over dilations of all filters on the input channels of that dilation (Figure 5, left)."""
        inputs, weights = classes(x, axis + 1, len(self.cycle)), classes(weight, 2, len(self.cycle))
        return _sum(
            [
                self._parts(_cat([inputs[r] for r in own], axis + 1), _cat([weights[r] for r in own], 2), d, axis)
                for d, own in self._by_dilation(len(inputs))
            ]
        )

    def _over_filters(self, x: Tensor, weight: Tensor, axis: int, along: int) -> Tensor:
        """The filters of one dilation at a time: on all of the input if the pattern runs along the output channels of a
        group (``along`` = 1; Figure 5, right), on their own input channels if it runs along the groups (0; appendix A).
        """
        inputs, filters = classes(x, axis, len(self.cycle)), classes(weight, along, len(self.cycle))
        outputs: dict[int, Tensor] = {}
        for dilation, own in self._by_dilation(len(filters)):
            source = x if along else _cat([inputs[r] for r in own], axis)
            out = self._parts(source, _cat([filters[r] for r in own], along), dilation, axis)
            sizes = [filters[r].shape[along] for r in own]
            outputs |= zip(own, out.split(sizes, axis + along), strict=True)
        return interleave([outputs[r] for r in range(len(filters))], axis + along)

    def _over_both(self, x: Tensor, weight: Tensor, axis: int) -> Tensor:
        """Every coset of equal dilations connects input classes to output classes one to one (equation 3)."""
        t = len(self.cycle)
        terms: list[list[Tensor]] = [[] for _ in range(min(t, weight.shape[1]))]
        for modulus in sorted({coset.modulus for coset in cosets(self.cycle)}):
            own = [coset for coset in cosets(self.cycle) if coset.modulus == modulus]
            even = x.shape[axis + 1] % modulus == 0 and weight.shape[1] % modulus == 0
            # Below 64 channels a group, oneDNN is a tenth and more slower than with separate convolutions.
            narrow = self.groups == 1 and x.shape[axis + 1] < 64 * modulus
            run = self._cosets_grouped if even and not narrow else self._cosets_dense
            for first, out in run(own, x, weight, axis):
                for i, part in enumerate(classes(out, axis + 1, t // modulus)):
                    terms[first + i * modulus].append(part)
        return interleave([_sum(parts) for parts in terms], axis + 1)

    def _cosets_grouped(self, own: list[Coset], x: Tensor, weight: Tensor, axis: int) -> Iterator[tuple[int, Tensor]]:
        """One convolution a coset, its residue classes as further groups; gives (output class, its outputs)."""
        groups, modulus = x.shape[axis], own[0].modulus
        x = (
            x.unflatten(axis + 1, (x.shape[axis + 1] // modulus, modulus))
            .transpose(axis + 1, axis + 2)
            .flatten(axis, axis + 1)
        )
        tiles = [classes(rows, 2, modulus) for rows in classes(weight, 1, modulus)]
        for coset in own:
            filters = torch.stack([tiles[coset.output(k)][k] for k in range(modulus)], 1).flatten(0, 1)
            out = self._parts(x, filters, coset.dilation, axis).unflatten(axis, (groups, modulus))
            for k, part in enumerate(out.unbind(axis + 1)):
                yield coset.output(k), part

    def _cosets_dense(self, own: list[Coset], x: Tensor, weight: Tensor, axis: int) -> Iterator[tuple[int, Tensor]]:
        """One convolution a residue class, where classes are narrow or differ in size; gives the same as above."""
        inputs = classes(x, axis + 1, own[0].modulus)
        tiles = [classes(rows, 2, own[0].modulus) for rows in classes(weight, 1, own[0].modulus)]
        for coset in own:
            for k, channels in enumerate(inputs):
                if coset.output(k) < len(tiles):
                    filters = tiles[coset.output(k)][k]
                    yield coset.output(k), self._parts(channels, filters, coset.dilation, axis)


class Coset(NamedTuple):
    """The residues ``offset + modulus·Z`` of one cyclic interval, all of the same dilation."""

    dilation: int
    modulus: int
    offset: int

    def output(self, k: int) -> int:
        """The class of the output channels that the input class ``k`` feeds: D[c, k] = pattern[(k − c) mod t]."""
        return (k - self.offset) % self.modulus


def cosets(pattern: tuple[int, ...]) -> tuple[Coset, ...]:
    """The pattern as disjoint cosets of the cyclic group Z_t, coarsest first.

    (1, 2, 1, 4) is dilation 1 at 0 + 2Z, dilation 2 at 1 + 4Z and dilation 4 at 3 + 4Z: three grouped convolutions.
    """
    t = len(pattern)
    left, found = set(range(t)), []
    for modulus in divisors(t):
        for offset in range(modulus):
            members = set(range(offset, t, modulus))
            if members <= left and len({pattern[j] for j in members}) == 1:
                found.append(Coset(pattern[offset], modulus, offset))
                left -= members
    return tuple(found)


def classes(x: Tensor, dim: int, count: int) -> Sequence[Tensor]:
    """``x[r::count]`` along ``dim`` for every residue r that has a member."""
    size = x.shape[dim]
    if size % count == 0:
        # The gradient of unbind is one stack; those of strided slices are ``count`` tensors as large as x.
        return x.unflatten(dim, (size // count, count)).unbind(dim + 1)
    before = (slice(None),) * dim
    return [x[(*before, slice(r, None, count))] for r in range(min(count, size))]


def interleave(parts: Sequence[Tensor], dim: int) -> Tensor:
    """The inverse of :func:`classes`."""
    whole = parts[-1].shape[dim]
    out = torch.stack([part.narrow(dim, 0, whole) for part in parts], dim + 1).flatten(dim, dim + 1)
    rest = [part.narrow(dim, whole, 1) for part in parts if part.shape[dim] > whole]
    return torch.cat([out, *rest], dim) if rest else out


def _cat(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _sum(parts: list[Tensor]) -> Tensor:
    """The sum, in place once it has storage of its own."""
    out = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    for part in parts[2:]:
        out.add_(part)
    return out


def _channels_last(x: Tensor) -> bool:
    return x.stride(1) == 1
