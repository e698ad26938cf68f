from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyconv_search.errors import UserError
from pyconv_search.training.data import PackOrder, check, fingerprint, load, make_pack, packing
from pyconv_search.training.data.pack import read


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_a_pack_beside_the_folder_is_used(tiny, make):
    tree = make.imagenet(tiny / "imagenet")
    plain = load("imagenet", tree)
    seen: list[tuple[int, int]] = []
    out = make_pack("imagenet", PackOrder(side=20, workers=2), tree, progress=lambda *at: seen.append(at))
    assert out == tiny / "imagenet.pack"
    assert seen == [(i, 18) for i in range(1, 19)]
    assert sorted(path.name for path in tiny.iterdir()) == ["imagenet", "imagenet.pack"]
    packed = load("imagenet", tree)
    assert packed.found_at == str(out)
    for a, b in zip(plain.splits.values(), packed.splits.values(), strict=True):
        assert a.labels.tolist() == b.labels.tolist()
        for i in range(len(a)):
            small, whole = opened(b.read(i)), opened(a.read(i))
            assert (small.format, small.size) == ("JPEG", (27, 20))
            file = io.BytesIO()
            whole.resize((27, 20), Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
            assert np.array_equal(np.asarray(small), np.asarray(opened(file.getvalue())))
    assert fingerprint(packed) != fingerprint(plain)
    assert fingerprint(load("imagenet", out)) == fingerprint(packed)
    assert check("imagenet", tree).found_at == str(out)


def test_what_is_small_enough_stays_as_it_is(tiny, make):
    tree = make.imagenet(tiny / "imagenet")
    files = sorted((tree / "train" / make.WNIDS[0]).iterdir())
    files[0].write_bytes(make.jpeg(0, mode="CMYK"))
    make.photo(1).save(files[1], "PNG")
    make_pack("imagenet", PackOrder(side=30), tree)
    found = read(tiny / "imagenet.pack")
    for number, file in enumerate(files):
        again = opened(found.read(number))
        assert (again.format, again.mode, again.size) == ("JPEG", "RGB", (40, 30))
        assert (found.read(number) == file.read_bytes()) == (number > 1)


def test_the_folder_may_be_gone_and_the_pack_elsewhere(tiny, make):
    tree = make.imagenet(tiny / "imagenet")
    out = make_pack("imagenet", PackOrder(tiny / "disk" / "small", 20), tree)
    assert load("imagenet", tree).found_at == str(tree)
    expected = fingerprint(load("imagenet", out))
    moved = (tiny / "disk" / "small").rename(tiny / "imagenet.pack")
    tree.rename(tiny / "away")
    found = load("imagenet", tiny)
    assert (found.found_at, fingerprint(found)) == (str(moved), expected)
    with pytest.raises(UserError, match=r"imagenet\.pack: is a pack; to make another, give the official folder"):
        make_pack("imagenet", PackOrder(tiny / "other"), moved)


def test_a_changed_folder_is_noticed(tiny, make):
    tree = make.imagenet(tiny / "imagenet")
    make_pack("imagenet", PackOrder(side=20), tree)
    folder = tree / "train" / make.WNIDS[0]
    stamp = folder.stat().st_mtime_ns
    os.utime(folder, (1, 1))  # touched, but with the same images
    load("imagenet", tree)
    file = next(folder.iterdir())
    content = file.read_bytes()
    file.write_bytes(content + b"\0")
    with pytest.raises(
        UserError, match=r"has changed since .*imagenet\.pack was packed \(as many images, but others\)"
    ):
        load("imagenet", tree)
    os.utime(folder, ns=(1, stamp))  # as if no folder had changed
    load("imagenet", tree)
    with pytest.raises(
        UserError, match=r"has changed since .*imagenet\.pack was packed \(as many images, but others\)"
    ):
        check("imagenet", tree)
    file.write_bytes(content)
    check("imagenet", tree)
    (folder / "more.JPEG").write_bytes(content)
    with pytest.raises(UserError, match=r"\(18 images then, 19 now\); remove the pack and make it again with `pyconv"):
        load("imagenet", tree, classes=3)


def test_damage_is_told(tiny, make):
    tree = make.imagenet(tiny / "imagenet")
    out = make_pack("imagenet", PackOrder(side=20), tree)
    with pytest.raises(UserError, match=r"imagenet\.pack: exists already; remove it to pack again, or choose another"):
        make_pack("imagenet", PackOrder(side=20), tree)
    with pytest.raises(UserError, match=r"has 3 classes, but classes: 2 is declared"):
        load("imagenet", out, classes=2)
    images = (out / "images.bin").read_bytes()
    (out / "images.bin").write_bytes(images[:-1])
    with pytest.raises(UserError, match=r"is not a readable pack \(images.bin has another size than [\d,]+ bytes\)"):
        load("imagenet", out)
    (out / "images.bin").write_bytes(b"\0" * len(images))
    with pytest.raises(UserError, match=r"imagenet: 18 files cannot be decoded\n.*imagenet\.pack: train/n\d+/n\d+_\d+"):
        check("imagenet", out)
    (out / "index.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match="is not a readable pack"):
        load("imagenet", out)
    with pytest.raises(UserError, match=r"cifar10: is kept in memory, .*; what can be packed is imagenet"):
        make_pack("cifar10", PackOrder())


def test_a_broken_image_stops_it_and_the_next_call_goes_on(tiny, make, monkeypatch):
    tree = make.imagenet(tiny / "imagenet")
    expected = (make_pack("imagenet", PackOrder(tiny / "whole", 20), tree) / "images.bin").read_bytes()
    # The 12 training images come first; this is the second of the last class.
    file = sorted((tree / "train" / make.WNIDS[2]).iterdir())[1]
    content = file.read_bytes()
    file.write_bytes(content[:-300])
    with pytest.raises(UserError, match=rf"{file.name}: is not a complete image"):
        make_pack("imagenet", PackOrder(side=20), tree)
    assert not (tiny / "imagenet.pack").exists()
    file.write_bytes(content)
    made = []
    original = packing.shrunk
    monkeypatch.setattr(packing, "shrunk", lambda *a, **k: made.append(a[1]) or original(*a, **k))
    out = make_pack("imagenet", PackOrder(side=20), tree)
    assert sorted(made) == list(range(9, 18))
    assert (out / "images.bin").read_bytes() == expected


@pytest.mark.parametrize("change", ["none", "side", "file", "garbage"])
def test_a_killed_packing_goes_on_or_begins_anew(tiny, make, change):
    tree = make.imagenet(tiny / "imagenet")
    part, out = tiny / "imagenet.pack.part", tiny / "imagenet.pack"
    code = f"""
import os, signal
from dataclasses import replace
from pathlib import Path
from pyconv_search.study import datasets
from pyconv_search.training.data import PackOrder, make_pack, packing
datasets.DATA_SETS["imagenet"] = replace(datasets.get("imagenet"), classes=3, train=9, validation=3, test=6)
packing._SAVE = 4
def progress(done, of):
    if done == 10:
        os.kill(os.getpid(), signal.SIGKILL)
make_pack("imagenet", PackOrder(side=20), {str(tree)!r}, progress=progress)
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=Path(packing.__file__).parents[3])
    assert ended.returncode == -signal.SIGKILL
    assert len((part / "lengths.bin").read_bytes()) == 8 * 16
    if change == "file":
        file = sorted((tree / "train" / make.WNIDS[0]).iterdir())[2]
        file.write_bytes(make.jpeg(77))
    if change == "garbage":
        with (part / "lengths.bin").open("ab") as file:
            file.write(b"\1" * 24)
    side = 16 if change == "side" else 20
    make_pack("imagenet", PackOrder(side=side), tree)
    fresh = make_pack("imagenet", PackOrder(tiny / "fresh", side), tree)
    assert (out / "images.bin").read_bytes() == (fresh / "images.bin").read_bytes()
    assert fingerprint(load("imagenet", out)) == fingerprint(load("imagenet", fresh))
    assert not part.exists()
