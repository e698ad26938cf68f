"""The fast fold of a stage, whatever its pyramid, against the fold of its own traced layers."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from pyconv_search.arch import fold, network
from pyconv_search.arch.blocks import BLOCKS, fed
from pyconv_search.arch.dilation import AXES
from pyconv_search.arch.presets import PRESETS, preset
from pyconv_search.arch.spec import FORMS, Conv, Level, Stage, pointwise
from pyconv_search.arch.trace import farthest
from pyconv_search.space.sampling import draw
from pyconv_search.space.space import load_space

SPACES = sorted((Path(__file__).parents[2] / "spaces").glob("*.yaml"))


def check(arch):
    shape, jump = fold.stem(arch.family, arch.stem, arch.form, arch.input).part.size, 1
    for i, stage in enumerate(arch.stages):
        place = arch.family, stage, arch.form, i, shape
        found = fold.stage(*place, jump)
        assert found == fold.folded(network.stage(*place), jump)
        shape, jump = found.part.size, found.jump


@pytest.mark.parametrize("name", PRESETS)
def test_every_network(name):
    check(preset(name))


@pytest.mark.parametrize("file", SPACES, ids=lambda file: file.stem)
def test_random_architectures(file):
    space = load_space(file)
    for i in range(40):
        check(space.architecture(draw(space, 11, i)))


def drawn_stage(numbers: random.Random) -> tuple[str, Stage, int]:
    """A stage whose groups are often too narrow for every dilation of a pattern to occur, and what reaches it."""
    block, in_width, width = numbers.choice([*BLOCKS]), numbers.choice([2, 4, 6, 8]), numbers.choice([4, 8])
    out = numbers.choice([width, 2 * width, 4]) if BLOCKS[block].widens else width
    shape = block, numbers.choice([1, 3]), pointwise(width), out, numbers.choice([1, 2])
    common = [n for n in (1, 2, 4) if all(k % n == 0 for k in {width, *fed(Stage(*shape), in_width)})]
    pattern = tuple(numbers.sample([1, 2, 3, 5, 7], numbers.choice([2, 3, 4, 5])))
    level = Level(numbers.choice([3, 5]), width, numbers.choice(common), pattern, numbers.choice(AXES))
    return numbers.choice(FORMS), replace(Stage(*shape), conv=Conv((level,))), in_width


def test_random_stages_of_narrow_groups():
    numbers = random.Random(5)
    differ = 0
    for _ in range(1500):
        form, stage, in_width = drawn_stage(numbers)
        if form == "ires" and stage.blocks < 2:
            continue
        place = "resnet", stage, form, 1, (in_width, 16, 16)
        assert fold.stage(*place, 2) == fold.folded(network.stage(*place), 2), place
        (level,) = stage.conv.levels
        differ += len({(level.kernel - 1) * farthest(level, n) for n in fed(stage, in_width)}) > 1
    assert differ > 5
