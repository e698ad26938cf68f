"""Channels in the order in which poly-scale convolutions are executed, folded into the layers around them.

The split of a poly-scale convolution (PSConv, appendix B) reads and writes residue classes of channels. Where a class
stands in one piece these are slices, else they are gathered and scattered in every pass. Convolutions and
normalisations on either side of a tensor can have its channels in any order, so the order is theirs to bring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyconv_search.arch.plans.operation import canonical, sortable
from pyconv_search.errors import UserError
from pyconv_search.models.blocks import IResBlock, PostBlock, PreBlock
from pyconv_search.ops.plain import PLAIN
from pyconv_search.ops.planning import operation_of
from pyconv_search.ops.psconv import ORDERS, PSConv2d

# Of each form what is added to a convolution's number for that of the normalisation behind it. Exact types: a subclass
# may let others see the tensors between its convolutions.
_NORM_BEHIND: dict[type[nn.Module], int] = {PostBlock: 0, PreBlock: 1, IResBlock: 0}
# What treats every channel by itself, and its tensors that have one number for each.
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, nn.Identity)
_PER_CHANNEL = ("weight", "bias", "running_mean", "running_var")


def sort_channels(model: nn.Module) -> list[str]:
    """Sort the channels around poly-scale convolutions in place, so that executing these gathers none.

    The network computes the same: between two convolutions of a residual block of this package (``post``, ``pre`` or
    ``ires``), the rows of the first one's weight, the normalisation, and the columns of the second one's weight are
    permuted, with their gradients if there are any. Parameters stay the same objects, but an optimizer, an average of
    the weights or a compiled copy that has been made of the model before does not follow: sort first. A side stays
    as it is where the length of the pattern does not divide the channels of a group, where the other convolution is a
    pyramid, in groups, or poly-scale with another pattern, where a layer has hooks or shares its parameters with
    another, and in networks that are not built of these blocks.

    The state dict of a sorted network is one of its own, with the order as further entries; to load it takes a sorted
    network. :func:`unsort_channels` goes back.

    Args:
        model: a network of :func:`pyconv_search.models.build`, or one that contains such a network, on any device.

    Returns:
        The attributes that have become true: ``stages.0.0.conv2.sorted_in`` if the input channels of the PSConv2d
        ``stages.0.0.conv2`` are sorted now. Empty if nothing is left to sort.
    """
    found = [tensor for tensor in _foldable(model) if not any(tensor.flags().values())]
    for tensor in found:
        tensor.turn(True)
    return [name for tensor in found for name in tensor.flags()]


def unsort_channels(model: nn.Module) -> list[str]:
    """Put back in place what :func:`sort_channels` permuted, bit for bit; returns the attributes that it had returned.

    Raises:
        UserError: if channels are sorted around which the layers are no longer those that were permuted, with the
            names; the model is then as it was.
    """
    found = [tensor for tensor in _foldable(model) if all(tensor.flags().values())]
    known = [name for tensor in found for name in tensor.flags()]
    unknown = [name for name in sorted_sides(model) if name not in known]
    if unknown:
        raise UserError(
            f"{', '.join(unknown)}: must be False to unsort this model, but got True; it is not in a residual block of "
            "this package whose layers are those that sort_channels permuted"
        )
    for tensor in found:
        tensor.turn(False)
    return known


def sorted_sides(model: nn.Module) -> list[str]:
    """The attributes that are true, as :func:`sort_channels` returns them."""
    convs = [(name, module) for name, module in model.named_modules() if isinstance(module, PSConv2d)]
    return [_join(name, flag) for name, conv in convs for flag in ("sorted_in", "sorted_out") if getattr(conv, flag)]


def canonical_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict that the model would have if it were not sorted; the model stays as it is."""
    copy = deepcopy(model)
    unsort_channels(copy)
    return copy.state_dict()


