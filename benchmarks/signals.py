"""Every signal to every process at every moment of a run: the same command again gives what an undisturbed run gives.

    python -m benchmarks.signals                         # all 100 cells, which takes hours; again, it goes on
    python -m benchmarks.signals --cells SIGTERM:group   # those whose name has these parts

A cell is SIGNAL:TARGET:MOMENT. A run of the quick start in small (three networks, two epochs, one seed) gets the signal
when its journal, its files or its processes show that the moment has come. What has to hold is in :func:`faults`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pyconv_search.results import store
from pyconv_search.results.lines import decode
from pyconv_search.results.row import Epoch, Row

ROOT = Path(__file__).parents[1]
SIGNALS = ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT")
TARGETS = ("driver", "group", "worker", "raylet", "gcs_server")
MOMENTS = ("before the first trial", "in an epoch", "at a checkpoint", "between trials", "while tables are written")
# What a clock decides, and how often a trial was resumed, may differ.
CLOCK = ("seconds", "train_seconds", "images_per_second", "peak_memory", "started", "finished", "resumed")
TRIALS = 3
# A run that says nothing for so long after the signal hangs; Ray itself may take its time to start before.
SILENCE_SECONDS = 30.0
IN_ORDER_SECONDS = 15.0
LIMIT_SECONDS = 1200.0


@dataclass
class Ended:
    """A run that has ended: its exit status, what it said and when, and what was there to be hit."""

    status: int
    lines: list[tuple[float, str]]
    hit: float | None
    seconds: float
    silence: float
    left: list[int] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(line for _, line in self.lines)


def write_study(folder: Path) -> Path:
    """The quick start in small: three of its rows, two epochs, a quarter of the width, most images held out."""
    space = yaml.safe_load((ROOT / "spaces" / "quickstart.yaml").read_text())
    space["network"] |= {"width": 4, "stem": {"kernel": 3, "width": 4, "stride": 2, "pool": "none"}}
    (folder / "signals-space.yaml").write_text(yaml.safe_dump(space, sort_keys=False))
    quick = yaml.safe_load((ROOT / "studies" / "quickstart.yaml").read_text())
    changes: dict[str, Any] = {
        "space": "signals-space.yaml",
        "data": {quick["data"]: {"validation": 6000}},
        "recipe": quick["recipe"] | {"epochs": 2},
        "search": {"rows": quick["search"]["rows"][:TRIALS]},
        "seeds": 1,
    }
    path = folder / "signals.yaml"
    path.write_text(yaml.safe_dump({**quick, **changes}, sort_keys=False))
    return path


def processes() -> dict[int, tuple[int, str]]:
    """Every process: its parent and its command."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if status[0] != "Z":
            found[int(entry.name)] = (int(status[1]), command)
    return found


def below(pid: int) -> dict[int, str]:
    """The processes that this one has started, and theirs, with their commands."""
    known, found = processes(), {pid: ""}
    for _ in range(8):
        found |= {p: command for p, (parent, command) in known.items() if parent in found}
    return {p: command for p, command in found.items() if p != pid}


def aim(target: str, driver: int) -> list[int]:
    """The process that is hit: its id, negative for a group; empty where there is none (yet)."""
    if target in ("driver", "group"):
        return [driver if target == "driver" else -driver]
    mine = below(driver)
    if target == "worker":
        return [pid for pid, command in mine.items() if command.startswith("ray::") and "Actor" in command][:1]
    return [pid for pid, command in mine.items() if command.split(" ")[0].endswith(f"/{target}")][:1]


class Moments:
    """When what is to be seen in the folder of a run has come."""

    def __init__(self, folder: Path) -> None:
        self._journal, self._folder = folder / "journal.jsonl", folder

    def _count(self, what: str) -> int:
        try:
            return self._journal.read_text().count(what)
        except OSError:
            return 0

    def come(self, moment: str) -> bool:
        """Whether it has come."""
        if moment == "before the first trial":
            return self._count('"name":"start"') > 0
        if moment == "in an epoch":
            return any((self._folder / "running").glob("*"))
        if moment == "at a checkpoint":
            return (self._folder / "checkpoints").is_dir() and any((self._folder / "checkpoints").iterdir())
        if moment == "between trials":
            return self._count('"kind":"row"') > 0
        return self._count('"name":"spent"') > 0


def _hears() -> None:
    """In the background of a shell and under nohup signals are ignored, and a process inherits it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Attempt:
    """A run of the study in a process group of its own, whose lines are kept with their times."""

    def __init__(self, study: Path, folder: Path) -> None:
        command = [sys.executable, "-m", "pyconv_search", "run", str(study), "--out", str(folder)]
        self.begun = time.monotonic()
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
            preexec_fn=_hears,
        )
        self.lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append((time.monotonic(), line))

    def hit(self, number: int, target: str, come: Callable[[], bool]) -> float | None:
        """Send the signal when the moment has come; when that was, or None if the run ended before."""
        pause = 0.002 if target in ("driver", "group") else 0.02
        while self.process.poll() is None and time.monotonic() < self.begun + LIMIT_SECONDS:
            if come() and (aimed := aim(target, self.process.pid)):
                try:
                    os.killpg(-aimed[0], number) if aimed[0] < 0 else os.kill(aimed[0], number)
                except ProcessLookupError:
                    continue
                return time.monotonic()
            time.sleep(pause)
        return None

    def end(self, hit: float | None) -> Ended:
        """Wait until it has ended; one that does not is ended by force, and has status 1000."""
        mine = set(below(self.process.pid))
        try:
            status = self.process.wait(max(self.begun + LIMIT_SECONDS - time.monotonic(), 1.0))
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            status = 1000
        over = time.monotonic()
        self._reader.join(5)
        since = self.begun if hit is None else hit
        times = [since, *(at for at, _ in self.lines if at > since), over]
        silence = max(after - before for before, after in pairwise(times))
        for _ in range(150):
            if not (left := sorted(mine & set(processes()))):
                break
            time.sleep(0.1)
        return Ended(status, self.lines, hit, over - since, silence, left)


def numbers(record: Row | Epoch) -> dict[str, Any]:
    """All of a record that does not come from a clock."""
    return {name: value for name, value in asdict(record).items() if name not in CLOCK}


def results(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows and the curves of a run, in an order of their own."""
    found = store.read(folder)
    rows = sorted(found.rows, key=lambda row: row.trial)
    return [numbers(r) for r in rows], [numbers(e) for e in sorted(found.epochs, key=lambda e: (e.trial, e.epoch))]


