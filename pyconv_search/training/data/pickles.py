"""Read the pickled dictionaries of CIFAR's python layout without running anything that they name.

The official batches were pickled by Python 2 with numpy arrays inside. Every name that such a pickle may call is
replaced by an inert stand-in that only keeps its arguments; any other name is refused before it is looked up.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pyconv_search.errors import UserError
from pyconv_search.training.data.files import Blob, one_line


class _DType:
    __slots__ = ("code",)

    def __init__(self, code: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and alignment, which unsigned bytes do not have."""


class _Array:
    __slots__ = ("state",)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


# Made anew at each lookup, so that a pickle which sets attributes on a stand-in spoils nothing but itself.
_STAND_INS: dict[tuple[str, str], Callable[[], Any]] = {
    ("numpy", "ndarray"): lambda: "numpy.ndarray",
    ("numpy", "dtype"): lambda: lambda code, *_: _DType(code),
    ("numpy.core.multiarray", "_reconstruct"): lambda: lambda *_: _Array(),
    ("numpy._core.multiarray", "_reconstruct"): lambda: lambda *_: _Array(),
    # How Python 3 writes bytes in the pickle protocols of Python 2.
    ("_codecs", "encode"): lambda: lambda text, _: text.encode("latin-1"),
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, blob: Blob) -> None:
        super().__init__(io.BytesIO(blob.data), encoding="bytes")
        self.source = blob.source

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise UserError(
                f"{self.source}: is refused and was not run: this pickle calls {module}.{name}, "
                "and a CIFAR batch needs numpy arrays alone; get it again"
            )
        return _STAND_INS[module, name]()


def load_batch(blob: Blob) -> dict[str, Any]:
    """The dictionary of a pickled batch, its arrays as numpy arrays; UserError where it is hostile or broken."""
    try:
        batch = _Unpickler(blob).load()
        if not isinstance(batch, dict):
            raise TypeError(f"a {type(batch).__name__}, not a dictionary")
        return {_text(key): _array(value) if isinstance(value, _Array) else value for key, value in batch.items()}
    except UserError:
        raise
    except Exception as error:  # broken pickles raise anything at all
        raise UserError(f"{blob.source}: is not a readable pickle of a CIFAR batch ({one_line(error)})") from error


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _array(array: _Array) -> npt.NDArray[np.uint8]:
    """The array of the state that ``numpy.ndarray.__reduce__`` writes: version, shape, dtype, Fortran order, bytes."""
    _, shape, dtype, fortran, raw = array.state
    if not isinstance(dtype, _DType) or _text(dtype.code) != "u1":
        raise TypeError("an array of something else than unsigned bytes")
    if not isinstance(raw, bytes) or math.prod(shape) != len(raw):
        raise ValueError(f"an array of shape {shape} with other than {math.prod(shape)} bytes")
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")
