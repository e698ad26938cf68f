"""From settings to architectures, by family. A family is one line here and one in ``families.FAMILIES``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyconv_search.arch import inception_settings
from pyconv_search.arch.resnet import resnet
from pyconv_search.arch.spec import Architecture
from pyconv_search.fields import Fields, Problems, integers

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
    problems = Problems()
    fields = Fields(settings, (), problems)
    family = fields.text("family", "resnet", tuple(READERS))
    size = input or integers(fields.take("input", IMAGE), ("input",), problems)
    count = classes or fields.integer("classes", CLASSES)
    problems.check()
    return READERS[family](settings, size, count)
