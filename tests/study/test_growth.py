"""The size from which images grow: refused where a network of the space does not take it, and the nearest that it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyconv_search.arch.residual import stride
from pyconv_search.errors import UserError
from pyconv_search.study.growth import resolution
from pyconv_search.study.plan import candidates
from pyconv_search.study.recipe import Recipe
from pyconv_search.study.study import load_study

Write = Callable[..., Path]
# Reductions of 4, 8, 16 and 16 times.
SPACE = """
space: s
parameters:
  stem: {choice: [1, 2]}
  pool: {choice: [none, max]}
network: {depth: 11, block: bottleneck, width: 8, stem: {kernel: 3, width: 8, stride: $stem, pool: $pool}, stages: STAGES}
CONSTRAINTS
"""
# Reductions of 16 and of 128 times.
VIDEO = """
space: v
parameters:
  strides: {choice: [[1, 2, 2], [2, 4, 4]]}
network: {input: [3, 8, 32, 32], depth: 14, block: basic, width: 8, stages: [{stride: "$strides[0]"}, {stride: "$strides[1]"}, {stride: "$strides[2]"}]}
"""


def small(write: Write, start: Any, space: str = SPACE, **changes: Any) -> Path:
    text = space.replace("STAGES", changes.pop("stages", "[{}, {}, {}]"))
    text = text.replace("CONSTRAINTS", changes.pop("constraints", ""))
    recipe = {"epochs": 4, "batch": 32, "resolution": {"start": start, "until": 0.5}}
    return write(space_text=text, **{"recipe": recipe, **changes})


def test_a_start_below_the_largest_reduction_is_refused_with_the_smallest_that_is_not(write_study: Write) -> None:
    with pytest.raises(UserError) as error:
        load_study(small(write_study, 0.4))
    text = (
        "study.yaml:8:12 recipe.resolution.start: makes images of 12×12 pixels in the first epoch, which are too small"
    )
    assert f"{text} for 2 of the networks; nearest: " in str(error.value)
    nearest = float(str(error.value).rpartition("nearest: ")[2])
    study = load_study(small(write_study, nearest))
    most = max(stride(row.architecture) for row in candidates(study))
    assert most == 16
    below = Recipe(4, resolution=nearest - 0.01, resolution_until=0.5)
    assert resolution(study.recipe, 0, (28, 28)) >= (most, most) > resolution(below, 0, (28, 28))


def test_networks_that_a_constraint_leaves_out_do_not_count(write_study: Write) -> None:
    load_study(small(write_study, 0.4, constraints="constraints: [stem == 1]"))
    load_study(small(write_study, 0.4, constraints="constraints: [macs >= 400k]"))


def test_pixels_for_non_local_blocks_count(write_study: Write) -> None:
    with pytest.raises(UserError, match=r"16×16 pixels .* too small for 2 of the networks; nearest: 0.65"):
        load_study(small(write_study, 0.6, stages="[{}, {}, {non_local: true}]"))


def test_videos(write_study: Write) -> None:
    with pytest.raises(UserError, match=r"32×32 pixels .* too small for 1 of the networks; nearest: 0.5"):
        load_study(small(write_study, 0.1, VIDEO, data="kinetics-shapes"))


def test_a_start_that_the_space_varies_is_told_in_the_spaces_file(write_study: Write) -> None:
    space = SPACE.replace("network:", "  start: {choice: [0.2, 0.6]}\nnetwork:").replace(
        "CONSTRAINTS", "recipe: {resolution: {start: $start, until: 0.5}}"
    )
    with pytest.raises(UserError, match=r"space\.yaml:\d+:\d+ recipe\.resolution\.start: makes images of 4×4 .* 3 of"):
        load_study(small(write_study, 0.5, space))
