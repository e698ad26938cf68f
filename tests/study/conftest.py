from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

SPACE = """
space: small
parameters:
  levels: {choice: [[1, 1, 1], [2, 2, 1], [3, 2, 1]]}
  pattern: {choice: [[1], [1, 2], [1, 2, 1, 4]], when: "levels == [1, 1, 1]"}
  width: {int: [8, 32], step: 8}
network:
  depth: 11
  block: bottleneck
  stem: {kernel: 3, width: 16, stride: 1, pool: none}
  width: $width
  levels: $levels
  pattern: $pattern
constraints:
  - params <= 250k
"""


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[..., Path]:
    """Write a study (and its space) with some keys replaced, or removed where they are None; return its path."""

    def write(**changes: Any) -> Path:
        (tmp_path / "space.yaml").write_text(changes.pop("space_text", SPACE))
        study = {
            "study": "small",
            "space": "space.yaml",
            "data": "fashion-mnist-small",
            "recipe": {"epochs": 2},
            "search": "grid",
            **changes,
        }
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in study.items() if v is not None}, sort_keys=False))
        return path

    return write
