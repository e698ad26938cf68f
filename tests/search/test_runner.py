"""Real Ray Tune over trials that only pretend to train: scheduling, states, failures, interruption, continuation."""

from __future__ import annotations

import builtins
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pandas as pd
import pytest
import ray
from rich.console import Console

from pyconv_search.cores import usable_cores
from pyconv_search.errors import UserError
from pyconv_search.report.page import render
from pyconv_search.results import store
from pyconv_search.results.row import Epoch
from pyconv_search.results.store import Journal
from pyconv_search.search import folder as folders
from pyconv_search.search.ledger import STORAGE
from pyconv_search.search.outcome import blank_row
from pyconv_search.search.retry import Retry
from pyconv_search.search.runner import run
from pyconv_search.search.schedulers import scheduler_of
from pyconv_search.search.strategies import make_strategy
from pyconv_search.search.work import Work
from pyconv_search.study.plan import candidates, trial_spec
from pyconv_search.study.study import Study, study_to_dict

Toy = Callable[..., Study]
Make = Callable[..., type]
Executed = Callable[[Path], Counter[tuple[str, int]]]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "run"


def optuna_states(folder: Path) -> list[str]:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / STORAGE)))
    (summary,) = optuna.get_all_study_summaries(storage)
    return [t.state.name for t in optuna.load_study(study_name=summary.study_name, storage=storage).trials]


def test_every_trial_runs_once_on_reused_workers_and_never_again(
    toy: Toy, pretend: Make, executed: Executed, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = toy()
    said = StringIO()
    outcome = run(study, out, console=Console(file=said, width=200), trial=pretend())
    assert (outcome.planned, outcome.ended, outcome.complete, outcome.interrupted) == (6, 6, 6, False)
    found = store.read(out)
    assert {(row.parameters["width"], row.seed, row.status) for row in found.rows} == {
        (w, seed, "complete") for w in (8, 16, 24) for seed in (0, 1)
    }
    assert [row.val_top1_error for row in found.rows if row.parameters["width"] == 16 and row.seed == 1] == [39.1]
    assert set(executed(out).values()) == {1}
    assert len(found.epochs) == len(executed(out)) == 18
    workers = {line.split()[2] for line in (out / "epochs.log").read_text().splitlines()}
    assert len(workers) <= usable_cores()
    assert len(pd.read_parquet(out / "rows.parquet")) == 6
    assert optuna_states(out) == ["COMPLETE"] * 3
    lines = said.getvalue().splitlines()
    assert sum("complete: validation top-1 error" in line for line in lines) == 6
    assert "6/6 trials, 0 running, best 35.00 %" in lines[-1]
    before = (out / "journal.jsonl").read_text()
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("nothing was left to run"))
    assert run(study, out, trial=pretend()).complete == 6
    after = (out / "journal.jsonl").read_text()
    assert after.startswith(before)
    assert '"kind":"row"' not in after[len(before) :]


@pytest.mark.slow
def test_a_study_can_be_extended(toy: Toy, pretend: Make, executed: Executed, out: Path) -> None:
    run(toy(seeds=1), out, trial=pretend())
    rows = [{"width": w, "levels": [1, 1, 1]} for w in (8, 16, 24, 32)]
    outcome = run(toy(search={"rows": rows}, seeds=2), out, trial=pretend())
    assert (outcome.planned, outcome.complete) == (8, 8)
    assert set(executed(out).values()) == {1}


def test_a_folder_of_another_study_is_refused(toy: Toy, pretend: Make, out: Path, tmp_path: Path) -> None:
    study, values = folders.open_folder(toy(seeds=1), out, "test")
    with Journal(out) as begun:
        folders.begin(study, values, begun, "")
    journal = (out / "journal.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"holds the run of another study: recipe\.epochs is 3 there and 5 here"):
        run(toy(recipe={"epochs": 5}), out, trial=pretend())
    assert (out / "journal.jsonl").read_bytes() == journal
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"not the folder of a run \(it holds thesis.tex\)"):
        run(toy(), tmp_path / "mine", trial=pretend())
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot be written"):
        run(toy(), tmp_path / "file", trial=pretend())


