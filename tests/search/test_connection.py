"""How many trials fit on the machines of a cluster, worked out from what Ray says of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from pyconv_search.cores import usable_cores
from pyconv_search.errors import UserError
from pyconv_search.results import store
from pyconv_search.search.connection import ENVIRONMENT, needs, room, whole_device
from pyconv_search.search.retry import Retry
from pyconv_search.search.runner import run
from pyconv_search.study.study import Resources, Study


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let Ray say that there are machines of so many (CPUs, GPUs)."""

    def say(*machines: tuple[float, float]) -> None:
        nodes = [{"Alive": True, "Resources": {"CPU": cpu, **({"GPU": gpu} if gpu else {})}} for cpu, gpu in machines]
        monkeypatch.setattr(ray, "nodes", lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 99.0, "GPU": 99.0}}])

    return say


def study(*resources: Any) -> Any:
    return SimpleNamespace(resources=Resources(*resources))


def test_workers_of_a_trial_may_be_on_several_machines(cluster: Callable[..., None]):
    cluster((16, 4), (16, 4))
    assert room(study(16, 8.0, 8)) == 1
    assert room(study(8, 4.0, 4)) == 2
    assert room(study(6, 3.0, 3)) == 2
    assert room(study(4, 0.0, 2)) == 8
    assert room(study(30, 2.0, 2)) == 1
    cluster((3, 0), (3, 0))
    assert room(study(4, 0.0, 2)) == 1
    assert room(study(4, 0.0, 1 << 2)) == 1
    cluster((4, 1))
    assert room(study(1, 0.25, 1)) == 4


def test_what_no_cluster_has_is_told(cluster: Callable[..., None]):
    cluster((16, 4), (16, 0))
    with pytest.raises(
        UserError, match=r"a trial takes 8 with 2 CPUs and 1 GPUs together for each, .* room for 4; nearest"
    ):
        room(study(16, 8.0, 8))
    with pytest.raises(
        UserError, match=r"each of 2 workers takes 20, but the largest of 2 machines has 16; nearest: 16"
    ):
        room(study(40, 0.0, 2))
    cluster((16, 0))
    with pytest.raises(UserError, match=r"resources\.gpu: a trial takes 1, but Ray finds no GPU on 1 machines"):
        room(study(1, 1.0, 1))


def test_what_the_actor_of_a_trial_takes(cluster: Callable[..., None]):
    assert needs(Resources(2, 0.25)).required_resources == {"CPU": 2, "GPU": 0.25}
    assert set(needs(Resources(16, 8.0, 8)).required_resources) == {"memory"}
    cluster((4, 0), (12, 0))
    assert whole_device(Resources(2)) == Resources(12)
    assert whole_device(Resources(2, 0.25)) == Resources(2, 1.0)
    assert whole_device(Resources(2, 1.0)) == Resources(2, 1.0)


def test_the_allocator_of_a_gpu_leaves_no_gaps():
    assert ENVIRONMENT["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"


@pytest.mark.slow
@pytest.mark.skipif(usable_cores() < 2, reason="one core shares nothing")
def test_trials_that_are_retried_alone_share_nothing(
    toy: Callable[..., Study], pretend: Callable[..., type], tmp_path: Path
):
    def trouble(spec: dict[str, Any], epoch: int) -> None:
        log = Path(spec["folder"]) / "running.log"
        if "alone" not in spec:
            raise MemoryError("no room")
        with log.open("a") as file:
            file.write(f"{spec['trial']} {spec['recipe']['accumulate']}\n")

    rows = [{"width": w, "levels": [1, 1, 1]} for w in (8, 16)]
    wanted = toy(seeds=1, search={"rows": rows}, recipe={"epochs": 3, "batch": 128})
    assert run(wanted, tmp_path / "run", trial=pretend(trouble)).complete == 0
    outcome = run(wanted, tmp_path / "run", retry_failed=Retry(alone=True, accumulate=4), trial=pretend(trouble))
    assert outcome.complete == 2
    lines = [line.split() for line in (tmp_path / "run" / "running.log").read_text().splitlines()]
    order = [trial for trial, _ in lines]
    assert order in ([order[0]] * 3 + [order[-1]] * 3,)
    assert order[0] != order[-1]
    assert {parts for _, parts in lines} == {"4"}
    assert [row.status for row in store.read(tmp_path / "run").rows] == ["complete"] * 2
