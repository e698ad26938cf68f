"""Networks of one architecture trained together in one process: a step computes all of them at once.

The tensors of the networks are stacked, and one forward and backward pass is that of all members (``torch.func``, after
Horace He and Richard Zou's ensembling with ``vmap``): an n-th of the kernels to launch, each n times as large. All that
makes a training its own stays each member's: data order, augmentation, statistics of batch normalisation, gradient
clipping, the scale of the loss, optimizer and averaged weights. Members' tensors are views of the stacked ones, so that
a member is an ordinary :class:`Learner` at any time: it can be saved, evaluated and trained on by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyconv_search.training.augment import normalise
from pyconv_search.training.learner import Learner
from pyconv_search.training.loop import (
    EVALUATED,
    Batch,
    answers,
    check,
    combined,
    laid_out,
    looked_at,
    order,
    parts_of,
    set_rate,
    update,
)
from pyconv_search.training.randomness import generator_of
from pyconv_search.training.source import Source, View
from pyconv_search.training.stacked_call import stacked_call
from pyconv_search.training.tally import Diverged, Scores, Tally

# As training.loop.Watch, with the sums of every member.
Watch = Callable[[int, Sequence[Tally]], None]


def obstacle(learners: Sequence[Learner]) -> str:
    """Why these learners cannot be stacked; empty if they can."""
    first, recipe = learners[0], learners[0].recipe
    if any((other.recipe, other.device) != (recipe, first.device) for other in learners):
        return "their recipes or devices differ"
    if any(learner.world > 1 for learner in learners):
        return "each is trained by several processes"
    if recipe.compile != "none":
        return f"compile: {recipe.compile} compiles each network by itself"
    if recipe.dropout:
        return "dropout draws its numbers inside the network"
    if any(_shapes(other.model) != _shapes(first.model) for other in learners):
        return "their networks differ"
    return ""


class Stack:
    """Learners of one recipe and architecture as one; ``learners`` go on being those of its members.

    A member that is to leave for good needs no farewell. To go on with fewer or other members, make another Stack.

    Raises:
        ValueError: if they cannot be stacked, with the reason that :func:`obstacle` tells.
    """

    def __init__(self, learners: Sequence[Learner]) -> None:
        reason = obstacle(learners)
        if reason:
            raise ValueError(f"networks that cannot be stacked: {reason}")
        self.learners = tuple(learners)
        models = [learner.model for learner in learners]
        self._parameters: dict[str, Tensor] = _stacked(models, _parameters)
        for tensor in self._parameters.values():
            tensor.requires_grad_()
        self._buffers = _stacked(models, _buffers)
        evaluated = [learner.evaluated for learner in learners]
        averaged = learners[0].averages is not None
        self._evaluated = (
            (_stacked(evaluated, _parameters), _stacked(evaluated, _buffers))
            if averaged
            else ({name: tensor.detach() for name, tensor in self._parameters.items()}, self._buffers)
        )

    def __len__(self) -> int:
        return len(self.learners)

    def logits(self, inputs: Tensor) -> Tensor:
        """Those of the trained networks in training mode: members × N × classes.

        ``inputs``: N × (members · C) × H × W, for each member its own images.
        """
        own = inputs.unflatten(1, (len(self), -1))
        return stacked_call(self.learners[0].model.train(), 1)(self._parameters, self._buffers, own)

    def answers(self, inputs: Tensor) -> Tensor:
        """The logits of the evaluated networks, of the same images (N × C × H × W) for all: members × N × classes."""
        return stacked_call(self.learners[0].evaluated.eval(), None)(*self._evaluated, inputs)

    def update(self) -> None:
        """Let every member step by its share of the gradients."""
        for i, learner in enumerate(self.learners):
            for name, parameter in learner.model.named_parameters():
                grads = self._parameters[name].grad
                parameter.grad = None if grads is None else grads[i]
            update(learner)
            learner.optimizer.zero_grad()
        for tensor in self._parameters.values():
            tensor.grad = None


def train(
    stack: Stack,
    source: Source,
    views: Sequence[View],
    begun: Sequence[tuple[int, tuple[float, ...]]],
    watch: Watch | None = None,
) -> list[Scores | Diverged]:
    """As :func:`pyconv_search.training.loop.train` for every member, all at the same step of the same epoch.

    A member whose loss is not finite does not raise: its Diverged stands in the place of its scores, and the others go
    on; its weights are of no further use.
    """
    learners, first = stack.learners, begun[0][0]
    device, recipe, epoch = learners[0].device, learners[0].recipe, views[0].epoch
    places = [(view.epoch, steps) for view, (steps, _) in zip(views, begun, strict=True)]
    if len(set(places)) > 1:
        raise ValueError(f"members must be at the same step, but their (epoch, step) are {places}")
    orders = [order(len(source), recipe.batch, generator_of(learner.seed, epoch)) for learner in learners]
    tallies, lost = [Tally(device, sums) for _, sums in begun], dict[int, Diverged]()
    streams = [source.train_batches(view, own, first) for view, own in zip(views, orders, strict=True)]
    for step, drawn in enumerate(zip(*streams, strict=True), first):
        batches = [Batch(normalise(pixels, source.mean, source.std), labels, len(labels)) for pixels, labels in drawn]
        for learner, batch, view in zip(learners, batches, views, strict=True):
            set_rate(learner, epoch * len(orders[0]) + step, len(orders[0]))
            batch.augment(view, step)
        _step(stack, batches, tallies)
        if looked_at(device, step):
            found = [diverged(learner, tally) for learner, tally in zip(learners, tallies, strict=True)]
            lost |= {i: error for i, error in enumerate(found) if i not in lost and error is not None}
        if len(lost) == len(learners):
            break
        if watch is not None:
            watch(step + 1, tallies)
    return _results(learners, tallies)


def evaluate(stack: Stack, source: Source, view: View, batch: int = EVALUATED) -> list[Scores | Diverged]:
    """As :func:`pyconv_search.training.loop.evaluate` for every member, on the same images."""
    first = stack.learners[0]
    tallies = [Tally(first.device) for _ in stack.learners]
    with torch.no_grad():
        for logits, labels in answers(first, source, view, batch, stack.answers):
            for i, tally in enumerate(tallies):
                found = combined([each[i] for each in logits], source.views)
                tally.add(found, labels, functional.cross_entropy(found, labels, reduction="sum"))
    return _results(stack.learners, tallies)


def _step(stack: Stack, batches: Sequence[Batch], tallies: Sequence[Tally]) -> None:
    first = stack.learners[0]
    for part in parts_of(batches[0].whole, first.recipe.accumulate):
        inputs = torch.cat([batch.inputs[part] for batch in batches], 1)
        with first.autocast():
            logits = stack.logits(laid_out(first, inputs)).float()
        losses = [
            batch.loss(own, part, first.recipe.label_smoothing) for batch, own in zip(batches, logits, strict=True)
        ]
        scaled = [
            learner.scaler.scale(loss / batch.whole)
            for learner, loss, batch in zip(stack.learners, losses, batches, strict=True)
        ]
        torch.stack(scaled).sum().backward()
        for tally, own, batch, loss in zip(tallies, logits.detach(), batches, losses, strict=True):
            tally.add(own, batch.counted(part), loss.detach())
    stack.update()


def diverged(learner: Learner, tally: Tally) -> Diverged | None:
    """What :func:`pyconv_search.training.loop.check` raises of a member, if it does."""
    try:
        check(learner, tally)
    except Diverged as error:
        return error
    return None


def _results(learners: Sequence[Learner], tallies: Sequence[Tally]) -> list[Scores | Diverged]:
    pairs = zip(learners, tallies, strict=True)
    return [diverged(learner, tally) or tally.scores() for learner, tally in pairs]


def _parameters(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters())


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_buffers())


def _shapes(model: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in model.state_dict().items()}


def _stacked(models: Sequence[nn.Module], kind: Callable[[nn.Module], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of a kind, stacked by name; those of the models become views of the result, in their own layout."""
    each = [kind(model) for model in models]
    found = {}
    for name, like in each[0].items():
        own = [tensors[name] for tensors in each]
        whole = torch.empty_strided(
            (len(own), *like.shape), (like.numel(), *like.stride()), dtype=like.dtype, device=like.device
        )
        for place, tensor in zip(whole, own, strict=True):
            place.copy_(tensor.detach())
            tensor.data = place
        found[name] = whole
    return found
