"""How fast images in files reach a training: from the folder and packed, by our threads and by PyTorch's DataLoader.

Every way reads the same images, cuts random boxes out of them (``RandomResizedCrop``, 8 to 100 % of the area, mirrored)
and gives batches of 224×224 uint8 pixels; nothing is trained on them. The ways take turns, ``--rounds`` times over:

- *DataLoader*: ``torch.utils.data.DataLoader`` with persistent worker processes over a plain dataset that opens a file
  with Pillow, crops, resizes and mirrors as torchvision does; what the ratios refer to;
- *folder*: ``training.streaming`` over the same files, with as many threads as there are workers; *folder, simplejpeg*:
  the same with simplejpeg as decoder, if it is installed;
- *packed*: ``training.streaming`` over the pack that ``pyconv-search data pack`` makes; *packed, 1 thread*.

A ratio is taken round by round; printed are medians with the lowest and highest. Processor time is that of all threads
and processes together: beside other work it says more than the time on the clock. The images are smooth noise of
500×375 pixels, as many of ImageNet are, in JPEG of quality 90. They lie in the page cache: the disk is not measured.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from pyconv_search.cores import usable_cores
from pyconv_search.study.recipe import Recipe
from pyconv_search.training import data, streaming
from pyconv_search.training.data.picture import See, resized_crop
from pyconv_search.training.source import View
from pyconv_search.training.streaming import source_of

SIZE = (224, 224)
SCALE = (0.08, 1.0)
BATCH = 64
REFERENCE = "DataLoader"


def write_images(root: Path, count: int, width: int, height: int) -> None:
    """A tree of two classes with ``count`` training images, and one image a class to test with."""
    numbers = np.random.default_rng(0)
    for i in range(count + 2):
        coarse = Image.fromarray(numbers.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        grain = numbers.integers(-12, 13, smooth.shape)
        file = root / ("train" if i < count else "val") / f"class{i % 2}" / f"class{i % 2}_{i:06}.JPEG"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(file, quality=90)


class Plain(Dataset[tuple[torch.Tensor, int]]):
    """Files opened, cropped, resized and mirrored one by one."""

    def __init__(self, files: list[str], labels: list[int]) -> None:
        self.files, self.labels = files, labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.open(self.files[index]).convert("RGB")
        look = resized_crop(SCALE, True, random.Random(index), *image.size)
        left, top, right, bottom = (round(edge) for edge in look.box)
        image = image.crop((left, top, right, bottom)).resize(SIZE, Image.Resampling.BILINEAR)
        if look.mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1), self.labels[index]


def simplejpeg_pixels(raw: bytes, source: str, see: See, size: tuple[int, int]) -> Any:
    """What ``picture.pixels`` does to an RGB image, decoded by simplejpeg."""
    import simplejpeg

    image = Image.fromarray(simplejpeg.decode_jpeg(raw))
    look = see(*image.size)
    left, top, right, bottom = (round(edge) for edge in look.box)
    image = image.crop((left, top, right, bottom)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if look.mirrored else image)


@dataclass(frozen=True)
class Way:
    """A way to read an epoch: ``run`` gives its batches."""

    name: str
    run: Callable[[], Iterator[Any]]


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def streamed(split: data.Encoded | data.Split, info: Any, workers: int, decoder: Any = None) -> Iterator[Any]:
    """An epoch of ``training.streaming``."""
    source = source_of(split, info, torch.device("cpu"))
    view = View(Recipe(epochs=1, scale=SCALE, flip=True), 0, 0, SIZE)
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0)).split(BATCH)
    with threads(workers), mock.patch.object(streaming, "pixels", decoder or streaming.pixels):
        yield from source.train_batches(view, order, 0)


def ways(folder: data.DataSet, packed: data.DataSet, workers: int) -> list[Way]:
    """Every way to read the training split, the reference first."""
    train = folder.train
    files = [train.source(i) for i in range(len(train))] if isinstance(train, data.Encoded) else []
    plain = Plain(files, train.labels.tolist())
    loader = DataLoader(plain, BATCH, shuffle=True, num_workers=workers, persistent_workers=True)
    found = [
        Way(REFERENCE, lambda: iter(loader)),
        Way("folder", lambda: streamed(train, folder.info, workers)),
        Way("packed", lambda: streamed(packed.train, packed.info, workers)),
        Way("packed, 1 thread", lambda: streamed(packed.train, packed.info, 1)),
    ]
    try:
        import simplejpeg  # noqa: F401
    except ImportError:
        return found
    return [*found, Way("folder, simplejpeg", lambda: streamed(train, folder.info, workers, simplejpeg_pixels))]


def cpu_seconds() -> float:
    """What this process and its workers have computed so far; of workers as Linux tells it."""
    workers = [Path(f"/proc/{child.pid}/stat") for child in multiprocessing.active_children()]
    ticks = [sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13])) for stat in workers if stat.exists()]
    return time.process_time() + sum(ticks) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Epoch:
    """``rate``: images/s. ``cpu``: milliseconds of processor time an image, of all threads and processes."""

    rate: float
    cpu: float


def timed(way: Way) -> Epoch:
    begun, computed, count = time.perf_counter(), cpu_seconds(), 0
    for _, labels in way.run():
        count += len(labels)
    return Epoch(count / (time.perf_counter() - begun), 1000 * (cpu_seconds() - computed) / count)


def measure(every: list[Way], rounds: int) -> dict[str, list[Epoch]]:
    """Every way in every round; one round before, which starts the workers, is not counted."""
    found: dict[str, list[Epoch]] = {way.name: [] for way in every}
    for i in range(rounds + 1):
        for way in every:
            epoch = timed(way)
            if i:
                found[way.name].append(epoch)
    return found


def lines(found: dict[str, list[Epoch]], workers: int) -> Iterator[str]:
    yield "| | images/s | a core | ratio | CPU ms an image | ratio |"
    yield "|---|---|---|---|---|---|"
    for name, epochs in found.items():
        used = 1 if name.endswith("1 thread") else workers
        rate, cpu = (statistics.median(values) for values in ([e.rate for e in epochs], [e.cpu for e in epochs]))
        pairs = list(zip(epochs, found[REFERENCE], strict=True))
        rates, cpus = (_spread([a.rate / b.rate for a, b in pairs]), _spread([a.cpu / b.cpu for a, b in pairs]))
        yield f"| {name} | {rate:,.0f} | {rate / used:,.0f} | {rates} | {cpu:.2f} | {cpus} |"


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--side", type=int, default=256, help="shorter side of the packed images")
    parser.add_argument("--workers", type=int, default=usable_cores())
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "images"
        write_images(root, given.images, given.width, given.height)
        folder = data.load("imagenet", root, classes=2)
        begun = time.perf_counter()
        pack = data.make_pack("imagenet", data.PackOrder(None, given.side, given.workers), root, classes=2)
        rate = (given.images + 2) / (time.perf_counter() - begun)
        packed = data.load("imagenet", pack, classes=2)
        print(
            f"{given.images} images of {given.width}×{given.height} ({_kilobytes(folder)}), packed with a shorter side "
            f"of {given.side} ({_kilobytes(packed)}) at {rate:,.0f} images/s; {given.workers} workers\n"
        )
        print(*lines(measure(ways(folder, packed, given.workers), given.rounds), given.workers), sep="\n")


def _kilobytes(found: data.DataSet) -> str:
    train = found.train
    sizes = [len(train.read(i)) for i in range(len(train))] if isinstance(train, data.Encoded) else []
    return f"{statistics.mean(sizes) / 1e3:.0f} kB"


if __name__ == "__main__":
    main()
