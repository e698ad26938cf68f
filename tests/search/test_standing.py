"""Names, order, baseline and membership follow the study as it is now, whatever the journal says of an earlier one."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import yaml

from pyconv_search.cli import standing as text
from pyconv_search.errors import UserError
from pyconv_search.report.digest import digest
from pyconv_search.report.page import render
from pyconv_search.results import store, verdicts
from pyconv_search.results.row import Epoch
from pyconv_search.results.standing import best_so_far
from pyconv_search.results.store import Journal
from pyconv_search.results.verdicts import Verdict
from pyconv_search.search import folder as folders
from pyconv_search.search.ledger import STORAGE
from pyconv_search.search.outcome import blank_row
from pyconv_search.search.retry import Retry
from pyconv_search.search.strategies import make_strategy
from pyconv_search.search.work import Work
from pyconv_search.study.study import Study, load_study

ToyFile = Callable[..., Path]
TIME = "2026-01-01T00:00:00+00:00"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Git is asked at every start, which takes most of these tests' time."""
    monkeypatch.setattr(folders, "_git", lambda file: None)


@contextmanager
def begun(study: Study, folder: Path, retry: Retry | bool = False) -> Iterator[Work]:
    """What a run does before its first trial and after its last, without Ray."""
    study, values = folders.open_folder(study, folder, "run")
    with Journal(folder) as journal:
        values, found, proposed = folders.begin(study, values, journal, TIME)
        strategy = make_strategy(study, folder, found.current().rows, found.curve, proposed, found.departed)
        work = Work(study, strategy, journal, found, retry)
        yield work
        strategy.settle(work.ended, work.curve)
        journal.append_event("finished", time=TIME)
        store.write_tables(folder)


def train(work: Work, spec: dict[str, Any], status: str = "complete", epochs: int = 2, shift: float = 0.0) -> None:
    """A trial whose error is a function of its width, seed and epoch."""
    for n in range(1, epochs + 1):
        error = 50.0 - spec["parameters"]["width"] / 4 + spec["seed"] / 8 - n + shift
        work.epoch(Epoch(spec["trial"], n, 0.1, 1.0, error, error / 10, error, error / 5, 0.5))
    row = blank_row(spec, status, "" if status == "complete" else "oom", "")
    last = work.curve(spec["trial"])[-1] if epochs else None
    done = {"val_loss": last.val_loss, "val_top1_error": last.val_top1_error} if last else {}
    work.end(replace(row, epochs=epochs, device="cpu", started=TIME, finished=TIME, host="h", **done))


def play(study: Study, folder: Path, most: int = 1000, shuffle: int | None = None) -> int:
    """Run what is left, at most so many trials; they end in random order, three at a time, where ``shuffle`` says so."""
    draws, ended = random.Random(shuffle), 0
    with begun(study, folder) as work:
        while ended < most and work.more():
            specs = [spec for _ in range(3 if shuffle is not None else 1) if (spec := work.next())]
            draws.shuffle(specs)
            for spec in specs:
                train(work, spec)
                ended += 1
    return ended


def rows_of(*widths: int, names: bool = True) -> dict[str, Any]:
    return {"rows": [{"width": w, "levels": [1, 1, 1]} | ({"name": f"w{w}"} if names else {}) for w in widths]}


def named(folder: Path) -> dict[int, str]:
    return {row.parameters["width"]: row.name for row in store.read(folder).current().rows}


def optuna_trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / STORAGE)))
    (summary,) = optuna.get_all_study_summaries(storage)
    return optuna.load_study(study_name=summary.study_name, storage=storage).trials


def respace(study: Path, **changes: Any) -> Path:
    """Change the space beside a study's file."""
    path = study.with_name("toy-space.yaml")
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes, sort_keys=False))
    return study


