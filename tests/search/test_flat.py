"""What the driver does for a trial is the same late in a study as early, counted in lines of Python that it runs."""

from __future__ import annotations

import io
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import pyconv_search
from benchmarks.nothing import Nothing
from benchmarks.scale import play, write_study
from pyconv_search.results.store import Journal
from pyconv_search.search import folder as folders
from pyconv_search.search import progress, strategies
from pyconv_search.search.progress import Progress
from pyconv_search.search.settled import settled
from pyconv_search.search.strategies import make_strategy
from pyconv_search.search.work import Work
from pyconv_search.space.space import Space
from pyconv_search.study.study import load_study

PACKAGE = Path(pyconv_search.__file__).parent
DRIVER = tuple(str(PACKAGE / name) for name in ("search", "results", "study"))
HASHING = str(PACKAGE / "arch" / "canonical.py")
WINDOW = 20


class Lines:
    """Counts the lines that run in some files, each turn of a loop being one at least."""

    def __init__(self, *files: str) -> None:
        self.count, self._files = 0, files

    @contextmanager
    def counted(self) -> Iterator[None]:
        sys.settrace(self._called)
        try:
            yield
        finally:
            sys.settrace(None)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        return self._ran if frame.f_code.co_filename.startswith(self._files) else None

    def _ran(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        self.count += event == "line"
        return self._ran


def lines_a_trial(folder: Path, search: str, n: int, *files: str) -> float:
    """Lines for each of the last trials of a study of ``n``, in all that the driver does for them."""
    folder.mkdir()
    study, values = folders.open_folder(load_study(write_study(folder, search, n)), folder / "out", "test")
    lines, done = Lines(*files), 0
    with Journal(folder / "out") as journal:
        values, found, proposed = folders.begin(study, values, journal, "")
        strategy = make_strategy(study, folder / "out", found.current().rows, found.curve, proposed, found.departed)
        work = Work(study, strategy, journal, found)
        with Progress(work, values["planned"], Console(file=io.StringIO())):
            while done < n:
                late = done >= n - WINDOW
                with lines.counted() if late else nullcontext():
                    (spec,) = work.next_group(lambda network: 1)
                trial = Nothing(spec)
                epoch, row = trial.advance(), trial.finish()
                with lines.counted() if late else nullcontext():
                    work.epoch(epoch)
                    work.end(row)
                done += 1
            assert work.next_group(lambda network: 1) == []
    assert len(work.ended) == n
    return lines.count / WINDOW


@pytest.fixture(autouse=True)
def _even_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is reported by the time that has passed, which depends on the machine."""
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=itertools.count().__next__))


@pytest.mark.parametrize("search", ["rows", "random"])
def test_a_late_trial_costs_what_an_early_one_did(search: str, tmp_path: Path) -> None:
    few, many = (lines_a_trial(tmp_path / str(n), search, n, *DRIVER, HASHING) for n in (50, 300))
    assert few > 100
    assert many == pytest.approx(few, rel=0.1)  # what grows with n is 6 times as much


def test_a_late_trial_of_tpe_costs_what_an_early_one_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # How many networks are refused before one is accepted is left to chance, and what Optuna takes to Optuna.
    monkeypatch.setattr(strategies, "PATIENCE", 0)
    few, many = (lines_a_trial(tmp_path / str(n), "tpe", n, *DRIVER) for n in (40, 140))
    assert few > 100
    assert many == pytest.approx(few, rel=0.2)


def test_a_finished_folder_is_known_without_its_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, out = write_study(tmp_path, "grid", 100), tmp_path / "out"
    assert settled(load_study(file), out) is None
    play(file, out)
    study = load_study(file)
    with monkeypatch.context() as patched:
        patched.setattr(Space, "resolved", None)
        found = settled(study, out)
    assert found is not None
    assert len(found.rows) == 100
    whole = (out / "journal.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if b'"kind":"row"' in line)
    for less in (lines[:-1], lines[:last] + lines[last + 1 :]):  # it did not finish; a trial has no row
        (out / "journal.jsonl").write_bytes(b"".join(less))
        (out / "report.html").touch()
        assert settled(study, out) is None
    (out / "journal.jsonl").write_bytes(whole)
    (out / "report.html").touch()
    assert settled(study, out) is not None
    assert settled(replace(study, seeds=(0, 1)), out) is None
    file.write_text(file.read_text().replace("epochs: 1", "epochs: 2"))
    assert settled(load_study(file), out) is None
    (out / "optuna.journal").unlink()
    assert settled(study, out) is None
