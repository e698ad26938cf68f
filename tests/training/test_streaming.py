"""Images decoded batch by batch, against readings with Pillow alone, and the promises of a source."""

from __future__ import annotations

import io
import random
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyconv_search.errors import UserError
from pyconv_search.study import datasets
from pyconv_search.study.recipe import Recipe
from pyconv_search.training import streaming
from pyconv_search.training.data import Encoded, parallel
from pyconv_search.training.data.encoded import Folder
from pyconv_search.training.data.picture import resized_crop
from pyconv_search.training.randomness import seed_of
from pyconv_search.training.source import View
from pyconv_search.training.streaming import source_of

CPU = torch.device("cpu")
COUNT = 23
RRC = Recipe(epochs=1, scale=(0.2, 1.0), flip=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """JPEG files of as many shapes."""
    root = tmp_path_factory.mktemp("images")
    for i in range(COUNT):
        coarse = np.random.default_rng(i).integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(coarse).resize((30 + i, 50 - i), Image.Resampling.BICUBIC).save(root / f"{i}.jpg")
    return root


@pytest.fixture
def source(folder) -> streaming.ImageStream:
    return stream(folder)


def stream(folder: Path) -> streaming.ImageStream:
    names = np.array([f"{i}.jpg".encode() for i in range(COUNT)])
    split = Encoded(Folder(folder, names), np.arange(COUNT), np.arange(COUNT) % 7)
    info = replace(datasets.get("imagenet"), input=(3, 24, 24))
    found = source_of(split, info, CPU)
    assert isinstance(found, streaming.ImageStream)
    return found


def view(recipe: Recipe = RRC, size: int = 24, rank: int = 0, world: int = 1, seed: int = 5, epoch: int = 3) -> View:
    return View(recipe, seed, epoch, (size, size), rank, world)


def order(batch: int = 5) -> tuple[torch.Tensor, ...]:
    return torch.randperm(COUNT, generator=torch.Generator().manual_seed(1)).split(batch)


def same(one, other) -> bool:
    one, other = list(one), list(other)
    return len(one) == len(other) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True)
    )


