"""The training loop: epochs of stochastic gradient descent, and evaluation.

Every random number comes from a generator of its own (seed, epoch, step), so that a training that goes on from a
checkpoint equals the uninterrupted one bit for bit, with no generator state to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pyconv_search.study.growth import resolution
from pyconv_search.training.augment import cut_out, draw_centres, mixed, normalise
from pyconv_search.training.learner import Learner
from pyconv_search.training.parallel import share_buffers, summed
from pyconv_search.training.randomness import generator_of, seed_of
from pyconv_search.training.schedule import learning_rate
from pyconv_search.training.source import Source, View
from pyconv_search.training.tally import Diverged, Scores, Tally

# Images at once in an evaluation.
EVALUATED = 512
# Steps between two looks at the loss on a GPU, which has to catch up for a look.
_CHECK = 16
# A loss scaled by less is one whose gradients were infinite 30 times more often than not, from 2¹⁶ on.
LEAST_SCALE = 2.0**-14

# What is done after each step, given how many steps of the epoch are behind: a place to save, or to stop by raising.
Watch = Callable[[int, Tally], None]


def steps(count: int, batch: int, world: int = 1) -> int:
    """How many steps an epoch of ``count`` images has; a last batch is left out if a process had less than two images.

    Batch normalisation has no variance for a single image; any other incomplete batch is trained on.
    """
    whole, rest = divmod(count, batch)
    return whole + (rest >= 2 * world or whole == 0)


def order(count: int, batch: int, generator: torch.Generator, world: int = 1) -> tuple[Tensor, ...]:
    """All of ``count`` indices, shuffled and cut into the batches of one epoch."""
    return torch.randperm(count, generator=generator).split(batch)[: steps(count, batch, world)]


def first_rate(learner: Learner, source: Source, epoch: int) -> float:
    """The learning rate of the first step of an epoch, counted from 0."""
    per_epoch = steps(len(source), learner.recipe.batch, learner.world)
    return learning_rate(learner.recipe, epoch * per_epoch, per_epoch)


def view_of(learner: Learner, epoch: int, image: tuple[int, int], full: bool = False) -> View:
    """How an epoch looks at images of which the network is made for ``image``; ``full``: at all of their resolution."""
    size = image if full else resolution(learner.recipe, epoch, image)
    return View(learner.recipe, learner.seed, epoch, size, learner.rank, learner.world)


def train(
    learner: Learner,
    source: Source,
    view: View,
    begun: tuple[int, tuple[float, ...]] = (0, (0.0, 0.0, 0.0, 0.0)),
    watch: Watch | None = None,
) -> Scores:
    """Train the epoch that ``view`` is of; the scores are those of the training images as they came, augmented.

    ``begun`` holds the steps of this epoch that were taken before, with the sums of a :class:`Tally` over them. The
    loss is the one trained on, label smoothing included; of two mixed images the larger share's label counts.

    Raises:
        Diverged: if a loss is not finite, at once on a CPU and within 16 steps on a GPU.
    """
    recipe, device = learner.recipe, learner.device
    batches = order(len(source), recipe.batch, generator_of(learner.seed, view.epoch), learner.world)
    first, sums = begun
    tally = Tally(device, sums)
    learner.model.train()
    for i, (pixels, labels) in enumerate(source.train_batches(view, batches, first), first):
        set_rate(learner, view.epoch * len(batches) + i, len(batches))
        inputs = normalise(pixels, source.mean, source.std)
        _step(learner, view, i, Batch(inputs, labels, len(batches[i])), tally)
        if looked_at(device, i):
            check(learner, tally)
        if watch is not None:
            watch(i + 1, tally)
    check(learner, tally)
    share_buffers(learner)
    return summed(tally).scores()


def check(learner: Learner, tally: Tally) -> None:
    """Raise Diverged if the loss is not finite, or the gradients of fp16 however small the loss is scaled."""
    tally.check()
    if learner.scaler.is_enabled() and learner.scaler.get_scale() < LEAST_SCALE:
        raise Diverged("the fp16 gradients stay infinite however small the loss is scaled; use precision: bf16 or fp32")


def set_rate(learner: Learner, step: int, per_epoch: int) -> None:
    """The learning rate of step ``step``, counted from 0 through all epochs, into the optimizer."""
    for group in learner.optimizer.param_groups:
        group["lr"] = learning_rate(learner.recipe, step, per_epoch)


def looked_at(device: torch.device, step: int) -> bool:
    """Whether the loss is looked at after this step."""
    return device.type == "cpu" or step % _CHECK == 0


@torch.no_grad()
def evaluate(learner: Learner, source: Source, view: View, batch: int = EVALUATED) -> Scores:
    """The scores of every example of a split, each counted once whatever ``batch`` is, by the evaluated model.

    Where an example has several views (mirrored, or clips and crops of a video) their probabilities are averaged.

    Raises:
        Diverged: if the loss is not finite.
    """
    tally, model = Tally(learner.device), learner.evaluated
    model.eval()
    for logits, labels in answers(learner, source, view, batch, model):
        found = combined(logits, source.views)
        tally.add(found, labels, functional.cross_entropy(found, labels, reduction="sum"))
    return summed(tally).scores()


def answers(
    learner: Learner, source: Source, view: View, batch: int, model: Callable[[Tensor], Tensor]
) -> Iterator[tuple[list[Tensor], Tensor]]:
    """What ``model`` says of each ``batch`` images of a split, mirrored too where the recipe wants it; and labels."""
    for pixels, labels in source.eval_batches(view, max(batch // source.views, 1)):
        inputs = laid_out(learner, normalise(pixels, source.mean, source.std))
        with learner.autocast():
            logits = [model(x).float() for x in ((inputs, inputs.flip(-1)) if learner.recipe.mirror else (inputs,))]
        yield logits, labels


def combined(logits: list[Tensor], views: int) -> Tensor:
    """One tensor of N × classes from what was said of ``views`` pictures of each example, and of their mirror images.

    Logits where there is one of each; else logarithms of the mean probabilities.
    """
    if len(logits) * views == 1:
        return logits[0]
    probabilities = torch.stack([found.softmax(1).unflatten(0, (-1, views)).mean(1) for found in logits]).mean(0)
    return probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()


class Batch:
    """This process's share of a batch of ``whole`` images, augmented further."""

    def __init__(self, inputs: Tensor, labels: Tensor, whole: int) -> None:
        self.inputs, self.labels, self.whole = inputs, labels, whole
        self.others, self.kept = labels, 1.0

    def augment(self, view: View, step: int) -> None:
        recipe = view.recipe
        key = (view.seed, view.epoch, step)
        if recipe.cutout:
            image = (self.inputs.shape[-2], self.inputs.shape[-1])
            centres = draw_centres(self.whole, image, generator_of(*key, "cutout"))[view.share(self.whole)]
            self.inputs = cut_out(self.inputs, centres, recipe.cutout)
        numbers = np.random.default_rng(seed_of(*key, "mix"))
        if (recipe.cutmix or recipe.mixup) and numbers.random() < recipe.mix:
            self.inputs, self.kept = mixed(self.inputs, recipe.cutmix, recipe.mixup, numbers)
            self.others = self.labels.roll(1, 0)

    def loss(self, logits: Tensor, part: slice, smoothing: float) -> Tensor:
        """The sum over the images of a part."""
        own = functional.cross_entropy(logits, self.labels[part], label_smoothing=smoothing, reduction="sum")
        if self.kept == 1:
            return own
        other = functional.cross_entropy(logits, self.others[part], label_smoothing=smoothing, reduction="sum")
        return self.kept * own + (1 - self.kept) * other

    def counted(self, part: slice) -> Tensor:
        return (self.labels if self.kept >= 0.5 else self.others)[part]


