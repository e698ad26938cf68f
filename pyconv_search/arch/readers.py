"""From settings to architectures, by family. A family is one line here and one in ``families.FAMILIES``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyconv_search.arch import inception_settings
from pyconv_search.arch.resnet import resnet
from pyconv_search.arch.spec import Architecture

READERS: dict[str, Callable[[Mapping[str, Any], tuple[int, ...], int], Architecture]] = {
    "resnet": resnet,
    inception_settings.FAMILY: inception_settings.read,
}

IMAGE, CLASSES = (3, 224, 224), 1000


def read(settings: Mapping[str, Any], input: tuple[int, ...] | None = None, classes: int | None = None) -> Architecture:
    """The architecture of ``settings``, for their own input and classes (ImageNet's, if none) unless others are given.

    Raises:
        SpecError: with every mistake and its key path inside ``settings``.
    """
    size = input or tuple(settings.get("input", IMAGE))
    return READERS[settings.get("family", "resnet")](settings, size, classes or settings.get("classes", CLASSES))