def test_asha_stops_poor_trials_and_says_when(toy: Toy, pretend: Make, out: Path) -> None:
    rows = [{"width": w, "levels": [1, 1, 1]} for w in (48, 40, 8, 16, 24, 32)]
    study = toy(search={"rows": rows}, seeds=1, recipe={"epochs": 8}, scheduler={"asha": {"grace": 2, "factor": 2}})
    run(study, out, trial=pretend(lambda spec, epoch: time.sleep(0.02)))
    found = {row.parameters["width"]: row for row in store.read(out).rows}
    stopped = {w for w, row in found.items() if row.status == "stopped"}
    assert found[48].status == "complete"
    assert {8, 16} <= stopped
    for w in stopped:
        assert 2 <= found[w].epochs < 8
        assert found[w].val_top1_error == 50.0 - w / 2 - found[w].epochs
        assert found[w].test_top1_error is None
    assert Counter(optuna_states(out)) == {"PRUNED": len(stopped), "COMPLETE": 6 - len(stopped)}


@pytest.mark.slow
def test_failures_are_rows_with_reasons_and_the_others_go_on(
    toy: Toy, pretend: Make, executed: Executed, out: Path
) -> None:
    def trouble(spec: dict[str, Any], epoch: int) -> None:
        if spec["parameters"]["width"] == 8 and epoch == 2:
            raise RuntimeError("the cable is loose")
        if spec["parameters"]["width"] == 16 and epoch == 3:
            raise MemoryError("no room")

    study = toy(seeds=1)
    outcome = run(study, out, trial=pretend(trouble))
    assert (outcome.ended, outcome.complete) == (3, 1)
    found = {row.parameters["width"]: row for row in store.read(out).rows}
    assert (found[8].status, found[8].reason, found[8].epochs) == ("failed", "error", 1)
    assert "the cable is loose" in found[8].detail
    assert (found[16].status, found[16].reason, found[16].epochs) == ("failed", "oom", 2)
    assert sorted(optuna_states(out)) == ["COMPLETE", "FAIL", "FAIL"]
    assert run(study, out, trial=pretend()).complete == 1
    assert run(study, out, retry_failed=True, trial=pretend()).complete == 3
    assert optuna_states(out) == ["COMPLETE"] * 3
    assert set(executed(out).values()) == {1}
    assert len(store.read(out).rows) == 3


@pytest.mark.slow
def test_a_killed_worker_goes_on_from_its_last_epoch_and_a_doomed_one_is_lost(
    toy: Toy, pretend: Make, executed: Executed, out: Path
) -> None:
    def trouble(spec: dict[str, Any], epoch: int) -> None:
        marker = Path(spec["folder"]) / f"killed-{spec['trial']}"
        doomed = spec["parameters"]["width"] == 8
        if epoch == 2 and (doomed or not marker.exists()) and spec["parameters"]["width"] < 24:
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    outcome = run(toy(seeds=1), out, trial=pretend(trouble))
    found = {row.parameters["width"]: row for row in store.read(out).rows}
    assert outcome.complete == 2
    assert (found[8].status, found[8].reason) == ("failed", "lost")
    assert "died 3 times" in found[8].detail
    assert found[16].status == "complete"
    assert set(executed(out).values()) == {1}


@pytest.mark.slow
def test_a_worker_that_dies_between_two_trials_costs_neither(
    toy: Toy, pretend: Make, executed: Executed, out: Path
) -> None:
    class Dying(pretend()):  # type: ignore[misc]
        def close(self) -> None:
            marker = Path(self.spec["folder"]) / "killed"
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    assert run(toy(seeds=1), out, trial=Dying).complete == 3
    assert (out / "killed").exists()
    assert set(executed(out).values()) == {1}


