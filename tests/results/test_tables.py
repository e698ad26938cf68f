"""The typed tables and their Parquet files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pandas as pd
import pytest

from pyconv_search.errors import UserError
from pyconv_search.results.row import Epoch, Row
from pyconv_search.results.store import Journal, read, tables, write_tables


def fill(folder, *rows):
    with Journal(folder) as journal:
        for row in rows:
            journal.append_row(row)
    return folder


def test_types_do_not_depend_on_the_values(folder, make_row):
    empty, empty_epochs = tables(read(folder))
    fill(folder, make_row("a", val_top1_error=None), make_row("b"))
    filled, _ = tables(read(folder))
    fixed = [name for name in empty if not name.startswith("parameter.")]
    assert empty[fixed].dtypes.to_dict() == filled[fixed].dtypes.to_dict()
    assert str(empty["test_loss"].dtype) == str(filled["val_top1_error"].dtype) == "float64"
    assert str(empty["macs"].dtype) == "Int64"
    assert str(empty["trial"].dtype) == "string"
    assert list(empty_epochs) == list(Epoch.__dataclass_fields__)
    assert set(fixed) == set(Row.__dataclass_fields__) - {"parameters"}


def test_parameters_become_columns(folder, make_row):
    rows = [
        make_row("a", parameters={"levels": [4, 3], "split": "equal", "n": 3, "rate": 1, "on": True}),
        make_row("b", parameters={"levels": [1], "rate": 0.5}),
    ]
    table, _ = tables(read(fill(folder, *rows)))
    assert list(table["parameter.levels"]) == ["[4,3]", "[1]"]
    assert table["parameter.split"].isna().tolist() == [False, True]
    types = {name: str(table[f"parameter.{name}"].dtype) for name in ("levels", "split", "n", "rate", "on")}
    assert types == {"levels": "string", "split": "string", "n": "Int64", "rate": "float64", "on": "boolean"}
    assert table["environment"].iloc[0] == '{"torch":"2.6"}'


def test_parquet_files_hold_the_tables(folder, make_row, make_epoch):
    fill(folder, make_row("a"), make_row("b", parameters={"levels": [1], "huge": 2**70}))
    with Journal(folder) as journal:
        journal.append_epoch(make_epoch("a", 1, train_loss=float("inf")))
    for path, table in zip(write_tables(folder), tables(read(folder)), strict=True):
        pd.testing.assert_frame_equal(pd.read_parquet(path), table, check_dtype=False)
    assert sorted(p.name for p in folder.iterdir()) == [
        "epochs.parquet",
        "journal.jsonl",
        "rows.parquet",
        "run.lock",
        "study.json",
    ]


def test_what_has_been_read_is_not_read_again(folder, make_row, monkeypatch):
    held = read(fill(folder, make_row("a")))
    monkeypatch.setattr("pyconv_search.results.store.read", None)
    rows, _ = write_tables(folder, held)
    assert pd.read_parquet(rows)["trial"].tolist() == ["a"]


def test_a_full_disk_keeps_the_old_file(folder, make_row, monkeypatch):
    fill(folder, make_row("a"))
    old = write_tables(folder)[0].read_bytes()
    fill(folder, make_row("b"))

    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UserError, match=r"rows\.parquet: cannot be written: No space left"):
        write_tables(folder)
    assert (folder / "rows.parquet").read_bytes() == old
    assert not list(Path(folder).glob("*.part"))
    assert not list(Path(folder).glob(".*.part"))
