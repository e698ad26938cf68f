"""Where the lines that Ray and its workers print go: into files of the run's folder, which are bounded in size."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyconv_search.search.patching import patched

LOGS = "logs"
MOST_BYTES = 1 << 20
KEPT = 3
END_BYTES = 1 << 14


class Drain:
    """A file that this process's standard error leads to, or its standard output too.

    When it has grown past MOST_BYTES, :meth:`bound` sets it aside as ``….1``, what was that as ``….2``, and so on; of
    these KEPT stay.
    """

    def __init__(self, path: Path, descriptors: tuple[int, ...]) -> None:
        self._path, self._descriptors = path, descriptors
        self.open()

    def open(self) -> None:
        """Lead the descriptors there; where the file cannot be opened, nowhere."""
        try:
            self._path.parent.mkdir(exist_ok=True)
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError:
            handle = os.open(os.devnull, os.O_WRONLY)
        for descriptor in self._descriptors:
            os.dup2(handle, descriptor)
        os.close(handle)

    def bound(self) -> None:
        """Set the file aside if it is too large, or follow another process that has done so."""
        with contextlib.suppress(OSError):
            if not os.path.samestat(self._path.stat(), os.fstat(self._descriptors[0])):
                self.open()
            if self._path.stat().st_size <= MOST_BYTES:
                return
            for number in range(KEPT - 1, 0, -1):
                if (older := self._aside(number)).exists():
                    older.replace(self._aside(number + 1))
            self._path.replace(self._aside(1))
            self.open()

    def add(self, others: Iterable[Path]) -> None:
        """Add the ends of other files, each under its name."""
        for other in others:
            with contextlib.suppress(OSError), other.open("rb") as lines:
                lines.seek(max(0, os.fstat(lines.fileno()).st_size - END_BYTES))
                os.write(self._descriptors[0], f"== the end of {other.name}\n".encode() + lines.read(END_BYTES) + b"\n")

    def _aside(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def of_worker(folder: str | None) -> Drain | None:
    """Lead what this worker process prints into the run's folder, if it has one that is there."""
    if folder is None or not Path(folder).is_dir():
        return None
    sys.stdout.flush()
    sys.stderr.flush()
    return Drain(Path(folder) / LOGS / "workers.log", (1, 2))


@contextmanager
def of_driver(folder: Path) -> Iterator[Drain]:
    """Lead what Ray prints in this process into the run's folder.

    Its C++ core writes to descriptor 2, its Python part also to standard output, where our results belong.
    """
    from ray._private import worker

    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    kept = os.dup(2)

    def print_to_log(data: dict[str, Any], ignore_prefix: bool = False) -> None:
        with contextlib.suppress(OSError):
            os.write(2, "".join(f"{line}\n" for line in data.get("lines", ())).encode(errors="replace"))

    drain = Drain(folder / LOGS / "ray.log", (2,))
    drain.bound()
    try:
        with patched(worker, "print_to_stdstream", print_to_log):
            yield drain
    finally:
        os.dup2(kept, 2)
        os.close(kept)