@pytest.mark.slow
def test_a_full_disk_ends_the_run_in_order_and_loses_nothing(toy: Toy, pretend: Make, out: Path) -> None:
    def trouble(spec: dict[str, Any], epoch: int) -> None:
        if spec["parameters"]["width"] == 16 and epoch == 2:
            raise UserError("checkpoints/x: No space left on device")

    with pytest.raises(UserError, match="No space left"):
        run(toy(seeds=1), out, trial=pretend(trouble))
    assert all(row.status == "complete" for row in store.read(out).rows)
    assert run(toy(seeds=1), out, trial=pretend()).complete == 3


@pytest.mark.slow
def test_an_interrupt_stops_in_order_and_the_next_run_goes_on(
    toy: Toy, pretend: Make, executed: Executed, out: Path, wait_for: Callable[..., None]
) -> None:
    study = toy(recipe={"epochs": 6})

    def interrupt() -> None:
        wait_for(lambda: (out / "epochs.log").exists() and len((out / "epochs.log").read_text().splitlines()) >= 8)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=interrupt)
    thread.start()
    outcome = run(study, out, trial=pretend(lambda spec, epoch: time.sleep(0.1)))
    thread.join()
    assert outcome.interrupted
    assert outcome.ended < 6
    assert signal.getsignal(signal.SIGINT) is before
    assert store.read(out).events[-1]["name"] == "interrupted"
    again = run(study, out, trial=pretend())
    assert (again.complete, again.interrupted) == (6, False)
    assert max(executed(out).values()) == 1
    assert len(executed(out)) == 36
    assert len(store.read(out).epochs) == 36


def test_resources_that_no_machine_has_are_told_at_once(toy: Toy, pretend: Make, out: Path) -> None:
    with pytest.raises(UserError, match=r"resources\.cpu: a trial takes 4000, but the largest of 1 machines has"):
        run(toy(resources={"cpu": 4000}), out, trial=pretend())


@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:6379", "localhost", "127.0.0.1:99999999"])
def test_an_address_that_nothing_listens_at(toy: Toy, pretend: Make, out: Path, address: str) -> None:
    begun = time.monotonic()
    with pytest.raises(UserError, match=f"--address {address}: ") as caught:
        run(toy(), out, address=address, trial=pretend())
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begun < 20


@pytest.mark.slow
def test_tpe_searches_records_and_goes_on(toy: Toy, pretend: Make, executed: Executed, out: Path) -> None:
    def study(trials: int) -> Study:
        return toy(search={"tpe": {"trials": trials, "startup": 4}}, seeds=2, objectives={"top1_error": "min"})

    assert run(study(8), out, trial=pretend()).complete == 16
    assert run(study(12), out, trial=pretend()).complete == 24
    found = store.read(out)
    assert len({row.arch_id for row in found.rows}) == 12
    assert set(executed(out).values()) == {1}
    assert all(row.params <= 1_200_000 for row in found.rows)
    assert Counter(optuna_states(out))["COMPLETE"] == 12


