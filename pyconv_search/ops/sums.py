"""Channels taken from tensors, and tensors added up by channels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from pyconv_search.ops.program import Channels, Integers, Order, Sums


def take(x: Tensor, channels: Channels) -> Tensor:
    """These channels of N×C×H×W; itself if it is all of them. Differentiable."""
    if channels.slices:
        parts = [x[:, part] for part in channels.slices]
        x = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    elif channels.order is not None:
        x = x.index_select(1, index(channels.order.numbers, x.device))
    return x if channels.times == 1 else x.repeat_interleave(channels.times, 1)


def taken(x: Tensor, channels: Channels) -> Tensor:
    """As :func:`take`, without a gradient, by the fastest way."""
    if channels.order is None or not ((channels.narrow and _narrow(x)) or not channels.slices):
        return take(x, channels)
    x = _reordered(x, channels.order)
    return x if channels.times == 1 else x.repeat_interleave(channels.times, 1)


def fold(out: Tensor, times: int) -> Tensor:
    """The sums of every ``times`` channels in a row."""
    return out if times == 1 else out.unflatten(1, (-1, times)).sum(2)


def joined(terms: Sequence[Tensor], sums: Sums) -> Tensor:
    """The sum as a new tensor, or the one term itself. Differentiable."""
    if not sums.runs and not sums.orders:  # not sums.one: Dynamo does not read that property
        return terms[0]
    if not sums.runs:
        pairs = zip(terms, sums.orders, strict=True)
        terms = [term.index_select(1, index(order.numbers, term.device)) for term, order in pairs]
        return _added(terms)
    parts = [_added([_part(terms[i], own) for i, own in run.terms]) for run in sums.runs]
    whole = torch.cat(parts, 1)
    order = [channel for run in sums.runs for channel in range(run.whole.start, run.whole.stop, run.whole.step)]
    if order == sorted(order):
        return whole
    back = sorted(range(len(order)), key=order.__getitem__)
    return whole.index_select(1, torch.tensor(back, device=whole.device))


def _added(terms: Sequence[Tensor]) -> Tensor:
    whole = terms[0]
    for term in terms[1:]:
        whole = whole + term
    return whole


def write(into: Tensor, terms: Sequence[Tensor], sums: Sums) -> None:
    """Write the sum over all channels of ``into``."""
    if sums.one:
        into.copy_(terms[0])
    elif not sums.runs or (sums.narrow and all(map(_narrow, terms))):
        _total(into, [_reordered(term, order) for term, order in zip(terms, sums.orders, strict=True)])
    else:
        for run in sums.runs:
            _total(into[:, run.whole], [_part(terms[i], own) for i, own in run.terms])


def _part(x: Tensor, channels: slice) -> Tensor:
    return x if channels == slice(0, x.shape[1], 1) else x[:, channels]


def _narrow(x: Tensor) -> bool:
    """Whether short runs of its channels are too short for vector instructions."""
    return x.element_size() == 2 and _octets_last(x)


def _octets_last(x: Tensor) -> bool:
    """Whether eight channels that stand together are a multiple of 16 bytes, and all of x can be seen as such."""
    units = 16 // x.element_size() if x.element_size() in (2, 4) else 0
    last = units > 0 and x.shape[1] % 8 == 0 and x.is_contiguous(memory_format=torch.channels_last)
    # Strides of sides of one pixel may be anything, and a tensor may begin anywhere in another's memory.
    return last and all(n % units == 0 for n in (x.storage_offset(), x.stride(0), x.stride(2), x.stride(3)))


def _reordered(x: Tensor, order: Order) -> Tensor:
    if order.octets is None or not _octets_last(x):
        return x.index_select(1, index(order.numbers, x.device))
    wide = x.permute(0, 2, 3, 1).view(torch.complex128)  # any type of 16 bytes
    numbers = order.octets if x.element_size() == 2 else order.halves
    return wide.index_select(3, index(numbers, x.device)).view(x.dtype).permute(0, 3, 1, 2)


def _total(into: Tensor, terms: Sequence[Tensor]) -> None:
    if len(terms) == 1:
        into.copy_(terms[0])
        return
    torch.add(terms[0], terms[1], out=into)
    for term in terms[2:]:
        into.add_(term)


def index(numbers: Integers, device: torch.device) -> Tensor:
    """Numbers as a tensor to index with; made once for a device other than a CPU, so that graphs can be captured."""
    if torch.compiler.is_compiling():
        # Added to, since of an array as it stands a strict export keeps a fake tensor (PyTorch 2.13).
        return torch.as_tensor(numbers + 0, device=device)
    if device.type == "cpu" or torch._C._len_torch_dispatch_stack():  # such as a mode of fake tensors, not to be kept
        return torch.as_tensor(numbers, device=device)
    return _index(_Same(numbers), device)


class _Same:
    """An array that is equal to itself alone."""

    def __init__(self, numbers: Integers) -> None:
        self.numbers = numbers

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.numbers is other.numbers

    def __hash__(self) -> int:
        return id(self.numbers)


@lru_cache(maxsize=4096)
def _index(same: _Same, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # training may take it later
        return torch.as_tensor(same.numbers, device=device)
