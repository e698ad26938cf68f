"""Against Pillow alone: the image as a whole, resized, then cropped; or cropped, then resized."""

from __future__ import annotations

import io
import math
import random
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from pyconv_search.errors import UserError
from pyconv_search.training.data.picture import (
    Look,
    central_crop,
    loaded,
    opened,
    pixels,
    resized_crop,
    short_side_crop,
)

SHAPES = [(40, 30), (30, 40), (33, 33), (90, 17), (24, 101)]


def whole(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("center", "size"), [(0.875, (14, 14)), (1.0, (16, 16)), (0.8, (24, 24)), (0.875, (12, 15))])
def test_central_crop_is_resize_and_center_crop(make, shape, center, size):
    data, short = make.jpeg(3, *shape), round(max(size) / center)
    # torchvision's Resize and CenterCrop, written down from their documentation.
    w, h = shape
    wide, tall = (short, int(short * h / w)) if w <= h else (int(short * w / h), short)
    left, top = round((wide - size[1]) / 2.0), round((tall - size[0]) / 2.0)
    resized = whole(data).resize((wide, tall), Image.Resampling.BILINEAR)
    expected = np.asarray(resized.crop((left, top, left + size[1], top + size[0])), int)
    found = pixels(data, "it", lambda *s: central_crop(center, size, *s), size)
    assert (found.shape, found.dtype) == ((*size, 3), np.uint8)
    assert np.abs(found - expected).max() <= 2  # Pillow's boxes are single precision
    assert np.abs(found - expected).mean() < 0.2


@pytest.mark.parametrize("shape", SHAPES)
def test_short_side_crop_is_a_crop_of_the_resized_image(make, shape):
    data, size = make.jpeg(4, *shape), (16, 12)
    seen = set()
    for seed in range(20):
        look = short_side_crop((17, 26), True, size, random.Random(seed), shape)
        found = pixels(data, "it", lambda *_, look=look: look, size).astype(int)
        if look.mirrored:
            found = found[:, ::-1]
        across, down = look.box[2] - look.box[0], look.box[3] - look.box[1]
        short = round(shape[0] * size[1] / across if shape[0] <= shape[1] else shape[1] * size[0] / down)
        assert 17 <= short <= 26
        wide, tall = (
            (short, int(short * shape[1] / shape[0]))
            if shape[0] <= shape[1]
            else (int(short * shape[0] / shape[1]), short)
        )
        left, top = round(look.box[0] * wide / shape[0]), round(look.box[1] * tall / shape[1])
        assert 0 <= left <= wide - size[1]
        assert 0 <= top <= tall - size[0]
        resized = whole(data).resize((wide, tall), Image.Resampling.BILINEAR)
        expected = np.asarray(resized.crop((left, top, left + size[1], top + size[0])), int)
        assert np.abs(found - expected).max() <= 2  # Pillow's boxes are single precision
        assert np.abs(found - expected).mean() < 0.2
        seen.add((short, look.mirrored))
    assert {mirrored for _, mirrored in seen} == {False, True}
    assert len({short for short, _ in seen}) > 5


@pytest.mark.parametrize("shape", SHAPES)
def test_resized_crop_is_a_crop_resized(make, shape):
    data, size = make.jpeg(5, *shape), (16, 16)
    for seed in range(20):
        look = resized_crop((0.08, 1.0), True, random.Random(seed), *shape)
        assert all(isinstance(edge, int) for edge in look.box)
        expected = np.asarray(whole(data).crop(look.box).resize((16, 16), Image.Resampling.BILINEAR))
        found = pixels(data, "it", lambda *_, look=look: look, size)
        assert np.array_equal(found[:, ::-1] if look.mirrored else found, expected)


def test_boxes_are_distributed_as_they_should():
    """Area and ratio on an image in which every box fits: 4,000 draws, bounds of five standard errors."""
    n, side = 4000, 10_000
    boxes = [resized_crop((0.1, 0.5), True, random.Random(seed), side, side) for seed in range(n)]
    left, top, right, bottom = np.array([look.box for look in boxes], float).T
    areas, ratios = (right - left) * (bottom - top) / side**2, np.log((right - left) / (bottom - top))
    places = left / (side - (right - left)), top / (side - (bottom - top))
    limit = math.log(4 / 3)
    for values, low, high in ((areas, 0.1, 0.5), (ratios, -limit, limit), *((place, 0, 1) for place in places)):
        assert low - 1e-3 <= values.min() <= values.max() <= high + 1e-3
        assert abs(values.mean() - (low + high) / 2) < 5 * (high - low) / math.sqrt(12 * n)
        # The variance of a uniform variable, whose own standard error is (high - low)² / √(180 n).
        assert abs(values.var() - (high - low) ** 2 / 12) < 5 * (high - low) ** 2 / math.sqrt(180 * n)
    assert abs(np.mean([look.mirrored for look in boxes]) - 0.5) < 5 * 0.5 / math.sqrt(n)
    assert not any(resized_crop((0.1, 0.5), False, random.Random(seed), 90, 90).mirrored for seed in range(50))


