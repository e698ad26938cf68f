"""How many images a second a trial trains on and evaluates, found out in seconds: what a plan of a study is made with.

``python -m pyconv_search.training.rates`` reads what :func:`rates` takes as JSON and prints what it gives.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pyconv_search.arch.canonical import from_dict
from pyconv_search.arch.cost import cost
from pyconv_search.errors import UserError
from pyconv_search.ops.roofline import processor
from pyconv_search.ops.timing import clock_of
from pyconv_search.study import recipe as recipes
from pyconv_search.training import allocator, loop, memory
from pyconv_search.training.device import find_device
from pyconv_search.training.learner import Learner
from pyconv_search.training.speed import Case, call, needed, random_source, ready

_FIRST, _FIRST_LARGE, _LARGE = 8, 2, 10**9


def rates(specs: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Measure the networks of trials, described as :mod:`pyconv_search.search.trial` has it, in ``seconds`` all in all.

    It takes longer where two steps of a few images do. Each is trained and evaluated alone, without torch.compile, on
    random images in memory, in batches that double up to the recipe's while the time allows it. Of several workers of
    a trial one is measured, as if none waited for another.

    Returns:
        ``device``: the processor's name; ``gpus``: how many there are; ``rates``: for each trial images per second in
        ``training`` and in ``evaluation``.

    Raises:
        UserError: if the device is not here.
    """
    if any(spec["device"] == "cuda" for spec in specs) and not torch.cuda.is_available():
        raise UserError("the trials take a GPU, but PyTorch finds none on this machine")
    found = []
    for spec in specs:
        recipe = replace(recipes.from_dict(spec["recipe"]), compile="none", accumulate=1)
        case = Case(from_dict(spec["architecture"]), recipe, find_device(spec["device"]), spec["threads"])
        learner, share = ready(case), seconds / len(specs)
        whole, workers = recipes.from_dict(spec["recipe"]), spec.get("workers", 1)
        training = _rate("training", case, learner, whole.batch // whole.accumulate // workers, 0.75 * share)
        evaluation = _rate("forward", case, learner, loop.EVALUATED, 0.25 * share)
        found.append({"training": workers * training, "evaluation": workers * evaluation})
    device = find_device(specs[0]["device"])
    return {"device": processor(device), "gpus": torch.cuda.device_count(), "rates": found}


def _rate(mode: str, case: Case, learner: Learner, most: int, seconds: float) -> float:
    """Images per second of the largest batch that there was time and memory for, by the fastest of its calls."""
    end, clock = time.perf_counter() + seconds, clock_of(case.device)
    batch = min(most, _FIRST_LARGE if cost(case.architecture).macs > _LARGE else _FIRST)
    while True:
        sized = replace(case, recipe=replace(case.recipe, batch=batch))
        source = random_source(case.architecture, batch, case.device)
        action = call(mode, sized, replace(learner, recipe=replace(learner.recipe, batch=batch)), source)
        action()
        taken = clock(action)()
        larger = min(2 * batch, most)
        if larger == batch or time.perf_counter() + 4 * taken > end or not _fits(sized, larger):
            break
        batch = larger
    while time.perf_counter() + taken < end:
        taken = min(taken, clock(action)())
    return batch / taken


def _fits(case: Case, batch: int) -> bool:
    there = memory.available(case.device)
    return there is None or needed(case, batch) < there


def rates_apart(specs: Sequence[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """:func:`rates` in a process of its own, with freed memory kept as in the trials of a study.

    Raises:
        UserError: as :func:`rates`, or if the process ends without an answer.
    """
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "pyconv_search.training.rates"],
        input=json.dumps([list(specs), seconds]),
        env={**allocator.VARIABLES, **os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"the process that measured ended with status {done.returncode}"]
        raise UserError(said[-1])
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    try:
        print(json.dumps(rates(*json.load(sys.stdin))))
    except UserError as error:
        sys.exit(str(error))
