"""The overhead of a study: trials that do no work, run by pyconv-search and by plain Ray Tune.

Every variant runs the same number of trials that are one epoch long and end at once, one CPU each, so that as many run
together as the machine has cores. The variants take turns, ``--repeats`` times over:

- *plain Ray, fresh workers*: a class Trainable, one worker process per trial, as Tune does by default;
- *plain Ray, reused workers*: the same with ``reuse_actors=True``;
- *plain Ray, reused workers, torch*: the same, and the Trainable imports torch in ``setup``, as workers must that
  train; this is what the ratios refer to;
- *pyconv-search*: ``search.runner.run`` over as many different networks, drawn at random, each with one seed: its
  workers import torch too, and journal, ``study.json``, Parquet tables and Optuna's file are written as in any study.

Included in the time of pyconv-search: reading and fingerprinting the data set, drawing the networks, asking git for the
commit, Tune, all files. Included in that of plain Ray: ``Tuner.fit``, without result loggers (as in pyconv-search) and
with storage in a temporary folder; nothing is kept of the results. Excluded alike: importing Python modules in the
driver, ``ray.init`` (given in a column of its own) and ``ray.shutdown``.

*ms a trial* is the whole time over the number of trials, and so shares the start of the workers among them; *then* is
the time from the first result on over the number of the other trials: what a further trial costs. The second table says
where the time of pyconv-search goes, as the driver's wall clock sees it. *Tune* is what is left of Tune's part: its
event loop, waiting for workers, their start and their import of torch. All figures are medians over the repeats.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import ray
import yaml
from ray import tune
from rich.console import Console

from benchmarks.nothing import Nothing
from benchmarks.timing import Sections
from pyconv_search.results import store
from pyconv_search.search import folder, runner, strategies, work
from pyconv_search.study.study import load_study

SPACE = Path(__file__).parent.parent / "spaces" / "pyconv_psconv_joint.yaml"
REFERENCE = "plain Ray, reused workers, torch"
OURS = "pyconv-search"


class Empty(tune.Trainable):
    """What Tune needs of a Trainable at the least."""

    def step(self) -> dict[str, Any]:
        return {"loss": 0.0, "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None:
        return None


class EmptyWithTorch(Empty):
    """The same in a process that has imported torch."""

    def setup(self, config: dict[str, Any]) -> None:
        import torch  # noqa: F401


class FirstResult(tune.Callback):
    """Notes when the first result arrived."""

    def __init__(self) -> None:
        self.time = 0.0

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self.time = self.time or time.perf_counter()


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds of one run: the whole, from the first result on, of ``ray.init``, and of its parts."""

    seconds: float
    then: float
    init: float
    parts: dict[tuple[str, ...], float] = field(default_factory=dict)


def plain(trainable: type[Empty], reuse: bool, trials: int) -> Measured:
    """Run empty Trainables with Ray Tune alone."""
    begun = time.perf_counter()
    ray.init(address="local", logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    init = time.perf_counter() - begun
    first = FirstResult()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            tuner = tune.Tuner(
                tune.with_resources(trainable, {"cpu": 1}),
                param_space={"x": tune.uniform(0.0, 1.0)},
                tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=reuse),
                run_config=tune.RunConfig(name="run", storage_path=scratch, verbose=0, callbacks=[first]),
            )
            begun = time.perf_counter()
            results = tuner.fit()
            ended = time.perf_counter()
    finally:
        ray.shutdown()
    if results.num_errors or len(results) != trials:
        raise RuntimeError(f"{len(results)} of {trials} trials ended, {results.num_errors} with an error")
    return Measured(ended - begun, ended - first.time, init)


