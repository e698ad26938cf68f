from __future__ import annotations

import gzip
import lzma
import os
from pathlib import Path

import pytest

from pyconv_search.errors import UserError
from pyconv_search.training.data import find, load, locations
from pyconv_search.training.data.files import read_file

USUAL = find.USUAL_PLACES  # taken before the fixture empties it


@pytest.fixture
def places(tiny, monkeypatch, tmp_path) -> dict[str, Path]:
    """The places that depend on the user, in the documented order."""
    work, home, given = tmp_path / "work", tmp_path / "home", tmp_path / "given"
    for folder in (work, home, given):
        folder.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PYCONV_SEARCH_DATA", str(given))
    monkeypatch.setattr(find, "USUAL_PLACES", USUAL[:3])
    return {"given": given, "work": work / "data", "cache": home / ".cache/pyconv-search", "home": home / "data"}


def test_usual_places_are_as_documented():
    assert USUAL == ("data", "~/.cache/pyconv-search", "~/data", "/usr/share/datasets", "/data", "/datasets")
    assert all(place.lstrip("~") in find.__doc__ for place in USUAL)


def test_order_of_places(places, make):
    for place in reversed(places.values()):
        make.fashion(place / "fashion-mnist", ".gz")
        assert Path(load("fashion-mnist").found_at) == place / "fashion-mnist"
    elsewhere = make.fashion(places["given"].parent / "elsewhere")
    assert Path(load("fashion-mnist", elsewhere).found_at) == elsewhere
    assert [row.place for row in locations("fashion-mnist")] == list(places.values())


def test_explicit_root_is_the_only_place(places, make, tiny):
    make.fashion(places["given"])
    with pytest.raises(UserError, match="is empty"):
        load("fashion-mnist", tiny)
    assert [row.path for row in locations("fashion-mnist", tiny)] == [tiny]


def test_loose_files_count_only_where_the_user_pointed(places, make):
    make.fashion(places["work"])
    with pytest.raises(UserError, match=r"work/data has none of fashion-mnist/train-images-idx3-ubyte\.gz"):
        load("fashion-mnist")
    make.fashion(places["given"])
    assert Path(load("fashion-mnist").found_at) == places["given"]


def test_missing_lists_every_place_on_one_line(places):
    places["cache"].mkdir(parents=True)
    (places["cache"] / "unrelated").touch()
    with pytest.raises(UserError) as caught:
        load("cifar10")
    assert str(caught.value) == (
        f"cifar10 was not found: {places['given']} is empty; {places['work']} does not exist; {places['cache']} has "
        "none of cifar-10-batches-bin/, cifar-10-binary.tar.gz, cifar-10-batches-py/, cifar-10-python.tar.gz; "
        f"{places['home']} does not exist. Point to its folder or archive with root, or set PYCONV_SEARCH_DATA to the "
        "folder that holds your data sets; it comes from https://www.cs.toronto.edu/~kriz/cifar.html"
    )


def test_home_is_expanded(places, make):
    make.fashion(places["home"])
    assert Path(load("fashion-mnist", "~/data").found_at) == places["home"]


def test_locations_tell_found_and_missing_files(tiny, make):
    make.fashion(tiny / "fashion-mnist", ".gz")
    (tiny / "fashion-mnist/t10k-labels-idx1-ubyte.gz").unlink()
    (row,) = locations("fashion-mnist", tiny)
    assert row.path == tiny / "fashion-mnist"
    assert row.found == tuple(
        f"{n}.gz" for n in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte")
    )
    assert row.missing == ("t10k-labels-idx1-ubyte",)
    assert row.problem == "lacks t10k-labels-idx1-ubyte"
    assert not row.complete


def test_a_folder_where_a_file_was_expected(tiny, make):
    make.fashion(tiny)
    (tiny / "train-images-idx3-ubyte").unlink()
    (tiny / "train-images-idx3-ubyte").mkdir()
    with pytest.raises(UserError, match="lacks train-images-idx3-ubyte"):
        load("fashion-mnist", tiny)


def test_a_file_where_a_folder_was_expected(tiny):
    file = tiny / "notes.txt"
    file.write_text("x")
    with pytest.raises(UserError, match=r"notes\.txt is a file, but must be a folder\. Point"):
        load("fashion-mnist", file)
    with pytest.raises(UserError, match=r"a folder or one of cifar-10-binary\.tar\.gz, cifar-10-python\.tar\.gz\."):
        load("cifar10", file)
    with pytest.raises(UserError, match="is not a folder"):
        load("cifar10", file / "below")


def test_unreadable_folder(tiny):
    loop = tiny / "loop"
    loop.symlink_to(loop)
    with pytest.raises(UserError, match=r"loop cannot be read \(Too many levels of symbolic links\)"):
        load("cifar10", loop)


def test_unreadable_file(tiny, make, monkeypatch):
    make.fashion(tiny)

    def refuse(path, *how):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte: cannot be read: Permission denied"):
        load("fashion-mnist", tiny)


def test_null_byte_in_a_path(tiny):
    with pytest.raises(UserError, match="is no path"):
        load("cifar10", str(tiny) + "\0")


def test_empty_variable_counts_as_unset(places, monkeypatch):
    monkeypatch.setenv("PYCONV_SEARCH_DATA", "")
    assert [row.place for row in locations("cifar10")] == [p for name, p in places.items() if name != "given"]


def test_found_at_holds_in_another_working_directory(places, make, monkeypatch):
    make.fashion(places["work"] / "fashion-mnist")
    found_at = load("fashion-mnist").found_at
    monkeypatch.chdir(os.sep)
    assert load("fashion-mnist", found_at).found_at == found_at


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_a_file_that_unpacks_without_end_is_refused(tmp_path, suffix):
    content = bytes(2_000_000)
    path = tmp_path / f"images{suffix}"
    path.write_bytes({"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix](content))
    assert read_file(path, 2_000_000).data == content
    with pytest.raises(UserError, match=f"images{suffix}: has more bytes than all of the data set"):
        read_file(path, 1_999_999)


def test_a_pipe_is_refused_and_not_waited_for(tiny, make):
    make.fashion(tiny)
    os.mkfifo(tiny / "pipe.gz")
    with pytest.raises(UserError, match=r"pipe\.gz: cannot be read: it is not a plain file"):
        read_file(tiny / "pipe.gz", 100)
    (tiny / "t10k-labels-idx1-ubyte").unlink()
    os.mkfifo(tiny / "t10k-labels-idx1-ubyte")
    with pytest.raises(UserError, match="lacks t10k-labels-idx1-ubyte"):
        load("fashion-mnist", tiny)
