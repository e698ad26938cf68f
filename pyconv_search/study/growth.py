"""Images that grow in the course of a training: their size in every epoch, and the smallest that the networks take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from pyconv_search.arch.cost import cost
from pyconv_search.arch.spec import Architecture
from pyconv_search.fields import Problem, SpecError
from pyconv_search.space.describe import telling
from pyconv_search.space.space import Assignment, Space
from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.study.recipe import Recipe

Image = tuple[int, int]


def resolution(recipe: Recipe, epoch: int, image: Image) -> Image:
    """Height and width of the images of an epoch, counted from 0, of a network made for ``image``.

    They grow linearly from the recipe's ``resolution`` to all of it at epoch ``resolution_until`` · ``epochs``, in
    whole multiples of 4 pixels, or of 32 for images of 128 pixels and more (strides would cut off the rest).
    """
    until = recipe.resolution_until * recipe.epochs
    return _part(1.0 if epoch >= until else recipe.resolution + (1 - recipe.resolution) * epoch / until, image)


def too_small(space: Space, info: DataSetInfo, recipe_of: Callable[[Assignment], Recipe]) -> Iterator[Problem]:
    """What is wrong with the size from which images grow, if a network of the space does not take images so small.

    The space's networks take images of all of their size. The problem stands under the key path of the recipe.
    """
    height, width = info.input[-2:]
    image = height, width
    refused: dict[Image, list[Architecture]] = {}
    for values in telling(space)[0]:
        size = image if space.violated(values) else resolution(recipe_of(values), 0, image)
        if size != image:
            arch = space.resolved(values, info.input, info.classes)
            if not takes(arch, size) and not space.violated(values, cost(arch)):
                refused.setdefault(size, []).append(arch)
    if refused:
        smallest = min(refused)
        yield Problem(
            ("recipe", "resolution", "start"),
            f"makes images of {smallest[0]}×{smallest[1]} pixels in the first epoch, which are too small for "
            f"{sum(map(len, refused.values()))} of the networks; nearest: "
            f"{_nearest([arch for archs in refused.values() for arch in archs], image)}",
        )


def takes(arch: Architecture, size: Image) -> bool:
    """Whether a network of the same layers exists for images, or frames, of this height and width."""
    try:
        replace(arch, input=(*arch.input[:-2], *size))
    except SpecError:
        return False
    return True


def _nearest(archs: Sequence[Architecture], image: Image) -> str:
    """The smallest start, in hundredths, that all of these networks take."""
    for hundredths in range(10, 100):
        size = _part(hundredths / 100, image)
        archs = [arch for arch in archs if not takes(arch, size)]
        if not archs:
            return f"{hundredths / 100:g}"
    return "1, or no resolution"


def _part(share: float, image: Image) -> Image:
    height, width = (_whole(side * share, side, 32 if side >= 128 else 4) for side in image)
    return height, width


def _whole(size: float, full: int, multiple: int) -> int:
    return full if size >= full else min(max(round(size / multiple), 1) * multiple, full)
