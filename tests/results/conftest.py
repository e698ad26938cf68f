"""Rows and folders for the tests of the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyconv_search.results.row import Epoch, Row

STUDY = {
    "format": 1,
    "name": "example",
    "space": {"name": "pyramid", "about": "", "parameters": {"levels": "text", "split": "text"}},
    "data": {"name": "patterns"},
    "recipe": {"epochs": 3},
    "search": {"kind": "grid"},
    "seeds": [0, 1],
    "objectives": {"top1_error": "min"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "study.json").write_text(json.dumps(STUDY), encoding="utf-8")
    return tmp_path


@pytest.fixture
def make_row() -> Callable[..., Row]:
    def make(trial: str = "t0", **changes: Any) -> Row:
        values: dict[str, Any] = {
            "trial": trial,
            "arch_id": "ab" * 32,
            "name": "größe 大",
            "seed": 0,
            "status": "complete",
            "reason": "",
            "detail": "",
            "epochs": 3,
            "parameters": {"levels": [4, 3, 2, 1], "split": "equal"},
            "params": 10,
            "macs": 20,
            "activations": 30,
            "receptive_field": 40,
            "val_top1_error": 12.5,
            "environment": {"torch": "2.6"},
        }
        return Row(**(values | changes))

    return make


@pytest.fixture
def make_epoch() -> Callable[..., Epoch]:
    def make(trial: str = "t0", epoch: int = 1, **changes: Any) -> Epoch:
        values = {"lr": 0.1, "train_loss": 1.0, "train_top1_error": 50.0, "val_loss": 1.1, "val_top1_error": 51.0}
        return Epoch(trial, epoch, **(values | {"val_top5_error": 10.0, "seconds": 2.0} | changes))

    return make
