"""What ``status`` says: how a run stands, once or until it ends."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pyconv_search.fields import printable
from pyconv_search.report.hours import hours_of
from pyconv_search.report.words import left_out
from pyconv_search.results import verdicts
from pyconv_search.results.row import Row
from pyconv_search.results.spent import planned, spent
from pyconv_search.results.standing import (
    MEASURES,
    WORDS,
    Standing,
    UnderWay,
    failure_text,
    standing,
    value_text,
)
from pyconv_search.results.store import Store, read
from pyconv_search.units import duration

MOST_SHOWN = 40
# Reading a long journal takes its time: of a run that is watched, at most this share of a core.
MOST_BUSY = 0.1


def status_dict(store: Store, now: Standing | None = None) -> dict[str, Any]:
    """How a run stands, as plain values."""
    now, present = now or standing(store), store.current()
    counts = Counter(row.status for row in present.rows)
    plan, taken = planned(present), spent(present)
    return {
        "study": store.study["name"],
        "state": now.state,
        "certain": now.certain,
        "reason": now.reason,
        "process": now.process,
        "host": now.host,
        "since": now.since and now.since.isoformat(),
        "last_record": now.last and now.last.isoformat(timespec="seconds"),
        "planned": store.study.get("planned"),
        "ended": len(present.rows),
        **{status: counts[status] for status in ("complete", "stopped", "failed")},
        "left_out": present.left_out,
        "best": now.best and _best_dict(now.best, now.measure),
        "seconds_left": now.seconds_left,
        "running": [asdict(each) for each in now.running],
        "unfinished": [asdict(each) for each in now.unfinished],
        "failures": [
            {key: getattr(row, key) for key in ("trial", "name", "seed", "reason", "detail")}
            for row in present.rows
            if row.status == "failed"
        ],
        "last_event": store.state or "nothing",
        "planned_device_seconds": plan and plan["device_seconds"],
        "spent_device_seconds": taken.everything,
        "spent_training_device_seconds": taken.training,
        "device_unit": taken.unit,
        "together": [verdict.to_dict() for verdict in verdicts.of(present)],
    }


def _best_dict(row: Row, measure: str) -> dict[str, Any]:
    value = getattr(row, MEASURES[measure])
    return {"trial": row.trial, "name": row.name, "seed": row.seed, "measure": measure, "value": value}


def status_text(store: Store, now: Standing | None = None) -> str:
    """How a run stands, for people."""
    now, present = now or standing(store), store.current()
    s = status_dict(store, now)
    running = f", {len(now.running)} running" if now.state == "running" else ""
    lines = [
        f"{s['study']}: {_state_text(now)}",
        f"{s['ended']} of {s['planned']} trials ended: {s['complete']} complete, {s['stopped']} stopped, "
        f"{s['failed']} failed{running}",
    ]
    lines += [left_out(present.left_out)] if present.left_out else []
    if now.best is not None:
        value = value_text(getattr(now.best, MEASURES[now.measure]), now.measure)
        lines.append(f"best so far: {WORDS[now.measure]} {value}, {now.best.name} (seed {now.best.seed})")
    if now.seconds_left is not None:
        lines.append(f"about {duration(now.seconds_left, digits=2)} left at the pace so far")
    lines += [f"{name} {said}" for name, said in hours_of(present).items()]
    lines += [f"  seeds together? {verdict}" for verdict in verdicts.of(present)]
    listed = {
        "running": [_trial_text(each, now.measure) for each in now.running],
        "cut short": [_trial_text(each, now.measure) for each in now.unfinished],
        "failed": [
            f"{row.name} (seed {row.seed}): {failure_text(row)}" for row in present.rows if row.status == "failed"
        ],
    }
    for heading, texts in listed.items():
        lines += [f"  {heading}: {text}" for text in texts[:MOST_SHOWN]]
        lines += [f"  {heading}: {len(texts) - MOST_SHOWN:,} more (--json)"] if len(texts) > MOST_SHOWN else []
    return "\n".join(lines)


def _state_text(now: Standing) -> str:
    since = f" {_moment(now.since)}" if now.since else ""
    process = f"process {now.process} on {now.host}" if now.host else "its process"
    if now.state == "running":
        last = f"; last record {_ago(now.last)} ago" if now.last else ""
        return f"running{since and f' since{since}'}, {process}{last}"
    if now.state == "killed":
        last = f"; last record {_moment(now.last)}" if now.last else ""
        if now.certain:
            return f"killed: {process} has ended without a word{last}; the same command goes on"
        why = "it was killed, this is a copy of its folder, or its lock is not seen from this machine"
        return f"not running: {process} does not hold this folder ({why}){last}"
    if now.state == "aborted":
        return f"ended by an error{since}: {now.reason}; the same command goes on"
    return f"{now.state}{since}{'; the same command goes on' if now.state == 'interrupted' else ''}"


def _trial_text(each: UnderWay, measure: str) -> str:
    name = f"{each.name} (seed {each.seed})" if each.name else f"trial {each.trial}"
    epochs = f"epoch {each.epoch}{f' of {each.epochs}' if each.epochs else ''}"
    return (
        f"{name}, {epochs}{f', {WORDS[measure]} {value_text(each.value, measure)}' if each.value is not None else ''}"
    )


def _moment(when: datetime) -> str:
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _ago(when: datetime) -> str:
    return duration(max((datetime.now(UTC) - when).total_seconds(), 0.0), digits=2)


def watch(folder: Path, seconds: float, as_json: bool) -> None:
    """Show how the run stands every ``seconds`` until it has ended, or Ctrl-C.

    A terminal is redrawn; elsewhere, and as JSON (a line each), it is printed whenever something has changed.
    """
    console = Console()
    try:
        if as_json or not console.is_terminal:
            said = None
            for store, now in _looks(folder, seconds):
                found = status_dict(store, now)
                if (changed := {**found, "seconds_left": None}) != said:
                    print(json.dumps(found) if as_json else f"{printable(status_text(store, now))}\n", flush=True)
                    said = changed
            return
        with Live(console=console, auto_refresh=False) as live:
            for store, now in _looks(folder, seconds):
                live.update(Text(printable(status_text(store, now))), refresh=True)
    except KeyboardInterrupt:
        print(file=sys.stderr)


def _looks(
    folder: Path, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> Iterator[tuple[Store, Standing]]:
    """What there is to see now, and again until the run has ended."""
    while True:
        begun = time.monotonic()
        store = read(folder)
        now = standing(store)
        yield store, now
        if now.state != "running":
            return
        sleep(max(seconds, (time.monotonic() - begun) / MOST_BUSY))
