"""One encoded video: which frames and what part of them a network sees, and their pixels. Needs PyAV."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pyconv_search.errors import UserError
from pyconv_search.training.data.files import one_line
from pyconv_search.training.data.picture import Look, cut


@dataclass(frozen=True, slots=True)
class Clip:
    """The frames of a clip, counted from 0, and the part of each that is seen."""

    frames: tuple[int, ...]
    look: Look


# From the number of frames, the width and the height of a video to the clips that are seen of it.
Plan = Callable[[int, int, int], Sequence[Clip]]


def check_installed() -> None:
    """UserError where PyAV is missing."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise UserError("PyAV, which decodes videos, is not installed; pip install 'pyconv-search[video]'") from None


def random_frames(length: int, step: int, draws: random.Random, frames: int) -> tuple[int, ...]:
    """``length`` frames, every ``step``-th, from a random one on; a video that is too short begins again."""
    return _from(draws.randint(0, max(frames - _span(length, step), 0)), length, step, frames)


def even_frames(length: int, step: int, clips: int, frames: int) -> list[tuple[int, ...]]:
    """The frames of ``clips`` clips, spread evenly from the beginning to the end of a video; one alone is central."""
    room = max(frames - _span(length, step), 0)
    starts = [room // 2] if clips == 1 else [round(i * room / (clips - 1)) for i in range(clips)]
    return [_from(start, length, step, frames) for start in starts]


def _span(length: int, step: int) -> int:
    return (length - 1) * step + 1


def _from(start: int, length: int, step: int, frames: int) -> tuple[int, ...]:
    return tuple((start + i * step) % frames for i in range(length))


def clips(data: bytes, source: str, plan: Plan, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The clips that ``plan`` chooses of an encoded video, in RGB of ``size`` (height, width).

    Clips × frames × height × width × 3; resized as images are. The rotation that a camera noted is left alone.

    Raises:
        UserError: naming ``source``, if the bytes are no complete video.
    """
    with _told(source):
        times, shape = _times(data)
    found = plan(len(times), *shape)
    wanted = {times[i] for clip in found for i in clip.frames}
    with _told(source):
        images = _decoded(data, wanted, min(wanted))
        if wanted - images.keys():
            # Not every file can be entered in the middle.
            images = _decoded(data, wanted, None)
        if wanted - images.keys():
            raise ValueError(f"{len(wanted - images.keys())} of {len(wanted)} frames cannot be decoded")
    return np.stack([np.stack([cut(images[times[i]], clip.look, size) for i in clip.frames]) for clip in found])


def verify(data: bytes, source: str) -> None:
    """Decode every frame; UserError naming ``source`` if the bytes are no complete video."""
    with _told(source):
        times, _ = _times(data)
        decoded = sum(1 for _ in _frames(data, None))
        if decoded < len(times):
            raise ValueError(f"{len(times) - decoded:,} of {len(times):,} frames cannot be decoded")


def _times(data: bytes) -> tuple[list[int], tuple[int, int]]:
    """When each frame is shown, in order and in the file's own unit; width and height."""
    import av

    with av.open(io.BytesIO(data), mode="r") as container:
        stream = container.streams.video[0]
        shown = [(packet.pts, packet.is_discard) for packet in container.demux(stream)]
        times = {pts: discarded for pts, discarded in shown if pts is not None}
        if not times or len(times) < stream.frames:
            raise ValueError(f"{len(times):,} of {stream.frames:,} frames are there")
        # What a file marks as discarded serves to decode other frames, and is not shown.
        order = sorted(pts for pts, discarded in times.items() if not discarded)
        return order, (stream.codec_context.width, stream.codec_context.height)


def _decoded(data: bytes, wanted: set[int], start: int | None) -> dict[int, Image.Image]:
    """The frames to be shown at the times ``wanted``, as far as they are met when decoding from ``start`` on."""
    found: dict[int, Image.Image] = {}
    for frame in _frames(data, start):
        if frame.pts in wanted:
            found[frame.pts] = frame.to_image()
            if len(found) == len(wanted):
                break
    return found


def _frames(data: bytes, start: int | None) -> Iterator[Any]:
    """Decoded frames in the order in which they are shown, from the last key frame before the time ``start`` on."""
    import av

    with av.open(io.BytesIO(data), mode="r") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        if start is not None:
            container.seek(start, stream=stream)
        yield from container.decode(stream)


@contextmanager
def _told(source: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # broken files raise anything at all
        raise UserError(f"{source}: is not a complete video ({one_line(error)}); get it again") from error
