"""Looking into a file of safetensors before anything in it is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from pyconv_search.errors import UserError
from pyconv_search.files import open_plain

# Ours take about 130 bytes a tensor and 300 an epoch of the curve: thousands of both fit.
MOST_HEADER = 2**24


def check_header(file: str | Path) -> None:
    """What safetensors would parse, or wait for, without a limit.

    Raises:
        UserError: if there is no such file, it is no plain file, or its header cannot be that of one of ours.
    """
    handle = open_plain(file)
    try:
        start, size = os.read(handle, 8), os.fstat(handle).st_size
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from None
    finally:
        os.close(handle)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > size - 8:
        raise UserError(f"{file}: cannot be read: it is no whole file of safetensors")
    if length > MOST_HEADER:
        raise UserError(
            f"{file}: cannot be read: its header has {length:,} bytes, of which {MOST_HEADER:,} at most are read"
        )