@pytest.mark.parametrize(("shape", "box"), [((200, 20), (86, 0, 113, 20)), ((20, 200), (0, 86, 20, 113))])
def test_where_no_box_fits_it_is_the_largest_central_one(shape, box):
    assert resized_crop((1.0, 1.0), False, random.Random(0), *shape).box == box


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_large_jpegs_are_decoded_smaller_and_look_the_same(make, scale, monkeypatch):
    """Decoded at 1/2, 1/4 or 1/8, but never at less than twice what is needed."""
    data, size = make.jpeg(6, 40 * 2 * scale + 7, 30 * 2 * scale + 5, quality=98), (30, 40)
    decoded = []
    original = Image.Image.resize
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, *a, **k: decoded.append(self.size) or original(self, *a, **k)
    )
    found = pixels(data, "it", lambda w, h: Look((0, 0, w, h)), size)
    monkeypatch.undo()
    assert decoded == [(math.ceil((80 * scale + 7) / scale), math.ceil((60 * scale + 5) / scale))]
    expected = whole(data).resize((40, 30), Image.Resampling.BILINEAR)
    assert np.abs(found.astype(int) - np.asarray(expected, int)).mean() < 1


@pytest.mark.parametrize("mode", ["CMYK", "L"])
def test_other_modes_become_rgb(make, mode):
    data = make.jpeg(7, mode=mode)
    found = pixels(data, "it", lambda w, h: Look((0, 0, w, h)), (30, 40))
    # The colours before they were encoded, which only a right conversion gives back.
    assert np.abs(found.astype(int) - np.asarray(make.photo(7, mode=mode).convert("RGB"), int)).mean() < 4


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "is empty"), (b"GIF89a", "is not an image in the format JPEG or PNG"), (None, "is not a complete image")],
)
def test_what_is_no_image_is_told_by_name(make, data, words):
    data = make.jpeg(1)[:-100] if data is None else data
    with pytest.raises(UserError, match=rf"^here/x\.JPEG: {words}.*get it again$"):
        pixels(data, "here/x.JPEG", lambda w, h: Look((0, 0, w, h)), (8, 8))