def follow_order(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Sort or unsort the model as the one was whose state dict ``state`` is. Raises UserError as unsort_channels."""
    if any(key.rpartition(".")[2] in ORDERS for key in state):
        sort_channels(model)
    else:
        unsort_channels(model)


@dataclass(frozen=True, eq=False)
class _Tensor:
    """A tensor that one convolution of a block puts out and the next one reads, and nothing else."""

    producer: nn.Conv2d
    consumer: nn.Conv2d
    norm: nn.Module
    act: nn.Module
    names: tuple[str, str]

    @property
    def poly_scales(self) -> list[tuple[str, PSConv2d, int]]:
        """The poly-scale convolutions at its ends: the name of the flag, the module, and its channels there."""
        found = []
        for name, side, conv in zip(self.names, ("out", "in"), (self.producer, self.consumer), strict=True):
            if type(conv) is PSConv2d and len(conv.cycle) > 1:
                found.append((_join(name, f"sorted_{side}"), conv, getattr(conv, f"{side}_channels")))
        return found

    @property
    def foldable(self) -> bool:
        """Whether all that touches it can have its channels in the order of a poly-scale convolution."""
        poly_scales = self.poly_scales
        own = [conv for _, conv, _ in poly_scales]
        others = [conv for conv in (self.producer, self.consumer) if conv not in own]
        return (
            len({(conv.cycle, conv.groups) for conv in own}) == 1
            and all(
                sortable(channels, operation_of(conv.signature).conv.levels[0]) for _, conv, channels in poly_scales
            )
            and all(type(conv) in (*PLAIN, PSConv2d) and conv.groups == 1 for conv in others)
            and type(self.norm) in _NORMS
            and all(
                set(module._parameters) <= {"weight", "bias"} for module in (self.producer, self.consumer, self.norm)
            )
            and not any(True for _ in self.act.parameters())
            and not any(layer._forward_hooks or layer._forward_pre_hooks for layer in self.layers)
        )

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """The modules that touch it."""
        return self.producer, self.norm, self.act, self.consumer

    def flags(self) -> dict[str, bool]:
        """Of the poly-scale convolutions at its ends, whether they take its channels as sorted."""
        return {name: getattr(conv, name.rpartition(".")[2]) for name, conv, _ in self.poly_scales}

    @torch.no_grad()
    def turn(self, to_sorted: bool) -> None:
        """Bring its channels into the other order."""
        _, conv, channels = self.poly_scales[0]
        order = canonical(channels, conv.groups, conv.cycle, True)
        order = order if to_sorted else sorted(range(channels), key=order.__getitem__)
        _permute(self.producer.weight, 0, order)
        # All groups have the same order, and a column of the weight stands for one channel of each.
        _permute(self.consumer.weight, 1, order[: self.consumer.weight.shape[1]])
        for tensor in (self.producer.bias, *(getattr(self.norm, name, None) for name in _PER_CHANNEL)):
            if tensor is not None:
                _permute(tensor, 0, order)
        for name, conv, _ in self.poly_scales:
            setattr(conv, name.rpartition(".")[2], to_sorted)


def _foldable(model: nn.Module) -> Iterator[_Tensor]:
    """The tensors between the convolutions of every main branch that can be sorted."""
    uses = Counter(parameter for _, parameter in model.named_parameters(remove_duplicate=False))
    for path, block in model.named_modules():
        if type(block) not in _NORM_BEHIND:
            continue
        for i in range(1, block.depth):
            producer, consumer = block.get_submodule(f"conv{i}"), block.get_submodule(f"conv{i + 1}")
            norm = block.get_submodule(f"norm{i + _NORM_BEHIND[type(block)]}")
            act = block.get_submodule(f"act{i + 1}" if type(block) is PreBlock else "act")
            if isinstance(producer, nn.Conv2d) and isinstance(consumer, nn.Conv2d):
                names = _join(path, f"conv{i}"), _join(path, f"conv{i + 1}")
                tensor = _Tensor(producer, consumer, norm, act, names)
                if tensor.foldable and not any(uses[p] > 1 for layer in tensor.layers for p in layer.parameters()):
                    yield tensor


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _permute(tensor: Tensor, dim: int, order: Sequence[int]) -> None:
    for each in (tensor, tensor.grad):
        if each is not None:
            each.copy_(each.index_select(dim, torch.tensor(order, device=each.device)))
