"""Random crops and mirrors of a whole batch at once, and normalisation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def crop_and_flip(images: Tensor, crop: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Every image moved by an offset of its own and, where ``flip``, mirrored left to right with probability 1/2.

    ``images``: N × C × H × W, of any type; the result has the same shape, type and device. The offset is that of a
    crop of H × W pixels out of the image with ``crop`` pixels of zeros on every side, as the CIFAR recipe has it since
    He et al. 2016 (section 4.2) and as torchvision's ``RandomCrop(padding=crop)`` does. All randomness comes from
    ``generator``, which is best a CPU generator: then every device draws the same numbers.
    """
    if crop == 0 and not flip:
        return images
    count, channels, height, width = images.shape
    rows = torch.arange(height).repeat(count, 1)
    columns = torch.arange(width).repeat(count, 1)
    if flip:
        mirrored = torch.randint(2, (count, 1), generator=generator).bool()
        columns = torch.where(mirrored, columns.flip(1), columns)
    if crop:
        offsets = torch.randint(2 * crop + 1, (2, count, 1), generator=generator)
        rows, columns = rows + offsets[0], columns + offsets[1]
    padded = functional.pad(images, (crop, crop, crop, crop))
    pixels = (rows[:, :, None] * (width + 2 * crop) + columns[:, None, :]).view(count, 1, height * width)
    index = pixels.to(images.device).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, index).view_as(images)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 ``images`` (N × C × H × W) as float32, scaled to [0, 1], less ``mean`` and divided by ``std``.

    ``mean`` and ``std``: one number a channel, C × 1 × 1, in units of [0, 1].
    """
    return images.float().div_(255).sub_(mean).div_(std)
