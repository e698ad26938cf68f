"""One encoded image: what part of it a network sees, and its pixels."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from pyconv_search.errors import UserError
from pyconv_search.training.data.files import one_line

# ImageNet has a few PNG files under names that end in .JPEG.
FORMATS = ("JPEG", "PNG")
RATIO = (3 / 4, 4 / 3)
_TRIES = 10
# What Pillow converts to RGB as it should; alpha and the transparent entry of a palette are dropped.
_CONVERTED = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
# Memory that one image may take while it is decoded: 56 million pixels of a PNG file, 112 million of most JPEG files.
MOST_BYTES = 450_000_000
_NEAREST = ((np.arange(2**16) + 128) // 257).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Look:
    """A part of an image. ``box``: left, top, right and bottom in pixels, which become the whole of what is seen.

    ``cut``: the pixels outside of the box are cut off first; else the filter that resizes sees them beyond the border,
    as it does when a whole image is resized and then cropped. ``mirrored``: left to right.
    """

    box: tuple[float, float, float, float]
    cut: bool = False
    mirrored: bool = False


# From the width and height of an image to what is seen of it.
See = Callable[[int, int], Look]


def resized_crop(scale: tuple[float, ...], flip: bool, draws: random.Random, width: int, height: int) -> Look:
    """A random box with a share of the area in ``scale`` and an aspect ratio of 3/4 to 4/3, mirrored half of the time.

    Szegedy et al. 2015, section 6, with the draws of torchvision's ``RandomResizedCrop``: the ratio is log-uniform, and
    after ten boxes that do not fit inside the image it is the largest central one.
    """
    for _ in range(_TRIES):
        area = draws.uniform(scale[0], scale[1]) * width * height
        ratio = math.exp(draws.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            top, left = draws.randint(0, height - down), draws.randint(0, width - across)
            break
    else:
        across = min(width, round(height * RATIO[1]))
        down = min(height, round(width / RATIO[0]))
        top, left = (height - down) // 2, (width - across) // 2
    return Look((left, top, left + across, top + down), True, flip and draws.random() < 0.5)


def short_side_crop(
    sides: tuple[int, int], flip: bool, size: tuple[int, int], draws: random.Random, shape: tuple[int, int]
) -> Look:
    """A random crop of ``size`` (height, width) out of an image with its shorter side resized to a length in ``sides``.

    ``shape``: width and height of the image. Simonyan and Zisserman 2015, section 3.1. The length is no shorter than
    the crop needs.
    """
    across, down = _resized(max(draws.randint(*sides), *size), *shape)
    left, top = draws.randint(0, across - size[1]), draws.randint(0, down - size[0])
    look = _part((left, top), (across, down), size, shape)
    return Look(look.box, False, flip and draws.random() < 0.5)


def central_crop(center: float, size: tuple[int, int], width: int, height: int) -> Look:
    """The central crop of ``size`` (height, width), resized so that it is the share ``center`` of the shorter side.

    With 224 pixels and 0.875, the crop of torchvision's ``Resize(256)`` and ``CenterCrop(224)``.
    """
    (look,) = even_crops(center, size, 1, width, height)
    return look


def even_crops(center: float, size: tuple[int, int], crops: int, width: int, height: int) -> tuple[Look, ...]:
    """``crops`` crops, resized as :func:`central_crop` has it, spread evenly over the longer side from end to end."""
    across, down = resized = _resized(max(round(max(size) / center), *size), width, height)
    found = []
    for share in [i / (crops - 1) for i in range(crops)] if crops > 1 else [0.5]:
        x, y = (share, 0.5) if width >= height else (0.5, share)
        corner = round((across - size[1]) * x), round((down - size[0]) * y)
        found.append(_part(corner, resized, size, (width, height)))
    return tuple(found)


def _resized(short: int, width: int, height: int) -> tuple[int, int]:
    """Width and height when the shorter side has ``short`` pixels; the longer one is rounded down as in torchvision."""
    if width <= height:
        return short, short * height // width
    return short * width // height, short


def _part(corner: tuple[int, int], resized: tuple[int, int], size: tuple[int, int], shape: tuple[int, int]) -> Look:
    """The crop of ``size`` (height, width) at ``corner`` (left, top) of a ``resized`` image, in pixels of ``shape``."""
    x, y = shape[0] / resized[0], shape[1] / resized[1]
    (left, top), (down, across) = corner, size
    return Look((left * x, top * y, min((left + across) * x, shape[0]), min((top + down) * y, shape[1])))


def pixels(data: bytes, source: str, see: See, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """What ``see`` chooses of an encoded image as RGB of ``size`` (height, width): height × width × 3.

    Resized bilinearly with antialiasing, as Pillow does. The image is converted as :func:`loaded` has it; the
    orientation that a camera noted is left alone, as torchvision's ImageFolder leaves it. A JPEG file that is four or
    more times larger than needed is decoded at a half, a quarter or an eighth of its size.

    Raises:
        UserError: naming ``source``, if the bytes are no complete image.
    """
    image = opened(data, source)
    whole = image.size
    look, (down, across) = see(*whole), size
    left, top, right, bottom = look.box
    drafted = image.draft(
        "RGB", (math.ceil(2 * whole[0] * across / (right - left)), math.ceil(2 * whole[1] * down / (bottom - top)))
    )
    image = loaded(image, source)
    if drafted is not None and image.size != whole:
        # The size of the image, but not rounded to whole pixels.
        x, y = drafted[1][2] / whole[0], drafted[1][3] / whole[1]
        look = replace(look, box=(left * x, top * y, right * x, bottom * y))
    return cut(image, look, size)


def cut(image: Image.Image, look: Look, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """What is seen of an RGB image, resized to ``size`` (height, width): height × width × 3."""
    box = look.box
    if look.cut:
        left, top, right, bottom = (round(edge) for edge in box)
        image = image.crop((left, top, max(right, 1), max(bottom, 1)))
        box = (0, 0, *image.size)
    image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)
    if look.mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.asarray(image)


def opened(data: bytes, source: str) -> Image.Image:
    """An encoded image of which the head alone is read.

    Raises:
        UserError: naming ``source``, if it is none, or would take more than MOST_BYTES of memory.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        what = "is empty" if not data else f"is not an image in the format {' or '.join(FORMATS)}"
        raise UserError(f"{source}: {what}; get it again") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UserError(f"{source}: is too large to be decoded ({one_line(error)}); make it smaller") from None
    except Exception as error:  # broken files raise anything at all
        raise UserError(f"{source}: is not a readable image ({one_line(error)}); get it again") from error
    needed = image.width * image.height * _bytes_per_pixel(image)
    if needed > MOST_BYTES:
        raise UserError(
            f"{source}: has {image.width:,}×{image.height:,} pixels, which take {needed / 1e6:,.0f} MB to decode, "
            f"but {MOST_BYTES / 1e6:,.0f} MB is the most; make it smaller"
        )
    return image


