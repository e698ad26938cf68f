"""What the driver of a study costs for each trial as the number of trials grows: CPU, memory, bytes, and a resume.

For every ``--search`` and every number of trials ``--n``, in a process of its own each:

- *CPU* in ms a trial of the driver's own work, without Ray: proposing, handing out, noting an epoch and the row of a
  trial that does no work, with the journal, Optuna's file and the lines of progress as in any run. *First* and *last*
  are of the first and the last tenth of the trials (100 at most), *all* is with what happens once a run, from opening
  the folder to the tables, shared among the trials;
- *memory* in KiB a trial: what the process grew by from the first trial to the end;
- *journal* and *Optuna* in bytes a trial: of ``journal.jsonl`` and of ``optuna.journal``;
- *resume* in seconds: ``pyconv-search run`` in that folder, in which nothing is left, from the start of the process to
  its end; and the CPU seconds of that process (*its CPU*), which other work on the machine lengthens less.

A study holds 50,000 values at most, so of three parameters no more than some 4,000 rows can be listed: more are
left out. What Tune itself takes is not in it; see ``benchmarks.overhead``.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from benchmarks.nothing import Nothing

SEARCHES = ("rows", "grid", "random", "tpe")
LEVELS = [[a, b, c] for a in (1, 2, 3) for b in (1, 2, 3) for c in (1, 2, 3) if a >= b >= c]
MOST_ROWS = 4000
HEAD = ("first", "last", "all", "memory", "journal", "Optuna", "resume", "its CPU")


@dataclass(frozen=True, slots=True)
class Measured:
    """CPU of the driver in ms a trial (``first``, ``last``, ``all``), KiB and bytes a trial, seconds of a resume."""

    first: float
    last: float
    all: float
    memory: float
    journal: float
    optuna: float
    resume: float
    resume_cpu: float


def write_study(folder: Path, search: str, n: int) -> Path:
    """A study of ``n`` networks: ten stems, ten pyramids, and a width more for every hundred networks."""
    widths = range(8, 8 + 4 * -(-n // 100) * (1 if search in ("rows", "grid") else 2), 4)
    parameters = {
        "stem": {"int": [8, 80], "step": 8},
        "levels": {"choice": LEVELS},
        "width": {"ordered": list(widths)},
    }
    network = {"depth": 11, "block": "bottleneck", "width": "$width", "levels": "$levels"}
    network["stem"] = {"kernel": 3, "width": "$stem", "stride": 1, "pool": "none"}
    every = itertools.product(widths, LEVELS, range(8, 81, 8))
    listed = [{"width": w, "levels": levels, "stem": s} for w, levels, s in itertools.islice(every, n)]
    how: dict[str, Any] = {"rows": {"rows": listed}, "grid": "grid"}  # type: ignore[dict-item]
    (folder / "space.yaml").write_text(
        yaml.safe_dump({"space": "scale", "parameters": parameters, "network": network}, sort_keys=False)
    )
    study = {
        "study": "scale",
        "space": "space.yaml",
        "data": "fashion-mnist-small",
        "recipe": {"epochs": 1},
        "search": how.get(search, {search: {"trials": n}}),
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study, sort_keys=False, default_flow_style=None))
    return file


def play(file: Path, out: Path) -> dict[str, float]:
    """Run the whole study without Ray in this process; see :class:`Measured` for what is returned."""
    begun = time.process_time()
    from pyconv_search.report.page import write_report
    from pyconv_search.results import store
    from pyconv_search.results.spent import spent
    from pyconv_search.results.store import Journal
    from pyconv_search.search import folder as folders
    from pyconv_search.search.outcome import now
    from pyconv_search.search.progress import Progress
    from pyconv_search.search.strategies import make_strategy
    from pyconv_search.search.work import Work
    from pyconv_search.study.study import load_study

    begun = time.process_time()
    study, values = folders.open_folder(load_study(file), out, "benchmarks.scale")
    with Journal(out) as journal:
        values, found, proposed = folders.begin(study, values, journal, now())
        strategy = make_strategy(study, out, found.current().rows, found.curve, proposed, found.departed)
        work = Work(study, strategy, journal, found)
        each, grown = [], _memory()
        with Progress(work, values["planned"], Console(file=io.StringIO())):
            before = time.process_time()
            while (spec := work.next()) is not None:
                trial = Nothing(spec)
                since = time.process_time()
                epoch, row = trial.advance(), trial.finish()
                work_only = time.process_time() - since  # Which in a real run is the worker's.
                work.epoch(epoch)
                work.end(row)
                after = time.process_time()
                each.append(after - before - work_only)
                before = after
        grown = _memory() - grown
        strategy.settle(work.ended, work.curve)
        held = store.read(out)
        journal.append_event("spent", time=now(), **spent(held).to_event())
        store.write_tables(out, held)
        journal.append_event("finished", time=now())
    whole = time.process_time() - begun
    write_report(out)
    n, some = len(each), max(min(len(each) // 10, 100), 1)
    return {
        "first": sum(each[:some]) / some * 1e3,
        "last": sum(each[-some:]) / some * 1e3,
        "all": whole / n * 1e3,
        "memory": grown / n,
        "journal": (out / "journal.jsonl").stat().st_size / n,
        "optuna": (out / "optuna.journal").stat().st_size / n,
    }


def _memory() -> float:
    """KiB that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024


def resumed(file: Path, out: Path) -> tuple[float, float]:
    """Seconds, and seconds of CPU, that the command takes to find that nothing is left."""
    begun, used = time.perf_counter(), _children()
    command = [sys.executable, "-m", "pyconv_search", "run", str(file), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds, cpu = time.perf_counter() - begun, _children() - used
    if "nothing left to run" not in done.stdout + done.stderr:
        raise RuntimeError(f"the resume did not end as it should: {done.stdout}{done.stderr}")
    return seconds, cpu


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(search: str, n: int) -> Measured:
    """One search with ``n`` trials, in a process of its own, and its resume in another."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        file, out = write_study(folder, search, n), folder / "out"
        command = [sys.executable, "-m", "benchmarks.scale", "--play", str(file), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr)
        seconds, cpu = resumed(file, out)
        return Measured(**json.loads(done.stdout), resume=seconds, resume_cpu=cpu)


def main(arguments: list[str] | None = None) -> int:
    """Measure every search at every number of trials, one after the other."""
    options = _options(arguments)
    if options.play:
        print(json.dumps(play(*map(Path, options.play))))
        return 0
    print(f"{'search':8} {'trials':>7}" + "".join(f" {name:>8}" for name in HEAD), flush=True)
    for search, n in itertools.product(options.search, options.n):
        if search == "rows" and n > MOST_ROWS:
            print(f"{search:8} {n:7,} more than a study holds", flush=True)
            continue
        found = measured(search, n)
        cells = [f"{value:8.2f}" for value in (found.first, found.last, found.all)]
        cells += [f"{value:8.1f}" for value in (found.memory,)]
        cells += [f"{value:8.0f}" for value in (found.journal, found.optuna)]
        print(f"{search:8} {n:7,} {' '.join(cells)} {found.resume:8.1f} {found.resume_cpu:8.1f}", flush=True)
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--n", type=int, nargs="+", default=[100, 1000, 10000], help="numbers of trials")
    parser.add_argument("--search", nargs="+", choices=SEARCHES, default=SEARCHES, help="what chooses the networks")
    parser.add_argument("--play", nargs=2, metavar=("STUDY", "OUT"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
