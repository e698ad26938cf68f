from __future__ import annotations

import math
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyconv_search.arch.plans.operation import Operation, sortable
from pyconv_search.arch.spec import Conv, Level

# In the background of a shell or under nohup signals are ignored, and whatever is started there inherits it.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

SPACE = {
    "space": "tiny",
    "parameters": {"levels": {"choice": [[1, 1, 1], [2, 2, 1]]}},
    "network": {
        "depth": 11,
        "block": "bottleneck",
        "stem": {"kernel": 3, "width": 8, "stride": 2, "pool": "none"},
        "stages": [{"stride": 2}, {}, {}],
        "expansion": 2,
        "levels": "$levels",
    },
}


@pytest.fixture(scope="session")
def reported() -> Callable[[str], list[str]]:
    """The lines of a text without those that say what a slow machine waits for."""
    return lambda text: [line for line in text.splitlines() if " …" not in line]


@pytest.fixture
def tiny_study(tmp_path: Path) -> Callable[..., Path]:
    """Write a study of two real networks that train in seconds, with some keys replaced; return its path."""

    def write(**changes: Any) -> Path:
        study = {
            "study": "tiny",
            "space": "tiny-space.yaml",
            "data": "fashion-mnist-small",
            "recipe": {"epochs": 2, "batch": 128, "precision": "fp32", "augment": {"crop": 2, "flip": True}},
            "search": "grid",
            "objectives": {"top1_error": "min", "gmacs": "min"},
            **changes,
        }
        (tmp_path / "tiny-space.yaml").write_text(yaml.safe_dump(SPACE, sort_keys=False))
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(study, sort_keys=False))
        return path

    return write


@contextmanager
def _bounded(most: int) -> Iterator[list[int]]:
    """Fail as soon as more than ``most`` functions, Python's or built-in ones, are called inside.

    It is a measure of work that no machine's speed changes, and ends loops that would run for hours. Yields the number
    of calls so far, in a list of one.
    """
    calls = [0]

    def count(frame: Any, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            calls[0] += 1
            if calls[0] > most:
                sys.setprofile(None)
                pytest.fail(f"more than {most:,} calls")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(before)


@pytest.fixture
def bounded() -> Callable[[int], Any]:
    """A context manager within which only so many functions may be called."""
    return _bounded


def draw_operation(seed: int, most: int = 6) -> Operation:
    """A random convolution of one to four levels; ``most`` bounds how many channels its groups have.

    A sixth is depthwise. Half of the widths are multiples of the patterns' lengths, of those with one level a half has
    sorted sides.
    """
    r = random.Random(seed)
    count = r.choice([1, 1, 1, 2, 3, 4])
    patterns = [
        tuple(r.choice([1, 1, 2, 3, 4]) for _ in range(r.choice([1, 1, 2, 3, 4, 4, 6, 8]))) for _ in range(count)
    ]
    groups = [r.choice([1, 1, 1, 2, 3, 4]) for _ in range(count)]
    patterns = patterns if r.random() < 0.7 else [(r.choice([1, 2]),)] * count
    common = math.lcm(*groups)
    even = r.random() < 0.5
    in_channels = common * (math.lcm(*map(len, patterns)) if even and count == 1 else r.randint(1, most))
    if r.random() < 1 / 6:
        groups[r.randrange(count)] = in_channels
    sides = [1, 3, 3, 5, 7]
    kernels = [r.choice([(side, side), (side, side), (r.choice(sides), side)]) for side in r.choices(sides, k=count)]
    levels = [
        Level(kernel, group * (len(pattern) if even else r.randint(1, most)), group, pattern, axes)
        for kernel, group, pattern, axes in zip(
            kernels, groups, patterns, r.choices(["both", "both", "input", "output"], k=count), strict=True
        )
    ]
    operation = Operation(in_channels, Conv(tuple(levels)), r.choice([(1, 1), (1, 1), (2, 2), (1, 3)]))
    if count > 1 or r.random() < 0.5:
        return operation
    sides_sorted = [sortable(width, levels[0]) and r.random() < 0.7 for width in (in_channels, levels[0].width)]
    return replace(operation, sorted_in=sides_sorted[0], sorted_out=sides_sorted[1])


@pytest.fixture(scope="session")
def random_operation():
    return draw_operation
