from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest

from pyconv_search.errors import UserError
from pyconv_search.study import datasets
from pyconv_search.training.data import DataSet, Split, check, fingerprint, listing, load, subset
from pyconv_search.training.data.registry import FAMILIES


def write(name: str, root, make) -> None:
    """The tiny data set of that name in its official layout."""
    if name == "fashion-mnist":
        make.fashion(root)
    elif name == "fashion-mnist-small":
        subset.write(Split(np.zeros((60, 1, 28, 28), np.uint8), np.arange(60) % 10), root)
    else:
        files = make.cifar10_files() if name == "cifar10" else make.cifar100_files()
        for stem, (labels, images) in files.items():
            (root / f"{stem}.bin").write_bytes(make.binary(labels, images, coarse=name == "cifar100"))


def test_the_table_has_the_names_of_the_infos():
    assert list(FAMILIES) == list(datasets.DATA_SETS)


@pytest.mark.parametrize("name", [name for name, info in datasets.DATA_SETS.items() if not info.in_files])
def test_loaded_arrays_agree_with_the_info(tiny, make, name):
    made = name.endswith("-shapes")
    if not made:
        write(name, tiny, make)
    data, info = load(name, None if made else tiny), datasets.get(name)
    assert data.info == info
    for split, count in ((data.train, info.train), (data.validation, info.validation), (data.test, info.test)):
        assert split.images.shape == (count, *info.input)
        assert split.labels.shape == (count,)
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int64)
        assert split.images.flags.writeable
        assert split.images.flags.c_contiguous
        assert set(split.labels.tolist()) == set(range(info.classes))


@pytest.mark.parametrize("name", list(datasets.DATA_SETS))
def test_real_data_agrees_with_the_info(name):
    try:
        data = load(name)
    except UserError as missing:
        pytest.skip(str(missing))
    assert data.info == datasets.get(name)
    assert [len(split) for split in data.splits.values()] == [data.info.train, data.info.validation, data.info.test]


def test_fingerprint_by_hand():
    info = datasets.get("cifar10")
    split = Split(np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2), np.array([7]))
    one = hashlib.sha256(b"(1, 3, 2, 2)" + (7).to_bytes(8, "little") + bytes(range(12))).hexdigest()
    text = f"train {one}\nvalidation {one}\ntest {one}"
    assert fingerprint(DataSet(info, split, split, split)) == hashlib.sha256(text.encode()).hexdigest()


def test_fingerprint_tells_every_change(tiny, make):
    data = load("fashion-mnist", make.fashion(tiny))
    pixels, labels = data.train.images.copy(), data.train.labels.copy()
    pixels[3, 0, 5, 5] ^= 1
    labels[3] = (labels[3] + 1) % 10
    changed = [
        replace(data, train=Split(pixels, data.train.labels)),
        replace(data, train=Split(data.train.images, labels)),
        replace(data, train=data.train.take(np.arange(40)[::-1])),
        replace(data, train=data.validation, validation=data.train),
    ]
    assert len({fingerprint(other) for other in [data, *changed]}) == 5
    assert fingerprint(load("fashion-mnist", tiny)) == fingerprint(data)


def test_check_reports_what_was_read(tiny, make):
    make.fashion(tiny)
    report = check("fashion-mnist", tiny)
    assert (report.name, report.found_at, report.input, report.classes) == ("fashion-mnist", str(tiny), (1, 28, 28), 10)
    assert [(s.name, s.images, s.per_class) for s in report.splits] == [
        ("train", 40, (4,) * 10),
        ("validation", 10, (1,) * 10),
        ("test", 20, (2,) * 10),
    ]
    assert report.fingerprint == fingerprint(load("fashion-mnist", tiny))
    assert json.loads(json.dumps(asdict(report)))["splits"][2]["images"] == 20
    (tiny / "t10k-labels-idx1-ubyte").write_bytes(b"")
    with pytest.raises(UserError, match="is truncated"):
        check("fashion-mnist", tiny)


def test_listing_has_a_row_for_each(tiny, make, monkeypatch):
    make.fashion(tiny / "fashion-mnist")
    monkeypatch.setenv("PYCONV_SEARCH_DATA", str(tiny))
    rows = {row.name: row for row in listing()}
    assert list(rows) == list(datasets.DATA_SETS)
    assert rows["fashion-mnist"].found_at == str(tiny / "fashion-mnist")
    assert rows["fashion-mnist-small"].found_at is not None
    assert rows["cifar10"].found_at is None
    ((place, problem),) = rows["cifar10"].looked_in
    assert place == str(tiny)
    assert problem.startswith("has none of cifar-10-batches-bin/")
    assert (rows["cifar100"].input, rows["cifar100"].classes, rows["cifar100"].train) == ((3, 32, 32), 100, 100)
    json.dumps([asdict(row) for row in rows.values()])


def test_unknown_name():
    for call in (load, check, datasets.get):
        with pytest.raises(UserError, match=r"no data set is called 'cifar-10'; did you mean cifar10\? There are: "):
            call("cifar-10")
    with pytest.raises(UserError, match="no data set is called 'svhn'; There are: fashion-mnist-small, fashion-"):
        load("svhn")


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((2, 3, 4), np.uint8), np.zeros(2, np.int64)),
        (np.zeros((2, 1, 3, 4)), np.zeros(2, np.int64)),
        (np.zeros((2, 1, 3, 4), np.uint8), np.zeros(3, np.int64)),
        (np.zeros((2, 1, 3, 4), np.uint8), np.zeros(2, np.int32)),
    ],
)
def test_a_split_is_what_it_says(images, labels):
    with pytest.raises(ValueError, match="must be"):
        Split(images, labels)


@pytest.mark.parametrize(
    ("module", "absent"),
    [("pyconv_search.training.data", {"torch", "ray"}), ("pyconv_search.study.datasets", {"torch", "ray", "numpy"})],
)
def test_imports_stay_light(module, absent):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not absent & set(loaded)
