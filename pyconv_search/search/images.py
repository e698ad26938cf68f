"""The data sets that a process keeps in memory from one trial to the next."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch

from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.training import data
from pyconv_search.training.source import Source
from pyconv_search.training.streaming import source_of

# What identifies the data of a trial: name, root, images held out, classes of a subset.
Key = tuple[str, str | None, int | None, int | None]


def key_of(wanted: Mapping[str, Any]) -> Key:
    """The key of what a trial's description has under ``data``."""
    return wanted["name"], wanted["root"], wanted["validation"], wanted.get("classes")


@lru_cache(maxsize=2)
def data_set(name: str, root: str | None, validation: int | None, classes: int | None) -> data.DataSet:
    """The data set as :func:`pyconv_search.training.data.load` reads it."""
    return data.load(name, root, validation, classes)


@lru_cache(maxsize=2)
def on_device(key: Key, device: torch.device, views: int = 1) -> tuple[Source, Source]:
    """The training and the validation images, on the device or on their way; never those of the test split.

    ``views``: so many clips and crops of a video are seen when it is evaluated.
    """
    found = data_set(*key)
    train, held_out = (source_of(split, found.info, device, views) for split in (found.train, found.validation))
    return train, held_out


def forget() -> None:
    """Give the memory back."""
    data_set.cache_clear()
    on_device.cache_clear()


def check_fit(architecture: Architecture, found: data.DataSet) -> None:
    """UserError when the network is made for other images than these, or when there are none to validate with."""
    info = found.info
    if (architecture.input, architecture.classes) != (info.input, info.classes):
        wanted, given = (f"{'×'.join(map(str, a.input))} pixels and {a.classes} classes" for a in (architecture, info))
        raise UserError(f"the network is made for {wanted}, but {info.name} has {given}")
    if not len(found.validation):
        raise UserError(f"{info.name}: validation: 0 leaves no images to choose by; hold out 1 or more")
