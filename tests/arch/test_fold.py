"""The fast fold of a stage, whatever its pyramid, against the fold of its own traced layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyconv_search.arch import fold, network
from pyconv_search.arch.presets import PRESETS, preset
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
