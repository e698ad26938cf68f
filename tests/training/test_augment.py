"""Batched augmentation against a loop over images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pyconv_search.training.augment import crop_and_flip, normalise


def generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(count: int = 40, channels: int = 3, height: int = 9, width: int = 7) -> Tensor:
    return torch.randint(1, 256, (count, channels, height, width), dtype=torch.uint8, generator=generator(1))


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
