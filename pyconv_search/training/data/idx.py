"""The IDX format of the MNIST family (http://yann.lecun.com/exdb/mnist/): big-endian sizes, then the bytes.

Magic number: two zero bytes, 0x08 for unsigned bytes, the number of dimensions.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from pyconv_search.errors import UserError
from pyconv_search.training.data.files import Blob


def parse(blob: Blob, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The array of an IDX file, which must be of this shape; UserError where magic, sizes or length are others."""
    header, right = 4 + 4 * len(shape), 0x0800 + len(shape)
    if len(blob.data) < header:
        raise UserError(f"{blob.source}: is truncated: {len(blob.data)} bytes, but its header alone has {header}")
    magic, *sizes = struct.unpack(f">{1 + len(shape)}I", blob.data[:header])
    if magic != right:
        raise UserError(f"{blob.source}: magic number is 0x{magic:08x}, but must be 0x{right:08x}")
    if tuple(sizes) != shape:
        raise UserError(f"{blob.source}: holds {_times(sizes)} bytes, but must hold {_times(shape)}")
    length = header + int(np.prod(shape))
    if len(blob.data) != length:
        what = "is truncated" if len(blob.data) < length else "has bytes to spare"
        raise UserError(f"{blob.source}: {what}: {len(blob.data):,} bytes, but must have {length:,}")
    return np.frombuffer(blob.data, np.uint8, offset=header).reshape(shape).copy()


def dump(array: npt.NDArray[np.uint8]) -> bytes:
    """The IDX file of an array of unsigned bytes; ``parse`` reads it back."""
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def _times(sizes: tuple[int, ...] | list[int]) -> str:
    return "×".join(map(str, sizes))
