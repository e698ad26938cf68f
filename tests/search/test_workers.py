"""A trial of two processes: interrupted or not, the same numbers; and files that only the first writes.

Run as a program, this file is one of the processes: ``test_workers.py RANK MEETING_PLACE DIE_AT_STEP SPEC``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import distributed

import pyconv_search
from pyconv_search.arch.canonical import to_dict
from pyconv_search.arch.resnet import resnet
from pyconv_search.search import trial
from pyconv_search.search.trial import plan_of, run_trial
from pyconv_search.study import recipe as recipes
from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.training import checkpoint, data, loop

NETWORK = resnet(
    {"depth": 8, "stem": {"kernel": 3, "width": 4, "stride": 1, "pool": "none"}, "levels": [2, 1, 1]}, (3, 8, 8), 6
)
CLOCK = ("seconds", "train_seconds", "images_per_second", "peak_memory", "started", "finished", "resumed")


class Noise:
    """Small random pictures, the same ones every time."""

    def __init__(self, name: str, *key: Any) -> None:
        numbers = np.random.default_rng(1)
        self.train, self.validation, self.test = (
            data.Split(numbers.integers(0, 256, (n, 3, 8, 8), np.uint8), numbers.integers(0, 6, n))
            for n in (99, 33, 31)
        )
        self.info = DataSetInfo(name, "", (3, 8, 8), 6, 99, 33, 31, (0.5,) * 3, (0.25,) * 3, "", "")


def spec(folder: Path, **other: Any) -> dict[str, Any]:
    recipe = recipes.Recipe(epochs=3, batch=16, lr=0.05, crop=1, flip=True, ema=0.9, dropout=0.1, select="best")
    return {
        "trial": "t1",
        "name": "two levels",
        "seed": 3,
        "architecture": to_dict(NETWORK),
        "parameters": {"levels": [2, 1, 1]},
        "recipe": recipes.to_dict(recipe),
        "data": {"name": "noise", "root": None, "validation": None},
        "workers": 2,
        "threads": 1,
        "device": "cpu",
        "folder": str(folder),
        "keep_weights": True,
        "checkpoints": {"every": 2, "minutes": 0.0, "keep": "last"},
        **other,
    }


def run_pair(wanted: dict[str, Any], die_at: int = 0) -> list[int]:
    """Run the trial in two processes, both of which may kill themselves; their exit status."""
    folder = Path(wanted["folder"])
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": str(Path(pyconv_search.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    meeting = folder / f"meet-{die_at}"
    words = [
        [sys.executable, __file__, str(rank), str(meeting), str(die_at), json.dumps(wanted)]
        for rank in range(wanted["workers"])
    ]
    return [process.wait(120) for process in [subprocess.Popen(each, env=environment) for each in words]]


def found_in(folder: Path, rank: int = 0) -> dict[str, Any]:
    return json.loads((folder / f"found-{rank}.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trial of two processes, run in one go after both have found a checkpoint that is none."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "t1.safetensors").write_bytes(b"torn")
    assert run_pair(spec(folder)) == [0, 0]
    return folder


def test_both_processes_have_the_same_row_and_the_first_writes_the_files(whole: Path):
    assert found_in(whole, 0) == found_in(whole, 1)
    row, epochs = found_in(whole)["row"], found_in(whole)["epochs"]
    assert (row["status"], row["epochs"], row["device"], len(epochs)) == ("complete", 3, "2 × cpu", 3)
    assert row["environment"]["workers"] == "2"
    assert len({epoch["train_loss"] for epoch in epochs}) == 3
    assert os.listdir(whole / "weights") == ["t1.safetensors"]
    assert os.listdir(whole / "checkpoints") == ["t1.safetensors.corrupt"]


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(whole: Path, tmp_path: Path):
    assert run_pair(spec(tmp_path), die_at=10) == [-signal.SIGKILL] * 2
    kept = checkpoint.load(tmp_path / "checkpoints" / "t1.safetensors")
    assert kept is not None
    assert (len(kept.history), kept.begun[0], len(kept.begun[1])) == (1, 2, 8)
    assert run_pair(spec(tmp_path)) == [0, 0]
    assert found_in(tmp_path) == found_in(tmp_path, 1) == found_in(whole)
    weights, expected = (safetensors.torch.load_file(f / "weights" / "t1.safetensors") for f in (tmp_path, whole))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_one_process_is_another_training(tmp_path: Path):
    alone = spec(tmp_path, workers=1)
    rest = ("cpu", "fp32"), (97, 33)
    assert plan_of(alone, *rest) != plan_of(spec(tmp_path), *rest)
    assert plan_of({key: value for key, value in alone.items() if key != "workers"}, *rest) == plan_of(alone, *rest)
    row = run_trial(spec(tmp_path))
    assert (row.status, row.detail) == ("failed", "ValueError: a trial of 2 workers is run by 1 processes")


def _die_at(step: int) -> None:
    """Kill this process in place of a step of the training, counted from 1."""
    steps, original = [], loop._step

    def replacement(*arguments: Any) -> None:
        steps.append(1)
        if len(steps) == step:
            distributed.barrier()  # Neither is to end before the other one's last step.
            os.kill(os.getpid(), signal.SIGKILL)
        original(*arguments)

    loop._step = replacement


def _numbers(record: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(record).items() if name not in CLOCK}


def _main(rank: int, meeting: str, wanted: dict[str, Any]) -> None:
    trial._AGREE = 2
    data.load = Noise  # type: ignore[assignment]
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=wanted["workers"])
    epochs: list[Any] = []
    row = run_trial(wanted, lambda epoch: epochs.append(_numbers(epoch)))
    Path(wanted["folder"], f"found-{rank}.json").write_text(json.dumps({"row": _numbers(row), "epochs": epochs}))
    distributed.destroy_process_group()


if __name__ == "__main__":
    _die_at(int(sys.argv[3]))
    _main(int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[4]))