def test_it_is_what_pillow_crops_and_resizes(source, folder):
    batches = list(source.train_batches(view(), order(), 0))
    assert [len(labels) for _, labels in batches] == [5, 5, 5, 5, 3]
    for indices, (images, labels) in zip(order(), batches, strict=True):
        assert (images.dtype, images.shape[1:], labels.dtype) == (torch.uint8, (3, 24, 24), torch.int64)
        assert labels.tolist() == [i % 7 for i in indices.tolist()]
        for index, image in zip(indices.tolist(), images, strict=True):
            whole = Image.open(folder / f"{index}.jpg")
            look = resized_crop((0.2, 1.0), True, random.Random(seed_of(5, 3, "image", index)), *whole.size)
            expected = np.asarray(whole.crop(look.box).resize((24, 24), Image.Resampling.BILINEAR))
            expected = expected[:, ::-1] if look.mirrored else expected
            assert np.array_equal(image.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("flip", [False, True])
def test_evaluation_is_the_central_crop(source, folder, flip):
    recipe = Recipe(epochs=1, flip=flip, scale=(0.1, 1.0))
    batches = list(source.eval_batches(view(recipe, 21), 4))
    assert [len(labels) for _, labels in batches] == [4, 4, 4, 4, 4, 3]
    assert torch.cat([labels for _, labels in batches]).tolist() == [i % 7 for i in range(COUNT)]
    for index, image in enumerate(torch.cat([images for images, _ in batches])):
        whole = Image.open(folder / f"{index}.jpg")
        w, h = whole.size
        wide, tall = (24, 24 * h // w) if w <= h else (24 * w // h, 24)
        left, top = round((wide - 21) / 2), round((tall - 21) / 2)
        resized = whole.resize((wide, tall), Image.Resampling.BILINEAR)
        expected = np.asarray(resized.crop((left, top, left + 21, top + 21)), int)
        assert np.abs(image.permute(1, 2, 0).numpy() - expected).max() <= 2


def test_draws_follow_seed_epoch_and_image_alone(source):
    def images(batches, *at) -> dict[int, bytes]:
        found = source.train_batches(view(**dict(at)), batches, 0)
        return {
            int(i): image.contiguous().numpy().tobytes()
            for indices, (pixels, _) in zip(batches, found, strict=True)
            for i, image in zip(indices, pixels, strict=True)
        }

    first = images(order(5))
    assert images(torch.arange(COUNT).split(3)) == first
    assert len({*first.values(), *images(order(), ("epoch", 4)).values(), *images(order(), ("seed", 6)).values()}) == 69


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(source, monkeypatch, threads):
    expected = list(source.train_batches(view(), order(20), 0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert same(source.train_batches(view(), order(20), 0), expected)


@pytest.mark.parametrize("start", [1, 3, 5])
def test_started_later_it_goes_on_as_the_whole_epoch(source, start):
    whole = list(source.train_batches(view(), order(), 0))
    assert same(source.train_batches(view(), order(), start), whole[start:])


@pytest.mark.parametrize("world", [2, 3, 7])
def test_the_ranks_together_are_the_whole(source, world):
    """With 7 processes and batches of 5 some have no image, but a batch all the same."""
    whole = list(source.train_batches(view(), order(), 0))
    shares = [list(source.train_batches(view(rank=r, world=world), order(), 0)) for r in range(world)]
    assert same([tuple(map(torch.cat, zip(*parts, strict=True))) for parts in zip(*shares, strict=True)], whole)
    evaluated = list(source.eval_batches(view(), COUNT))
    ranks = [part for r in range(world) for part in source.eval_batches(view(rank=r, world=world), 2)]
    assert same([tuple(map(torch.cat, zip(*ranks, strict=True)))], evaluated)


def test_short_sides_grow_with_the_resolution(source, monkeypatch):
    seen: list[tuple[int, int]] = []
    original = streaming.short_side_crop
    monkeypatch.setattr(streaming, "short_side_crop", lambda sides, *rest: seen.append(sides) or original(sides, *rest))
    recipe = Recipe(epochs=1, short_side=(26, 32))
    for size in (24, 12):
        ((images, _),) = source.train_batches(view(recipe, size), order(COUNT), 0)
        assert images.shape == (COUNT, 3, size, size)
    assert set(seen[:COUNT]) == {(26, 32)}
    assert set(seen[COUNT:]) == {(13, 16)}


def test_without_a_crop_it_is_the_central_one_mirrored_or_not(source):
    ((images, _),) = source.train_batches(view(Recipe(epochs=1, flip=True)), torch.arange(COUNT).split(COUNT), 0)
    ((central, _),) = source.eval_batches(view(Recipe(epochs=1)), COUNT)
    plain, mirrored = (
        [torch.equal(a, b) for a, b in zip(images, other, strict=True)] for other in (central, central.flip(-1))
    )
    assert all(a != b for a, b in zip(plain, mirrored, strict=True))
    assert 3 < sum(mirrored) < 20


def test_a_broken_image_is_named_where_its_batch_would_be(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    bad = int(order()[3][2])
    (tmp_path / f"{bad}.jpg").write_bytes((folder / f"{bad}.jpg").read_bytes()[:-50])
    batches = stream(tmp_path).train_batches(view(), order(), 0)
    for _ in range(3):
        next(batches)
    with pytest.raises(UserError, match=rf"{tmp_path}/{bad}\.jpg: is not a complete image"):
        next(batches)
    assert not workers()
    (tmp_path / f"{bad}.jpg").unlink()
    with pytest.raises(UserError, match=rf"{tmp_path}/{bad}\.jpg: no such file"):
        list(stream(tmp_path).eval_batches(view(), 8))


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("images")]


def test_no_thread_outlives_a_loop_that_stops_in_the_middle(source):
    def trains() -> None:
        for _ in source.train_batches(view(), order(), 0):
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        trains()
    batches = source.train_batches(view(), order(), 0)
    next(batches)
    assert workers()
    batches.close()
    assert not workers()


def test_no_more_than_a_few_batches_are_made_ahead(source, monkeypatch):
    """The images that were read when the first batch arrives, and when all threads have come to rest."""
    read: list[int] = []
    monkeypatch.setattr(streaming.ImageStream, "stretch", 1)
    original = Encoded.read
    monkeypatch.setattr(Encoded, "read", lambda self, index: read.append(index) or original(self, index))
    batches = source.train_batches(view(), order(2), 0)
    next(batches)
    for thread in workers():
        thread.join(0.2)
    assert 2 <= len(read) <= 2 + 2 * streaming.AHEAD
    batches.close()


def test_in_order_with_bounded_memory():
    taken: list[int] = []

    def items():
        for n in range(50):
            taken.append(n)
            yield n

    found = []
    for n in parallel.in_order(lambda n: n * n, items(), 4, 6):
        found.append(n)
        assert len(taken) - len(found) <= 6
    assert found == [n * n for n in range(50)]


def test_nothing_is_begun_after_it_is_closed():
    begun: list[int] = []
    gate = threading.Event()

    def slow(n: int) -> int:
        begun.append(n)
        if n:
            gate.wait(10)
        return n

    found = parallel.in_order(slow, range(50), 1, 8)
    assert next(found) == 0
    threading.Timer(0.2, gate.set).start()
    found.close()  # while the second item is worked on, and others wait
    assert begun in ([0], [0, 1])


def test_the_files_are_jpeg_and_the_shapes_differ(folder):
    shapes = {Image.open(io.BytesIO(file.read_bytes())).size for file in folder.iterdir()}
    assert len(shapes) == COUNT