def ours(search: str, trials: int) -> Measured:
    """Run a study whose trials do nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "study.yaml"
        file.write_text(
            yaml.safe_dump(
                {
                    "study": "overhead",
                    "space": str(SPACE),
                    "data": "fashion-mnist-small",
                    "recipe": {"epochs": 1},
                    "search": {search: {"trials": trials}},
                    "seeds": 1,
                }
            )
        )
        study = load_study(file)
        sections = Sections()
        with _watched(sections), sections.section("run"):
            outcome = runner.run(study, Path(scratch) / "out", console=Console(file=io.StringIO()), trial=Nothing)
        ended = time.perf_counter()
    if outcome.complete != trials:
        raise RuntimeError(f"{outcome.complete} of {trials} trials are complete")
    parts = {path[1:]: seconds for path, seconds in sections.seconds.items() if path[:1] == ("run",)}
    init, shutdown = parts.pop(("ray.init",)), parts.pop(("ray.shutdown",))
    then = ended - sections.begun["run", "Tune", "journal"] - shutdown
    return Measured(sum(parts.values()), then, init, parts)


@contextmanager
def _watched(sections: Sections) -> Iterator[None]:
    watched = [
        (ray, "init", "ray.init"),
        (ray, "shutdown", "ray.shutdown"),
        (runner, "_tune", "Tune"),
        (folder, "open_folder", "data and networks"),
        (folder, "provenance", "git and versions"),
        (strategies.Listed, "observe", "Optuna"),
        (strategies.Tpe, "observe", "Optuna"),
        (strategies.Tpe, "propose", "Optuna"),
        (runner, "make_strategy", "Optuna"),
        (store.Journal, "_append", "journal"),
        (store, "write_tables", "Parquet"),
        (work.Work, "next", "next trial"),
        (os, "fsync", "fsync"),
    ]
    with ExitStack() as stack:
        for owner, attribute, name in watched:
            stack.enter_context(sections.watch(owner, attribute, name))
        yield


def main(arguments: list[str] | None = None) -> int:
    """Run the variants in turn and print both tables."""
    options = _options(arguments)
    variants: dict[str, Callable[[], Measured]] = {
        "plain Ray, fresh workers": lambda: plain(Empty, False, options.trials),
        "plain Ray, reused workers": lambda: plain(Empty, True, options.trials),
        REFERENCE: lambda: plain(EmptyWithTorch, True, options.trials),
        OURS: lambda: ours(options.search, options.trials),
    }
    found: dict[str, list[Measured]] = {name: [] for name in variants}
    with mock.patch.dict(
        os.environ,
        {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0"},
    ):
        for turn in range(options.repeats):
            for name, variant in variants.items():
                found[name].append(variant())
                print(f"{turn + 1}/{options.repeats} {name}: {found[name][-1].seconds:.2f} s", file=sys.stderr)
    _print_variants(found, options.trials)
    _print_parts([run.parts for run in found[OURS]], options.trials)
    return 0


def _print_variants(found: dict[str, list[Measured]], trials: int) -> None:
    reference = found[REFERENCE]
    print(f"\n{trials} trials, median of {len(reference)} (lowest to highest)")
    print(f"{'':34} {'ms a trial':>26} {'ratio':>6} {'then':>7} {'ratio':>6} {'ray.init':>9}")
    for name, runs in found.items():
        every = sorted(run.seconds * 1000 / trials for run in runs)
        spread = f"{statistics.median(every):.1f} ({every[0]:.1f} to {every[-1]:.1f})"
        then = _median(runs, "then") * 1000 / max(trials - 1, 1)
        ratio, ratio_then = (_median(runs, key) / _median(reference, key) for key in ("seconds", "then"))
        print(f"{name:34} {spread:>26} {ratio:6.2f} {then:7.1f} {ratio_then:6.2f} {_median(runs, 'init'):7.2f} s")


def _median(runs: list[Measured], key: str) -> float:
    return statistics.median(getattr(run, key) for run in runs)


def _print_parts(runs: list[dict[tuple[str, ...], float]], trials: int) -> None:
    print(f"\n{'where the time of ' + OURS + ' goes':42} {'ms a trial':>10} {'seconds':>8}")
    paths = sorted({path for run in runs for path in run})
    middle = {path: statistics.median(run.get(path, 0.0) for run in runs) for path in paths}
    for path, seconds in sorted(middle.items(), key=lambda item: -item[1]):
        print(f"{' > '.join(path) or 'everything else':42} {seconds / trials * 1000:10.2f} {seconds:8.3f}")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trials", type=int, default=100, help="of each run")
    parser.add_argument("--repeats", type=int, default=3, help="how often every variant has its turn")
    parser.add_argument("--search", choices=("random", "tpe"), default="random", help="what chooses the networks")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
