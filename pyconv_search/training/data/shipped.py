"""The subset of Fashion-MNIST that comes with the package; shipped/README.md says how it was drawn.

Two xz-compressed IDX files. The first 12,000 images are training images, the last 2,000 test images. Each image is
stored column by column, which xz packs 4 % smaller.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.training.data.dataset import Pool, Split
from pyconv_search.training.data.fashion_mnist import read_split
from pyconv_search.training.data.files import Blob
from pyconv_search.training.data.find import Family, Layout

FILES = ("images-idx3-ubyte.xz", "labels-idx1-ubyte.xz")


def read(info: DataSetInfo, blobs: dict[str, Blob]) -> Pool:
    """The training pool (training and validation images) and the test split."""
    images, labels = (blobs[name] for name in FILES)
    pool = info.train + info.validation
    both = read_split(info, images, labels, pool + info.test)
    upright = both.images.transpose(0, 1, 3, 2).copy()
    return Pool(Split(upright[:pool], both.labels[:pool]), Split(upright[pool:], both.labels[pool:]))


def _home() -> Path:
    return Path(str(resources.files("pyconv_search.training.data") / "shipped"))


FASHION_MNIST_SMALL = Family(layouts=(Layout(FILES, read),), home=_home)
