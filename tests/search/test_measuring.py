"""Whether seeds are trained together: measured for real where that is quick, decided on, kept and not asked again."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from pyconv_search.cli import standing
from pyconv_search.cores import usable_cores
from pyconv_search.errors import UserError
from pyconv_search.results import store, verdicts
from pyconv_search.results.store import Journal
from pyconv_search.search import folder as folders
from pyconv_search.search import measuring, runner
from pyconv_search.search.measuring import Racer, sizes
from pyconv_search.search.strategies import make_strategy
from pyconv_search.search.work import Work
from pyconv_search.study.plan import candidates, trial_spec
from pyconv_search.study.study import Study, load_study
from pyconv_search.training.tally import Diverged

SETTINGS: dict[str, Any] = {
    "recipe": {"epochs": 1, "batch": 16, "lr": 0.01, "precision": "fp32"},
    "data": {"fashion-mnist-small": {"validation": 11900}},
    "seeds": 4,
    "weights": "discard",
    "resources": {"together": "auto"},
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def quiet() -> Console:
    return Console(file=StringIO(), width=200)


def work_of(study: Study, folder: Path) -> Work:
    study, values = folders.open_folder(study, folder, "test")
    folders.write_study(folder, values)
    found = store.read(folder)
    work = Work(study, make_strategy(study, folder, found.rows, found.curve), Journal(folder), found)
    assert work.more()
    return work


def specs_of(study: Study, **other: Any) -> list[dict[str, Any]]:
    network = candidates(study)[0]
    specs = [trial_spec(study, network, seed, None) for seed in study.seeds[:2]]
    return [{**spec, "recipe": {**spec["recipe"], **other}} for spec in specs]


def test_a_racer_trains_one_trial_or_the_stack(tiny_study: Callable[..., Path]):
    study = load_study(tiny_study(**SETTINGS))
    racer = Racer()
    assert racer.prepare(specs_of(study)) == "cpu"
    before = {name: tensor.clone() for name, tensor in racer._alone.learner.model.state_dict().items()}
    assert racer.race(False, 0.0) > 0
    changed = racer._alone.learner.model.state_dict()
    assert any(not torch.equal(changed[name], tensor) for name, tensor in before.items())
    alone = {name: tensor.clone() for name, tensor in changed.items()}
    assert racer.race(True, 0.2) > 0
    assert all(torch.equal(racer._alone.learner.model.state_dict()[name], tensor) for name, tensor in alone.items())


def test_a_racer_goes_on_when_an_epoch_is_over_and_counts_whole_steps(tiny_study: Callable[..., Path]):
    study = load_study(tiny_study(**SETTINGS))
    racer = Racer()
    racer.prepare(specs_of(study))
    train = racer._epochs(False)
    assert train(float("inf")) == 7  # 100 images in batches of 16, of which the last has 4
    assert train(0.0) == 1


def test_what_diverges_or_cannot_be_stacked_is_told(tiny_study: Callable[..., Path]):
    study = load_study(tiny_study(**SETTINGS))
    with pytest.raises(UserError, match="cannot be stacked: dropout"):
        Racer().prepare(specs_of(study, dropout=0.5))
    racer = Racer()
    racer.prepare(specs_of(study))
    for trial in racer._trials:
        with torch.no_grad():
            next(trial.learner.model.parameters()).fill_(float("nan"))
    with pytest.raises(Diverged):
        racer.race(True, 0.1)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The measurements that are made, as (trials in a stack, processes); stacks are twice as fast in every one."""
    calls: list[tuple[int, int]] = []

    def race(specs: Any, processes: int, cpu: float, gpu: float) -> Any:
        calls.append((len(specs), processes))
        return "cpu", [100.0] * 3, [200.0] * 3

    monkeypatch.setattr(measuring, "race", race)
    monkeypatch.setattr(measuring, "room", lambda study: 2)
    monkeypatch.setattr(measuring.ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    monkeypatch.setattr(measuring, "WORTH_SECONDS", 0.0)
    return calls


def test_every_network_is_measured_once_and_never_again(
    tiny_study: Callable[..., Path], tmp_path: Path, measured: list[tuple[int, int]]
):
    study = load_study(tiny_study(**SETTINGS))
    work = work_of(study, tmp_path / "run")
    most = sizes(study, work, quiet(), lambda: False)
    assert measured == [(4, 2), (4, 2)]  # two networks of four seeds: eight trials for two processes
    assert [most(network) for network in candidates(study)] == [4, 4]
    sizes(study, work, quiet(), lambda: False)
    assert len(measured) == 2
    other = load_study(tiny_study(**{**SETTINGS, "resources": {"together": "auto", "cpu": 2}}))
    sizes(other, work, quiet(), lambda: False)
    assert len(measured) == 4  # with other resources it is another question
    found = standing.status_text(store.read(tmp_path / "run"))
    assert found.count("seeds together?") == 4
    assert "2 at a time: stacks of 4 are 2.00 × as fast, so together" in found


def test_stacks_leave_work_for_every_process(
    tiny_study: Callable[..., Path], tmp_path: Path, measured: list[tuple[int, int]]
):
    study = load_study(tiny_study(**SETTINGS, search={"rows": [{"levels": [2, 2, 1]}]}))
    most = sizes(study, work_of(study, tmp_path / "run"), quiet(), lambda: False)
    assert measured == [(2, 2)]
    assert most(candidates(study)[0]) == 2


@pytest.mark.parametrize("why", ["few", "small", "ending"])
def test_what_is_not_worth_it_is_not_measured(
    tiny_study: Callable[..., Path],
    tmp_path: Path,
    measured: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    why: str,
):
    seeds = 1 if why == "few" else 4
    if why == "small":
        monkeypatch.setattr(measuring, "WORTH_SECONDS", 600.0)
    study = load_study(tiny_study(**{**SETTINGS, "seeds": seeds}))
    most = sizes(study, work_of(study, tmp_path / "run"), quiet(), lambda: why == "ending")
    assert [most(network) for network in candidates(study)] == [1, 1]
    assert measured == []
    assert not (tmp_path / "run" / verdicts.FILE).exists()


def test_a_number_is_obeyed_without_measuring(
    tiny_study: Callable[..., Path], tmp_path: Path, measured: list[tuple[int, int]]
):
    study = load_study(tiny_study(**{**SETTINGS, "resources": {"together": 3}}))
    most = sizes(study, work_of(study, tmp_path / "run"), quiet(), lambda: False)
    assert [most(network) for network in candidates(study)] == [3, 3]
    assert measured == []


@pytest.mark.slow
def test_a_study_that_measures_for_real_and_goes_on_by_its_verdict(
    tiny_study: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(measuring, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(measuring.race, "__defaults__", (0.2,))
    processes = min(usable_cores(), 2)
    monkeypatch.setattr(measuring, "room", lambda study: processes)
    settings = {**SETTINGS, "search": {"rows": [{"levels": [2, 2, 1]}]}}
    outcome = runner.run(load_study(tiny_study(**settings)), tmp_path / "run", console=quiet())
    assert outcome.complete == 4
    (verdict,) = verdicts.read(tmp_path / "run").values()
    assert (verdict.size, len(verdict.apart), len(verdict.stacked)) == (4 // processes, 3, 3)
    assert min(*verdict.apart, *verdict.stacked) > 0
    rows = store.read(tmp_path / "run").rows
    expected = {str(verdict.together)} if verdict.together > 1 else {"1"}
    assert {row.environment.get("together", "1") for row in rows} == expected