class Unloadable:
    """Can be read back in this process alone, as a package that only this machine has."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("getattr(__import__('builtins'), 'unloadable', 0) or __import__('a_package_that_no_worker_has')",)


@pytest.mark.slow
def test_workers_that_cannot_start_end_the_run_with_the_reason(
    toy: Toy, pretend: Make, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builtins, "unloadable", Unloadable(), raising=False)
    with pytest.raises(UserError, match=r"no worker can start: .*No module named 'a_package_that_no_worker_has'"):
        run(toy(seeds=1), out, trial=pretend(builtins.unloadable))
    assert store.read(out).rows == ()
    assert run(toy(seeds=1), out, trial=pretend()).complete == 3


@pytest.mark.slow
def test_rows_of_an_earlier_version_of_the_study_do_not_count(toy: Toy, pretend: Make, out: Path) -> None:
    run(toy(seeds=2), out, trial=pretend())
    said = StringIO()
    rows = [{"width": w, "levels": [1, 1, 1]} for w in (8, 32)]
    outcome = run(toy(search={"rows": rows}, seeds=1), out, console=Console(file=said, width=200), trial=pretend())
    assert (outcome.planned, outcome.ended, outcome.complete) == (2, 2, 2)
    assert "2/2 trials" in said.getvalue()
    assert len(store.read(out).rows) == 7
    assert {(row.parameters["width"], row.seed) for row in store.read(out).current().rows} == {(8, 0), (32, 0)}
    page = render(store.read(out))
    assert "2 of 2 trials finished: 2 complete" in page
    assert "5 trials left out: 4 of networks that the study no longer holds and 1 of seeds that" in page


def test_asha_judges_a_resumed_run_as_one_run(toy: Toy, tmp_path: Path) -> None:
    """A trial that an earlier run left at epoch 3 is in the rungs that it has passed, and only once."""
    rows = [{"width": w, "levels": [1, 1, 1]} for w in (8, 16, 24)]
    study = toy(search={"rows": rows}, seeds=1, recipe={"epochs": 8}, scheduler={"asha": {"grace": 2, "factor": 2}})
    network = candidates(study)
    specs = [trial_spec(study, row, 0, str(tmp_path)) for row in network]
    (tmp_path / "study.json").write_text(json.dumps(study_to_dict(study)))
    with Journal(tmp_path) as journal:
        for spec, epochs in zip(specs[:2], (4, 3), strict=True):
            for n in range(1, epochs + 1):
                journal.append_epoch(Epoch(spec["trial"], n, 0.1, 1.0, 50.0, 1.0, 40.0 - n, 5.0, 1.0))
        journal.append_row(blank_row(specs[0], "stopped", "scheduler", ""))
        work = Work(study, make_strategy(study, tmp_path), journal, store.read(tmp_path))
        asha = scheduler_of(study, work)
        resumed: Any = SimpleNamespace(trial_id="ray-1", config={"spec": json.dumps(specs[1])})
        asha.on_trial_add(cast(Any, None), resumed)
    rungs = dict(asha._brackets[0]._rungs)
    past = f"past-{specs[0]['trial']}"
    assert {rung: set(recorded) for rung, recorded in rungs.items() if recorded} == {4: {past}, 2: {past, "ray-1"}}
    told = [{"epoch": 3, "top1_error": 37.0}, {"epoch": 3, "top1_error": 60.0}, {"epoch": 2, "top1_error": 61.0}]
    assert asha.on_trial_result(cast(Any, None), resumed, told[0]) == "CONTINUE"
    assert rungs[2]["ray-1"] == -38.0  # Epoch 3 is as it was.
    asha.on_trial_result(cast(Any, None), resumed, told[1])
    assert rungs[2]["ray-1"] == -38.0  # It went another way from there; epoch 2 still counts.
    assert asha.on_trial_result(cast(Any, None), resumed, told[2]) == "STOP"  # It began anew, and is worse.
    assert rungs[2]["ray-1"] == -61.0


def test_asha_counts_a_trial_once_that_tune_gave_up_and_that_goes_on(toy: Toy, tmp_path: Path) -> None:
    study = toy(seeds=1, recipe={"epochs": 8}, scheduler={"asha": {"grace": 2, "factor": 2}})
    spec = json.dumps(trial_spec(study, candidates(study)[0], 0, str(tmp_path)))
    (tmp_path / "study.json").write_text(json.dumps(study_to_dict(study)))
    with Journal(tmp_path) as journal:
        asha: Any = scheduler_of(study, Work(study, make_strategy(study, tmp_path), journal, store.read(tmp_path)))
    first, again = (SimpleNamespace(trial_id=name, config={"spec": spec}) for name in ("ray-1", "ray-2"))
    controller = SimpleNamespace(_resetting_trials=set())
    asha.on_trial_add(controller, first)
    asha.on_trial_result(controller, first, {"epoch": 2, "top1_error": 40.0})
    controller._resetting_trials = {"ray-1", "another"}
    asha.on_trial_error(controller, "ray-1")
    assert controller._resetting_trials == {"another"}  # Else Tune would never give it another worker.
    asha.on_trial_add(controller, again)
    asha.on_trial_result(controller, again, {"epoch": 3, "top1_error": 30.0})
    assert {rung: recorded for rung, recorded in asha._brackets[0]._rungs if recorded} == {2: {"ray-2": -40.0}}


def test_asha_does_not_judge_by_what_has_left_the_study(toy: Toy, tmp_path: Path) -> None:
    rows = [{"width": w, "levels": [1, 1, 1]} for w in (8, 16)]
    options: dict[str, Any] = {"seeds": 1, "recipe": {"epochs": 8}, "scheduler": {"asha": {"grace": 2, "factor": 2}}}
    study = toy(search={"rows": rows}, **options)
    specs = [trial_spec(study, row, 0, str(tmp_path)) for row in candidates(study)]
    study = toy(search={"rows": rows[1:]}, **options)
    values = study_to_dict(study) | {"networks": [specs[1]["config"]]}
    (tmp_path / "study.json").write_text(json.dumps(values))
    with Journal(tmp_path) as journal:
        for spec in specs:
            journal.append_epoch(Epoch(spec["trial"], 2, 0.1, 1.0, 50.0, 1.0, 40.0, 5.0, 1.0))
            journal.append_row(blank_row(spec, "stopped", "scheduler", ""))
        work = Work(study, make_strategy(study, tmp_path), journal, store.read(tmp_path))
        asha = cast(Any, scheduler_of(study, work))
    assert {t for _, recorded in asha._brackets[0]._rungs for t in recorded} == {f"past-{specs[1]['trial']}"}


@pytest.mark.slow
def test_a_worker_that_stops_is_ended_and_its_trial_goes_on(
    toy: Toy, pretend: Make, executed: Executed, out: Path
) -> None:
    def trouble(spec: dict[str, Any], epoch: int) -> None:
        marker = Path(spec["folder"]) / f"stopped-{spec['trial']}"
        doomed = spec["parameters"]["width"] == 8
        if epoch == 2 and (doomed or not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGSTOP)

    said = StringIO()
    rows = [{"width": w, "levels": [1, 1, 1]} for w in (8, 16)]
    study = toy(seeds=1, stall=0.1, search={"rows": rows})
    outcome = run(study, out, console=Console(file=said, width=200), trial=pretend(trouble))
    found = {row.parameters["width"]: row for row in store.read(out).rows}
    assert (outcome.ended, outcome.complete) == (2, 1)
    assert (found[8].status, found[8].reason) == ("failed", "lost")
    assert re.fullmatch(r"no progress for 0\.1\d* minutes, 3 times; the worker was ended", found[8].detail)
    assert found[16].status == "complete"
    assert set(executed(out).values()) == {1}
    assert len(re.findall(r"no progress for 0\.1\d* minutes; its worker is ended", said.getvalue())) == 4


@pytest.mark.slow
def test_rays_memory_monitor_makes_a_trial_oom(
    toy: Toy, pretend: Make, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.0")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    study = toy(seeds=1, search={"rows": [{"width": 8, "levels": [1, 1, 1]}]}, recipe={"epochs": 3, "batch": 128})
    assert run(study, out, trial=pretend(lambda spec, epoch: time.sleep(5))).complete == 0
    (row,) = store.read(out).rows
    assert (row.status, row.reason) == ("failed", "oom")
    assert "memory" in row.detail.splitlines()[0]
    assert Retry(accumulate=4).applied(trial_spec(study, candidates(study)[0], 0, None), row.reason)["accumulated"] == 4
    monkeypatch.undo()
    assert run(study, out, retry_failed=Retry(accumulate=4), trial=pretend()).complete == 1
