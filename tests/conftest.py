from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def pytest_addoption(parser):
    parser.addoption("--witnesses", type=int, default=8, help="random networks to build, of every shipped space")


@pytest.fixture
def witnesses(request):
    """How many random networks of every shipped space are built and counted."""
    return request.config.getoption("--witnesses")
