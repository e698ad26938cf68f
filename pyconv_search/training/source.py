"""Where a training's images come from: what the loop asks of them, and images that lie on the device as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.study.recipe import Recipe
from pyconv_search.training.augment import draw_boxes, draw_moves, moved, resized, resized_crops, sent
from pyconv_search.training.data import Split
from pyconv_search.training.randomness import generator_of


@dataclass(frozen=True, slots=True)
class View:
    """How an epoch, counted from 0, looks at the images.

    ``size``: height and width that the network is given. This process is number ``rank`` of ``world`` that share every
    batch.
    """

    recipe: Recipe
    seed: int
    epoch: int
    size: tuple[int, int]
    rank: int = 0
    world: int = 1

    def share(self, count: int) -> slice:
        """This process's part of ``count`` images; the parts of all processes differ by one image at most."""
        return slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)


class Source(Protocol):
    """One split of a data set. Images are n × C × H × W (clips n × C × T × H × W) with values from 0 to 255.

    What it yields is a function of the arguments alone, whichever process asks and however often. ``mean`` and ``std``
    lie on the device, one number a channel, shaped C × 1 × 1 (clips C × 1 × 1 × 1), in units of [0, 1]. ``views``: so
    many images in a row show one example when it is evaluated (clips and crops of a video).
    """

    @property
    def mean(self) -> Tensor: ...
    @property
    def std(self) -> Tensor: ...
    @property
    def views(self) -> int: ...
    def __len__(self) -> int: ...

    def train_batches(self, view: View, order: tuple[Tensor, ...], start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """From batch ``start`` on, this process's share of each batch of indices: pixels as augmented, and labels.

        Crops and mirror images are made here; what mixes images or blanks parts of them is the loop's.
        """
        ...

    def eval_batches(self, view: View, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of all examples, in order, ``batch`` or fewer at a time."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """One split on the device. ``pixels``: uint8, N × C × H × W. ``labels``: int64, N. ``mean``, ``std``: C × 1 × 1.

    Of clips, ``pixels`` are N × C × T × H × W, and ``mean`` and ``std`` C × 1 × 1 × 1.
    """

    pixels: Tensor
    labels: Tensor
    mean: Tensor
    std: Tensor
    views: int = 1

    def __len__(self) -> int:
        return len(self.labels)

    def train_batches(self, view: View, order: tuple[Tensor, ...], start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As :class:`Source` has it; cropped and mirrored in batches, on the device."""
        recipe, image = view.recipe, (self.pixels.shape[-2], self.pixels.shape[-1])
        for step in range(start, len(order)):
            count, share = len(order[step]), view.share(len(order[step]))
            chosen = sent(order[step][share], self.pixels.device)
            pixels = self._flat(self.pixels.index_select(0, chosen))
            generator = generator_of(view.seed, view.epoch, step)
            moves = draw_moves(count, recipe.crop, recipe.flip, generator)[share]
            if recipe.scale[1]:
                boxes = draw_boxes(count, image, recipe.scale, generator)[share]
                found = resized_crops(pixels, boxes, moves[:, 2], image)
            else:
                found = moved(pixels, moves, recipe.crop)
            yield self._whole(resized(found, view.size)), self.labels[chosen]

    def eval_batches(self, view: View, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As :class:`Source` has it; whole images."""
        share = view.share(len(self))
        for first in range(share.start, share.stop, batch):
            part = slice(first, min(first + batch, share.stop))
            yield self._whole(resized(self._flat(self.pixels[part]), view.size)), self.labels[part]

    def _flat(self, pixels: Tensor) -> Tensor:
        """The frames of clips as channels: all of them are augmented alike."""
        return pixels.flatten(1, -3)

    def _whole(self, pixels: Tensor) -> Tensor:
        return pixels.unflatten(1, self.pixels.shape[1:-2])


def to_device(split: Split, info: DataSetInfo, device: torch.device) -> Images:
    """A split as tensors on ``device``; on a CPU they share the memory of the arrays."""
    mean, std = (
        torch.tensor(values, dtype=torch.float32, device=device).view(-1, *[1] * (len(info.input) - 1))
        for values in (info.mean, info.std)
    )
    return Images(torch.from_numpy(split.images).to(device), torch.from_numpy(split.labels).to(device), mean, std)
