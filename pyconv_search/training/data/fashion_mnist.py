"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747) from its four IDX files, gzipped or plain."""

from __future__ import annotations

from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.training.data import idx
from pyconv_search.training.data.dataset import Pool, Split, as_labels
from pyconv_search.training.data.files import Blob
from pyconv_search.training.data.find import Family, Layout

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def read(info: DataSetInfo, blobs: dict[str, Blob]) -> Pool:
    """The official splits of the four files."""
    train_images, train_labels, test_images, test_labels = (blobs[name] for name in FILES)
    return Pool(
        read_split(info, train_images, train_labels, info.train + info.validation),
        read_split(info, test_images, test_labels, info.test),
    )


def read_split(info: DataSetInfo, images: Blob, labels: Blob, count: int) -> Split:
    """``count`` images (IDX N × H × W) and their labels (IDX N); UserError where a file disagrees."""
    _, height, width = info.input
    pixels = idx.parse(images, (count, height, width))[:, None]
    return Split(pixels, as_labels(idx.parse(labels, (count,)), info.classes, labels.source))


FASHION_MNIST = Family(
    layouts=(Layout(FILES, read, suffixes=("", ".gz")),),
    # The second is the name torchvision gives.
    subfolders=("fashion-mnist", "FashionMNIST/raw", "FashionMNIST", "fashion_mnist", "fashion"),
)
