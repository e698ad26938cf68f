"""Videos written by PyAV, and read back against a reading of every frame in order."""

from __future__ import annotations

import io
import itertools
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyconv_search.errors import UserError
from pyconv_search.study.recipe import Recipe
from pyconv_search.training.data import Encoded, check, fingerprint, load, video
from pyconv_search.training.data.picture import Look
from pyconv_search.training.data.video import Clip, clips, even_frames, random_frames
from pyconv_search.training.randomness import seed_of
from pyconv_search.training.source import View
from pyconv_search.training.streaming import source_of

av = pytest.importorskip("av")

CLASSES = ("abseiling", "zumba")


def movie(number: int, frames: int = 30, size: tuple[int, int] = (64, 48), container: str = "mp4", **options) -> bytes:
    """A square that wanders over a ground of its own, with key frames at every eighth frame."""
    file = io.BytesIO()
    with av.open(file, mode="w", format="matroska" if container == "mkv" else container) as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height = size
        stream.pix_fmt, stream.bit_rate, stream.gop_size = "yuv420p", 4_000_000, 8
        stream.codec_context.options = {"bf": "2", **options}
        for i in range(frames):
            picture = np.full((size[1], size[0], 3), (number * 40) % 256, np.uint8)
            picture[10:30, i : i + 20] = (7 * i % 256, 255 - 7 * i % 256, 120)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)
    return file.getvalue()


