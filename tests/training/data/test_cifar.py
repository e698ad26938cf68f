from __future__ import annotations

import gzip
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pyconv_search.errors import UserError
from pyconv_search.training.data import fingerprint, load, locations

NAMES = ("cifar10", "cifar100")
STEM = {"cifar10": "cifar-10", "cifar100": "cifar-100"}


def official_files(make, name: str, layout: str) -> dict[str, bytes]:
    """Path in the official archive -> bytes."""
    files = make.cifar10_files() if name == "cifar10" else make.cifar100_files()
    batches = "-batches" if name == "cifar10" else ""
    if layout == "binary":
        folder = f"{STEM[name]}{'-batches-bin' if batches else '-binary'}"
        return {f"{folder}/{k}.bin": make.binary(*v, coarse=name == "cifar100") for k, v in files.items()}
    folder = f"{STEM[name]}{'-batches-py' if batches else '-python'}"
    key = "labels" if name == "cifar10" else "fine_labels"
    return {f"{folder}/{k}": make.python2_pickle(*v, key) for k, v in files.items()}


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_archive(path: Path, files: dict[str, bytes], prefix: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def assert_holds(data, make, name: str) -> None:
    """Every image of the files is in the data set once, in its split, with its label, planes and rows in order."""
    files = make.cifar10_files() if name == "cifar10" else make.cifar100_files()
    *train, test = files.values()
    pool = {image: label for labels, images in train for label, image in zip(labels, images, strict=True)}
    assert (data.test.labels.tolist(), [image.tobytes() for image in data.test.images]) == test
    rest = (data.train, data.validation)
    held = [(image.tobytes(), int(n)) for s in rest for image, n in zip(s.images, s.labels, strict=True)]
    assert len(held) == len(pool)
    assert dict(held) == pool
    first = train[0][1][0]
    here = next(i for i in np.concatenate([data.train.images, data.validation.images]) if i.tobytes() == first)
    assert here[1, 2, 3] == first[1 * 1024 + 2 * 32 + 3]  # green plane, third row, fourth column


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", ["binary", "python"])
def test_folder_and_archive_agree_with_the_bytes(tiny, make, name, layout):
    files = official_files(make, name, layout)
    folder = load(name, write_folder(tiny / "a", files))
    archive = load(name, write_archive(tiny / "b" / f"{STEM[name]}-{layout}.tar.gz", files))
    beside = load(name, write_archive(tiny / "c" / f"{STEM[name]}-{layout}.tar.gz", files, prefix="./").parent)
    assert_holds(folder, make, name)
    assert fingerprint(folder) == fingerprint(archive) == fingerprint(beside)
    extracted = load(name, (tiny / "a" / next(iter(files))).parent)
    assert fingerprint(extracted) == fingerprint(folder)
    assert load(name, folder.found_at).found_at == folder.found_at


@pytest.mark.parametrize("name", NAMES)
def test_layouts_hold_the_same_images(tiny, make, name):
    loaded = [load(name, write_folder(tiny / x, official_files(make, name, x))) for x in ("binary", "python")]
    assert fingerprint(loaded[0]) == fingerprint(loaded[1])


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_pickles_of_this_numpy_are_read(tiny, make, protocol, order):
    files = {}
    for batch, (labels, images) in make.cifar10_files().items():
        data = np.asarray([np.frombuffer(image, np.uint8) for image in images], order=order)
        files[f"cifar-10-batches-py/{batch}"] = pickle.dumps({b"data": data, b"labels": labels}, protocol)
    assert_holds(load("cifar10", write_folder(tiny, files)), make, "cifar10")


def test_complete_archive_is_preferred_to_a_folder_that_lacks_a_file(tiny, make):
    files = official_files(make, "cifar10", "binary")
    write_folder(tiny, dict(list(files.items())[:-1]))
    with pytest.raises(UserError, match=r"cifar-10-batches-bin lacks test_batch\.bin"):
        load("cifar10", tiny)
    write_archive(tiny / "cifar-10-python.tar.gz", official_files(make, "cifar10", "python"))
    assert load("cifar10", tiny).found_at == str(tiny / "cifar-10-python.tar.gz")


def spoil(data: bytes, how: str) -> bytes:
    return {
        "truncated": data[:-1],
        "spare": data + b"\0",
        "one image short": data[:-3073],
        "label 10": b"\x0a" + data[1:],
        "unbalanced": bytes([(data[0] + 1) % 10]) + data[1:],
        "empty": b"",
    }[how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", r"data_batch_2\.bin: has 30,729 bytes, but must have 30,730 \(10 images of 3,073\)"),
        ("spare", r"data_batch_2\.bin: has 30,731 bytes, but must have 30,730"),
        ("one image short", r"data_batch_2\.bin: has 27,657 bytes, but must have 30,730"),
        ("label 10", r"data_batch_2\.bin: label 10 of image 0; labels must be 0 to 9"),
        ("unbalanced", r"class \d has \d training images, but must have 5"),
        ("empty", r"data_batch_2\.bin: has 0 bytes"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_wrong_binary_files(tiny, make, how, message, packed):
    files = official_files(make, "cifar10", "binary")
    files["cifar-10-batches-bin/data_batch_2.bin"] = spoil(files["cifar-10-batches-bin/data_batch_2.bin"], how)
    root = write_archive(tiny / "cifar-10-binary.tar.gz", files) if packed else write_folder(tiny, files)
    with pytest.raises(UserError, match=message) as caught:
        load("cifar10", root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 1, 10, 500, 0.5, -9, -1])
def test_cut_archives(tiny, make, keep):
    path = write_archive(tiny / "cifar-10-binary.tar.gz", official_files(make, "cifar10", "binary"))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match=r"cifar-10-binary\.tar\.gz: ") as caught:
        load("cifar10", tiny)
    assert "\n" not in str(caught.value)


def test_flipped_bits_in_an_archive_are_noticed(tiny, make):
    path = write_archive(tiny / "cifar-10-binary.tar.gz", official_files(make, "cifar10", "binary"))
    whole = path.read_bytes()
    # The first bytes are gzip's header, where the time and the name of the file are covered by no checksum.
    for position in range(40, len(whole) - 1, len(whole) // 25):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        with pytest.raises(UserError, match=r"cifar-10-binary\.tar\.gz: "):
            load("cifar10", tiny)


def test_archive_that_is_another(tiny, make):
    write_archive(tiny / "cifar-100-binary.tar.gz", official_files(make, "cifar100", "python"))
    with pytest.raises(UserError, match=r"does not hold cifar-100-binary/train\.bin, cifar-100-binary/test\.bin"):
        load("cifar100", tiny)
    (tiny / "cifar-100-binary.tar.gz").write_bytes(b"<html>404</html>")
    with pytest.raises(UserError, match=r"cifar-100-binary\.tar\.gz: is not a complete \.tar\.gz archive"):
        load("cifar100", tiny)


def test_link_in_an_archive_is_not_followed(tiny):
    with tarfile.open(tiny / "cifar-100-binary.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("cifar-100-binary/train.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(UserError, match=r"does not hold cifar-100-binary/train\.bin"):
        load("cifar100", tiny)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({b"labels": [0] * 10}, r"'data' must be an array of 10 × 3072 unsigned bytes, but there is none"),
        ({b"data": [1], b"labels": [0] * 10}, r"'data' must be an array .* but is a list of 1"),
        ({b"data": "9x3072", b"labels": [0] * 10}, r"but is a ndarray of \(9, 3072\)"),
        ({b"data": "10x3072"}, r"'labels' must be a list of 10 whole numbers, but there is none"),
        ({b"data": "10x3072", b"labels": [0] * 9}, r"'labels' must be a list of 10 whole numbers, but is a list of 9"),
        ({b"data": "10x3072", b"labels": [0.0] * 10}, r"'labels' must be a list of 10 whole numbers"),
        ({b"data": "10x3072", b"labels": [0] * 9 + [2**70]}, r"label 1180591620717411303424 of image 9"),
        ({b"data": "10x3072", b"labels": [-1] * 10}, r"label -1 of image 0; labels must be 0 to 9"),
        ({b"data": "float", b"labels": [0] * 10}, r"unsigned bytes"),
        ([1, 2], r"not a readable pickle of a CIFAR batch \(a list, not a dictionary\)"),
    ],
)
def test_wrong_pickles(tiny, make, batch, message):
    arrays = {
        "9x3072": np.zeros((9, 3072), np.uint8),
        "10x3072": np.zeros((10, 3072), np.uint8),
        "float": np.zeros((10, 3072)),
    }
    if isinstance(batch, dict):
        batch = {key: arrays[value] if isinstance(value, str) else value for key, value in batch.items()}
    files = official_files(make, "cifar10", "python")
    files["cifar-10-batches-py/data_batch_3"] = pickle.dumps(batch, 2)
    with pytest.raises(UserError, match=message) as caught:
        load("cifar10", write_folder(tiny, files))
    assert "data_batch_3: " in str(caught.value)


def test_real_cifar10_where_it_is_found(make):
    if not any(location.complete for location in locations("cifar10")):
        pytest.skip("CIFAR-10 is not on this machine (set PYCONV_SEARCH_DATA to the folder that holds it)")
    data = load("cifar10")
    mean, std = make.mean_std(np.concatenate([data.train.images, data.validation.images]))
    assert data.info.mean == pytest.approx(mean, abs=5e-5)
    assert data.info.std == pytest.approx(std, abs=5e-5)


def claim(path, members: list[tuple[bytes, int, bytes]], tail: bytes = b"") -> None:
    """A .tar.gz of headers that claim a name, a size and a type, each alone, and what follows."""
    with gzip.open(path, "wb", 1) as file:
        for name, size, kind in members:
            info = tarfile.TarInfo(name.decode())
            info.size, info.type = size, kind
            file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.write(tail)


@pytest.mark.parametrize(
    ("members", "tail", "message"),
    [
        ([(b"zeros", 40 * 10**9, tarfile.REGTYPE)], 10**6, "holds 40,000,000,000 bytes, which no archive of this data"),
        ([(b"cifar-10-batches-bin/test_batch.bin", 40 * 10**9, tarfile.REGTYPE)], 0, "holds 40,000,000,000 bytes"),
        ([(b"a", 0, tarfile.REGTYPE)] * 1_001, 0, "holds more than 1,000 files"),
        ([(b"a", 2_000_000, tarfile.REGTYPE)], 2_000_000, "bytes"),
        ([(b"long", 100_000, tarfile.GNUTYPE_LONGNAME)], 10**6, "holds a header of 100,000 bytes"),
        ([(b"pax", 40 * 10**9, tarfile.XHDTYPE)], 10**6, "holds a header of 40,000,000,000 bytes"),
    ],
)
def test_archives_that_are_never_read_through(tiny, members, tail, message):
    claim(tiny / "cifar-10-binary.tar.gz", members, bytes(tail))
    with pytest.raises(UserError, match=rf"cifar-10-binary\.tar\.gz: .*{message}"):
        load("cifar10", tiny / "cifar-10-binary.tar.gz")


def test_an_archive_with_zeros_without_end_behind_it(tiny, make):
    """The end mark of tar, and then gigabytes that gzip's checksum is over."""
    path = write_archive(tiny / "cifar-10-binary.tar.gz", official_files(make, "cifar10", "binary"))
    load("cifar10", path)
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(3_000_000)))
    with pytest.raises(UserError, match="has more bytes than all of the data set; get it again"):
        load("cifar10", path)
