"""Default boxes, their offsets to objects, and detections from what a single-shot detector puts out.

Liu et al.: SSD: Single Shot MultiBox Detector, 2016, section 2.2. Boxes are four numbers relative to the image, either
a centre (x, y, width, height) or corners (left, top, right, bottom).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyconv_search.arch import network
from pyconv_search.arch.heads.ssd import RATIOS, SSD
from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.fields import nearest

# By which offsets are divided, so that they vary about as much as a normalised number: those of centres and of sizes.
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2


class Detections(NamedTuple):
    """The objects found in one image, best first: ``boxes`` n×4 (corners), ``scores`` n, ``labels`` n (1 and up)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def scales(maps: int, first: int = 7, low: int = 15, high: int = 90) -> tuple[float, ...]:
    """The scales s_1 … s_(m+1) of ``maps`` feature maps, as shares of the image's side.

    After the ``first`` percent they grow evenly from ``low`` towards ``high`` by whole percents, and one step beyond;
    the defaults are those for COCO (section 3.4; 21, 45, 99, 153, 207, 261 and 315 of 300 pixels for six maps).
    """
    step = (high - low) // max(maps - 2, 1)
    return (first / 100, *((low + step * k) / 100 for k in range(maps)))


def default_boxes(
    maps: Sequence[Sequence[int]],
    boxes: Sequence[int],
    image: Sequence[int],
    shares: Sequence[float] | None = None,
    steps: Sequence[int] | None = None,
) -> Tensor:
    """The default boxes as centres, n×4: map by map, row by row, position by position.

    At each position stand squares of the scales s_k and √(s_k·s_(k+1)) and then, for every aspect ratio a of
    ``RATIOS``, a box of s_k·√a × s_k/√a and one of s_k/√a × s_k·√a. Numbers are cut to lie between 0 and 1.

    Args:
        maps: (height, width) of each feature map.
        boxes: how many default boxes stand at a position of each map.
        image: (height, width) in pixels; scales are shares of the shorter one.
        shares: the scales, one more than maps; :func:`scales` if not given.
        steps: the distance of positions in pixels on each map; the image's side through the map's if not given. SSD's
            released weights for 300×300 pixels were trained with 8, 16, 32, 64, 100 and 300.

    Raises:
        UserError: if there is not one entry of ``boxes`` and ``steps`` a map, or a count is not one of ``RATIOS``.
    """
    sizes = scales(len(maps)) if shares is None else shares
    wanted = {"boxes": (len(boxes), len(maps)), "shares": (len(sizes), len(maps) + 1)}
    if steps is not None:
        wanted["steps"] = (len(steps), len(maps))
    for name, (got, right) in wanted.items():
        if got != right:
            raise UserError(f"{name} must have {right} entries for {len(maps)} feature maps, but got {got}")
    shorter = min(image)
    found = []
    for k, (sides, count) in enumerate(zip(maps, boxes, strict=True)):
        y, x = (
            (torch.arange(n, dtype=torch.float64) + 0.5) * (1 / n if steps is None else steps[k] / pixels)
            for n, pixels in zip(sides, image, strict=True)
        )
        centres = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[:, :, None].expand(-1, -1, count, -1)
        shapes = _shapes(count, sizes[k], sizes[k + 1]) * shorter / torch.tensor([image[1], image[0]])
        found.append(torch.cat([centres, shapes.expand(*sides, count, 2)], -1).reshape(-1, 4))
    return torch.cat(found).clamp(0, 1).float()


def _shapes(count: int, scale: float, next_scale: float) -> Tensor:
    """Width and height of the ``count`` boxes at a position, count×2."""
    if count not in RATIOS:
        raise UserError(f"boxes must hold 2, 4 or 6, but got {count}; nearest: {nearest(count, RATIOS)}")
    between = math.sqrt(scale * next_scale)
    pairs = [(scale, scale), (between, between)]
    for ratio in RATIOS[count]:
        long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
        pairs += [(long, short), (short, long)]
    return torch.tensor(pairs, dtype=torch.float64)


def default_boxes_of(arch: Architecture) -> Tensor:
    """The default boxes of a network with an SSD head, for images of its input size.

    Raises:
        UserError: if its head is another one.
    """
    if not isinstance(arch.head, SSD):
        kind = "none" if arch.head is None else arch.head.kind
        raise UserError(f"head must be ssd, which has default boxes, but got {kind}")
    return default_boxes(arch.head.maps(network.tapped(arch)[0]), arch.head.boxes, arch.input[1:])


def corners(centres: Tensor) -> Tensor:
    """Boxes …×4 as (left, top, right, bottom) that are given as (x, y, width, height)."""
    middle, size = centres.split(2, -1)
    return torch.cat([middle - size / 2, middle + size / 2], -1)


