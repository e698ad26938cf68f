"""Stand-ins with the shapes of large data sets: noise, made in memory, to measure throughput without their images."""

from __future__ import annotations

import math

import numpy as np

from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.training.data.dataset import Pool, Split
from pyconv_search.training.data.find import Family


def noise(info: DataSetInfo) -> Pool:
    """Bytes that are all equally frequent, with labels in turn; the same on every machine."""
    draws = np.random.default_rng(0)

    def split(count: int) -> Split:
        raw = draws.bytes(count * math.prod(info.input))
        # A copy, because arrays over the memory of bytes cannot be written to.
        images = np.frombuffer(raw, np.uint8).reshape(count, *info.input).copy()
        return Split(images, np.arange(count, dtype=np.int64) % info.classes)

    return Pool(split(info.train + info.validation), split(info.test))


IMAGENET_SHAPES = KINETICS_SHAPES = Family(made=noise, balanced=False)
