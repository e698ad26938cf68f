"""Trials of two worker processes under Ray Train and Ray Tune: the same rows, stops and failures as of one process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import distributed

from pyconv_search.cores import usable_cores
from pyconv_search.errors import UserError
from pyconv_search.results import store
from pyconv_search.results.row import Epoch
from pyconv_search.search.runner import run
from pyconv_search.search.trial import run_trial
from pyconv_search.study.plan import candidates, trial_spec
from pyconv_search.study.study import Study, load_study

Toy = Callable[..., Study]
Make = Callable[..., type]
TWO = {"workers": 2, "cpu": 2}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"


def in_step(trial: type) -> type:
    """The trial class with workers that wait for each other, as they do where they exchange gradients."""

    class InStep(trial):
        def __init__(self, spec: dict[str, Any]) -> None:
            super().__init__(spec)
            distributed.barrier()

        def advance(self) -> Epoch:
            epoch = super().advance()
            distributed.barrier()
            return epoch

    return InStep


@pytest.mark.skipif(usable_cores() < 2, reason="two workers want two cores")
@pytest.mark.slow
def test_workers_are_stopped_fail_die_and_go_on(toy: Toy, pretend: Make, out: Path) -> None:
    def trouble(spec: dict[str, Any], epoch: int) -> None:
        width, rank = spec["parameters"]["width"], distributed.get_rank()
        marker = Path(spec["folder"]) / f"tried-{spec['trial']}"
        if rank == 0 or epoch != 2 or width not in (16, 24) or marker.exists():
            return
        marker.touch()
        if width == 24:
            raise MemoryError("no room")
        os.kill(os.getpid(), signal.SIGKILL)

    rows = [{"width": w, "levels": [1, 1, 1]} for w in (24, 16, 8)]
    asha = {"asha": {"grace": 3, "factor": 2}}
    study = toy(search={"rows": rows}, seeds=1, recipe={"epochs": 4}, scheduler=asha, resources=TWO)
    run(study, out, trial=in_step(pretend(trouble)))
    found = {row.parameters["width"]: row for row in store.read(out).rows}
    assert (found[24].status, found[24].reason, found[24].epochs) == ("failed", "oom", 1)
    assert found[24].detail.startswith("MemoryError: no room")
    assert (found[16].status, found[16].epochs) == ("complete", 4)
    assert (found[8].status, found[8].reason, found[8].epochs) == ("stopped", "scheduler", 3)
    assert len(store.read(out).epochs) == 1 + 4 + 3
    lines = [line.split() for line in (out / "epochs.log").read_text().splitlines()]
    assert len({worker for trial, _, worker in lines if trial == found[8].trial}) == 2


@pytest.mark.skipif(usable_cores() < 2, reason="two workers want two cores")
@pytest.mark.slow
def test_an_interrupt_ends_the_workers_and_the_next_run_completes(
    tiny_study: Callable[..., Path], out: Path, wait_for: Callable[..., None]
) -> None:
    study = load_study(tiny_study(resources=TWO, search={"rows": [{"levels": [2, 2, 1]}]}))
    alone = load_study(tiny_study(resources={"cpu": 1}, search={"rows": [{"levels": [2, 2, 1]}]}))

    def interrupt() -> None:
        wait_for(
            lambda: (out / "journal.jsonl").exists() and '"kind":"epoch"' in (out / "journal.jsonl").read_text(), 300
        )
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    outcome = run(study, out)
    thread.join()
    assert (outcome.interrupted, outcome.ended) == (True, 0)
    with pytest.raises(UserError, match="computes_on is '2 × cpu, 1 threads' there and 'cpu, 1 threads' here"):
        run(alone, out)
    assert run(study, out).complete == 1
    (row,) = store.read(out).rows
    assert (row.epochs, row.device, row.environment["workers"], row.resumed) == (2, "2 × cpu", "2", 1)
    spec = trial_spec(alone, candidates(alone)[0], 0, None)
    single = run_trial(spec)
    assert row.trial == single.trial
    assert abs(row.val_top1_error - single.val_top1_error) < 10
    assert row.test_top1_error < 60