def _step(learner: Learner, view: View, step: int, batch: Batch, tally: Tally) -> None:
    recipe = learner.recipe
    batch.augment(view, step)
    if recipe.dropout:
        torch.manual_seed(seed_of(view.seed, view.epoch, step, view.rank, "dropout"))
    learner.optimizer.zero_grad()
    parts = parts_of(len(batch.labels), recipe.accumulate)
    for part in parts:
        with _alone(learner, part is not parts[-1]):
            with learner.autocast():
                logits = learner.network(laid_out(learner, batch.inputs[part])).float()
            loss = batch.loss(logits, part, recipe.label_smoothing)
            # The mean over the whole batch, whoever computes its parts: processes average their gradients.
            learner.scaler.scale(loss * (learner.world / batch.whole)).backward()
        tally.add(logits.detach(), batch.counted(part), loss.detach())
    update(learner)


def update(learner: Learner) -> None:
    """Clip the gradients, step by them and average the weights, as the recipe has it."""
    if learner.recipe.clip:
        learner.scaler.unscale_(learner.optimizer)
        torch.nn.utils.clip_grad_norm_(learner.model.parameters(), learner.recipe.clip)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    if learner.averages is not None:
        learner.averages.update_parameters(learner.model)


def parts_of(count: int, wanted: int) -> list[slice]:
    """``count`` images in as many equal parts as are wanted, but two images in each (batch normalisation)."""
    number = max(min(wanted, count // 2), 1)
    return [slice(i * count // number, (i + 1) * count // number) for i in range(number)]


def laid_out(learner: Learner, inputs: Tensor) -> Tensor:
    """Normalised images in the memory format of the recipe."""
    last = learner.recipe.channels_last and inputs.dim() == 4
    return inputs.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _alone(learner: Learner, more: bool) -> AbstractContextManager[None]:
    """A context in which several processes do not yet exchange gradients, as ``more`` parts of the batch follow."""
    quiet = getattr(learner.network, "no_sync", None)
    return quiet() if more and quiet is not None else nullcontext()
