"""Another function in the place of one of Ray's, where Ray has no setting for what is wanted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def patched(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    """While this lasts, ``owner`` has the replacement under this name.

    A Ray without the name is left as it is: what was wanted of it is then not done.
    """
    if not hasattr(owner, name):
        yield
        return
    usual = getattr(owner, name)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, usual)
