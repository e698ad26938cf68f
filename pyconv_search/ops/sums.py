"""Channels taken from tensors, and tensors added up by channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyconv_search.ops.program import Channels, Sums


def take(x: Tensor, channels: Channels) -> Tensor:
    """These channels of N×C×H×W; itself if it is all of them."""
    if channels.index is not None:
        x = x.index_select(1, index(channels.index, x.device))
    elif channels.slices:
        parts = [x[:, part] for part in channels.slices]
        x = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    return x if channels.times == 1 else x.repeat_interleave(channels.times, 1)


def fold(out: Tensor, times: int) -> Tensor:
    """The sums of every ``times`` channels in a row."""
    return out if times == 1 else out.unflatten(1, (-1, times)).sum(2)


def joined(terms: Sequence[Tensor], sums: Sums) -> Tensor:
    """The sum as a new tensor, or the one term itself; differentiable."""
    if sums.orders:
        terms = [
            term.index_select(1, index(order, term.device)) for term, order in zip(terms, sums.orders, strict=True)
        ]
        return sum(terms[1:], terms[0])
    if not sums.runs:
        return terms[0]
    parts = [sum((terms[i][:, own] for i, own in run.terms[1:]), _first(terms, run.terms[0])) for run in sums.runs]
    whole = torch.cat(parts, 1)
    order = [channel for run in sums.runs for channel in range(run.whole.start, run.whole.stop, run.whole.step)]
    if order == sorted(order):
        return whole
    back = sorted(range(len(order)), key=order.__getitem__)
    return whole.index_select(1, torch.tensor(back, device=whole.device))


def _first(terms: Sequence[Tensor], term: tuple[int, slice]) -> Tensor:
    return terms[term[0]][:, term[1]]


def write(into: Tensor, terms: Sequence[Tensor], sums: Sums) -> None:
    """Write the sum over all channels of ``into``."""
    if sums.orders:
        terms = [
            term.index_select(1, index(order, term.device)) for term, order in zip(terms, sums.orders, strict=True)
        ]
        _total(into, terms)
    for run in sums.runs:
        _total(into[:, run.whole], [terms[i][:, own] for i, own in run.terms])
    if sums.nothing:
        into.copy_(terms[0])


def _total(into: Tensor, terms: Sequence[Tensor]) -> None:
    if len(terms) == 1:
        into.copy_(terms[0])
        return
    torch.add(terms[0], terms[1], out=into)
    for term in terms[2:]:
        into.add_(term)


def index(numbers: object, device: torch.device) -> Tensor:
    """Numbers as a tensor to index with."""
    return torch.as_tensor(numbers, device=device)
