"""Batched augmentation against a loop over images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from pyconv_search.training.augment import (
    cut_out,
    draw_boxes,
    draw_centres,
    draw_moves,
    mixed,
    moved,
    normalise,
    resized,
    resized_crops,
)


def generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int = 40, channels: int = 3, height: int = 9, width: int = 7) -> Tensor:
    return torch.randint(1, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator(1))


def crop_and_flip(images: Tensor, crop: int, flip: bool, numbers: torch.Generator) -> Tensor:
    return moved(images, draw_moves(len(images), crop, flip, numbers), crop)


def candidates(image: Tensor, crop: int, flip: bool) -> list[Tensor]:
    """Every picture that one image may become."""
    _, height, width = image.shape
    padded = functional.pad(image, (crop,) * 4)
    windows = [
        padded[:, top : top + height, left : left + width]
        for top in range(2 * crop + 1)
        for left in range(2 * crop + 1)
    ]
    return windows + [window.flip(2) for window in windows] * flip


def by_loop(images: Tensor, crop: int, flip: bool, numbers: torch.Generator) -> Tensor:
    """One image after the other, with the numbers drawn in the same order."""
    count, _, height, width = images.shape
    mirrored = torch.randint(2, (count, 1), generator=numbers) if flip else torch.zeros(count, 1)
    offsets = torch.randint(2 * crop + 1, (2, count, 1), generator=numbers) if crop else torch.zeros(2, count, 1).int()
    result = []
    for i, image in enumerate(images):
        top, left = int(offsets[0, i]), int(offsets[1, i])
        window = functional.pad(image, (crop,) * 4)[:, top : top + height, left : left + width]
        result.append(window.flip(2) if mirrored[i] else window)
    return torch.stack(result)


@pytest.mark.parametrize(("crop", "flip"), [(0, False), (0, True), (2, False), (4, True), (9, True)])
def test_equals_the_loop(crop: int, flip: bool):
    images = random_images()
    found = crop_and_flip(images, crop, flip, generator())
    assert found.dtype == torch.uint8
    assert torch.equal(found, by_loop(images, crop, flip, generator()))


def test_every_offset_and_both_directions_occur_equally_often():
    image = random_images(1)
    count, crop = 9000, 1
    found = crop_and_flip(image.expand(count, -1, -1, -1), crop, True, generator())
    seen = [int((found == candidate).flatten(1).all(1).sum()) for candidate in candidates(image[0], crop, True)]
    assert sum(seen) == count
    # 18 outcomes of mean 500 and deviation 22: five deviations are left to chance once in a hundred thousand runs.
    assert all(abs(n - 500) < 110 for n in seen)


def test_each_image_has_an_offset_of_its_own():
    found = crop_and_flip(random_images(1).expand(64, -1, -1, -1), 2, False, generator())
    assert len(found.flatten(1).unique(dim=0)) > 10


def test_randomness_comes_from_the_generator_alone():
    images = random_images()
    before = torch.get_rng_state()
    first = crop_and_flip(images, 2, True, generator(3))
    torch.rand(5)
    assert torch.equal(first, crop_and_flip(images, 2, True, generator(3)))
    assert not torch.equal(first, crop_and_flip(images, 2, True, generator(4)))
    torch.set_rng_state(before)
    crop_and_flip(images, 2, True, generator(3))
    assert torch.equal(torch.get_rng_state(), before)


def test_normalise_by_hand():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    mean, std = torch.tensor([0.5, 0.1, 0.2]).view(3, 1, 1), torch.tensor([0.25, 0.5, 0.4]).view(3, 1, 1)
    assert normalise(images, mean, std).flatten().tolist() == pytest.approx([-2, 0.2, 2])
    assert images.flatten().tolist() == [0, 51, 255]


def test_a_share_of_the_moves_gives_a_share_of_the_images():
    images, moves = random_images(), draw_moves(40, 2, True, generator())
    whole = moved(images, moves, 2)
    assert torch.equal(moved(images[10:25], moves[10:25], 2), whole[10:25])


def test_boxes_have_the_areas_and_ratios_that_are_asked_for():
    boxes = draw_boxes(4000, (32, 48), (0.1, 0.5), generator())
    top, left, height, width = boxes.unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 32 + 1e-9).all()
    assert (left + width <= 48 + 1e-9).all()
    areas, ratios = height * width / (32 * 48), (width / height).log()
    assert 0.1 <= areas.min() < 0.105
    assert 0.495 < areas.max() <= 0.5
    # Uniform: mean 0.3, deviation of the mean 0.4 / √12 / √4000 = 0.0018; five of them. Few draws are refused here.
    assert abs(areas.mean() - 0.3) < 0.0092
    assert ratios.abs().max() <= torch.tensor(4 / 3).log()
    # Log-uniform: mean 0, deviation of the mean 0.166 / √4000 = 0.0026.
    assert abs(ratios.mean()) < 0.0132


def test_boxes_that_do_not_fit_become_the_largest_central_one():
    tall = draw_boxes(50, (100, 10), (0.9, 1.0), generator())
    assert torch.allclose(tall, torch.tensor([50 - 20 / 3, 0, 40 / 3, 10], dtype=torch.float64).expand(50, 4))


def test_resized_crops_against_one_pixel_after_the_other():
    images, size = random_images(6), (5, 4)
    boxes, mirrored = draw_boxes(6, (9, 7), (0.2, 1.0), generator()), torch.tensor([0, 1, 0, 1, 1, 0])
    found = resized_crops(images, boxes, mirrored, size)
    for i, (top, left, height, width) in enumerate(boxes.tolist()):
        for y in range(size[0]):
            for x in range(size[1]):
                across = size[1] - 1 - x if mirrored[i] else x
                at = (top + (y + 0.5) * height / size[0] - 0.5, left + (across + 0.5) * width / size[1] - 0.5)
                assert found[i, :, y, x].tolist() == pytest.approx(bilinear(images[i], *at), abs=1e-2)


def bilinear(image: Tensor, row: float, column: float) -> list[float]:
    """The colour between pixels, that of the border beyond it."""
    _, height, width = image.shape
    row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
    top, left = int(row), int(column)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = row - top, column - left
    return [
        (1 - down) * ((1 - across) * c[top][left] + across * c[top][right])
        + down * ((1 - across) * c[bottom][left] + across * c[bottom][right])
        for c in image.tolist()
    ]


def test_resized_against_pillow():
    image = torch.randint(0, 256, (3, 24, 20), dtype=torch.uint8, generator=generator())
    found = resized(image[None], (12, 8))[0]
    for channel, expected in zip(found, image, strict=True):
        by_pillow = np.asarray(Image.fromarray(expected.numpy()).resize((8, 12), Image.Resampling.BILINEAR))
        assert np.abs(channel.numpy() - by_pillow).max() < 1.5
    assert resized(image[None], (24, 20)).dtype == torch.uint8


@pytest.mark.parametrize("size", [1, 2, 3, 4, 20])
def test_cut_out_by_hand(size: int):
    images = torch.rand(30, 2, 9, 7, generator=generator()) + 1
    centres = draw_centres(30, (9, 7), generator())
    assert {tuple(c) for c in draw_centres(2000, (9, 7), generator()).tolist()} == {
        (r, c) for r in range(9) for c in range(7)
    }
    found = cut_out(images, centres, size)
    for i, (row, column) in enumerate(centres.tolist()):
        expected = images[i].clone()
        for y in range(row - size // 2, row - size // 2 + size):
            for x in range(column - size // 2, column - size // 2 + size):
                if 0 <= y < 9 and 0 <= x < 7:
                    expected[:, y, x] = 0
        assert torch.equal(found[i], expected)


def test_cutmix_takes_a_box_of_the_image_before_and_counts_what_is_left():
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 2, 16, 12)
    shares = []
    for seed in range(300):
        found, kept = mixed(images, 1.0, 0.0, np.random.default_rng(seed))
        own = found == images
        assert torch.equal(own.all(1), own.any(1))
        assert torch.where(own, 0, found - images.roll(1, 0)).abs().max() == 0
        assert kept == pytest.approx(own[0, 0].float().mean().item())
        rows, columns = (~own[0, 0]).any(1).nonzero().flatten(), (~own[0, 0]).any(0).nonzero().flatten()
        if len(rows):
            assert (~own[0, 0]).sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        shares.append(kept)
    # λ is uniform for α = 1, and boxes over the border leave more of the image itself.
    assert 0.55 < np.mean(shares) < 0.8
    assert min(shares) < 0.2
    assert max(shares) > 0.95


def test_mixup_by_hand():
    images = torch.rand(5, 3, 4, 4, generator=generator())
    found, kept = mixed(images, 0.0, 0.4, np.random.default_rng(2))
    assert kept == np.random.default_rng(2).beta(0.4, 0.4)
    for i in range(5):
        torch.testing.assert_close(found[i], kept * images[i] + (1 - kept) * images[i - 1])


def test_cutmix_and_mixup_take_turns():
    images = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    cut = 0
    for seed in range(400):
        found, _ = mixed(images, 1.0, 1.0, np.random.default_rng(seed))
        cut += bool(((found == 0) | (found == 1)).all())
    # A fair coin: 200, deviation 10.
    assert abs(cut - 200) < 50


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_cutmix_by_hand(alpha: float):
    """Yun et al. 2019, equation 2: sides √(1 - λ) of the image's, the centre uniform, cut at the border."""
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 12)
    for seed in range(100):
        numbers = np.random.default_rng(seed)
        left = float(numbers.beta(alpha, alpha))
        found, kept = mixed(images, alpha, 0.0, np.random.default_rng(seed))
        height, width = round(16 * math.sqrt(1 - left)), round(12 * math.sqrt(1 - left))
        row, column = int(numbers.integers(16)), int(numbers.integers(12))
        own = torch.ones(16, 12, dtype=torch.bool)
        for y in range(row - height // 2, row - height // 2 + height):
            for x in range(column - width // 2, column - width // 2 + width):
                if 0 <= y < 16 and 0 <= x < 12:
                    own[y, x] = False
        assert torch.equal(found[1, 0] == 1, own)
        assert kept == pytest.approx(own.float().mean().item())


def test_boxes_of_a_wide_image_that_do_not_fit():
    wide = draw_boxes(50, (10, 100), (0.9, 1.0), generator())
    assert torch.allclose(wide, torch.tensor([0, 50 - 20 / 3, 10, 40 / 3], dtype=torch.float64).expand(50, 4))


def test_a_box_is_tried_ten_times():
    numbers = generator()
    count, ratio = 200_000, math.log(4 / 3)
    areas = torch.empty(count, dtype=torch.float64).uniform_(0.7, 1, generator=numbers) * 600
    ratios = torch.empty(count, dtype=torch.float64).uniform_(-ratio, ratio, generator=numbers).exp()
    fits = (((areas / ratios).sqrt() <= 30) & ((areas * ratios).sqrt() <= 20)).double().mean().item()
    central = (draw_boxes(20_000, (30, 20), (0.7, 1.0), numbers)[:, 2] == 20 * 4 / 3).double().mean().item()
    assert abs(central - (1 - fits) ** 10) < 5 * math.sqrt(0.25 / 20_000)
