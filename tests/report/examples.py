"""Example runs for the tests of the report: made up, small, and the same on every machine."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from pyconv_search.results.row import Epoch, Row
from pyconv_search.results.store import Journal
from pyconv_search.space.document import parse
from pyconv_search.space.space import space_of

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&{{7*7}}$\\frac$"
SPACE = """
space: small
parameters: {width: {int: [8, 160], step: 8}}
network: {blocks: [1, 1], stages: [{}, {}], block: bottleneck, width: $width, levels: [2, 1],
          stem: {kernel: 3, width: 8, stride: 1, pool: none}}
"""
LEVELS = ([1, 1, 1, 1], [2, 2, 2, 1], [3, 3, 2, 1], [4, 3, 2, 1], [5, 4, 3, 2])


def study(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "format": 1,
        "name": "PyConv levels, small",
        "about": "Pyramid levels of a small bottleneck ResNet on the shipped images.",
        "space": {
            "name": "pyramid",
            "about": "Pyramid levels and split.",
            "parameters": {"levels": "one of 5", "split": "equal"},
        },
        "data": {
            "name": "patterns",
            "root": None,
            "validation": 1000,
            "about": "Drawn patterns.",
            "fingerprint": "sha256:0f343b0931126a20f133d67c2b018a3b",
        },
        "recipe": {"epochs": 12, "batch": 128, "lr": 0.1, "momentum": 0.9, "steps": [], "schedule": "cosine"},
        "search": {"kind": "rows"},
        "scheduler": {"kind": "none"},
        "seeds": [0, 1, 2],
        "objectives": {"top1_error": "min", "gmacs": "min"},
        "resources": {"cpu": 1.0, "gpu": 0.0},
        "input": [3, 32, 32],
        "classes": 10,
        "published": "pyconv/table2",
        "source": {
            "study": "study: PyConv levels, small\nseeds: 3\n",
            "study_file": "levels.yaml",
            "space": "space: pyramid\n",
            "space_file": "pyramid.yaml",
        },
        "command": "pyconv-search run studies/levels.yaml --out run",
        "planned": 15,
    }
    return values | changes


def row(architecture: int = 0, seed: int = 0, **changes: Any) -> Row:
    noise = random.Random(f"{architecture} {seed}")
    common = random.Random(f"seed {seed}").gauss(0, 0.4)
    error = 16.0 - 1.1 * (architecture % 5) + 0.02 * (architecture // 5) + common + noise.gauss(0, 0.25)
    levels = LEVELS[architecture % 5]
    values: dict[str, Any] = {
        "trial": f"{architecture:04d}-{seed}",
        "arch_id": f"{architecture:04x}" + "a7" * 30,
        "name": f"levels {','.join(map(str, levels))}" + (f" #{architecture}" if architecture >= 5 else ""),
        "seed": seed,
        "status": "complete",
        "reason": "",
        "detail": "",
        "epochs": 12,
        "parameters": {"levels": levels, "split": "equal"},
        "params": 250_000 + 14_000 * (architecture % 7),
        "macs": 38_000_000 + 9_000_000 * (architecture % 23),
        "activations": 900_000,
        "receptive_field": 75 + 16 * (architecture % 5),
        "val_loss": error / 30,
        "val_top1_error": error,
        "val_top5_error": error / 4,
        "test_loss": error / 29,
        "test_top1_error": error + 0.6,
        "test_top5_error": error / 4 + 0.1,
        "train_seconds": 41.5,
        "images_per_second": 2890.4,
        "device": "cpu",
        "host": "node",
        "started": "2025-03-01T10:00:00+00:00",
        "finished": "2025-03-01T10:00:41+00:00",
        "environment": {"python": "3.12.3", "torch": "2.6.0"},
    }
    return Row(**(values | changes))


def stopped(architecture: int, seed: int, **changes: Any) -> Row:
    tests = {"test_loss": None, "test_top1_error": None, "test_top5_error": None}
    return row(architecture, seed, **({"status": "stopped", "reason": "scheduler", "epochs": 3} | tests | changes))


def failed(architecture: int, seed: int, **changes: Any) -> Row:
    names = ("val_loss", "val_top1_error", "val_top5_error", "test_loss", "test_top1_error", "test_top5_error")
    values = {"status": "failed", "reason": "oom", "detail": "CUDA out of memory", "epochs": 0, **dict.fromkeys(names)}
    return row(architecture, seed, **(values | changes))


def epochs(of: Row, n: int = 12) -> list[Epoch]:
    last = of.val_top1_error or 50.0
    return [
        Epoch(of.trial, e, 0.1 * (1 - e / n), 2.0 / e, last - 6 + 70 / e, 2.2 / e, last + 60 / e - 60 / n, 20.0, 3.5)
        for e in range(1, n + 1)
    ]


def event(name: str, **changes: Any) -> dict[str, Any]:
    environment = {
        "python": "3.12.3",
        "torch": "2.6.0",
        "ray": "2.59.1",
        "platform": "Linux-x86_64",
        "device": "cpu, 2 cores",
    }
    git = {"sha": "0123456789abcdef0123456789abcdef01234567", "dirty": True}
    command = "pyconv-search run studies/levels.yaml --out run"
    values = {"time": "2025-03-01T10:00:00+00:00", "command": command, "git": git, "environment": environment}
    return {"name": name, **(values | changes)}


def write(folder: Path, rows: list[Row], events: tuple[str, ...] = ("start",), **changes: Any) -> Path:
    """A run's folder with these rows, twelve epochs for each, and these events."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(study(**changes)), encoding="utf-8")
    lines = [{"kind": "event", **event(name)} for name in events]
    with Journal(folder) as journal:
        for values in lines:
            journal.append_event(**{k: v for k, v in values.items() if k != "kind"})
        for one in rows:
            for epoch in epochs(one, one.epochs):
                journal.append_epoch(epoch)
            journal.append_row(one)
    return folder


def whole(folder: Path) -> Path:
    """Five architectures over three seeds; one trial failed, one was stopped."""
    rows = [row(a, seed) for a in range(5) for seed in range(3)]
    rows[4] = failed(1, 1)
    rows[8] = stopped(2, 2)
    return write(folder, rows, events=("start", "finished"))


def drawn(folder: Path, widths: list[int], **changes: Any) -> Path:
    """A run of networks that its own space makes, so that they can be drawn; one seed each."""
    space = space_of(parse(SPACE))
    rows = []
    for i, width in enumerate(widths):
        arch_id = space.architecture({"width": width}, (3, 16, 16), 10).arch_id
        rows.append(row(i, 0, arch_id=arch_id, parameters={"width": width}, name=f"width {width}"))
    return write(folder, rows, **({"source": {"space": SPACE}, "input": [3, 16, 16], "seeds": [0]} | changes))


def large(folder: Path, architectures: int = 2000, seeds: int = 1) -> Path:
    """Many architectures without epochs, written in one go."""
    write(folder, [], planned=architectures * seeds, search={"kind": "random"}, seeds=list(range(seeds)))
    from pyconv_search.results.lines import encode_record

    lines = [encode_record(row(a, seed)) for a in range(architectures) for seed in range(seeds)]
    with (folder / "journal.jsonl").open("ab") as file:
        file.writelines(lines)
    return folder