def test_renamed_rows_are_called_by_their_new_names_everywhere(toy_file: ToyFile, tmp_path: Path) -> None:
    out = tmp_path / "run"
    search = rows_of(8, 16, 24)
    play(load_study(toy_file(search=search)), out)
    config = store.read(out).rows[0].config
    verdict = Verdict("k", "a", "w8", "cpu", 2, 1, (1.0,), (1.0,), config=config)
    verdicts.write(out, {"k": verdict})
    with Journal(out) as journal:
        journal.append_event("planned", **PLANNED, measured=[{"name": "w8", "config": config}])
    search["rows"][0]["name"], search["rows"][1]["name"], search["rows"][2]["name"] = "w16", "w8", "größer"
    assert play(load_study(toy_file(search=search)), out) == 0
    assert named(out) == {8: "w16", 16: "w8", 24: "größer"}
    found = digest(store.read(out))
    assert found.baseline is not None
    assert {c.first.parameters["width"]: c.name for c in found.candidates} == {8: "w16", 16: "w8", 24: "größer"}
    assert (found.selected and found.selected.name, found.baseline.name) == ("größer", "w16")
    table = pd.read_parquet(out / "rows.parquet")
    assert set(zip(table["parameter.width"], table["name"], strict=True)) == {(8, "w16"), (16, "w8"), (24, "größer")}
    assert {t.params["width"]: t.user_attrs["name"] for t in optuna_trials(out)} == {8: "w16", 16: "w8", 24: "größer"}
    status = text.status_text(store.read(out))
    assert "measured on cpu: w16" in status
    assert "w16 on cpu, 1 at a time" in status


PLANNED: dict[str, Any] = {
    "device_seconds": 7200.0,
    "wall_seconds": 3600.0,
    "concurrent": 1,
    "trials": 6,
    "unit": "core",
    "device": "cpu",
}


def test_a_name_that_is_taken_off_leaves_the_parameters(toy_file: ToyFile, tmp_path: Path) -> None:
    out = tmp_path / "run"
    play(load_study(toy_file(search=rows_of(8, 16))), out)
    play(load_study(toy_file(search=rows_of(8, 16, names=False))), out)
    assert named(out) == {w: f"width {w}, levels [1, 1, 1]" for w in (8, 16)}


def test_progress_and_the_next_rows_use_the_new_names(toy_file: ToyFile, tmp_path: Path) -> None:
    out = tmp_path / "run"
    search = rows_of(8, 16)
    play(load_study(toy_file(search=search)), out, most=3)
    search["rows"][1]["name"] = "renamed"
    with begun(load_study(toy_file(search=search)), out) as work:
        assert work.more()
        best = best_so_far(work.ended)
        assert best is not None
        assert best.name == "renamed"
        assert [spec["name"] for spec in iter(work.next, None) if spec] == ["renamed"]


def test_completion_order_decides_nothing(toy_file: ToyFile, tmp_path: Path) -> None:
    """Two runs whose trials end in another order say the same in every table, in the page and in the status."""
    space = {"width": {"int": [8, 32], "step": 8}, "levels": {"choice": [[1, 1, 1], [2, 2, 1]]}}
    for kind in ("grid", {"random": {"trials": 5}}, rows_of(24, 8, 16)):
        study = load_study(respace(toy_file(search=kind, seeds=[1, 0]), parameters=space))
        said = []
        for shuffle in (1, 2):
            out = tmp_path / "run"
            play(study, out, shuffle=shuffle)
            found = store.read(out)
            tables = [pd.read_parquet(out / f"{name}.parquet").to_csv() for name in ("rows", "epochs")]
            said.append((render(found), text.status_text(found), *tables))
            order = [row.trial for row in found.rows]
            journal = (out / "journal.jsonl").read_bytes()
            shutil.rmtree(out)
        assert said[0] == said[1]
        assert order != [json.loads(line)["trial"] for line in journal.splitlines() if b'"kind":"row"' in line]


def test_the_baseline_is_the_first_in_the_studys_order_or_the_one_that_it_names(
    toy_file: ToyFile, tmp_path: Path
) -> None:
    def baseline(**changes: Any) -> tuple[int, str]:
        out = tmp_path / "run"
        if out.exists():
            shutil.rmtree(out)
        play(load_study(toy_file(**changes)), out, shuffle=3)
        found = digest(store.read(out))
        assert found.baseline is not None
        return found.baseline.first.parameters["width"], found.baseline_role

    assert baseline(search=rows_of(24, 8, 16)) == (24, "the first row of the study")
    assert baseline(search=rows_of(24, 8, 16), baseline="w16") == (16, "the study’s baseline")
    values = {"width": 40, "levels": [2, 2, 1]}
    assert baseline(search="grid", baseline=values, seeds=1) == (40, "the study’s baseline")


def test_a_tpe_baseline_is_what_was_proposed_first(toy_file: ToyFile, tmp_path: Path) -> None:
    out = tmp_path / "run"
    study = load_study(toy_file(search={"tpe": {"trials": 3}}, seeds=1))
    with begun(study, out) as work:
        specs = [spec for _ in range(3) if (spec := work.next())]
        for spec in reversed(specs):
            train(work, spec)
    found = digest(store.read(out))
    assert found.baseline is not None
    assert found.baseline.config == specs[0]["config"]
    (out / STORAGE).unlink()  # The journal knows the order, too.
    play(study, out)
    assert next(iter(store.read(out).listing.configs)) == specs[0]["config"]  # type: ignore[union-attr]


