from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pyconv_search.space.document import parse
from pyconv_search.space.space import Space, space_of


@pytest.fixture
def make_space() -> Callable[[str], Space]:
    """A space from the text of its parameters and constraints, on a small network for 32×32 images."""

    def make(parameters: str, network: str = "", constraints: str = "") -> Space:
        parts = ["space: t", "parameters:", *(f"  {line}" for line in parameters.strip("\n").splitlines())]
        parts += [
            "network:",
            "  depth: 11",
            "  block: bottleneck",
            "  stem: {kernel: 3, width: 16, stride: 1, pool: none}",
        ]
        parts += ["  input: [3, 32, 32]", "  classes: 10", *(f"  {line}" for line in network.strip("\n").splitlines())]
        parts += (
            ["constraints:", *(f"  - {line}" for line in constraints.strip("\n").splitlines())] if constraints else []
        )
        return space_of(parse("\n".join(parts), "t.yaml"))

    return make


@pytest.fixture(params=sorted(Path(__file__).parents[2].glob("spaces/*.yaml")), ids=lambda p: p.stem)
def shipped(request: pytest.FixtureRequest) -> Path:
    """Every file in spaces/."""
    return request.param
