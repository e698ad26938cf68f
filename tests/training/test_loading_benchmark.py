"""The benchmark of the loaders: every way reads the same epoch, and the table can be printed."""

from __future__ import annotations

import pytest
import torch

from benchmarks import loading
from pyconv_search.training import data


@pytest.fixture
def folder(tmp_path) -> data.DataSet:
    loading.write_images(tmp_path / "images", 12, 80, 60)
    return data.load("imagenet", tmp_path / "images", classes=2)


def test_the_plain_loader_gives_what_ours_gives(folder, monkeypatch):
    """With the same boxes: those that the plain one draws by the number of the image alone."""
    monkeypatch.setattr(loading.streaming, "seed_of", lambda *key: key[-1])
    images, labels = next(iter(loading.streamed(folder.train, folder.info, 1)))
    assert isinstance(folder.train, data.Encoded)
    plain = loading.Plain([folder.train.source(i) for i in range(len(folder.train))], folder.train.labels.tolist())
    order = torch.randperm(len(plain), generator=torch.Generator().manual_seed(0)).tolist()
    for index, image, label in zip(order, images, labels, strict=True):
        expected, right = plain[index]
        assert torch.equal(image, expected)
        assert label == right


def test_the_table(folder, capsys, monkeypatch):
    before = torch.get_num_threads()
    loading.main(
        ["--images", "12", "--width", "80", "--height", "60", "--side", "40", "--workers", "1", "--rounds", "1"]
    )
    said = capsys.readouterr().out
    assert "12 images of 80×60 (" in said
    rows = [line.split("|") for line in said.splitlines() if line.startswith("| ")][1:]
    assert [row[1].strip() for row in rows][:4] == ["DataLoader", "folder", "packed", "packed, 1 thread"]
    assert all(float(row[2].replace(",", "")) > 0 for row in rows)
    assert [float(rows[0][column].split()[0]) for column in (4, 6)] == [1.0, 1.0]
    assert all(0.01 < float(row[5]) < 1000 for row in rows)
    assert torch.get_num_threads() == before