def every_frame(data: bytes) -> list[Image.Image]:
    """Decoded from the first to the last, in the order in which they are shown."""
    with av.open(io.BytesIO(data)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


@pytest.fixture
def tree(tiny) -> Path:
    """The tiny Kinetics: two classes of five videos to train and validate with, two to test with."""
    for split, count in (("train", 5), ("val", 2)):
        for c, name in enumerate(CLASSES):
            (tiny / split / name).mkdir(parents=True)
            for i in range(count):
                data = movie(3 * c + i, 20 + i, (48, 64) if i % 2 else (64, 48))
                (tiny / split / name / f"{split}{c}{i}_000001_000011.mp4").write_bytes(data)
    return tiny


@pytest.mark.parametrize("container", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("frames", [(0, 1, 2), (13, 17, 21, 25), (29,), (8, 7, 16, 3)])
def test_chosen_frames_are_those_of_the_whole_video(container, frames):
    """Frames between key frames, in both directions, the last one; formats in which a file can and cannot be entered."""
    data = movie(1, container=container)
    whole = every_frame(data)
    assert len(whole) == 30
    seen = []

    def plan(*shape: int) -> list[Clip]:
        seen.append(shape)
        return [Clip(frames, Look((0, 0, 64, 48)))]

    found = clips(data, "it", plan, (48, 64))
    assert seen == [(30, 64, 48)]
    assert found.shape == (1, len(frames), 48, 64, 3)
    for picture, index in zip(found[0], frames, strict=True):
        assert np.array_equal(picture, np.asarray(whole[index]))


def test_most_frames_before_a_late_clip_are_not_decoded(monkeypatch):
    met = []
    original = video._frames

    def counted(data, start):
        for frame in original(data, start):
            met.append(frame.pts)
            yield frame

    monkeypatch.setattr(video, "_frames", counted)
    clips(movie(1, 80), "it", lambda *_: [Clip((70, 71), Look((0, 0, 64, 48)))], (8, 8))
    assert len(met) <= 2 * 8


@pytest.mark.parametrize(("length", "step", "frames"), [(16, 4, 250), (16, 4, 61), (16, 4, 40), (4, 1, 3), (1, 1, 1)])
def test_random_frames(length, step, frames):
    starts = set()
    for seed in range(300):
        found = random_frames(length, step, random.Random(seed), frames)
        assert len(found) == length
        assert all(0 <= i < frames for i in found)
        assert all((b - a) % frames == step % frames for a, b in itertools.pairwise(found))
        starts.add(found[0])
    room = max(frames - (length - 1) * step - 1, 0)
    assert min(starts) == 0
    assert max(starts) <= room
    assert len(starts) > 0.6 * (room + 1)


def test_even_frames():
    assert even_frames(3, 2, 1, 11) == [(3, 5, 7)]
    assert even_frames(3, 2, 3, 11) == [(0, 2, 4), (3, 5, 7), (6, 8, 10)]
    assert even_frames(3, 2, 2, 4) == [(0, 2, 0), (0, 2, 0)]
    assert [found[0] for found in even_frames(16, 4, 10, 250)] == [round(i * 189 / 9) for i in range(10)]


def test_the_folders_are_read(tree):
    found = load("kinetics-400", tree)
    assert (found.info.classes, found.found_at) == (2, str(tree))
    assert [len(s) for s in found.splits.values()] == [found.info.train, found.info.validation, found.info.test]
    assert [len(s) for s in found.splits.values()] == [8, 2, 4]
    for split in found.splits.values():
        assert isinstance(split, Encoded)
        assert split.video
        assert all(CLASSES[label] in split.source(i) for i, label in enumerate(split.labels))
    assert fingerprint(found) == fingerprint(load("kinetics-400", tree))
    (tree / "train" / CLASSES[0] / "more.mp4").write_bytes(movie(9))
    assert len(load("kinetics-400", tree).train) == 9


def test_what_is_wrong_is_told(tree):
    (tree / "train" / "yoga").mkdir()
    with pytest.raises(UserError, match=r"train: has 3 classes, but kinetics-400 is expected to have 2; declare how"):
        load("kinetics-400", tree)
    (tree / "train" / "yoga").rmdir()
    check("kinetics-400", tree)
    files = sorted((tree / "train" / CLASSES[1]).iterdir())
    files[0].write_bytes(files[0].read_bytes()[:-900])
    files[1].write_bytes(b"")
    files[2].write_bytes(b"GIF89a" * 50)
    with pytest.raises(UserError) as told:
        check("kinetics-400", tree)
    first, *lines = str(told.value).splitlines()
    assert first == "kinetics-400: 3 files cannot be decoded"
    for file in files[:3]:
        assert any(line.startswith(f"{file}: is not a complete video (") for line in lines)
    shutil.rmtree(tree / "val" / CLASSES[1])
    with pytest.raises(UserError, match=r"val: lacks the classes zumba"):
        load("kinetics-400", tree)
    shutil.rmtree(tree / "val")
    with pytest.raises(UserError, match=r"lacks val/, the official validation videos"):
        load("kinetics-400", tree)


def test_without_pyav_it_is_told_before_training(tree):
    code = f"""
import sys
sys.modules["av"] = None
from pyconv_search.training.data import load
try:
    load("kinetics-400", {str(tree)!r}, classes=2)
except Exception as error:
    print(type(error).__name__, error)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "UserError PyAV, which decodes videos, is not installed; pip install 'pyconv-search[video]'\n"


def source(tree: Path, recipe: Recipe):
    found = load("kinetics-400", tree)
    info = replace(found.info, input=(3, 4, 24, 24))
    return found.train, source_of(found.train, info, torch.device("cpu"), recipe.clips * recipe.crops)


def test_training_clips_against_every_frame(tree):
    recipe = Recipe(epochs=1, short_side=(26, 32), flip=True, frame_step=3)
    split, stream = source(tree, recipe)
    order = torch.arange(8).split(3)
    batches = list(stream.train_batches(View(recipe, 1, 2, (24, 24)), order, 0))
    assert [images.shape for images, _ in batches] == [(3, 3, 4, 24, 24), (3, 3, 4, 24, 24), (2, 3, 4, 24, 24)]
    assert torch.equal(torch.cat([labels for _, labels in batches]), torch.from_numpy(split.labels))
    late = list(stream.train_batches(View(recipe, 1, 2, (24, 24)), order, 2))
    assert torch.equal(late[0][0], batches[2][0])
    for index, clip in enumerate(torch.cat([images for images, _ in batches])):
        whole = every_frame(split.read(index))
        draws = random.Random(seed_of(1, 2, "image", index))
        start = draws.randint(0, len(whole) - 10)
        short = draws.randint(26, 32)
        width, height = whole[0].size
        wide, tall = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
        left, top = draws.randint(0, wide - 24), draws.randint(0, tall - 24)
        mirrored = draws.random() < 0.5
        for t in range(4):
            frame = whole[start + 3 * t].resize((wide, tall), Image.Resampling.BILINEAR)
            expected = np.asarray(frame.crop((left, top, left + 24, top + 24)), int)
            found = clip[:, t].permute(1, 2, 0).numpy()
            assert np.abs((found[:, ::-1] if mirrored else found) - expected).max() <= 2


def test_evaluation_sees_every_clip_and_crop(tree):
    recipe = Recipe(epochs=1, frame_step=3, clips=2, crops=3, center=0.75)
    split, stream = source(tree, recipe)
    assert stream.views == 6
    batches = list(stream.eval_batches(View(recipe, 0, 0, (24, 24)), 12))
    assert [len(labels) for _, labels in batches] == [3, 3, 2]
    found = torch.cat([images for images, _ in batches]).unflatten(0, (8, 2, 3))
    for index in range(8):
        whole = every_frame(split.read(index))
        width, height = whole[0].size
        wide, tall = (32, int(32 * height / width)) if width <= height else (int(32 * width / height), 32)
        for c, start in enumerate((0, len(whole) - 10)):
            for k in range(3):
                left, top = round((wide - 24) / 2), round((tall - 24) / 2)
                left, top = (round((wide - 24) * k / 2), top) if width > height else (left, round((tall - 24) * k / 2))
                frame = whole[start + 9].resize((wide, tall), Image.Resampling.BILINEAR)
                expected = np.asarray(frame.crop((left, top, left + 24, top + 24)), int)
                assert np.abs(found[index, c, k, :, 3].permute(1, 2, 0).numpy() - expected).max() <= 2
