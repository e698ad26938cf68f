"""Whatever a library raises of a user's file is the package's own error: no list of types is ever whole."""

from __future__ import annotations

import csv
import json
import struct
import zipfile
from pathlib import Path

import pytest
import torch

import pyconv_search as ps
from pyconv_search.errors import UserError
from pyconv_search.results import verdicts
from pyconv_search.training.data import imagenet

ERRORS = [AssertionError("a"), struct.error("b"), zipfile.BadZipFile("c"), NotImplementedError(), MemoryError("d"), Exception("e")]  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_checkpoint(error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def load(*words: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", load)
    (tmp_path / "released.pth").write_bytes(b"x")
    with pytest.raises(UserError, match=r"released\.pth: cannot be read"):
        ps.load_released(ps.build(ps.preset("resnet-18")), tmp_path / "released.pth")


def test_a_table_of_labels(tmp_path: Path) -> None:
    """Fields of more than 131,072 characters are csv's own error, which is no ValueError."""
    table = tmp_path / "LOC_val_solution.csv"
    table.write_text(f"ImageId,PredictionString\na,{'n' * 200_000}\n")
    with pytest.raises(csv.Error), table.open(newline="") as text:
        list(csv.DictReader(text))
    with pytest.raises(UserError, match="is not a table of ImageId and PredictionString"):
        imagenet._kaggle(table)


GOOD = {"key": "k", "arch_id": "a", "name": "n", "device": "cpu", "size": 2, "processes": 1, "failure": ""}


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000, "[]", '{"verdicts": 5}', '{"verdicts": [5]}', '{"verdicts": [{}]}', "\ufeff{", "\xff",
        json.dumps({"verdicts": [{**GOOD, "key": [], "apart": [], "stacked": []}]}),
        json.dumps({"verdicts": [{**GOOD, "apart": ["x"], "stacked": [1]}]}),
        json.dumps({"verdicts": [{**GOOD, "apart": [1, 2], "stacked": [1]}]}),
        json.dumps({"verdicts": [{**GOOD, "apart": [1], "stacked": [0]}]}),
    ],
)  # fmt: skip
def test_verdicts_can_be_measured_again(content: str, tmp_path: Path) -> None:
    (tmp_path / verdicts.FILE).write_text(content, encoding="latin-1", errors="replace")
    assert verdicts.read(tmp_path) == {}


def test_verdicts_that_are_whole(tmp_path: Path) -> None:
    content = {"verdicts": [{**GOOD, "apart": [1, 2], "stacked": [4, 8]}]}
    (tmp_path / verdicts.FILE).write_text(json.dumps(content))
    assert verdicts.read(tmp_path)["k"].together == 2