def faults(cell: tuple[str, str, str], first: Ended, folder: Path) -> list[str]:
    """What is wrong with how the disturbed run ended."""
    number, target, _ = cell
    found = ["a traceback"] if "Traceback" in first.text else []
    found += [f"silent for {first.silence:.0f} s"] if first.silence > SILENCE_SECONDS else []
    found += [f"processes {first.left} stayed behind"] if first.left else []
    if first.hit is None:
        return found + ([] if first.status == 0 else [f"exit status {first.status} without any signal"])
    if target in ("driver", "group"):
        wanted = (-signal.SIGKILL,) if number == "SIGKILL" else (130,)
        if number != "SIGKILL" and first.seconds > IN_ORDER_SECONDS:
            found.append(f"ended after {first.seconds:.1f} s only")
    else:
        # A process of Ray that ignores the signal lives on, and so does the run.
        wanted = (0,) if target == "worker" else (0, 1)
        if first.status == 1 and "died" not in first.text and "no longer answers" not in first.text:
            found.append("does not say what died")
    if first.status not in wanted:
        found.append(f"exit status {first.status} instead of {' or '.join(map(str, wanted))}")
    if first.status in (1, 130) and (folder / "study.json").exists():
        found += _unfinished(folder, "interrupted" if first.status == 130 else "aborted")
    return found


def _unfinished(folder: Path, state: str) -> list[str]:
    """What a run that ended in order, and then has this ``state``, has left undone."""
    known = store.read(folder)
    found = [] if known.state == state else [f"the journal says {known.state!r}"]
    table = folder / "rows.parquet"
    if not table.exists() or len(pd.read_parquet(table)) != len(known.rows):
        found.append("the tables are not those of the journal")
    return found


def twice(folder: Path) -> list[str]:
    """The trials and epochs that the journal has more than once."""
    seen, found = set(), []
    for line in (folder / "journal.jsonl").read_bytes().splitlines():
        record = decode(line)
        if isinstance(record, dict):
            continue
        key = (record.trial, record.epoch if isinstance(record, Epoch) else "row")
        found += [f"{key} twice in the journal"] if key in seen else []
        seen.add(key)
    return found


def run_cell(cell: tuple[str, str, str], study: Path, whole: Path, folder: Path) -> dict[str, Any]:
    """Disturb a run, run the same command again, and compare; plain values with what is wrong under ``faults``."""
    attempt = Attempt(study, folder)
    moments = Moments(folder)
    hit = attempt.hit(getattr(signal, cell[0]), cell[1], lambda: moments.come(cell[2]))
    first = attempt.end(hit)
    found = faults(cell, first, folder)
    again = Attempt(study, folder).end(None) if first.status else first
    if again.status:
        found.append(f"the same command again: exit status {again.status}: {again.text[-300:]}")
    elif results(folder) != results(whole):
        found.append("other numbers than the undisturbed run's")
    found += twice(folder)
    told = {"hit": hit is not None, "status": first.status, "seconds": first.seconds, "silence": first.silence}
    return told | {"faults": found, "said": first.text[-2000:]}


def undisturbed(study: Path, folder: Path) -> None:
    """Run the study in peace, unless it has been."""
    if not (folder / "report.html").exists() and (ended := Attempt(study, folder).end(None)).status:
        sys.exit(f"the undisturbed run failed: {ended.text}")


def chosen(parts: Sequence[str]) -> list[tuple[str, str, str]]:
    """The cells whose names have all words of one of the ``parts``; all without any."""
    cells = list(product(SIGNALS, TARGETS, MOMENTS))
    wanted = [set(part.split(":")) for part in parts]
    return [cell for cell in cells if not wanted or any(words <= set(cell) for words in wanted)]


def main() -> None:
    """Run the cells that have no result yet, and print all of those asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cells", nargs="*", default=[], help="SIGNAL:TARGET:MOMENT, or some of the three")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "pyconv-search-signals")
    parser.add_argument("--again", action="store_true", help="run those that have a result once more")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    study, whole = write_study(given.out), given.out / "whole"
    undisturbed(study, whole)
    failed = 0
    for cell in chosen(given.cells):
        name = ":".join(cell)
        file = given.out / f"{name.replace(' ', '-').replace(':', '_')}.json"
        if given.again or not file.exists():
            with tempfile.TemporaryDirectory(prefix="pyconv-search-cell-", ignore_cleanup_errors=True) as scratch:
                file.write_text(json.dumps(run_cell(cell, study, whole, Path(scratch) / "run")))
        told = json.loads(file.read_text())
        failed += bool(told["faults"])
        verdict = "; ".join(told["faults"]) or ("ok" if told["hit"] else "ok (there was nothing to hit)")
        ended = f"exit {told['status']:>4} after {told['seconds']:5.1f} s, silent {told['silence']:4.1f} s"
        print(f"{name:<48} {ended}: {verdict}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
