"""Images and videos that are read and decoded while the network trains, by threads that work a few batches ahead."""

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
from pyconv_search.training.data.picture import (
    Look,
    See,
    central_crop,
    even_crops,
    pixels,
    resized_crop,
    short_side_crop,
)
from pyconv_search.training.data.video import Clip, clips, even_frames, random_frames
from pyconv_search.training.randomness import seed_of
from pyconv_search.training.source import Source, View, to_device

# Batches in the making while another is trained on.
AHEAD = 3

# From an example to its views, as they lie in memory: views × (frames ×) height × width × channels.
Make = Callable[[int], npt.NDArray[np.uint8]]


def source_of(split: Split | Encoded, info: DataSetInfo, device: torch.device, views: int = 1) -> Source:
    """A split as a training wants it: on the device as a whole, or decoded batch by batch.

    ``views``: so many clips and crops of a video are seen when it is evaluated.
    """
    if not isinstance(split, Encoded):
        return to_device(split, info, device)
    return ClipStream(split, info, device, views) if split.video else ImageStream(split, info, device)


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """Examples whose views go into ``views`` (uint8, one row an example); ``batch`` is the whole where it ends here."""

    views: npt.NDArray[np.uint8]
    indices: Sequence[int]
    batch: tuple[Tensor, Tensor] | None


class ImageStream:
    """One split, decoded by as many threads as torch computes with: a :class:`pyconv_search.training.source.Source`.

    Batches are uint8, channels last in memory, pinned on their way to a CUDA device. What is seen of an image is a
    function of the view's seed and epoch and of the image's index alone. An image that cannot be decoded raises a
    UserError that names its file. When an iterator is closed before its end its threads have ended, too.
    """

    views = 1
    # Images that one thread makes at a stretch.
    stretch = 8

    def __init__(self, split: Encoded, info: DataSetInfo, device: torch.device) -> None:
        self._split, self._device, self._input = split, device, info.input
        shape = (-1, *[1] * (len(info.input) - 1))
        self.mean, self.std = (
            torch.tensor(values, dtype=torch.float32, device=device).view(shape) for values in (info.mean, info.std)
        )

    def __len__(self) -> int:
        return len(self._split)

    def train_batches(self, view: View, order: tuple[Tensor, ...], start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As :class:`Source` has it: random resized crop, short-side crop, or else the central crop; mirrored."""
        batches = (batch[view.share(len(batch))].tolist() for batch in order[start:])
        most = math.ceil(max(map(len, order[start:]), default=0) / view.world)
        return self._batches(batches, partial(self._trained, view), (1, *view.size), most)

    def eval_batches(self, view: View, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As :class:`Source` has it: the central crop."""
        share = view.share(len(self))
        batches = (range(first, min(first + batch, share.stop)) for first in range(share.start, share.stop, batch))
        return self._batches(batches, partial(self._evaluated, view), (self.views, *view.size), batch)

    def _trained(self, view: View, index: int) -> npt.NDArray[np.uint8]:
        draws = self._draws(view, index)
        return pixels(*self._file(index), self._drawn(view, draws), view.size)[None]

    def _evaluated(self, view: View, index: int) -> npt.NDArray[np.uint8]:
        return pixels(*self._file(index), partial(central_crop, view.recipe.center, view.size), view.size)[None]

    def _file(self, index: int) -> tuple[bytes, str]:
        return self._split.read(index), self._split.source(index)

    def _draws(self, view: View, index: int) -> random.Random:
        return random.Random(seed_of(view.seed, view.epoch, "image", index))

    def _drawn(self, view: View, draws: random.Random) -> See:
        recipe = view.recipe
        if recipe.scale[1]:
            return partial(resized_crop, recipe.scale, recipe.flip, draws)
        if recipe.short_side[1]:
            # The interval is meant for images of the full size.
            low, high = (math.ceil(side * view.size[0] / self._input[-2]) for side in recipe.short_side)
            return lambda *shape: short_side_crop((low, high), recipe.flip, view.size, draws, shape)
        mirrored = recipe.flip and draws.random() < 0.5
        return lambda *shape: Look(central_crop(recipe.center, view.size, *shape).box, False, mirrored)

    def _batches(
        self, batches: Iterable[Sequence[int]], make: Make, shape: tuple[int, ...], most: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of ``most`` examples or fewer, moved to the device while the next ones are made.

        ``shape``: views, height and width of one example.
        """

        def fill(job: _Job) -> tuple[Tensor, Tensor] | None:
            for place, index in zip(job.views, job.indices, strict=True):
                place[...] = make(index)
            return job.batch

        jobs = (job for batch in batches for job in self._jobs(batch, shape))
        ahead = AHEAD * max(math.ceil(most / self.stretch), 1)
        for batch in in_order(fill, jobs, torch.get_num_threads(), ahead):
            if batch is not None:
                images, labels = (part.to(self._device, non_blocking=True) for part in batch)
                yield images, labels

    def _jobs(self, indices: Sequence[int], shape: tuple[int, ...]) -> Iterator[_Job]:
        """The work that one batch is, in memory of its own."""
        pinned = self._device.type == "cuda"
        views, *size = shape
        rows = (len(indices), views, *self._input[1:-2], *size, self._input[0])
        images = torch.empty(rows, dtype=torch.uint8, pin_memory=pinned)
        labels = torch.from_numpy(self._split.labels[np.asarray(indices, np.int64)])
        batch = images.flatten(0, 1).movedim(-1, 1), labels.pin_memory() if pinned else labels
        # A batch without images is one piece of work, too: every process has as many batches as the others.
        for first in range(0, max(len(indices), 1), self.stretch):
            chunk = slice(first, first + self.stretch)
            yield _Job(images.numpy()[chunk], indices[chunk], batch if chunk.stop >= len(indices) else None)


class ClipStream(ImageStream):
    """One split of videos, of which clips are decoded: otherwise as :class:`ImageStream`. ``views``: clips × crops."""

    stretch = 1

    def __init__(self, split: Encoded, info: DataSetInfo, device: torch.device, views: int) -> None:
        super().__init__(split, info, device)
        self.views = views

    def eval_batches(self, view: View, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As :class:`Source` has it: clips spread over time, each with crops spread over its longer side.

        A clip counts as as many images as it has frames.
        """
        return super().eval_batches(view, max(batch // self._input[1], 1))

    def _trained(self, view: View, index: int) -> npt.NDArray[np.uint8]:
        draws = self._draws(view, index)

        def plan(frames: int, width: int, height: int) -> list[Clip]:
            chosen = random_frames(self._input[1], view.recipe.frame_step, draws, frames)
            return [Clip(chosen, self._drawn(view, draws)(width, height))]

        return clips(*self._file(index), plan, view.size)

    def _evaluated(self, view: View, index: int) -> npt.NDArray[np.uint8]:
        recipe = view.recipe
        if recipe.clips * recipe.crops != self.views:
            raise ValueError(f"{recipe.clips} clips × {recipe.crops} crops, but {self.views} views")

        def plan(frames: int, width: int, height: int) -> list[Clip]:
            looks = even_crops(recipe.center, view.size, recipe.crops, width, height)
            times = even_frames(self._input[1], recipe.frame_step, recipe.clips, frames)
            return [Clip(chosen, look) for chosen in times for look in looks]

        return clips(*self._file(index), plan, view.size)
