"""Files of the official layouts, written byte by byte, for data sets shrunk to a few images."""

from __future__ import annotations

import gzip
import io
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from pyconv_search.study import datasets
from pyconv_search.training.data import find

TINY = {
    "fashion-mnist-small": {"train": 30, "validation": 10, "test": 20},
    "fashion-mnist": {"train": 40, "validation": 10, "test": 20},
    "cifar10": {"train": 40, "validation": 10, "test": 20},
    "cifar100": {"train": 100, "validation": 100, "test": 100},
    "imagenet": {"classes": 3, "train": 9, "validation": 3, "test": 6},
    "imagenet-shapes": {"input": (3, 8, 8), "classes": 10, "train": 40, "validation": 10, "test": 20},
    "kinetics-400": {"classes": 2, "train": 8, "validation": 2, "test": 4},
    "kinetics-shapes": {"input": (3, 4, 8, 8), "classes": 10, "train": 40, "validation": 10, "test": 20},
}


@pytest.fixture
def tiny(monkeypatch, tmp_path) -> Path:
    """Shrinks every data set, leaves no usual place to look in, and gives an empty folder."""
    for name, counts in TINY.items():
        monkeypatch.setitem(datasets.DATA_SETS, name, replace(datasets.DATA_SETS[name], **counts))
    monkeypatch.delenv(find.ENVIRONMENT, raising=False)
    monkeypatch.setattr(find, "USUAL_PLACES", ())
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


