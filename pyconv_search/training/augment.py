"""Augmentation of whole batches at once, on whatever device they lie.

What is random is drawn for a whole batch on the CPU and given as a tensor with one row an image, so that every device
draws the same numbers and several processes can share a batch.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor of the CPU on another device, without making this process wait for that."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def draw_moves(count: int, crop: int, flip: bool, generator: torch.Generator) -> Tensor:
    """For each image the offset of its crop (row and column, 0 to 2·``crop``) and whether it is mirrored: count × 3."""
    mirrored = torch.randint(2, (count, 1), generator=generator) if flip else torch.zeros(count, 1, dtype=torch.long)
    shape = (2, count, 1)
    offsets = torch.randint(2 * crop + 1, shape, generator=generator) if crop else torch.zeros(shape, dtype=torch.long)
    return torch.cat((*offsets, mirrored), 1)


def moved(images: Tensor, moves: Tensor, crop: int) -> Tensor:
    """Every image moved by its own offset and, where it is so drawn, mirrored left to right.

    ``images``: N × C × H × W, of any type; the result has the same shape, type and device. ``moves``: N × 3 as
    :func:`draw_moves` gives it. The offset is that of a crop of H × W pixels out of the image with ``crop`` pixels of
    zeros on every side, as the CIFAR recipe has it since He et al. 2016 (section 4.2) and as torchvision's
    ``RandomCrop(padding=crop)`` does.
    """
    if not moves.any() and crop == 0:
        return images
    count, channels, height, width = images.shape
    device = images.device
    top, left, mirrored = sent(moves, device).unbind(1)
    columns = torch.arange(width, device=device).repeat(count, 1)
    columns = torch.where(mirrored[:, None].bool(), columns.flip(1), columns) + left[:, None]
    rows = torch.arange(height, device=device) + top[:, None]
    padded = functional.pad(images, (crop, crop, crop, crop))
    index = (rows[:, :, None] * (width + 2 * crop) + columns[:, None, :]).view(count, 1, height * width)
    return padded.flatten(2).gather(2, index.expand(-1, channels, -1)).view_as(images)


def draw_boxes(count: int, image: tuple[int, int], scale: tuple[float, ...], generator: torch.Generator) -> Tensor:
    """Random boxes (top, left, height, width, in pixels) inside an image of height × width: count × 4, float64.

    The share of the area is uniform in ``scale``, the aspect ratio log-uniform between 3/4 and 4/3, drawn ten times at
    most; where no draw fits inside, it is the largest central box (Szegedy et al. 2015, section 6, as torchvision's
    ``RandomResizedCrop`` has it, but that its boxes are of whole pixels).
    """
    height, width = image
    tries = 10
    areas = torch.empty(count, tries, dtype=torch.float64).uniform_(*scale, generator=generator) * height * width
    log_ratio = math.log(4 / 3)
    ratios = torch.empty(count, tries, dtype=torch.float64).uniform_(-log_ratio, log_ratio, generator=generator).exp()
    heights, widths = (areas / ratios).sqrt(), (areas * ratios).sqrt()
    fits = (heights <= height) & (widths <= width)
    first = torch.where(fits.any(1), fits.int().argmax(1), tries)[:, None]
    central = torch.tensor([[min(height, width * 4 / 3)], [min(width, height * 4 / 3)]], dtype=torch.float64)
    heights, widths = (
        torch.cat((drawn, side.expand(count, 1)), 1).gather(1, first)
        for drawn, side in zip((heights, widths), central, strict=True)
    )
    where = torch.rand(count, 2, dtype=torch.float64, generator=generator)
    where = torch.where(first == tries, 0.5, where)
    return torch.cat(((height - heights) * where[:, :1], (width - widths) * where[:, 1:], heights, widths), 1)


def resized_crops(images: Tensor, boxes: Tensor, mirrored: Tensor, size: tuple[int, int]) -> Tensor:
    """The boxes of the images (N × C × H × W), each brought to ``size`` bilinearly: N × C × size, float32.

    ``boxes``: N × 4 as :func:`draw_boxes` gives them; ``mirrored``: N, not 0 where the box is mirrored left to right.
    Nothing is antialiased, so ``size`` is best that of the images or larger.
    """
    height, width = images.shape[2:]
    top, left, tall, wide = boxes.unbind(1)
    sign = torch.where(mirrored.bool(), -1.0, 1.0)
    zero = torch.zeros_like(top)
    across = torch.stack((sign * wide / width, zero, (2 * left + wide) / width - 1), 1)
    down = torch.stack((zero, tall / height, (2 * top + tall) / height - 1), 1)
    theta = sent(torch.stack((across, down), 1).float(), images.device)
    grid = functional.affine_grid(theta, [*images.shape[:2], *size], align_corners=False)
    return functional.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (N × C × H × W) at another ``size``, bilinear, antialiased, as float32; as they are if it is theirs."""
    if images.shape[-2:] == size:
        return images
    return functional.interpolate(images.float(), size, mode="bilinear", align_corners=False, antialias=True)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``images`` (N × C × H × W, 0 to 255) as float32, scaled to [0, 1], less ``mean`` and divided by ``std``.

    ``mean`` and ``std``: one number a channel, C × 1 × 1, in units of [0, 1].
    """
    return images.to(torch.float32, copy=True).div_(255).sub_(mean).div_(std)


def draw_centres(count: int, image: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A pixel (row, column) for each image: count × 2."""
    return torch.cat([torch.randint(side, (count, 1), generator=generator) for side in image], 1)


def cut_out(images: Tensor, centres: Tensor, size: int) -> Tensor:
    """Normalised images (N × C × … × H × W) with a square of ``size`` pixels around each centre (N × 2) set to zero.

    Zero is the mean colour; squares may reach over the border (DeVries and Taylor 2017, section 3.1).
    """
    inside = []
    for side, centre in zip(images.shape[-2:], sent(centres, images.device).unbind(1), strict=True):
        first = centre[:, None] - size // 2
        place = torch.arange(side, device=images.device)
        inside.append((place >= first) & (place < first + size))
    hidden = inside[0][:, :, None] & inside[1][:, None, :]
    return images.masked_fill(hidden.view(len(images), *[1] * (images.dim() - 3), *hidden.shape[1:]), 0)


def mixed(images: Tensor, cutmix: float, mixup: float, numbers: np.random.Generator) -> tuple[Tensor, float]:
    """Each image mixed with the one before it in the batch, and the share λ that is left of its own.

    ``images``: N × C × … × H × W. ``cutmix`` and ``mixup`` are the α of λ ~ Beta(α, α); if both are above 0, a coin
    decides. CutMix (Yun et al. 2019, section 3.1): a box of 1 - λ of the area, its centre anywhere, cut at the border,
    after which λ is what is really left. Mixup (Zhang et al. 2018, equation 1): λ·x + (1 - λ)·x′.
    """
    cut = cutmix > 0 and not (mixup > 0 and numbers.random() < 0.5)
    kept = float(numbers.beta(cutmix, cutmix) if cut else numbers.beta(mixup, mixup))
    others = images.roll(1, 0)
    if not cut:
        return torch.lerp(others, images, kept), kept
    height, width = images.shape[-2:]
    sides = (round(side * math.sqrt(1 - kept)) for side in (height, width))
    (top, bottom), (left, right) = (
        (max(middle - side // 2, 0), min(middle - side // 2 + side, whole))
        for middle, side, whole in (
            (int(numbers.integers(whole)), side, whole) for side, whole in zip(sides, (height, width), strict=True)
        )
    )
    result = images.clone()
    result[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    return result, 1 - (bottom - top) * (right - left) / (height * width)