def test_a_baseline_without_a_trial_is_said(toy_file: ToyFile, tmp_path: Path) -> None:
    out = tmp_path / "run"
    study = load_study(toy_file(search=rows_of(8, 16, 24), baseline="w24", seeds=1))
    play(study, out, most=2)
    assert "The baseline, w24 (the study’s baseline), has no trial yet." in render(store.read(out))


@pytest.mark.parametrize(
    ("given", "search", "said"),
    [
        ("w9", rows_of(8, 16), r"baseline: must be the name of a row.*got 'w9'; did you mean w8\?"),
        ("grid", "grid", "baseline: must be a mapping of parameters to values, since only rows have names"),
        (7, rows_of(8, 16), "baseline: must be the name of a row, or its values as a mapping"),
        ({"width": 9, "levels": [1, 1, 1]}, "grid", "baseline.width: 9 is not in the space"),
        ({"width": 8}, "grid", "baseline.levels: is missing"),
        ({"width": 24, "levels": [1, 1, 1]}, rows_of(8, 16), "baseline: is none of the study's rows"),
        ({"width": 64, "levels": [1, 1, 1]}, "grid", "baseline: does not satisfy the space's constraint"),
    ],
)
def test_mistakes_of_a_baseline(toy_file: ToyFile, given: Any, search: Any, said: str) -> None:
    file = toy_file(search=search, baseline=given)
    with pytest.raises(UserError, match=said) as caught:
        load_study(file)
    assert str(caught.value).count("\n") == 0
    assert str(caught.value).startswith(f"{file}:")


@pytest.mark.parametrize("search", ["grid", {"random": {"trials": 4}}, {"tpe": {"trials": 4, "startup": 2}}])
def test_what_the_space_no_longer_holds_is_left_out_and_counted(toy_file: ToyFile, tmp_path: Path, search: Any) -> None:
    out = tmp_path / "run"
    space = {"width": {"int": [8, 16], "step": 8}, "levels": {"choice": [[1, 1, 1], [2, 2, 1], [3, 2, 1]]}}
    file = respace(toy_file(search=search, seeds=2), parameters=space)
    play(load_study(file), out)
    before = store.read(out)
    gone = {row.config for row in before.rows if row.parameters["width"] == 16}
    assert gone
    respace(file, constraints=["width <= 8"])
    if search != "grid":
        file = respace(toy_file(search={next(iter(search)): {"trials": 3}}, seeds=2), parameters=space)
        respace(file, constraints=["width <= 8"])
    play(load_study(file), out)
    found = store.read(out)
    current = found.current()
    assert {row.parameters["width"] for row in current.rows} == {8}
    assert len({row.config for row in current.rows}) == 3
    assert len(current.rows) == found.study["planned"] == 6
    assert set(current.curves) == {row.trial for row in current.rows}
    count = sum(row.config in gone for row in before.rows)
    holder = "space" if "tpe" in search else "study"
    expected = f"{count} trials left out: {count} of networks that the {holder} no longer holds"
    assert expected in render(found)
    status = text.status_text(found)
    assert "6 of 6 trials ended: 6 complete" in status
    assert expected in status
    d = digest(found)
    assert not gone & ({c.config for c in d.candidates} | d.front | d.eligible)
    assert set(pd.read_parquet(out / "rows.parquet")["parameter.width"]) == {8}
    assert {t.params["width"] for t in optuna_trials(out) if t.state.name == "COMPLETE"} == {8}
    respace(file, constraints=[])  # What comes back is there again, without being trained again.
    with begun(load_study(file), out) as work:
        work.more()
        assert gone & {row.config for row in work.ended} or "random" in search


def test_fewer_trials_keep_what_was_proposed_first(toy_file: ToyFile, tmp_path: Path) -> None:
    out = tmp_path / "run"
    play(load_study(toy_file(search={"tpe": {"trials": 4}}, seeds=1)), out)
    order = [row.config for row in store.read(out).rows]
    assert play(load_study(toy_file(search={"tpe": {"trials": 2}}, seeds=2)), out) == 2
    found = store.read(out)
    assert [row.config for row in found.current().rows] == [order[0], order[0], order[1], order[1]]
    assert "4 of 4 trials ended" in text.status_text(found)
    assert "2 trials left out: 2 of networks beyond the number that the study asks for" in text.status_text(found)
    assert play(load_study(toy_file(search={"tpe": {"trials": 4}}, seeds=1)), out) == 0
    assert [row.config for row in store.read(out).current().rows] == order


