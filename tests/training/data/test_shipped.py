from __future__ import annotations

import gzip
import hashlib
import lzma
from pathlib import Path

import numpy as np
import pytest

from pyconv_search.errors import UserError
from pyconv_search.training.data import fingerprint, load, shipped, subset
from pyconv_search.training.data.dataset import Split

FOLDER = Path(shipped.__file__).parent / "shipped"
ORIGINALS = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture(scope="module")
def small():
    return load("fashion-mnist-small")


def original(name: str, header: int, *shape: int) -> np.ndarray:
    data = gzip.decompress((ORIGINALS / f"{name}.gz").read_bytes())
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def ranked(labels: np.ndarray, per_class: int, salt: str) -> list[int]:
    """README.md's rule, written anew: per class, the first by SHA-256 of "salt:index"."""
    kept: dict[int, int] = {}
    drawn = []
    for index in sorted(range(len(labels)), key=lambda i: hashlib.sha256(f"{salt}:{i}".encode()).hexdigest()):
        label = int(labels[index])
        kept[label] = kept.get(label, 0) + 1
        if kept[label] <= per_class:
            drawn.append(index)
    return sorted(drawn)


def test_counts_and_balance(small):
    for split, per_class in ((small.train, 1000), (small.validation, 200), (small.test, 200)):
        assert np.bincount(split.labels).tolist() == [per_class] * 10


def test_content_is_pinned(small):
    """Studies name their data by this; it may change with a new name of the data set alone."""
    assert fingerprint(small) == "ad1a4b5cbfb1dd9d8c8135dd77400dda7ed19ca2304e9e826d31d4bf35938f9c"


def test_mean_and_std_are_those_of_the_training_images(small, make):
    mean, std = make.mean_std(np.concatenate([small.train.images, small.validation.images]))
    assert small.info.mean == pytest.approx(mean, abs=5e-5)
    assert small.info.std == pytest.approx(std, abs=5e-5)


def test_it_is_small_and_carries_its_licence():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 6_000_000
    assert sorted(path.name for path in FOLDER.iterdir()) == ["LICENSE", "README.md", *shipped.FILES]
    assert "Copyright © 2017 Zalando SE, https://tech.zalando.com" in (FOLDER / "LICENSE").read_text("utf-8")


def test_it_is_part_of_the_originals(small):
    if not ORIGINALS.is_dir():
        pytest.skip(f"{ORIGINALS} is not there (Debian package dataset-fashion-mnist)")
    labels = original("train-labels-idx1-ubyte", 8, 60000)
    images = original("train-images-idx3-ubyte", 16, 60000, 1, 28, 28)
    pool = np.array(ranked(labels, 1200, "fashion-mnist-small train"))
    validation = ranked(labels[pool], 200, "pyconv-search validation 0")
    train = sorted(set(range(12000)) - set(validation))
    for split, chosen in ((small.train, pool[train]), (small.validation, pool[validation])):
        np.testing.assert_array_equal(split.images, images[chosen])
        np.testing.assert_array_equal(split.labels, labels[chosen])
    test_labels = original("t10k-labels-idx1-ubyte", 8, 10000)
    chosen = ranked(test_labels, 200, "fashion-mnist-small test")
    np.testing.assert_array_equal(small.test.labels, test_labels[chosen])
    np.testing.assert_array_equal(small.test.images, original("t10k-images-idx3-ubyte", 16, 10000, 1, 28, 28)[chosen])


def test_the_command_writes_what_load_reads(tiny, make, tmp_path):
    target = tmp_path / "made" / "here"
    assert subset.main([str(make.fashion(tiny)), str(target)]) == 0
    assert sorted(path.name for path in target.iterdir()) == sorted(shipped.FILES)
    data = load("fashion-mnist-small", target)
    originals = {make.image(n, 784): label for n, label in enumerate(make.labels(50, 10, 0))}
    for split, count in ((data.train, 30), (data.validation, 10)):
        assert len(split) == count
        assert all(originals[i.tobytes()] == n for i, n in zip(split.images, split.labels, strict=True))
    assert {i.tobytes() for i in data.test.images} == {make.image(1000 + n, 784) for n in range(20)}


def test_the_command_tells_what_is_wrong(tiny, tmp_path, capsys):
    assert subset.main([]) == 2
    assert "usage: " in capsys.readouterr().err
    assert subset.main([str(tiny), str(tmp_path / "target")]) == 1
    assert f"{tiny} is empty" in capsys.readouterr().err
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("keep", [0, 10, 100, -1])
def test_cut_files(tiny, keep):
    half = Split(np.zeros((60, 1, 28, 28), np.uint8), np.arange(60) % 10)
    subset.write(half, tiny)
    assert len(load("fashion-mnist-small", tiny).train) == 30
    path = tiny / shipped.FILES[0]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"images-idx3-ubyte\.xz: is not a complete xz file"):
        load("fashion-mnist-small", tiny)


def test_standard_tools_can_read_the_files():
    for name, magic, size in zip(shipped.FILES, (0x803, 0x801), (16 + 14000 * 784, 8 + 14000), strict=True):
        data = lzma.decompress((FOLDER / name).read_bytes(), format=lzma.FORMAT_XZ)
        assert (int.from_bytes(data[:4], "big"), len(data)) == (magic, size)
