"""Images that are read and decoded while the network trains, by threads that work a few batches ahead."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.training.data import Encoded, Split
from pyconv_search.training.data.parallel import in_order
from pyconv_search.training.data.picture import Look, See, central_crop, pixels, resized_crop, short_side_crop
from pyconv_search.training.randomness import seed_of
from pyconv_search.training.source import Source, View, to_device

# Batches in the making while another is trained on.
AHEAD = 3
# Images that one thread makes at a stretch.
_CHUNK = 8


def source_of(split: Split | Encoded, info: DataSetInfo, device: torch.device) -> Source:
    """A split as a training wants it: on the device as a whole, or decoded batch by batch."""
    return Stream(split, info, device) if isinstance(split, Encoded) else to_device(split, info, device)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """Images to write into ``pixels`` (uint8, n × H × W × C); ``batch`` is the whole batch where it ends with them."""

    pixels: npt.NDArray[np.uint8]
    indices: Sequence[int]
    batch: tuple[Tensor, Tensor] | None


class Stream:
    """One split, decoded by as many threads as torch computes with: a :class:`pyconv_search.training.source.Source`.

    Batches are uint8, channels last in memory, pinned on their way to a CUDA device. What is seen of an image is a
    function of the view's seed and epoch and of the image's index alone. An image that cannot be decoded raises a
    UserError that names its file. When an iterator is closed before its end its threads have ended, too.
    """

    views = 1

    def __init__(self, split: Encoded, info: DataSetInfo, device: torch.device) -> None:
        self._split, self._device, self._full = split, device, info.input[1:]
        self.mean, self.std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1) for values in (info.mean, info.std)
        )

    def __len__(self) -> int:
        return len(self._split)

    def train_batches(self, view: View, order: tuple[Tensor, ...], start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As :class:`Source` has it: random resized crop, short-side crop, or else the central crop; mirrored."""
        batches = (batch[view.share(len(batch))].tolist() for batch in order[start:])
        most = math.ceil(max(map(len, order[start:]), default=0) / view.world)
        return self._batches(batches, partial(self._drawn, view), view.size, most)

    def eval_batches(self, view: View, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As :class:`Source` has it: the central crop."""
        share = view.share(len(self))
        batches = (range(first, min(first + batch, share.stop)) for first in range(share.start, share.stop, batch))
        central = partial(central_crop, view.recipe.center, view.size)
        return self._batches(batches, lambda _: central, view.size, batch)

    def _drawn(self, view: View, index: int) -> See:
        recipe, draws = view.recipe, random.Random(seed_of(view.seed, view.epoch, "image", index))
        if recipe.scale[1]:
            return partial(resized_crop, recipe.scale, recipe.flip, draws)
        if recipe.short_side[1]:
            # The interval is meant for images of the full size.
            low, high = (math.ceil(side * view.size[0] / self._full[0]) for side in recipe.short_side)
            return lambda *shape: short_side_crop((low, high), recipe.flip, view.size, draws, shape)
        mirrored = recipe.flip and draws.random() < 0.5
        return lambda *shape: Look(central_crop(recipe.center, view.size, *shape).box, False, mirrored)

    def _batches(
        self, batches: Iterable[Sequence[int]], see: Callable[[int], See], size: tuple[int, int], most: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of ``most`` images or fewer, moved to the device while the next ones are made."""

        def fill(job: _Job) -> tuple[Tensor, Tensor] | None:
            for place, index in zip(job.pixels, job.indices, strict=True):
                place[...] = pixels(self._split.read(index), self._split.source(index), see(index), size)
            return job.batch

        jobs = (job for batch in batches for job in self._jobs(batch, size))
        ahead = AHEAD * max(math.ceil(most / _CHUNK), 1)
        for batch in in_order(fill, jobs, torch.get_num_threads(), ahead):
            if batch is not None:
                images, labels = (part.to(self._device, non_blocking=True) for part in batch)
                yield images, labels

    def _jobs(self, indices: Sequence[int], size: tuple[int, int]) -> Iterator[_Job]:
        """The work that one batch is, in memory of its own."""
        pinned = self._device.type == "cuda"
        images = torch.empty((len(indices), *size, 3), dtype=torch.uint8, pin_memory=pinned)
        labels = torch.from_numpy(self._split.labels[np.asarray(indices, np.int64)])
        batch = images.permute(0, 3, 1, 2), labels.pin_memory() if pinned else labels
        # A batch without images is one piece of work, too: every process has as many batches as the others.
        for first in range(0, max(len(indices), 1), _CHUNK):
            chunk = indices[first : first + _CHUNK]
            yield _Job(images.numpy()[first : first + _CHUNK], chunk, batch if first + _CHUNK >= len(indices) else None)
