"""From settings to architectures, by family. A family is one line here and one in ``families.FAMILIES``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyconv_search.arch import inception_settings
from pyconv_search.arch.resnet import resnet
from pyconv_search.arch.spec import Architecture
from pyconv_search.fields import Fields, Problem, Problems, SpecError, closest, integers

READERS: dict[str, Callable[[Mapping[str, Any], tuple[int, ...], int], Architecture]] = {
    "resnet": resnet,
    inception_settings.FAMILY: inception_settings.read,
}

# Keys that decide how many stages there are and how wide they are, on which the legal values of others depend.
SHAPE = ("depth", "blocks", "block", "stages", "num_stages", "width", "out", "expansion", "levels", "stem", "stride")
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
    try:
        return READERS[family](settings, size, count)
    except SpecError as error:
        raise SpecError(_certain(error.problems)) from None


def _certain(problems: Sequence[Problem]) -> Sequence[Problem]:
    """The mistakes that are there whatever is meant where a key of SHAPE cannot be read as it stands.

    Others may be of numbers that were put in its place.
    """
    keys = [([part for part in problem.path if isinstance(part, str)] or [""])[-1] for problem in problems]
    own = [problem for problem in problems if problem.own]
    shaken = any(problem.own and closest(key, SHAPE) for problem, key in zip(problems, keys, strict=True))
    return own if shaken else problems