def centres(corners: Tensor) -> Tensor:
    """Boxes …×4 as (x, y, width, height) that are given as (left, top, right, bottom)."""
    low, high = corners.split(2, -1)
    return torch.cat([(low + high) / 2, high - low], -1)


def encode(boxes: Tensor, defaults: Tensor) -> Tensor:
    """Where ``boxes`` (…×n×4, corners) lie relative to ``defaults`` (n×4, centres): what a detector has to predict."""
    (middle, size), (own_middle, own_size) = centres(boxes).split(2, -1), defaults.split(2, -1)
    offsets = (middle - own_middle) / own_size / CENTRE_VARIANCE
    return torch.cat([offsets, (size / own_size).log() / SIZE_VARIANCE], -1)


def decode(locations: Tensor, defaults: Tensor) -> Tensor:
    """The boxes (…×n×4, corners) at ``locations`` (…×n×4) relative to ``defaults`` (n×4, centres)."""
    (offsets, growth), (own_middle, own_size) = locations.split(2, -1), defaults.split(2, -1)
    middle = own_middle + offsets * CENTRE_VARIANCE * own_size
    return corners(torch.cat([middle, own_size * (growth * SIZE_VARIANCE).exp()], -1))


def overlap(boxes: Tensor, others: Tensor) -> Tensor:
    """The Jaccard overlap of each of ``boxes`` (…×n×4, corners) with each of ``others`` (…×m×4): …×n×m."""
    one, two = boxes.unsqueeze(-2), others.unsqueeze(-3)
    shared = _area(torch.maximum(one[..., :2], two[..., :2]), torch.minimum(one[..., 2:], two[..., 2:]))
    both = _area(*one.split(2, -1)) + _area(*two.split(2, -1)) - shared
    return shared / both.clamp(min=torch.finfo(both.dtype).tiny)


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(-1)


def suppress(boxes: Tensor, candidates: Tensor, most: float = 0.45) -> Tensor:
    """Non-maximum suppression in many sets at once: which of the boxes …×n×4 (corners, best first) stay, as …×n.

    A box stays if it is one of ``candidates`` (…×n) and overlaps no better one that stays by more than ``most``.
    """
    covers = (overlap(boxes, boxes) > most).triu(1)
    stays = candidates
    while True:
        # Whether a box stays depends on better ones alone, so each round settles at least one more of every set.
        after = candidates & ~(covers & stays.unsqueeze(-1)).any(-2)
        if torch.equal(after, stays):
            return stays
        stays = after


def detect(
    locations: Tensor,
    scores: Tensor,
    defaults: Tensor,
    least_score: float = 0.01,
    most_overlap: float = 0.45,
    candidates: int = 400,
    most: int = 200,
) -> list[Detections]:
    """The objects in every image, from what an SSD head puts out; by default as in section 3.7 and the released code.

    Classes are treated apart: of the ``candidates`` best boxes whose probability exceeds ``least_score``, those stay
    that overlap no better one by more than ``most_overlap``. The ``most`` best of all classes are given.

    Args:
        locations: N×n×4 for the n ``defaults``.
        scores: N×n×classes before softmax; class 0 is the background.
        defaults: n×4, centres, as :func:`default_boxes` gives them.

    Raises:
        UserError: if the tensors do not hold as many boxes.
    """
    if not locations.shape[1] == scores.shape[1] == len(defaults):
        raise UserError(
            f"locations, scores and defaults must hold as many boxes, but got {locations.shape[1]}, {scores.shape[1]} "
            f"and {len(defaults)}"
        )
    boxes, chances = decode(locations, defaults), scores.softmax(-1)[..., 1:].transpose(1, 2)
    # One image at a time: the overlaps of all candidates of all classes of one take tens of megabytes.
    return [
        _detected(own, chance, least_score, most_overlap, candidates, most)
        for own, chance in zip(boxes, chances, strict=True)
    ]


def _detected(
    boxes: Tensor, chances: Tensor, least_score: float, most_overlap: float, candidates: int, most: int
) -> Detections:
    """The objects of one image: boxes n×4 and chances classes×n."""
    scores, order = (found[:, :candidates] for found in chances.sort(dim=-1, descending=True, stable=True))
    chosen = boxes[order]
    stays = suppress(chosen, scores > least_score, most_overlap)
    label = torch.arange(1, 1 + len(chances), device=boxes.device)[:, None].expand_as(stays)
    best = scores[stays].sort(descending=True, stable=True).indices[:most]
    return Detections(chosen[stays][best], scores[stays][best], label[stays][best])
