"""How fast a network is trained and evaluated on this machine: real steps of the loop on random images, timed.

Beside them, in the same rounds, a plain loop over the same network can be timed: float32, contiguous, eager, with the
settings that PyTorch has by default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.models import build
from pyconv_search.ops.timing import Clock, Spread, Times, clock_of, interleaved
from pyconv_search.study.recipe import Recipe
from pyconv_search.training import loop, memory
from pyconv_search.training.augment import normalise
from pyconv_search.training.device import settle
from pyconv_search.training.learner import Learner, make_learner
from pyconv_search.training.source import Images, Source, View
from pyconv_search.units import size_text

# By mode the multiply-adds over those of one forward pass: each gradient takes as many again.
MODES = {"forward": 1, "training": 3}
OURS, PLAIN = "ours", "plain"
# A rate so small that the numbers stay as they are, whose size some processors' speed depends on.
_RATE = 1e-6
# Steps that are timed together on a GPU, so that waiting for it is shared among them.
_STEPS = 16


@dataclass(frozen=True, slots=True)
class Case:
    """A network that is trained by a recipe on a device, with so many threads of a CPU."""

    architecture: Architecture
    recipe: Recipe
    device: torch.device
    threads: int

    @property
    def image(self) -> tuple[int, int]:
        """Height and width that the network is made for."""
        *_, height, width = self.architecture.input
        return height, width

    @property
    def steps(self) -> int:
        """How many steps are timed together."""
        return _STEPS if self.device.type == "cuda" else 1

    def passes(self, mode: str) -> int:
        """Forward passes that an image costs in a mode, or what counts as such."""
        return MODES[mode] * (2 if mode == "forward" and self.recipe.mirror else 1)


@dataclass(frozen=True, slots=True)
class Speed:
    """A mode as it was timed; ``what`` is OURS or PLAIN.

    ``seconds``: of one step of ``batch`` images. ``ratio``: of our images per second to these in the same rounds, for
    PLAIN. ``peak_memory``: the most bytes, as :func:`.memory.peak` counts them, for OURS.
    """

    mode: str
    what: str
    batch: int
    seconds: Spread
    rounds: int
    ratio: Spread | None = None
    peak_memory: int = 0

    @property
    def images_per_second(self) -> float:
        """By the median step."""
        return self.batch / self.seconds.median


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A :class:`.Source` of one batch again and again, with nothing done to it: a training without its data."""

    pixels: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor
    batches: int = 1
    views: int = 1

    def __len__(self) -> int:
        return len(self.labels) * self.batches

    def train_batches(self, view: View, order: tuple[Tensor, ...], start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As :class:`.Source` has it, whatever the order."""
        for indices in order[start:]:
            share = view.share(len(indices))
            yield self.pixels[share], self.labels[share]

    def eval_batches(self, view: View, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As :class:`.Source` has it."""
        for _ in range(self.batches):
            yield self.pixels, self.labels


def random_source(architecture: Architecture, count: int, device: torch.device) -> Images:
    """``count`` random images, or clips, of the network's size on the device."""
    generator = torch.Generator().manual_seed(0)
    channels, *size = architecture.input
    pixels = torch.randint(256, (count, channels, *size), dtype=torch.uint8, generator=generator).to(device)
    labels = torch.randint(architecture.classes, (count,), generator=generator).to(device)
    mean, std = (torch.full((channels, *[1] * len(size)), value, device=device) for value in (0.5, 0.25))
    return Images(pixels, labels, mean, std)


def ready(case: Case) -> Learner:
    """The network of a case as a trial of a study has it, but for the learning rate, which is all but zero."""
    recipe = replace(case.recipe, lr=_RATE, lr_batch=0)
    return make_learner(build(case.architecture), recipe, 0, case.device)


def call(mode: str, case: Case, learner: Learner, source: Source) -> Callable[[], object]:
    """What is timed: an epoch over all images of ``source``, or their evaluation in batches like those of training."""
    view = loop.view_of(learner, 0, case.image, full=True)
    batch = case.recipe.batch * source.views

    def action() -> object:
        settle(case.device, case.threads, case.recipe.deterministic)
        if mode == "training":
            return loop.train(learner, source, view)
        return loop.evaluate(learner, source, view, batch)

    return action


def plain_call(mode: str, case: Case, source: Source) -> Callable[[], object]:
    """As many steps of a plain loop over the network and a constant batch as ``source`` has batches."""
    model = build(case.architecture).to(case.device).train(mode == "training")
    view = View(case.recipe, 0, 0, case.image)
    pixels, labels = next(source.eval_batches(view, case.recipe.batch))
    inputs = normalise(pixels, source.mean, source.std)
    optimizer = torch.optim.SGD(model.parameters(), _RATE, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    def action() -> None:
        settle(case.device, case.threads, False)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = False, True  # PyTorch's own settings
        for _ in range(len(source) // case.recipe.batch):
            if mode == "training":
                step()
            else:
                torch.no_grad()(model)(inputs)

    return action


def measure(case: Case, seconds: float, plain: bool = False, clock: Clock | None = None) -> Iterator[list[Speed]]:
    """Time the MODES of a case one after the other, each for ``seconds`` or three rounds; with PLAIN if it is wanted.

    ``clock``: another than the device's.

    Raises:
        UserError: if the images do not fit into the device's memory beside the network.
    """
    check_memory(case)
    try:
        yield from _measured(case, seconds, plain, clock or clock_of(case.device))
    except (RuntimeError, MemoryError) as error:
        if not memory.exhausted(error):
            raise
        said, taken = str(error).strip().splitlines()[-1:], memory.peak(case.device)
        raise UserError(
            f"{_too_large(case)}, and there was no more after {size_text(taken)}: {''.join(said)}"
        ) from None


def _measured(case: Case, seconds: float, plain: bool, clock: Clock) -> Iterator[list[Speed]]:
    learner, source = ready(case), random_source(case.architecture, case.recipe.batch * case.steps, case.device)
    actions = {mode: {OURS: call(mode, case, learner, source)} for mode in MODES}
    peaks = {mode: _peak(actions[mode][OURS], case.device) for mode in MODES}
    for mode in MODES:
        if plain:
            actions[mode][PLAIN] = plain_call(mode, case, source)
        times = interleaved(actions[mode], OURS, seconds=seconds, clock=clock)
        yield [_speed(mode, what, case, found, peaks[mode]) for what, found in times.items()]


def _peak(action: Callable[[], object], device: torch.device) -> int:
    memory.reset_peak(device)
    action()
    return memory.peak(device)


def _speed(mode: str, what: str, case: Case, times: Times, peak: int) -> Speed:
    seconds = Spread(*(getattr(times.seconds, name) / case.steps for name in Spread.__slots__))
    ratio = times.ratio if what == PLAIN else None
    return Speed(mode, what, case.recipe.batch, seconds, times.rounds, ratio, peak if what == OURS else 0)


def needed(case: Case, batch: int) -> int:
    """Bytes that a training step takes at least (:func:`pyconv_search.training.memory.least`)."""
    return sum(memory.least(case.architecture, case.recipe, case.device, -(-batch // case.recipe.accumulate)))


def check_memory(case: Case) -> None:
    """Raise UserError with the largest batch that can fit where the recipe's cannot."""
    there, batch = memory.available(case.device), case.recipe.batch
    if there is None or needed(case, batch) <= there:
        return
    fitting = [n for n in range(1, 16) if needed(case, 2**n) <= there]
    nearest = f"nearest: {2 ** fitting[-1]}" if fitting else "the network alone is too large"
    raise UserError(f"{_too_large(case)}, but {size_text(there)} are free; {nearest}")


def _too_large(case: Case) -> str:
    least = needed(case, case.recipe.batch)
    return f"a batch of {case.recipe.batch} images needs at least {size_text(least)} of memory to train"
