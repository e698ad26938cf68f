"""How many numbers of one image a part of a network keeps in memory at once.

``inference``: the most that live at one time when every tensor is freed after its last reader, rectifiers work in
place and dropout does nothing. ``training``: what is kept for the backward pass when the forward pass ends. Left out
are buffers inside an operator (in inference also the positions of a max pooling) and the one or two numbers a channel
of batch normalisation and dropout; a poly-scale convolution counts as one that reads its input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pyconv_search.arch.trace import Layer, Tensor

# Which tensors the derivative of a layer reads: its inputs, its output, or neither.
_READS_INPUTS = {"conv", "norm", "max-pool", "avg-pool", "linear", "mul", "matmul"}
_READS_OUTPUT = {"relu", "sigmoid", "softmax"}


class Kept(NamedTuple):
    """Elements of one image that a part keeps.

    ``free`` and ``held`` are the inference peaks when the inputs may be freed after their last reader, and when
    something later still reads them; ``read`` says of each input whether inference reads it. ``inside`` is kept for
    training besides the inputs, of which ``first`` says whether each is, and the output, of which ``last`` says so;
    ``indices`` counts the positions that max poolings remember, eight bytes each.
    """

    free: int
    held: int
    read: tuple[bool, ...]
    inside: int
    first: tuple[bool, ...]
    last: bool
    indices: int


def kept(
    layers: Sequence[Layer], inputs: Sequence[Tensor], output: Tensor | None, results: Sequence[Tensor] = ()
) -> Kept:
    """What the ``layers``, called in order, keep; without an ``output`` that another part reads, all is inside.

    ``results`` stay in inference, though nothing reads them.
    """
    sizes = {x.storage: x.size for x in inputs}
    ends = {*sizes} if output is None else {*sizes, output.storage}
    last = set() if output is None else {output.storage}
    stays = last | {x.storage for x in results}
    for layer in layers:
        sizes.setdefault(layer.output.storage, layer.output.size)
    saved = {
        x.storage
        for layer in layers
        for x in (
            *(layer.inputs if layer.kind in _READS_INPUTS else ()),
            *((layer.output,) if layer.kind in _READS_OUTPUT else ()),
        )
    }
    called = _at_inference(layers)
    return Kept(
        free=_peak(called, sizes, inputs, stays),
        held=_peak(called, sizes, inputs, stays | {x.storage for x in inputs}),
        read=tuple(any(x.storage in {y.storage for y in layer.inputs} for layer in called) for x in inputs),
        inside=sum(sizes[n] for n in saved - ends),
        first=tuple(x.storage in saved for x in inputs),
        last=bool(saved & last),
        indices=sum(layer.output.size for layer in layers if layer.kind == "max-pool"),
    )


def _at_inference(layers: Sequence[Layer]) -> Sequence[Layer]:
    """The layers without those of training; what follows a dropout reads what the dropout did."""
    if not any(layer.training or layer.kind == "dropout" for layer in layers):
        return layers
    called: list[Layer] = []
    passed: dict[int, Tensor] = {}
    for layer in layers:
        inputs = tuple(passed.get(x.storage, x) for x in layer.inputs)
        if layer.kind == "dropout":
            passed[layer.output.storage] = inputs[0]
        elif not layer.training:
            called.append(layer._replace(inputs=inputs, output=passed.get(layer.output.storage, layer.output)))
    return called


def _peak(layers: Sequence[Layer], sizes: dict[int, int], inputs: Sequence[Tensor], held: set[int]) -> int:
    """The most elements that live at one time; those of ``held`` are never freed."""
    last_reader = {x.storage: i for i, layer in enumerate(layers) for x in (*layer.inputs, layer.output)}
    alive = {x.storage for x in inputs} & (last_reader.keys() | held)
    now = peak = sum(sizes[n] for n in alive)
    for i, layer in enumerate(layers):
        if layer.output.storage not in alive:
            alive.add(layer.output.storage)
            now += sizes[layer.output.storage]
        peak = max(peak, now)
        for n in {x.storage for x in (*layer.inputs, layer.output)} - held:
            if last_reader[n] == i:
                alive.remove(n)
                now -= sizes[n]
    return peak


def chain(links: Sequence[Kept], sizes: Sequence[int]) -> Kept:
    """What parts of one input and one output keep when they run one after the other.

    ``sizes`` are the elements of the chain's input and of every part's output.
    """
    between = zip(sizes[1:-1], links, links[1:], strict=False)
    return Kept(
        free=max(link.free for link in links),
        held=max(links[0].held, *(sizes[0] + link.free for link in links[1:])) if len(links) > 1 else links[0].held,
        read=links[0].read,
        inside=sum(link.inside for link in links) + sum(n for n, a, b in between if a.last or b.first[0]),
        first=links[0].first,
        last=links[-1].last,
        indices=sum(link.indices for link in links),
    )


def whole(body: Sequence[Kept], sizes: Sequence[int], head: Kept, taps: Sequence[int]) -> tuple[int, int, int]:
    """(inference peak, kept for training, pooling positions) of a chain whose tensors ``taps`` a head reads.

    ``sizes`` are the elements of the image and of every part's output; ``taps`` number them.
    """
    peak = waiting = 0
    read = {tap for tap, wanted in zip(taps, head.read, strict=True) if wanted}
    for i, part in enumerate(body):
        peak = max(peak, waiting + (part.held if i in read else part.free))
        waiting += sizes[i] if i in read else 0
    tapped = dict(zip(taps, head.first, strict=True))
    training = head.inside + sum(part.inside for part in body)
    for i, size in enumerate(sizes):
        before, after = i > 0 and body[i - 1].last, i < len(body) and body[i].first[0]
        training += size if before or after or tapped.get(i, False) else 0
    return max(peak, head.free), training, head.indices + sum(part.indices for part in body)
