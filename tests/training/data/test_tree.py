"""Trees of images against os.walk, as torchvision's ImageFolder uses it, written down here from its source."""

from __future__ import annotations

import itertools
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from pyconv_search.cli.text import data_check_text
from pyconv_search.errors import UserError
from pyconv_search.study import datasets
from pyconv_search.training.data import check, load, make_pack, pack
from pyconv_search.training.data.imagenet import SUFFIXES, list_tree
from pyconv_search.training.data.registry import PackOrder

INFO = replace(datasets.get("imagenet"), classes=3, subset=True)


def image_folder(root: Path) -> list[tuple[str, str]]:
    """Paths with their classes in the order of torchvision.datasets.folder.make_dataset, without hidden entries."""
    found = []
    for name in sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")):
        for folder, _, files in sorted(os.walk(root / name, followlinks=True)):
            for file in sorted(files):
                path = os.path.join(folder, file)
                hidden = any(part.startswith(".") for part in Path(path).relative_to(root).parts)
                if path.lower().endswith(SUFFIXES) and not hidden:
                    found.append((path, name))
    return found


def every_entry(root: Path) -> set[str]:
    """All files below a folder, links followed, and folders that are hidden instead of what is in them."""
    found = set()
    for folder, inner, files in os.walk(root, followlinks=True):
        hidden = [name for name in inner if name.startswith(".")]
        inner[:] = [name for name in inner if name not in hidden]
        found |= {os.path.join(folder, name) for name in (*files, *hidden)}
    return found