def png(depth: int, kind: int, values: np.ndarray, **chunks: bytes) -> bytes:
    """A PNG file written by its specification. ``values``: height × width × samples, of ``depth`` bits.

    ``kind``: 0 grey, 2 colour, 3 palette, 4 and 6 with alpha.
    """
    height, width = values.shape[:2]
    lines = b""
    for row in values.reshape(height, -1):
        bits = "".join(format(int(value), f"0{depth}b") for value in row)
        bits += "0" * (-len(bits) % 8)
        lines += b"\0" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))]
    parts += [chunk(name.encode(), data) for name, data in chunks.items()]
    parts += [chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


@pytest.mark.parametrize(
    ("kind", "depth"),
    [
        *((0, d) for d in (1, 2, 4, 8, 16)),
        *((3, d) for d in (1, 2, 4, 8)),
        *((k, d) for k in (2, 4, 6) for d in (8, 16)),
    ],
)
@pytest.mark.parametrize("transparent", [False, True])
def test_every_kind_of_png_is_its_samples_scaled(kind, depth, transparent):
    draws = np.random.default_rng(depth + 16 * kind)
    values = draws.integers(0, 2**depth, (9, 7, SAMPLES[kind]))
    values[0, 0], values[0, 1] = 0, 2**depth - 1
    palette = draws.integers(0, 256, (2 ** min(depth, 8), 3))
    chunks = {"PLTE": palette.astype(np.uint8).tobytes()} if kind == 3 else {}
    if transparent and kind in (0, 2, 3):
        chunks["tRNS"] = {0: b"\0\1", 2: b"\0\1\0\1\0\1", 3: b"\0\x80"}[kind]
    if kind == 3:
        expected = palette[values[..., 0]].astype(float)
    else:
        expected = values * 255 / (2**depth - 1)
        expected = np.repeat(expected[..., :1], 3, 2) if kind in (0, 4) else expected[..., :3]
    found = np.asarray(loaded(opened(png(depth, kind, values, **chunks), "it"), "it"))
    assert (found.shape, found.dtype) == ((9, 7, 3), np.uint8)
    # Half a level is the nearest; Pillow keeps the higher bytes of colours of 16 bits.
    assert np.abs(found - expected).max() <= (1 if depth == 16 and kind != 0 else 0.5)


def test_all_levels_of_grey_of_sixteen_bits():
    values = np.arange(2**16).reshape(256, 256, 1)
    found = np.asarray(loaded(opened(png(16, 0, values), "it"), "it"))[..., 0].ravel()
    exact = np.arange(2**16) / 257
    assert np.abs(found - exact).max() <= 0.5
    seen = pixels(png(16, 0, values), "it", lambda w, h: Look((0, 0, w, h)), (256, 256))
    np.testing.assert_array_equal(seen[..., 1].ravel(), found)


def test_the_mode_that_older_pillows_give_grey_of_sixteen_bits():
    for mode, kind in (("I", np.int32), ("I;16B", ">u2")):
        image = Image.frombytes(mode, (3, 1), np.array([0, 32767, 65535], kind).tobytes())
        assert np.asarray(loaded(image, "it"))[0, :, 0].tolist() == [0, 127, 255]


def test_cmyk_is_converted_by_its_definition():
    levels = np.repeat([[0, 90, 255]], 3, 0).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    inks = np.stack([levels, levels.T, np.full_like(levels, 40), np.full_like(levels, 30)], -1)
    file = io.BytesIO()
    Image.fromarray(inks, "CMYK").save(file, "JPEG", quality=100, subsampling=0)
    found = np.asarray(loaded(opened(file.getvalue(), "it"), "it"), float)
    expected = (255 - inks[..., :3].astype(float)) * (255 - inks[..., 3:]) / 255
    assert np.abs(found - expected).max() <= 4  # of JPEG


def test_other_modes_are_refused_by_name():
    for mode in ("F", "HSV", "LAB"):
        with pytest.raises(UserError, match=f"photo: is of Pillow's mode {mode}; what is read is grey, colour"):
            loaded(Image.new(mode, (4, 4)), "photo")


@pytest.mark.parametrize(("kind", "side"), [(0, 7_600), (2, 7_600), (6, 7_600), (2, 13_300), (3, 60_000)])
def test_images_that_take_much_memory_are_refused_before_they_are_decoded(kind, side, monkeypatch):
    data = bytearray(png(8, kind, np.zeros((1, 1, SAMPLES[kind])), **({"PLTE": b"abc"} if kind == 3 else {})))
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("was decoded"))
    with pytest.raises(UserError, match=r"photo: (has 7,600×7,600 pixels, which take 462 MB|.*to decode|is too large)"):
        opened(bytes(data), "photo")


def test_no_image_takes_more_memory_than_it_is_said_to():
    """A process of its own decodes an image of nine million pixels and tells how much its memory grew."""
    code = """
import sys
from pathlib import Path
from pyconv_search.training.data.picture import Look, pixels
def kilobytes(name):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if name in line)
data = sys.stdin.buffer.read()
Path("/proc/self/clear_refs").write_text("5")
before = kilobytes("VmRSS")
pixels(data, "it", lambda w, h: Look((0, 0, w - 1, h - 1), True), (32, 32))
print(kilobytes("VmHWM") - before)
"""
    done = subprocess.run([sys.executable, "-c", code], input=large(3_000), capture_output=True, check=True)
    assert 0.5 < int(done.stdout) * 1024 / (8 * 3_000**2) < 1.1


def large(side: int) -> bytes:
    """A black PNG image in colour with alpha."""
    start = bytearray(png(8, 6, np.zeros((1, 1, 4))))
    start[16:24] = struct.pack(">II", side, side)
    start[29:33] = struct.pack(">I", zlib.crc32(start[12:29]))
    packer = zlib.compressobj(1)
    lines = b"".join(packer.compress(bytes(1 + 4 * side)) for _ in range(side)) + packer.flush()
    body = b"IDAT" + lines
    end = b"\0\0\0\0IEND\xaeB`\x82"
    return bytes(start[:33]) + struct.pack(">I", len(lines)) + body + struct.pack(">I", zlib.crc32(body)) + end