def _bytes_per_pixel(image: Image.Image) -> int:
    """Pillow's four bytes, four more of a copy unless it is a JPEG in RGB, and a progressive JPEG's coefficients."""
    copied = (image.format, image.mode) != ("JPEG", "RGB")
    return 4 + 4 * copied + 2 * len(image.getbands()) * bool(image.info.get("progressive"))


def loaded(image: Image.Image, source: str) -> Image.Image:
    """The whole image, decoded, as RGB of eight bits.

    Grey of 16 bits is rounded to the nearest of 256 levels; of colours of 16 bits Pillow keeps the higher eight, which
    is the same to within one level. Alpha is dropped.

    Raises:
        UserError: naming ``source``, if it is not complete, or of a kind that is not converted.
    """
    try:
        image.load()
        if image.mode.startswith("I"):
            image = Image.fromarray(_NEAREST[np.clip(np.asarray(image), 0, 2**16 - 1)])
        if image.mode in _CONVERTED:
            return image if image.mode == "RGB" else image.convert("RGB")
    except Exception as error:  # broken files raise anything at all
        raise UserError(f"{source}: is not a complete image ({one_line(error)}); get it again") from error
    raise UserError(f"{source}: is of Pillow's mode {image.mode}; what is read is grey, colour, palette and CMYK")
