"""A trial that really runs out of memory, and the ways to try it again.

Run as a program, this file runs a trial under a limit of its address space, and then once more in parts:
``test_shortage.py FOLDER MEBIBYTES``.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pyconv_search
from pyconv_search.arch.canonical import to_dict
from pyconv_search.arch.cost import cost
from pyconv_search.arch.resnet import resnet
from pyconv_search.errors import UserError
from pyconv_search.results.row import row_from_dict
from pyconv_search.results.row import to_dict as record_to_dict
from pyconv_search.search.outcome import failed_row
from pyconv_search.search.retry import Retry
from pyconv_search.search.trial import plan_of, run_trial
from pyconv_search.study import recipe as recipes
from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.study.plan import candidates, trial_spec
from pyconv_search.study.study import Study
from pyconv_search.training import data, memory
from pyconv_search.units import size_text

BATCH, PARTS = 2048, 64
NETWORK = resnet(
    {"depth": 8, "stem": {"kernel": 3, "width": 16, "stride": 1, "pool": "none"}, "levels": [2, 1, 1]}, (3, 16, 16), 6
)
MIB = 2**20


def spec(folder: Path) -> dict[str, Any]:
    return {
        "trial": "t1",
        "name": "two levels",
        "seed": 3,
        "architecture": to_dict(NETWORK),
        "parameters": {"levels": [2, 1, 1]},
        "recipe": recipes.to_dict(recipes.Recipe(epochs=1, batch=BATCH, precision="fp32")),
        "data": {"name": "noise", "root": None, "validation": None},
        "workers": 1,
        "threads": 1,
        "device": "cpu",
        "folder": str(folder),
        "keep_weights": False,
        "checkpoints": {"every": 1, "minutes": 10.0, "keep": "last"},
    }


def noise(name: str, *key: Any) -> Any:
    numbers = np.random.default_rng(1)

    class Noise:
        train, validation, test = (
            data.Split(numbers.integers(0, 256, (n, 3, 16, 16), np.uint8), numbers.integers(0, 6, n))
            for n in (BATCH, 64, 64)
        )
        info = DataSetInfo(name, "", (3, 16, 16), 6, BATCH, 64, 64, (0.5,) * 3, (0.25,) * 3, "", "")

    return Noise()


def test_a_trial_says_how_much_it_wanted_and_completes_in_parts(tmp_path: Path):
    price = cost(NETWORK)
    wanted = price.training_bytes(BATCH)
    limit = wanted // 2 // MIB
    environment = {**os.environ, "PYTHONPATH": str(Path(pyconv_search.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(tmp_path), str(limit)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    first, second, most = json.loads(found.stdout.splitlines()[-1])
    row, again = row_from_dict(first), row_from_dict(second)
    assert (row.status, row.reason) == ("failed", "oom")
    asked = re.search(r"you tried to allocate (\d+) bytes", row.detail)
    assert asked
    assert 0 < int(asked[1]) < 2 * wanted
    told = re.search(r"the process had ([\d.]+) (.)B at most, of ([\d.]+) (.)B that there are", row.detail)
    assert told
    had, there = (float(n) * {"M": 1e6, "G": 1e9}[unit] for n, unit in (told.groups()[:2], told.groups()[2:]))
    assert there == pytest.approx(most, rel=0.01)
    assert 0 < had < there
    assert f"the activations of {BATCH} images take {size_text(wanted)}" in row.detail
    assert (again.status, again.epochs, again.environment["accumulate"]) == (
        "complete",
        1,
        f"{PARTS} parts of each batch, after oom",
    )
    assert "accumulate" not in row.environment


def test_what_fails_for_another_reason_says_nothing_of_memory(tmp_path: Path):
    assert failed_row(spec(tmp_path), ValueError("no")).detail == "ValueError: no"
    assert "images take" in failed_row(spec(tmp_path), MemoryError()).detail


def test_the_smallest_limit_is_what_there_is():
    assert 0 < memory.total(torch.device("cpu")) <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_trial_in_parts_is_another_training_of_the_same_name(tmp_path: Path):
    plain = spec(tmp_path)
    parts = Retry(accumulate=4).applied(plain, "oom")
    rest = ("cpu", "fp32"), (97, 33)
    assert plan_of(parts, *rest) != plan_of(plain, *rest)
    assert (parts["trial"], parts["recipe"]["accumulate"], plain["recipe"]["accumulate"]) == ("t1", 4, 1)
    assert Retry(accumulate=4).applied(plain, "lost") == plain
    alone = Retry(alone=True).applied(plain, "lost")
    assert alone["alone"]
    assert plan_of(alone, *rest) == plan_of(plain, *rest)


def test_parts_that_no_batch_has_are_told(toy: Callable[..., Study]):
    study = toy(recipe={"epochs": 1, "batch": 24, "accumulate": 2}, resources={"workers": 2, "cpu": 2})
    for number in (3, 4, 6):
        Retry(accumulate=number).check(study)
    for number, near in ((2, 3), (5, 4), (12, 6)):
        with pytest.raises(UserError, match=rf"--accumulate {number}: must divide each of 2 workers' 12 .*: {near}$"):
            Retry(accumulate=number).check(study)
    assert trial_spec(study, candidates(study)[0], 0, None)["threads"] == 1
    with pytest.raises(UserError, match=r"^--alone: is for trials of one process, but each of these has 2; leave"):
        Retry(alone=True).check(study)


def _main(folder: Path, limit: int) -> None:
    data.load = noise
    torch.ones(4, 4).requires_grad_().square().sum().backward()  # The threads of autograd take their stacks now.
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + limit * MIB
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    first = run_trial(spec(folder))
    second = run_trial(Retry(accumulate=PARTS).applied(spec(folder), first.reason))
    print(json.dumps([record_to_dict(first), record_to_dict(second), most]))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
