"""Draw the shipped subset out of Fashion-MNIST: python -m pyconv_search.training.data.subset SOURCE_DIR TARGET_DIR.

SOURCE_DIR holds the four official files. 1,200 images a class come from the official training split, 200 a class
from the official test split, drawn as validation images are (``holdout.draw``) but with salts of their own, and kept in
their official order.
"""

from __future__ import annotations

import lzma
import sys
from pathlib import Path

import numpy as np

from pyconv_search.errors import UserError
from pyconv_search.study import datasets
from pyconv_search.training.data import idx
from pyconv_search.training.data.dataset import Split, in_memory
from pyconv_search.training.data.fashion_mnist import FASHION_MNIST
from pyconv_search.training.data.find import choose, read, search
from pyconv_search.training.data.holdout import draw
from pyconv_search.training.data.shipped import FILES

TRAIN_SALT, TEST_SALT = "fashion-mnist-small train", "fashion-mnist-small test"


def select(train: Split, test: Split) -> Split:
    """The subset of the official splits: 12,000 training images, then 2,000 test images."""
    small = datasets.get("fashion-mnist-small")
    parts = (
        train.take(draw(train.labels, small.train + small.validation, TRAIN_SALT)),
        test.take(draw(test.labels, small.test, TEST_SALT)),
    )
    return Split(np.concatenate([part.images for part in parts]), np.concatenate([part.labels for part in parts]))


def write(subset: Split, target: Path) -> None:
    """Write the two files of the subset into ``target``, which is made where it does not exist."""
    target.mkdir(parents=True, exist_ok=True)
    columns = np.ascontiguousarray(subset.images[:, 0].transpose(0, 2, 1))
    for name, array in zip(FILES, (columns, subset.labels.astype(np.uint8)), strict=True):
        (target / name).write_bytes(lzma.compress(idx.dump(array), preset=9 | lzma.PRESET_EXTREME))


def main(arguments: list[str]) -> int:
    """Run the command; 0: written, 1: the source is wrong, 2: wrong usage."""
    if len(arguments) != 2:
        print("usage: python -m pyconv_search.training.data.subset SOURCE_DIR TARGET_DIR", file=sys.stderr)
        return 2
    info = datasets.get("fashion-mnist")
    try:
        pool = read(choose(info.name, info.homepage, search(FASHION_MNIST, arguments[0])), info)
        write(select(in_memory(pool.train), in_memory(pool.test)), Path(arguments[1]))
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
