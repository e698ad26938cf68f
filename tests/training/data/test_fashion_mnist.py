from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pyconv_search.errors import UserError
from pyconv_search.training.data import fingerprint, idx, load, locations
from pyconv_search.training.data.files import Blob

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_holds_the_bytes_of_the_files(tiny, make, suffix):
    data = load("fashion-mnist", make.fashion(tiny, suffix))
    assert data.test.labels.tolist() == make.labels(20, 10, 1000)
    assert [image.tobytes() for image in data.test.images] == [make.image(1000 + n, 784) for n in range(20)]
    assert data.test.images[3, 0, 4, 5] == make.image(1003, 784)[4 * 28 + 5]
    held = {i.tobytes(): int(n) for s in (data.train, data.validation) for n, i in zip(s.labels, s.images, strict=True)}
    assert held == {make.image(n, 784): label for n, label in enumerate(make.labels(50, 10, 0))}


@pytest.mark.parametrize("folder", [".", "fashion-mnist", "FashionMNIST/raw"])
def test_usual_subfolders(tiny, make, folder):
    make.fashion(tiny / folder, ".gz")
    data = load("fashion-mnist", tiny)
    assert Path(data.found_at) == tiny / folder
    assert fingerprint(load("fashion-mnist", data.found_at)) == fingerprint(data)


def test_plain_and_gzipped_files_mix(tiny, make):
    make.fashion(tiny, ".gz")
    expected = fingerprint(load("fashion-mnist", tiny))
    packed = tiny / f"{TRAIN_IMAGES}.gz"
    (tiny / TRAIN_IMAGES).write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert fingerprint(load("fashion-mnist", tiny)) == expected


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        (TRAIN_IMAGES, b"", "is truncated: 0 bytes, but its header alone has 16"),
        (TRAIN_LABELS, b"\0\0\x08\x01\0", "is truncated: 5 bytes, but its header alone has 8"),
        (TRAIN_IMAGES, struct.pack(">IIII", 0x801, 50, 28, 28), "magic number is 0x00000801, but must be 0x00000803"),
        (TRAIN_LABELS, struct.pack(">II", 0x803, 50), "magic number is 0x00000803, but must be 0x00000801"),
        (TRAIN_IMAGES, struct.pack("<IIII", 0x803, 50, 28, 28), "magic number is 0x03080000"),
        (TRAIN_IMAGES, struct.pack(">IIII", 0x803, 49, 28, 28), "holds 49×28×28 bytes, but must hold 50×28×28"),
        (TRAIN_IMAGES, struct.pack(">IIII", 0x803, 50, 32, 32), "holds 50×32×32 bytes, but must hold 50×28×28"),
        (TRAIN_IMAGES, struct.pack(">IIII", 0x803, 50, 28, 28) + b"x", "is truncated: 17 bytes, but must have 39,216"),
        (TRAIN_LABELS, struct.pack(">II", 0x801, 50) + bytes(51), "has bytes to spare: 59 bytes, but must have 58"),
        (
            TRAIN_LABELS,
            struct.pack(">II", 0x801, 50) + bytes(49) + b"\x0a",
            "label 10 of image 49; labels must be 0 to 9",
        ),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_wrong_files(tiny, make, file, data, message, suffix):
    make.fashion(tiny, suffix)
    (tiny / (file + suffix)).write_bytes(gzip.compress(data) if suffix else data)
    with pytest.raises(UserError) as caught:
        load("fashion-mnist", tiny)
    assert f"{tiny / (file + suffix)}: {message}" in str(caught.value)


@pytest.mark.parametrize("keep", [0, 5, 40, -9, -1])
def test_cut_gzip(tiny, make, keep):
    make.fashion(tiny, ".gz")
    path = tiny / f"{TRAIN_IMAGES}.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz: ") as caught:
        load("fashion-mnist", tiny)
    assert "\n" not in str(caught.value)


def test_plain_file_under_a_gz_name(tiny, make):
    make.fashion(tiny, ".gz")
    (tiny / f"{TRAIN_LABELS}.gz").write_bytes(make.idx_labels(make.labels(50, 10)))
    with pytest.raises(UserError, match=r"train-labels-idx1-ubyte\.gz: is not a complete gz file"):
        load("fashion-mnist", tiny)


def test_other_digits_under_the_same_names(tiny, make):
    """MNIST has the same names, shapes and counts, but its classes are not of one size."""
    make.fashion(tiny)
    labels = make.labels(50, 10)
    labels[labels.index(3)] = 1
    (tiny / TRAIN_LABELS).write_bytes(make.idx_labels(labels))
    with pytest.raises(UserError, match="class 1 has 6 training images, but must have 5; is this another data set"):
        load("fashion-mnist", tiny)


@given(arrays.arrays(np.uint8, arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)))
def test_idx_round_trip(array):
    np.testing.assert_array_equal(idx.parse(Blob("x", idx.dump(array)), array.shape), array)


@given(st.binary(max_size=40))
def test_idx_accepts_its_own_bytes_alone(data):
    right = struct.pack(">III", 0x802, 2, 3)
    if data[:12] == right and len(data) == 18:
        assert idx.parse(Blob("x", data), (2, 3)).tobytes() == data[12:]
        return
    with pytest.raises(UserError, match=r"^x: "):
        idx.parse(Blob("x", data), (2, 3))


def test_the_real_files_where_they_are_found(make):
    if not any(location.complete for location in locations("fashion-mnist")):
        pytest.skip("Fashion-MNIST is not on this machine (Debian package dataset-fashion-mnist)")
    data = load("fashion-mnist")
    # As in every tutorial: ankle boot, pullover, trouser, trouser, shirt, …
    assert data.test.labels[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert fingerprint(data) == "654ab2d5c7f69911f7ea228832f34c98b25bea7e68fea7dad7325d45b6bf7e88"
    mean, std = make.mean_std(np.concatenate([data.train.images, data.validation.images]))
    assert data.info.mean == pytest.approx(mean, abs=5e-5)
    assert data.info.std == pytest.approx(std, abs=5e-5)
