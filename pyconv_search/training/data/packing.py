"""Making a pack of images: in threads, safe at any moment, and going on where it was broken off.

It is made in a folder ``<name>.part`` that takes its name when it is complete. There ``begun.json`` says of what, and
``lengths.bin`` holds two numbers (int64, little-endian) an image: bytes in the pack, bytes of the official file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pyconv_search.errors import UserError
from pyconv_search.files import read_plain
from pyconv_search.training.data import pack
from pyconv_search.training.data.encoded import Folder
from pyconv_search.training.data.parallel import in_order
from pyconv_search.training.data.picture import loaded, opened
from pyconv_search.training.data.tree import Listing, stamp

_BEGUN, _LENGTHS = "begun.json", "lengths.bin"
# Images between two times that what is written is made safe.
_SAVE = 1024


def write(
    found: Listing, tree: Path, out: Path, side: int, workers: int, progress: Callable[[int, int], None]
) -> pack.Pack:
    """Pack the images of ``tree`` into the folder ``out``.

    An image whose shorter side is longer than ``side`` pixels is resized to it (bicubic, antialiased) and encoded as
    JPEG of quality 95; a JPEG file in RGB or grey that is no larger stays as it is. ``workers``: threads. ``progress``
    is given the number of images packed and of all.

    Raises:
        UserError: if ``out`` exists, cannot be written, or an image cannot be decoded.
    """
    if out.exists():
        raise UserError(f"{out}: exists already; remove it to pack again, or choose another place with --out")
    store, now = found.store(tree), stamp(tree, found.inner)
    part = out.with_name(f"{out.name}.part")
    try:
        lengths = _begin(part, found, store, side)
        lengths = _append(part, store, lengths, partial(shrunk, store, side=side), workers, progress)
        head = {"format": pack.FORMAT, "side": side, "train": found.train, "classes": found.classes}
        head |= {"stamp": now, "inner": found.inner}
        _index(part / pack.INDEX, head, found, store, lengths)
        for name in (_BEGUN, _LENGTHS):
            (part / name).unlink()
        part.rename(out)
    except OSError as error:
        raise UserError(f"{part}: cannot be written: {error.strerror or error}") from error
    return pack.read(out)


def shrunk(store: Folder, number: int, side: int) -> bytes:
    """One image with a shorter side of ``side`` pixels or less, as JPEG."""
    data, source = store.read(number), store.source(number)
    image = opened(data, source)
    scale = side / min(image.size)
    plain = image.format == "JPEG" and image.mode in ("RGB", "L")
    rgb = loaded(image, source)
    if scale >= 1 and plain:
        return data
    if scale < 1:
        size = tuple(max(round(length * scale), side) for length in image.size)
        rgb = rgb.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)  # type: ignore[arg-type]
    encoded = io.BytesIO()
    rgb.save(encoded, "JPEG", quality=pack.QUALITY)
    return encoded.getvalue()


def _begin(part: Path, found: Listing, store: Folder, side: int) -> npt.NDArray[np.int64]:
    """What ``lengths.bin`` says of the images that need not be packed again, N × 2. The folder is made if need be."""
    names = hashlib.sha256(found.names.tobytes() + found.labels.tobytes()).hexdigest()
    key = json.dumps({"format": pack.FORMAT, "side": side, "quality": pack.QUALITY, "names": names})
    if not _is_of(part / _BEGUN, key):
        if part.exists():
            shutil.rmtree(part)
        part.mkdir(parents=True)
        for name in (pack.IMAGES, _LENGTHS):
            (part / name).touch()
        (part / _BEGUN).write_text(key, encoding="utf-8")
    raw = read_plain(part / _LENGTHS, 16 * len(store.names) + 15, "a record of these images")
    lengths = np.frombuffer(raw[: len(raw) // 16 * 16], "<i8").reshape(-1, 2).astype(np.int64)
    size = (part / pack.IMAGES).stat().st_size
    there = (lengths[:, 0] > 0) & (lengths[:, 0] <= size) & (np.cumsum(lengths[:, 0]) <= size)
    whole = there & (lengths[:, 1] == store.sizes[: len(lengths)])
    return lengths[: len(whole) if whole.all() else int(whole.argmin())]


def _is_of(begun: Path, key: str) -> bool:
    """Whether the file says that the images packed so far are those that ``key`` stands for."""
    try:
        return read_plain(begun, len(key.encode()), "a digest") == key.encode()
    except UserError:
        return False


def _append(
    part: Path,
    store: Folder,
    lengths: npt.NDArray[np.int64],
    make: Callable[[int], bytes],
    workers: int,
    progress: Callable[[int, int], None],
) -> npt.NDArray[np.int64]:
    """Pack the images behind those that ``lengths`` tells of; all lengths."""
    count, rows = len(store.names), lengths.tolist()
    with (part / pack.IMAGES).open("r+b") as images, (part / _LENGTHS).open("r+b") as record:
        images.truncate(int(lengths[:, 0].sum()))
        record.truncate(16 * len(rows))
        images.seek(0, os.SEEK_END)
        record.seek(0, os.SEEK_END)
        saved = len(rows)

        def save() -> None:
            # The images first: a length must never speak of bytes that a crash has lost.
            for file, data in ((images, b""), (record, np.array(rows[saved:], "<i8").tobytes())):
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

        try:
            for number, data in enumerate(in_order(make, range(saved, count), workers, 4 * workers), saved):
                images.write(data)
                rows.append([len(data), int(store.sizes[number])])
                if len(rows) % _SAVE == 0:
                    save()
                    saved = len(rows)
                progress(len(rows), count)
        finally:
            save()
    return np.array(rows, np.int64)


def _index(path: Path, head: dict[str, object], found: Listing, store: Folder, lengths: npt.NDArray[np.int64]) -> None:
    offsets = np.concatenate(([0], np.cumsum(lengths[:, 0])))
    with path.open("wb") as file:
        raw = np.frombuffer(json.dumps(head).encode(), np.uint8)
        np.savez(file, head=raw, names=found.names, labels=found.labels, sizes=store.sizes, offsets=offsets)
        file.flush()
        os.fsync(file.fileno())
