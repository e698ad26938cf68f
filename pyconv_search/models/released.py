"""Published checkpoints of ResNet, PyConvResNet and PS-ResNet, loaded into our networks.

The key layouts are those of torchvision's ResNet and of the code of both papers: https://github.com/iduta/pyconv
(levels of a pyramid are ``conv2.conv2_1``, …) and https://github.com/d-li14/PSConv (a poly-scale convolution is
``conv2.gwconv``, ``conv2.gwconv_shift`` and ``conv2.conv``, see :mod:`pyconv_search.ops.released`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyconv_search.errors import UserError
from pyconv_search.fields import suggestion
from pyconv_search.models.blocks import PostBlock
from pyconv_search.models.layout import Shape, compare, released_keys
from pyconv_search.models.sorting import sorted_sides
from pyconv_search.models.state import read_state
from pyconv_search.ops.psconv import PSConv2d
from pyconv_search.ops.released import READINGS, ReleasedPSConv2d, Rotation, masked_cells, merged, order, rotation

_NORM = ("weight", "bias", "running_mean", "running_var")


def load_released(model: nn.Module, source: str | Path | Mapping[str, Any], mask: str | None = None) -> None:
    """Load a published checkpoint into a network of :func:`pyconv_search.models.build`, so that the outputs are its.

    The release sorts the channels of a poly-scale convolution otherwise; its neighbours in the bottleneck block are
    sorted to match, which changes no output.

    Args:
        model: the same network as the checkpoint's, on any device and of any floating-point type.
        source: a file (safetensors, or one of ``torch.save``) or what such a file holds: tensors by name, also under
            ``state_dict``, also with ``module.`` before every name.
        mask: how to read the mask of poly-scale convolutions in groups, on which the released code and the paper differ
            (:mod:`pyconv_search.ops.released`). ``corrected`` drops the kernels that the paper's mask covers and gives
            PSConv2d. ``released`` gives what the released code computes: PSConv2d where that is one, else the
            convolution is replaced by a :class:`pyconv_search.ops.released.ReleasedPSConv2d`, whose parameters an
            optimizer does not know yet. Without it, a checkpoint that both read alike is loaded, another one refused.

    Raises:
        UserError: if the file cannot be read, the checkpoint is that of another network (with the first names and
            shapes that differ), nothing like a layer of the model was published, its channels are sorted, or ``mask``
            must be given or does not fit the weights; the model is then as it was.
    """
    if mask is not None and mask not in READINGS:
        raise UserError(f"mask must be one of {', '.join(READINGS)}, but got {mask!r}{suggestion(mask, READINGS)}")
    if sorted_sides(model):
        raise UserError("model must have its channels as built, but they are sorted; unsort_channels(model) first")
    state, name = read_state(source)
    keys, layers, own = released_keys(model), list(_poly_scales(model)), model.state_dict()
    for layer in layers:
        del keys[f"{layer.path}.weight"]
    expected = {key: tuple(own[ours].shape) for ours, key in keys.items()}
    for layer in layers:
        expected |= layer.shapes()
    compare(name, expected, state)
    loaded = {ours: state.get(key, own[ours]) for ours, key in keys.items()}
    replaced = [layer for layer in layers if _stays_released(name, layer, state, mask)]
    for layer in layers:
        loaded |= layer.as_released(state) if layer in replaced else layer.as_psconv(state, loaded)
    for layer in replaced:
        model.get_submodule(layer.block).conv2 = layer.module()
    model.load_state_dict(loaded)


@dataclass(frozen=True, slots=True, eq=False)
class _PolyScale:
    """A poly-scale convolution of the model: the path of its block, the released name of that, and how it is turned."""

    block: str
    released_block: str
    conv: PSConv2d
    turned: Rotation

    @property
    def path(self) -> str:
        return f"{self.block}.conv2"

    @property
    def key(self) -> str:
        return f"{self.released_block}.conv2"

    @property
    def parts(self) -> int:
        return len(self.conv.cycle)

    def shapes(self) -> dict[str, Shape]:
        """What the checkpoint holds of it."""
        filters, fan_in, *kernel = self.conv.weight.shape
        blocked = (filters, fan_in // self.parts, *kernel)
        return {
            f"{self.key}.gwconv.weight": blocked,
            f"{self.key}.gwconv_shift.weight": blocked,
            f"{self.key}.conv.weight": (filters, fan_in, *kernel),
        }

    def module(self) -> ReleasedPSConv2d:
        """The released layer in its place, with weights that are still to be loaded."""
        conv, weight = self.conv, self.conv.weight
        stride = (conv.stride[0], conv.stride[1])
        module = ReleasedPSConv2d(
            conv.in_channels,
            conv.out_channels,
            stride,
            conv.groups,
            self.parts,
            self.turned.dilation,
            weight.device,
            weight.dtype,
        )
        return module.train(conv.training).requires_grad_(weight.requires_grad)

    def as_released(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {self.path + name.removeprefix(self.key): state[name] for name in self.shapes()}

    def as_psconv(self, state: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Its own weight, and what ``loaded`` holds of its neighbours with the channels sorted alike."""
        conv, block = self.conv, self.block
        into = order(conv.in_channels, conv.groups, self.parts, self.turned.shift)
        out = order(conv.out_channels, conv.groups, self.parts, 0)
        gwconv, gwconv_shift, rest = (state[name] for name in self.shapes())
        sorted_in = ("conv1.weight", *(f"norm1.{name}" for name in _NORM))
        return {
            f"{self.path}.weight": merged(gwconv, gwconv_shift, rest, conv.groups, self.parts, self.turned.shift),
            **{f"{block}.{name}": loaded[f"{block}.{name}"][into] for name in sorted_in},
            **{f"{block}.norm2.{name}": loaded[f"{block}.norm2.{name}"][out] for name in _NORM},
            f"{block}.conv3.weight": loaded[f"{block}.conv3.weight"][:, out],
        }


