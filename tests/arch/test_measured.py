"""The table of measurements: every line is an operation, a setting and a plan that it has."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib import resources

import pytest

from pyconv_search.arch.dilation import AXES
from pyconv_search.arch.plans import choice as choice_module
from pyconv_search.arch.plans.choice import DIRECTIONS, Setting, choose, key_of, least, measured, name_of
from pyconv_search.arch.plans.operation import Operation
from pyconv_search.arch.spec import Conv, Level

CPU = Setting("cpu", instructions="AVX512")

# Keys of the table: "64: 3×3 16 g1, 9×9 16 g16 {1,2,1,4} both /2,2 sorted-in sorted-out".
KEY = re.compile(r"(\d+): (.*?)(?: /(\d+),(\d+))?( sorted-in)?( sorted-out)?")
LEVEL = re.compile(rf"(\d+)×(\d+) (\d+) g(\d+)(?: \{{([\d,]+)\}} ({'|'.join(AXES)}))?")
SETTING = re.compile(r"(\w+)(?: \((\w+)\))?, (\w+), (channels_last|contiguous); (\w+)")


def read_key(key: str) -> Operation:
    """The operation of a key of the table."""
    channels, text, height, width, sorted_in, sorted_out = KEY.fullmatch(key).groups()
    levels = []
    for part in text.split(", "):
        high, wide, filters, groups, pattern, axes = LEVEL.fullmatch(part).groups()
        dilations = tuple(map(int, pattern.split(","))) if pattern else (1,)
        levels.append(Level((int(high), int(wide)), int(filters), int(groups), dilations, axes or "both"))
    stride = (int(height), int(width)) if height else (1, 1)
    return Operation(int(channels), Conv(tuple(levels)), stride, bool(sorted_in), bool(sorted_out))


def test_keys_tell_operations_apart(random_operation):
    for seed in range(3000):
        operation = random_operation(seed)
        assert read_key(key_of(operation)) == operation


def test_the_table_of_measurements_is_well_formed():
    text = resources.files("pyconv_search.arch.plans").joinpath("measured.json").read_text(encoding="utf-8")
    document = json.loads(text)
    assert set(document) == {"machine", "plans"}
    assert bool(document["machine"]) == bool(document["plans"]), "measured on which machine?"
    for where, plans in document["plans"].items():
        device, instructions, dtype, order, direction = SETTING.fullmatch(where).groups()
        setting = Setting(device, dtype, order == "channels_last", instructions or "")
        assert f"{setting}; {direction}" == where
        assert direction in DIRECTIONS
        assert dtype in ("float32", "bfloat16", "float16", "float64")
        for key, name in plans.items():
            operation = read_key(key)
            assert key_of(operation) == key
            found = choose(operation, setting, direction)
            assert (found.plan.name, found.reason) == (name, f"measured fastest on {setting}")


def test_what_was_measured_is_chosen(monkeypatch):
    """Of exactly this operation, order of channels and stride included, on exactly this setting."""
    operation = Operation(8, Conv((Level(3, 8, 1, (1, 2)),)))
    both = replace(operation, sorted_in=True, sorted_out=True, stride=(2, 2))
    table = {f"{CPU}; input": {key_of(operation): "per-class", key_of(both): "masked-1"}}
    monkeypatch.setattr(choice_module, "_table", lambda: table)
    assert measured(operation, CPU, "input") == "per-class"
    assert measured(both, CPU, "input") == "masked-1"
    for change in ({"sorted_in": True}, {"in_channels": 16}, {"stride": (1, 2)}):
        assert measured(replace(operation, **change), CPU, "input") is None
    assert measured(operation, CPU, "output") is None
    assert measured(operation, replace(CPU, channels_last=True), "input") is None
    assert measured(operation, replace(CPU, instructions="AVX2"), "input") is None
    choose.cache_clear()
    found = choose(operation, CPU, "input")
    choose.cache_clear()
    assert (found.plan.name, found.reason) == ("per-class", "measured fastest on cpu (AVX512), float32, contiguous")


def psconv(width: int, groups: int = 1, stride: tuple[int, int] = (1, 1), ordered: bool = False) -> Operation:
    return Operation(width, Conv((Level(3, width, groups, (1, 2, 1, 4)),)), stride, ordered, ordered)


PYCONV4 = Operation(64, Conv(tuple(Level(k, 16, g) for k, g in ((3, 1), (5, 4), (7, 8), (9, 16)))))
PYCONV3 = Operation(128, Conv((Level(3, 32), Level(5, 32, 4), Level(7, 64, 8))))
SMALL = Operation(16, Conv((Level(3, 8), Level(5, 8, 4))), (2, 2))


@pytest.mark.parametrize(
    ("operation", "channels_last", "direction", "fastest"),
    [
        (PYCONV3, False, "output", "1:grouped-1 2:strips2-4 3:strips2-8"),
        (PYCONV3, True, "input", "1:grouped-1 2:grouped-4 3:grouped-8"),
        (PYCONV3, True, "weight", "1:grouped-1 2:swapped-4 3:swapped-8"),
        (PYCONV4, True, "input", "1:grouped-1 2:grouped-4 3:grouped-4 4:depthwise"),
        (PYCONV4, False, "weight", "1:grouped-1 2:strips4-4 3:strips4-4 4:strips4-4"),
        (SMALL, False, "output", "1+2:grouped-1"),
        (psconv(16, stride=(2, 2)), False, "output", "masked-1"),
        (psconv(256, ordered=True), False, "output", "split"),
        (psconv(512, 32), True, "input", "masked-32"),
        (psconv(128, 32, ordered=True), True, "input", "masked-32"),
    ],
)
def test_the_estimate_ranks_as_was_measured(operation, channels_last, direction, fastest):
    """Plans that benchmarks.plans found to be fastest, or as fast as could be told, in float32 on an AVX512 CPU."""
    assert name_of(least(operation, Setting("cpu", "float32", channels_last, "AVX512"), direction)) == fastest