def test_seeds_that_are_taken_out_are_counted(toy_file: ToyFile, tmp_path: Path) -> None:
    out = tmp_path / "run"
    play(load_study(toy_file(search=rows_of(8, 16), seeds=3)), out)
    play(load_study(toy_file(search=rows_of(16), seeds=[2, 0])), out)
    found = store.read(out)
    assert [(row.name, row.seed) for row in found.current().rows] == [("w16", 2), ("w16", 0)]
    assert (
        "4 trials left out: 3 of networks that the study no longer holds and 1 of seeds that the study no longer has"
        in text.status_text(found)
    )


def test_a_trial_under_way_leaves_with_its_network(toy_file: ToyFile, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with begun(load_study(toy_file(search=rows_of(8, 16), seeds=1)), out) as work:
        specs = [spec for _ in range(2) if (spec := work.next())]
        for spec in specs:
            work.epoch(Epoch(spec["trial"], 1, 0.1, 1.0, 50.0, 1.0, 40.0, 5.0, 1.0))
    assert len(text.status_dict(store.read(out))["unfinished"]) == 2
    play(load_study(toy_file(search=rows_of(16), seeds=1)), out)
    assert text.status_dict(store.read(out))["unfinished"] == []
    assert text.status_dict(store.read(out))["spent_device_seconds"] == 1.0


def test_a_domain_in_another_order_changes_nothing_but_the_order(toy_file: ToyFile, tmp_path: Path) -> None:
    out = tmp_path / "run"
    space: dict[str, Any] = {"width": {"choice": [8, 16]}, "levels": {"choice": [[1, 1, 1], [2, 2, 1]]}}
    file = respace(toy_file(search="grid", seeds=1), parameters=space)
    play(load_study(file), out)
    before = store.read(out).rows
    respace(file, parameters={"levels": space["levels"], "width": {"choice": [16, 8]}})
    assert play(load_study(file), out) == 0
    after = store.read(out).rows
    assert {row.trial for row in after} == {row.trial for row in before}
    assert [list(row.parameters.items()) for row in after] == [
        [("levels", levels), ("width", width)] for levels in ([1, 1, 1], [2, 2, 1]) for width in (16, 8)
    ]
    assert [row.name for row in after][:2] == ["levels [1, 1, 1], width 16", "levels [1, 1, 1], width 8"]


def test_a_lost_study_file_is_written_anew_for_the_same_study_alone(toy_file: ToyFile, tmp_path: Path) -> None:
    out = tmp_path / "run"
    play(load_study(toy_file(search=rows_of(8, 16), seeds=1)), out)
    expected = store.read(out).rows
    for damage in (lambda path: path.write_text('{"format": 1, "na'), Path.unlink):
        damage(out / "study.json")
        with pytest.raises(UserError, match=r"study\.json: is missing or damaged, it was of another study"):
            folders.open_folder(load_study(toy_file(search=rows_of(8, 16), recipe={"epochs": 9}, seeds=1)), out, "run")
        assert play(load_study(toy_file(search=rows_of(8, 16), seeds=1)), out) == 0
        assert store.read(out).rows == expected
    lines = (out / "journal.jsonl").read_text().splitlines(keepends=True)
    (out / "journal.jsonl").write_text("".join(line for line in lines if '"start"' not in line))
    (out / "study.json").unlink()
    with pytest.raises(UserError, match="does not say of which study it was; restore it from a copy"):
        folders.open_folder(load_study(toy_file(search=rows_of(8, 16), seeds=1)), out, "run")


def test_a_folder_of_an_earlier_version_goes_on(toy_file: ToyFile, tmp_path: Path) -> None:
    """Its study.json lists ids alone, or nothing of an adaptive search, and its journal notes no proposals."""
    for search in (rows_of(16, 8), {"tpe": {"trials": 3}}):
        out = tmp_path / f"run-{len(str(search))}"
        study = load_study(toy_file(search=search, seeds=1))
        play(study, out)
        after = store.read(out).rows
        values = json.loads((out / "study.json").read_text())
        for key in ("identity", "baseline", "surplus"):
            values.pop(key, None)
        ids = [entry["config"] for entry in values["networks"]]
        values["networks"] = None if "tpe" in search else ids
        (out / "study.json").write_text(json.dumps(values))
        lines = (out / "journal.jsonl").read_text().splitlines(keepends=True)
        (out / "journal.jsonl").write_text("".join(line for line in lines if '"proposed"' not in line))
        assert store.read(out).current().rows == after
        assert play(study, out) == 0
        assert store.read(out).current().rows == after


def test_a_training_that_begins_anew_replaces_the_epochs_of_the_one_before(toy_file: ToyFile, tmp_path: Path) -> None:
    out = tmp_path / "run"
    study = load_study(toy_file(search=rows_of(8, 16), seeds=1, scheduler={"asha": {"grace": 1, "factor": 2}}))
    with begun(study, out) as work:
        for spec, epochs in ((work.next(), 3), (work.next(), 2)):
            assert spec
            train(work, spec, "failed", epochs)
    first = store.read(out)
    assert [len(first.curve(row.trial)) for row in first.rows] == [3, 2]
    retry = Retry(accumulate=2)
    with begun(study, out, retry) as work:
        assert work.measured("val_top1_error") == {}
        specs = [spec for _ in range(2) if (spec := work.next())]
        train(work, specs[0], "failed", 1, shift=5.0)
        train(work, specs[1], "failed", 0)
        assert [len(work.curve(spec["trial"])) for spec in specs] == [1, 0]
    found = store.read(out)
    assert [[e.val_top1_error for e in found.curve(row.trial)] for row in found.rows] == [[50.0 - 2 - 1 + 5], []]
    assert len(found.epochs) == len(pd.read_parquet(out / "epochs.parquet")) == 1


def test_epochs_that_are_repeated_after_a_kill_are_there_once(toy_file: ToyFile, tmp_path: Path) -> None:
    out = tmp_path / "run"
    study = load_study(toy_file(search=rows_of(8), seeds=1))
    with begun(study, out) as work:
        spec = work.next()
        assert spec
        points = [Epoch(spec["trial"], n, 0.1, 1.0, 50.0, 1.0, 40.0 - n, 5.0, 1.0, 10.0) for n in (1, 2, 3)]
        for point in points:
            work.epoch(point)
    size = (out / "journal.jsonl").read_bytes().count(b'"kind":"epoch"')
    with begun(study, out) as work:
        for point in points[:2]:  # From a checkpoint after the first epoch.
            work.epoch(replace(point, seconds=9.0, images_per_second=1.0, peak_memory=7))
        assert [e.epoch for e in work.curve(spec["trial"])] == [1, 2, 3]
    assert (out / "journal.jsonl").read_bytes().count(b'"kind":"epoch"') == size == 3
    with begun(study, out) as work:
        work.epoch(replace(points[1], val_loss=1.5))  # Another way from there.
        assert [e.epoch for e in work.curve(spec["trial"])] == [1, 2]
    assert [(e.epoch, e.val_loss) for e in store.read(out).epochs] == [(1, 1.0), (2, 1.5)]


def test_a_lost_worker_takes_no_epochs_away(toy_file: ToyFile, tmp_path: Path) -> None:
    out = tmp_path / "run"
    study = load_study(toy_file(search=rows_of(8), seeds=1))
    with begun(study, out) as work:
        spec = work.next()
        assert spec
        work.epoch(Epoch(spec["trial"], 1, 0.1, 1.0, 50.0, 1.0, 40.0, 5.0, 1.0))
        work.end(blank_row(spec, "failed", "lost", "the worker process died"))
    (row,) = store.read(out).rows
    assert (row.epochs, len(store.read(out).curve(row.trial))) == (1, 1)


def test_what_a_retry_trains_anew_is_known_from_the_row(toy_file: ToyFile, tmp_path: Path) -> None:
    spec = {"trial": "t", "recipe": {"accumulate": 1}}
    study = load_study(toy_file(seeds=1))
    with begun(study, tmp_path / "run") as work:
        own = work.next()
        assert own
    plain, parts = blank_row(own, "failed", "oom", ""), Retry(accumulate=2)
    again = replace(blank_row(parts.applied(own, "oom"), "failed", "oom", ""))
    assert "accumulated" not in Retry(alone=True).applied(spec, "oom")
    assert [Retry().anew(plain), Retry(alone=True).anew(plain), parts.anew(plain)] == [False, False, True]
    assert [parts.anew(again), Retry(accumulate=4).anew(again), Retry().anew(again)] == [False, True, True]
    assert parts.anew(replace(again, reason="error"))