def _poly_scales(model: nn.Module) -> Iterator[_PolyScale]:
    """Every poly-scale convolution; raises UserError at one that the released code cannot express."""
    keys = released_keys(model)
    for path, conv in model.named_modules():
        if isinstance(conv, ReleasedPSConv2d):
            raise UserError(
                f"{path} has become a ReleasedPSConv2d when a checkpoint was loaded; build the network anew"
            )
        if not isinstance(conv, PSConv2d):
            continue
        block, _, name = path.rpartition(".")
        turned = rotation(conv.cycle)
        fan = (conv.in_channels // conv.groups, conv.out_channels // conv.groups)
        around = model.get_submodule(block)
        if name != "conv2" or not isinstance(around, PostBlock) or around.depth != 3:
            reason = "it is not the middle of a bottleneck block, whose neighbours could be sorted to match"
        elif conv.kernel_size != (3, 3):
            reason = f"its kernel is {conv.kernel_size[0]}×{conv.kernel_size[1]}, those are 3×3"
        elif conv.axes != "both":
            reason = f"its axes are {conv.axes!r}, those have 'both'"
        elif turned is None:
            reason = f"its pattern is {conv.cycle}, theirs is (1, d, 1, 2·d) or such a cycle of another even length"
        elif any(width % len(conv.cycle) for width in fan):
            reason = f"{len(conv.cycle)} blocks do not divide the {fan[0]} and {fan[1]} channels of its groups"
        else:
            yield _PolyScale(block, keys[f"{path}.weight"].removesuffix(".conv2.weight"), conv, turned)
            continue
        raise UserError(f"{path} is like no poly-scale convolution of the released code: {reason}")


def _stays_released(name: str, layer: _PolyScale, state: Mapping[str, Tensor], mask: str | None) -> bool:
    """Whether the layer must stay as released; raises UserError where ``mask`` is missing or cannot be right."""
    conv, key = layer.conv, f"{layer.key}.conv.weight"
    kernels = state[key].flatten(2).any(2)
    sizes = (conv.in_channels, conv.out_channels, conv.groups, layer.parts)
    twice, lost = (torch.count_nonzero(kernels & masked_cells(*sizes, reading)) for reading in READINGS)
    if mask == "released" and lost:
        raise UserError(
            f"{name}: {key} holds {lost} kernels that the released mask covers, so the released code did not train it; "
            "mask='corrected' drops those that the paper's mask covers"
        )
    if mask is None and twice:
        raise UserError(
            f"{name}: {key} holds {twice} kernels in cells that gwconv or gwconv_shift fill too, as the released code "
            "does in groups, but not the paper; say which to follow: mask='released' computes what that code computes, "
            "mask='corrected' drops these kernels"
        )
    return bool(twice) and mask == "released"
