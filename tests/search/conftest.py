"""A study whose trials take no time, and a trial that only pretends to train but keeps honest records of every epoch."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyconv_search.results.row import Epoch, Row
from pyconv_search.search.outcome import blank_row, detail_of, reason_of
from pyconv_search.study.study import Study, load_study

SPACE = {
    "space": "toy",
    "parameters": {
        "width": {"int": [8, 64], "step": 8},
        "levels": {"choice": [[1, 1, 1], [2, 2, 1], [3, 2, 1]]},
    },
    "network": {
        "depth": 11,
        "block": "bottleneck",
        "stem": {"kernel": 3, "width": 16, "stride": 1, "pool": "none"},
        "width": "$width",
        "levels": "$levels",
    },
    "constraints": ["params <= 1.2M"],
}


@pytest.fixture
def toy_file(tmp_path: Path) -> Callable[..., Path]:
    """Write the toy study with some keys replaced; return its path."""

    def write(**changes: Any) -> Path:
        study = {
            "study": "toy",
            "space": "toy-space.yaml",
            "data": "fashion-mnist-small",
            "recipe": {"epochs": 3},
            "search": {"rows": [{"width": w, "levels": [1, 1, 1]} for w in (8, 16, 24)]},
            "seeds": 2,
        }
        (tmp_path / "toy-space.yaml").write_text(yaml.safe_dump(SPACE, sort_keys=False))
        path = tmp_path / "toy.yaml"
        path.write_text(yaml.safe_dump({**study, **changes}, sort_keys=False))
        return path

    return write


@pytest.fixture
def toy(toy_file: Callable[..., Path]) -> Callable[..., Study]:
    """The toy study with some keys replaced."""
    return lambda **changes: load_study(toy_file(**changes))


@pytest.fixture
def pretend() -> Callable[..., type]:
    """A trial class whose errors are a formula of width, seed and epoch. It logs each epoch to ``epochs.log``.

    ``trouble`` is called before each epoch with (spec, epoch) and may raise, sleep or kill. The progress of a trial
    survives in the folder, as a checkpoint does.
    """

    def make(trouble: Callable[[dict[str, Any], int], None] = lambda spec, epoch: None) -> type:
        class Pretend:
            def __init__(self, spec: dict[str, Any]) -> None:
                self.spec, self.folder = spec, Path(spec["folder"])
                self._file = self.folder / f"pretend-{spec['trial']}"
                reached = int(self._file.read_text()) if self._file.exists() else 0
                self.history = [self._epoch(n + 1) for n in range(reached)]

            def _epoch(self, n: int) -> Epoch:
                error = 50.0 - self.spec["parameters"]["width"] / 2 - n + self.spec["seed"] / 10
                return Epoch(self.spec["trial"], n, 0.1, 1.0, error, error / 10, error, error / 5, 0.01)

            @property
            def done(self) -> bool:
                return len(self.history) >= self.spec["recipe"]["epochs"]

            def advance(self) -> Epoch:
                n = len(self.history) + 1
                trouble(self.spec, n)
                with (self.folder / "epochs.log").open("a") as log:
                    log.write(f"{self.spec['trial']} {n} {os.getpid()}\n")
                self.history.append(self._epoch(n))
                self._file.write_text(str(n))
                return self.history[-1]

            def _row(self, status: str, reason: str = "", detail: str = "") -> Row:
                last = self.history[-1] if self.history else None
                return replace(
                    blank_row(self.spec, status, reason, detail),
                    epochs=len(self.history),
                    val_loss=last and last.val_loss,
                    val_top1_error=last and last.val_top1_error,
                    val_top5_error=last and last.val_top5_error,
                )

            def finish(self) -> Row:
                return replace(self._row("complete"), test_top1_error=self.history[-1].val_top1_error + 1)

            def so_far(self) -> Row:
                return self._row("stopped", "scheduler")

            def fail(self, error: BaseException) -> Row:
                return self._row("failed", reason_of(error), detail_of(error))

            def close(self) -> None:
                with (self.folder / "closed.log").open("a") as log:
                    log.write(f"{self.spec['trial']}\n")

        return Pretend

    return make


@pytest.fixture
def executed() -> Callable[[Path], Counter[tuple[str, int]]]:
    """How often each (trial, epoch) was run in a folder."""

    def count(folder: Path) -> Counter[tuple[str, int]]:
        lines = (folder / "epochs.log").read_text().splitlines()
        return Counter((trial, int(epoch)) for trial, epoch, _ in map(str.split, lines))

    return count


@pytest.fixture
def wait_for() -> Callable[..., None]:
    """Wait until a condition holds; fail after some seconds."""

    def wait(condition: Callable[[], bool], seconds: float = 600.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"waited {seconds} s in vain")
            time.sleep(0.05)

    return wait
