"""Read the pickled dictionaries of CIFAR's python layout without running anything that they name.

The official batches were pickled by Python 2 with numpy arrays inside. Every name that such a pickle may call is
replaced by an inert stand-in that only keeps its arguments; any other name is refused before it is looked up.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pyconv_search.errors import UserError
from pyconv_search.fields import printable
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
}


# Steps of a pickle: an image takes seven at most in the oldest protocol, for its name and its labels.
_STEPS_PER_IMAGE, _MORE_STEPS = 16, 10_000
# What arrays, lists, texts and numbers are pickled with, in every protocol.
_ALLOWED = re.compile(
    "PROTO|FRAME|STOP|MARK|POP|POP_MARK|DUP|PUT|(LONG_)?BINPUT|MEMOIZE|GET|(LONG_)?BINGET|NONE|NEWTRUE|NEWFALSE|INT"
    "|BININT[12]?|LONG[14]?|(BIN)?FLOAT|STRING|(SHORT_)?BINSTRING|UNICODE|(SHORT_)?BINUNICODE8?|(SHORT_)?BINBYTES8?"
    "|EMPTY_TUPLE|TUPLE[123]?|EMPTY_LIST|LIST|APPENDS?|EMPTY_DICT|DICT|SETITEMS?|GLOBAL|STACK_GLOBAL|REDUCE|BUILD"
)


class _Steps(dict[int, Callable[[Any], None]]):
    """What to do for each step of a pickle, so many times in all."""

    left = 0

    def __getitem__(self, step: int) -> Callable[[Any], None]:
        self.left -= 1
        if self.left < 0:
            raise ValueError("it has more steps than so many images need")
        if step not in self:
            raise ValueError(f"its step {step:#04x} is of no use to arrays and lists")
        return super().__getitem__(step)


_Python: Any = pickle._Unpickler


class _Unpickler(_Python):
    """The unpickler that is written in Python, whose steps can be counted and refused.

    That in C sets aside whatever memory a few bytes ask for, and hashes keys that refer to themselves for ever.
    """

    def __init__(self, blob: Blob, images: int) -> None:
        super().__init__(io.BytesIO(blob.data), encoding="bytes")
        self.source, self.unencoded = blob.source, len(blob.data)
        names = filter(_ALLOWED.fullmatch, pickle.__all__)
        steps = _Steps({code: _Python.dispatch[code] for code in (getattr(pickle, name)[0] for name in names)})
        steps |= {
            pickle.SETITEM[0]: _Unpickler.load_setitem,
            pickle.SETITEMS[0]: _Unpickler.load_setitems,
            pickle.DICT[0]: _Unpickler.load_dict,
        }
        steps.left = _STEPS_PER_IMAGE * images + _MORE_STEPS
        self.dispatch = steps

    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        _check_keys(self.stack[::2])
        super().load_dict()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return lambda text, _: self._encode(text)
        if (module, name) not in _STAND_INS:
            raise UserError(
                f"{self.source}: is refused and was not run: this pickle calls {_short(module)}.{_short(name)}, "
                "and a CIFAR batch needs numpy arrays alone; get it again"
            )
        return _STAND_INS[module, name]()

    def _encode(self, text: str) -> bytes:
        """How Python 3 writes bytes in the pickle protocols of Python 2; each once, so no more than the file has."""
        self.unencoded -= len(text)
        if self.unencoded < 0:
            raise ValueError("it encodes the same text again and again")
        return text.encode("latin-1")


def _check_keys(keys: list[Any]) -> None:
    if not all(isinstance(key, (bytes, str)) for key in keys):
        raise TypeError("a key that is no text")


def _short(text: str) -> str:
    return printable(text) if len(text) <= 60 else f"{printable(text[:60])}…"


def load_batch(blob: Blob, images: int) -> dict[str, Any]:
    """The dictionary of a pickled batch of so many images, its arrays as numpy arrays.

    Raises:
        UserError: where it is hostile or broken.
    """
    try:
        batch = _Unpickler(blob, images).load()
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
    if not isinstance(shape, tuple) or len(shape) > 2 or not all(type(n) is int and 0 <= n < 2**32 for n in shape):
        raise ValueError("an array of another shape than images have")
    if not isinstance(raw, bytes) or math.prod(shape) != len(raw):
        raise ValueError(f"an array of shape {shape} with other than {math.prod(shape)} bytes")
    return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")