class Make:
    """Images and labels as plain Python numbers, and the bytes of the official files that hold them."""

    WNIDS = ("n01440764", "n02102040", "n03000684")

    @staticmethod
    def labels(count: int, classes: int, seed: int = 0) -> list[int]:
        """Balanced labels in a shuffled order."""
        return [int(n) % classes for n in np.random.default_rng(seed).permutation(count)]

    @staticmethod
    def image(number: int, size: int) -> bytes:
        """A different image for each number."""
        return bytes((number * 7 + position * position + position // 251) % 256 for position in range(size))

    @staticmethod
    def idx_images(count: int, first: int = 0) -> bytes:
        return struct.pack(">IIII", 0x803, count, 28, 28) + b"".join(Make.image(first + n, 784) for n in range(count))

    @staticmethod
    def idx_labels(labels: list[int]) -> bytes:
        return struct.pack(">II", 0x801, len(labels)) + bytes(labels)

    @staticmethod
    def fashion(folder: Path, suffix: str = "") -> Path:
        """The four files of the tiny Fashion-MNIST."""
        folder.mkdir(parents=True, exist_ok=True)
        pack = gzip.compress if suffix else bytes
        for stem, count, first in (("train", 50, 0), ("t10k", 20, 1000)):
            (folder / f"{stem}-images-idx3-ubyte{suffix}").write_bytes(pack(Make.idx_images(count, first)))
            labels = Make.idx_labels(Make.labels(count, 10, first))
            (folder / f"{stem}-labels-idx1-ubyte{suffix}").write_bytes(pack(labels))
        return folder

    @staticmethod
    def cifar10_files() -> dict[str, tuple[list[int], list[bytes]]]:
        """Labels and images of the six batches of the tiny CIFAR-10."""
        sizes = {**{f"data_batch_{n}": 10 for n in range(1, 6)}, "test_batch": 20}
        return {
            name: (Make.labels(size, 10, at), [Make.image(100 * at + n, 3072) for n in range(size)])
            for at, (name, size) in enumerate(sizes.items())
        }

    @staticmethod
    def cifar100_files() -> dict[str, tuple[list[int], list[bytes]]]:
        """Fine labels and images of the two files of the tiny CIFAR-100."""
        return {
            name: (Make.labels(size, 100, at), [Make.image(500 * at + n, 3072) for n in range(size)])
            for at, (name, size) in enumerate({"train": 200, "test": 100}.items())
        }

    @staticmethod
    def binary(labels: list[int], images: list[bytes], coarse: bool) -> bytes:
        """Rows of CIFAR's binary layout; the coarse label is any other number below 20."""
        rows = zip(labels, images, strict=True)
        return b"".join((struct.pack("B", (n + 1) % 20) if coarse else b"") + struct.pack("B", n) + i for n, i in rows)

    @staticmethod
    def python2_pickle(labels: list[int], images: list[bytes], key: str) -> bytes:
        """What Python 2's pickle, protocol 2, wrote for such a batch: byte strings, and numpy's array by its state."""

        def text(value: bytes) -> bytes:
            short = len(value) < 256
            return (b"U" + struct.pack("B", len(value)) if short else b"T" + struct.pack("<i", len(value))) + value

        def number(value: int) -> bytes:
            return b"K" + struct.pack("B", value) if value < 256 else b"M" + struct.pack("<H", value)

        dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
        dtype += b"(K\x03" + text(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
        array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
        array += (
            b"(K\x01" + number(len(images)) + number(3072) + b"\x86" + dtype + b"\x89" + text(b"".join(images)) + b"tb"
        )
        items = text(b"data") + array + text(key.encode()) + b"](" + b"".join(map(number, labels)) + b"e"
        return b"\x80\x02}(" + items + text(b"batch_label") + text(b"some batch") + b"u."

    @staticmethod
    def photo(number: int, width: int = 40, height: int = 30, mode: str = "RGB") -> Image.Image:
        """A smooth picture, different for each number."""
        coarse = np.random.default_rng(number).integers(0, 256, (5, 6, 3), np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)

    @staticmethod
    def jpeg(number: int, width: int = 40, height: int = 30, mode: str = "RGB", quality: int = 95) -> bytes:
        """That picture as a JPEG file."""
        file = io.BytesIO()
        Make.photo(number, width, height, mode).save(file, "JPEG", quality=quality)
        return file.getvalue()

    @staticmethod
    def imagenet(root: Path, flat: bool = False) -> Path:
        """The tiny ImageNet as train/<wnid>/ and val/<wnid>/, or with a flat val/ that is left without labels.

        Image i of val/ (from 1) shows class (i * 2) % 3; its picture is number 100 + i.
        """
        for c, wnid in enumerate(Make.WNIDS):
            for i in range(4):
                file = root / "train" / wnid / f"{wnid}_{(i * 37) % 101}.JPEG"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(Make.jpeg(10 * c + i))
        for i in range(1, 7):
            file = root / "val" / ("" if flat else Make.WNIDS[(i * 2) % 3]) / f"ILSVRC2012_val_{i:08}.JPEG"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(Make.jpeg(100 + i))
        return root

    @staticmethod
    def development_kit(folder: Path) -> Path:
        """The labels of the flat val/ as the development kit has them: numbers of synsets in an order of their own."""
        folder.mkdir(parents=True, exist_ok=True)
        identifiers = {Make.WNIDS[2]: 1, Make.WNIDS[0]: 2, Make.WNIDS[1]: 3}
        kind = np.dtype([(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")])
        rows = [(number, wnid, "words", "gloss", 0) for wnid, number in identifiers.items()]
        rows.append((4, "n00001740", "entity", "gloss", 3))
        scipy.io.savemat(folder / "meta.mat", {"synsets": np.array(rows, kind).reshape(-1, 1)})
        truth = [identifiers[Make.WNIDS[(i * 2) % 3]] for i in range(1, 7)]
        (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{n}\n" for n in truth))
        return folder

    @staticmethod
    def kaggle(folder: Path) -> Path:
        """The same labels as Kaggle has them, in an order of their own."""
        rows = [f"ILSVRC2012_val_{i:08},{Make.WNIDS[(i * 2) % 3]} 85 1 499 272 " for i in (4, 2, 6, 1, 5, 3)]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "\n".join(rows) + "\n")
        return folder

    @staticmethod
    def mean_std(pixels: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per channel, in units of [0, 1], by counting the 256 values (float32 sums of so many pixels would drift)."""
        values = np.arange(256) / 255
        means, stds = [], []
        for channel in range(pixels.shape[1]):
            share = np.bincount(pixels[:, channel].ravel(), minlength=256) / pixels[:, channel].size
            means.append(float(share @ values))
            stds.append(float(np.sqrt(share @ (values - means[-1]) ** 2)))
        return tuple(means), tuple(stds)


@pytest.fixture
def make() -> type[Make]:
    return Make