def grow(folder: Path, draws: random.Random, depth: int) -> None:
    """Files of all kinds, and folders below that sort before and behind each other in both orders."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in draws.sample(["a.JPEG", "b.jpg", "c.Png", "d.txt", ".e.jpg", "f.webp", "jpg", "g.jpg\nh.jpg"], 5):
        (folder / name).write_bytes(b"")
    (folder / "always.jpeg").write_bytes(b"")
    for name in draws.sample(["x", "x-y", "x.jpg", ".hidden", "x!", os.fsdecode(b"\xff\xfe")], 3 if depth else 0):
        grow(folder / name, draws, depth - 1)


@pytest.mark.parametrize("seed", range(5))
def test_against_os_walk(tmp_path, seed):
    draws = random.Random(seed)
    for split in ("train", "val"):
        for name in ("b", "a", "c-d"):
            grow(tmp_path / split / name, draws, 3)
        (tmp_path / split / ".git").mkdir()
        (tmp_path / split / "README.jpg").write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "linked.jpg").write_bytes(b"")
    (tmp_path / "train" / "a" / "link").symlink_to(tmp_path / "elsewhere")
    found = list_tree(tmp_path, INFO)
    expected = image_folder(tmp_path / "train")
    names = [os.path.join(tmp_path, os.fsdecode(name)) for name in found.names]
    assert names[: found.train] == [path for path, _ in expected]
    assert [found.classes[label] for label in found.labels[: found.train]] == [name for _, name in expected]
    assert sorted(names[found.train :]) == sorted(path for path, _ in image_folder(tmp_path / "val"))
    # Whatever lies there is either read or named.
    passed = {os.path.join(tmp_path, one.name) for one in found.passed}
    assert passed | set(names) == every_entry(tmp_path / "train") | every_entry(tmp_path / "val")
    assert not passed & set(names)


def test_links_in_a_circle_are_entered_once(tmp_path, make):
    make.imagenet(tmp_path)
    inner = tmp_path / "train" / make.WNIDS[0] / "inner"
    inner.mkdir()
    (inner / "a.jpg").write_bytes(make.jpeg(7))
    (inner / "back").symlink_to(inner.parent)
    (inner / "self.jpg").symlink_to("self.jpg")
    found = list_tree(tmp_path, INFO)
    assert [one for one in found.names if b"inner" in one] == [
        os.fsencode(f"train/{make.WNIDS[0]}/inner/{name}.jpg") for name in ("a", "self")
    ]
    assert [(one.name, one.why) for one in found.passed] == [
        (f"train/{make.WNIDS[0]}/inner/back", "leads back to a folder above it")
    ]


def test_links_that_double_without_end_are_refused(tmp_path, make):
    make.imagenet(tmp_path)
    chain = [tmp_path / "chain" / str(i) for i in range(30)]
    for folder, following in itertools.pairwise(chain):
        folder.mkdir(parents=True)
        for name in ("l", "r"):
            (folder / name).symlink_to(following)
    chain[-1].mkdir()
    (tmp_path / "train" / make.WNIDS[0] / "many").symlink_to(chain[0])
    with pytest.raises(UserError, match="is reached in more than 64 ways through links"):
        list_tree(tmp_path, INFO)


def test_check_names_what_is_passed_over_converted_and_repeated(tiny, make):
    make.imagenet(tiny)
    first, second = (tiny / "train" / wnid for wnid in make.WNIDS[:2])
    (first / "notes\nx.txt").write_text("")
    (first / ".DS_Store").write_text("")
    (tiny / "train" / "list.csv").write_text("")
    (tiny / "val" / "n99999999").mkdir()
    (tiny / "val" / "n99999999" / "other.jpg").write_bytes(make.jpeg(5))
    (first / "deeper").mkdir()
    (first / "deeper" / "grey.jpg").write_bytes(make.jpeg(9, mode="L"))
    os.link(first / "deeper" / "grey.jpg", second / "again.jpg")
    found = check("imagenet", tiny, 3)
    assert {(one.name, one.why) for one in found.passed} == {
        (f"train/{make.WNIDS[0]}/.DS_Store", "is hidden"),
        (f"train/{make.WNIDS[0]}/notes\nx.txt", "does not end in .jpeg, .jpg, .png"),
        ("train/list.csv", "lies outside of every class"),
        ("val/n99999999", "is no class of train/"),
    }
    assert found.converted == (("L", 2),)
    assert [{Path(name).name for name in pair} for pair in found.repeated] == [{"grey.jpg", "again.jpg"}]
    assert [split.images for split in found.splits] == [10, 4, 6]
    text = data_check_text(found)
    for line in ("passed over: 4", "notes\\nx.txt: does not end in", "the same byte for byte as another: 1"):
        assert line in text
    assert "converted to RGB of 8 bits: 2 of mode L\n" in text


def test_folders_without_images_and_folders_that_cannot_be_read(tmp_path, make):
    make.imagenet(tmp_path)
    empty = tmp_path / "train" / "n09999999"
    (empty / "only" / "folders").mkdir(parents=True)
    (empty / "only" / "a.webp").write_text("")
    info = replace(INFO, classes=4)
    with pytest.raises(
        UserError, match=r"n09999999: has no file that ends in \.jpeg, \.jpg, \.png, but 1 other entries"
    ):
        list_tree(tmp_path, info)


def test_images_in_folders_below_are_packed_and_the_pack_knows_their_tree(tiny, make):
    tree = make.imagenet(tiny / "imagenet")
    inner = tree / "train" / make.WNIDS[0] / "inner"
    (inner / "empty").mkdir(parents=True)
    (inner / os.fsdecode(b"\xff.jpg")).write_bytes(make.jpeg(7))
    load("imagenet", tree, classes=3)
    where = make_pack("imagenet", PackOrder(None, 256, 1), tree, 3)
    packed = pack.read(where)
    assert len(packed.names) == 19
    assert packed.is_of(tree)
    assert load("imagenet", tree, classes=3).found_at == str(where)
    (inner / "empty" / "late.jpg").write_bytes(make.jpeg(8))
    assert not packed.is_of(tree)
    with pytest.raises(UserError, match=r"has changed since .* was packed .19 images then, 20 now"):
        load("imagenet", tree, classes=3)
    # One of a version that passed over what lies below.
    assert not replace(packed, inner=None).is_of(tree)


def test_names_that_are_no_utf8(tiny, make):
    make.imagenet(tiny)
    odd = tiny / "train" / os.fsdecode(b"n\xe9\xff")
    for split in ("train", "val"):
        (tiny / split / make.WNIDS[0]).rename(tiny / split / odd.name)
        for i in range(3):
            (tiny / split / odd.name / os.fsdecode(b"\xfe%d.jpg" % i)).write_bytes(make.jpeg(50 + i))
    found = load("imagenet", tiny, classes=3)
    assert [len(split) for split in found.splits.values()] == [11, 4, 9]
    for split in found.splits.values():
        for i in range(len(split)):
            assert split.read(i)[:2] == b"\xff\xd8"
    check("imagenet", tiny, 3)
    where = make_pack("imagenet", PackOrder(tiny / os.fsdecode(b"p\xff"), 256, 1), tiny, 3)
    assert odd.name in pack.read(where).listing.classes
    (odd / os.fsdecode(b"\xfe1.jpg")).write_bytes(b"no image")
    with pytest.raises(UserError, match="is not an image in the format"):
        check("imagenet", tiny, 3)
