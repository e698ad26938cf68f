"""The training loop: stochastic gradient descent over images that lie in memory as uint8 tensors on the device.

Every random number of an epoch comes from a generator seeded with (seed, epoch), so that a training that goes on from a
checkpoint of weights and momentum equals the uninterrupted one bit for bit, with no generator state to keep.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyconv_search.models.sorting import sort_channels
from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.study.recipe import Recipe
from pyconv_search.training.augment import crop_and_flip, normalise
from pyconv_search.training.data import Split
from pyconv_search.training.device import precision
from pyconv_search.training.schedule import learning_rate

# Steps between two looks at the loss: a look waits for a CUDA device to catch up.
_CHECK = 64


class Diverged(ArithmeticError):
    """The loss became infinite or NaN."""


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """One split on the device. ``pixels``: uint8, N × C × H × W. ``labels``: int64, N. ``mean``, ``std``: C × 1 × 1."""

    pixels: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class Scores:
    """Mean cross-entropy in nats, top-1 and top-5 error in percent (top-k of all k classes where these are fewer)."""

    loss: float
    top1_error: float
    top5_error: float


@dataclass(frozen=True, slots=True, eq=False)
class Learner:
    """A model in training, with its optimizer and all that decides the course of the training."""

    model: nn.Module
    optimizer: torch.optim.SGD
    recipe: Recipe
    seed: int
    device: torch.device

    @property
    def precision(self) -> str:
        """``fp32`` or ``bf16``, what is really computed in."""
        return precision(self.recipe, self.device)


def to_device(split: Split, info: DataSetInfo, device: torch.device) -> Images:
    """A split as tensors on ``device``; on a CPU they share the memory of the arrays."""
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1) for values in (info.mean, info.std)
    )
    return Images(torch.from_numpy(split.images).to(device), torch.from_numpy(split.labels).to(device), mean, std)


def make_learner(model: nn.Module, recipe: Recipe, seed: int, device: torch.device) -> Learner:
    """``model`` moved to ``device``, with SGD over all its parameters; weight decay reaches every one of them.

    The channels around its poly-scale convolutions are sorted, so that no step gathers them.
    """
    sort_channels(model)
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    model = model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        model.parameters(),
        recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )
    return Learner(model, optimizer, recipe, seed, device)


def steps(count: int, batch: int) -> int:
    """How many steps an epoch of ``count`` images has; a last batch of one image is left out.

    Batch normalisation has no variance for a single image; any other incomplete batch is trained on.
    """
    whole, rest = divmod(count, batch)
    return whole + (rest > 1 or (rest == 1 and whole == 0))


def order(count: int, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """All of ``count`` indices, shuffled and cut into the batches of one epoch."""
    return torch.randperm(count, generator=generator).split(batch)[: steps(count, batch)]


def generator_of(seed: int, epoch: int) -> torch.Generator:
    """The CPU generator of one epoch: any two of (seed, epoch) have unrelated ones."""
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def first_rate(learner: Learner, images: Images, epoch: int) -> float:
    """The learning rate of the first step of an epoch, counted from 0."""
    per_epoch = steps(len(images), learner.recipe.batch)
    return learning_rate(learner.recipe, epoch * per_epoch, per_epoch)


def train(learner: Learner, images: Images, epoch: int) -> Scores:
    """Train one epoch, counted from 0; the scores are those of the training images as they came, augmented.

    The loss is the one trained on, label smoothing included.

    Raises:
        Diverged: if a loss is not finite, within 64 steps and at the latest when the epoch ends.
    """
    recipe, device = learner.recipe, learner.device
    generator = generator_of(learner.seed, epoch)
    batches = order(len(images), recipe.batch, generator)
    tally = _Tally(device)
    learner.model.train()
    for i, indices in enumerate(batches):
        for group in learner.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch * len(batches) + i, len(batches))
        chosen = indices.to(device)
        labels = images.labels[chosen]
        pixels = crop_and_flip(images.pixels[chosen], recipe.crop, recipe.flip, generator)
        logits = _forward(learner, images, pixels)
        loss = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        learner.optimizer.zero_grad()
        loss.backward()
        learner.optimizer.step()
        tally.add(logits.detach(), labels, loss.detach() * len(labels))
        if i % _CHECK == 0:
            tally.check()
    return tally.scores()


@torch.no_grad()
def evaluate(learner: Learner, images: Images, batch: int = 512) -> Scores:
    """The scores of every image of a split, each counted once whatever ``batch`` is, by the model in evaluation mode.

    Raises:
        Diverged: if the loss is not finite.
    """
    tally = _Tally(learner.device)
    learner.model.eval()
    for start in range(0, len(images), batch):
        labels = images.labels[start : start + batch]
        logits = _forward(learner, images, images.pixels[start : start + batch])
        tally.add(logits, labels, functional.cross_entropy(logits, labels, reduction="sum"))
    return tally.scores()


def ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """The place of the right class, from 0, among the ``logits`` (N × classes) of each of N images.

    Of equal logits the lower class comes first, as in a stable sort; equal ones are frequent in bf16.
    """
    right = logits.gather(1, labels[:, None])
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return ((logits > right) | ((logits == right) & earlier)).sum(1)


def _forward(learner: Learner, images: Images, pixels: Tensor) -> Tensor:
    """The logits, N × classes, in float32."""
    layout = torch.channels_last if learner.recipe.channels_last else torch.contiguous_format
    inputs = normalise(pixels, images.mean, images.std).contiguous(memory_format=layout)
    with torch.autocast(learner.device.type, torch.bfloat16, enabled=learner.precision == "bf16"):
        return learner.model(inputs).float()


class _Tally:
    """Sums that stay on the device until somebody asks."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(3, dtype=torch.float64, device=device)
        self.count = 0

    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        place = ranks(logits, labels)
        self.sums += torch.stack((loss.double(), (place >= 1).sum().double(), (place >= 5).sum().double()))
        self.count += len(labels)

    def check(self) -> None:
        loss = self.sums[0].item()
        if not math.isfinite(loss):
            raise Diverged(f"the loss became {loss}")

    def scores(self) -> Scores:
        self.check()
        loss, top1, top5 = self.sums.tolist()
        return Scores(loss / self.count, 100 * top1 / self.count, 100 * top5 / self.count)
