"""The command `bench ops`, really measuring something small."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pyconv_search.arch.plans.operators import named
from pyconv_search.cli import bench as said
from pyconv_search.ops.bench import STANDARD, Place, bench
from pyconv_search.ops.roofline import Measured, Roofline
from pyconv_search.ops.timing import Spread, Times
from pyconv_search.training import allocator

ROOT = Path(__file__).parents[2]
Said = tuple[int, str, str]
SMALL = ("--batch", 1, "--seconds", 0.001, "--threads", 1)
STEADY = Times(Spread.of([1.0]), 1)
ROOFLINE = Roofline("abacus", 1, "float32", Measured("copy", 10**12, STEADY), Measured("beads", 10**15, STEADY))
PLACE = Place(torch.device("cpu"), batch=1, seconds=0.001)


@pytest.fixture(autouse=True)
def kept_settings(monkeypatch: pytest.MonkeyPatch):
    """The variables that would make the process start anew, and PyTorch's settings as they were."""
    for name, value in allocator.VARIABLES.items():
        monkeypatch.setenv(name, value)
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    yield
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = benchmark


def test_one_json_document(command: Callable[..., Said]) -> None:
    status, out, err = command("bench", "ops", "psconv-512", "pyconv2-256", "--plan", "masked", "--json", *SMALL)
    assert (status, err.splitlines()[-1]) == (0, "4/4 pyconv2-256 training")
    found = json.loads(out)
    assert (found["threads"], found["dtype"], found["batch"], found["complete"]) == (1, "float32", 1, True)
    assert found["roofline"]["rate"] > 0
    rows = found["rows"]
    assert [(row["operator"], row["mode"]) for row in rows[1::2]] == [
        (name, mode) for name in ("psconv-512", "pyconv2-256") for mode in ("forward", "training")
    ]
    assert rows[0]["executed_as"] == STANDARD
    forced = rows[3]
    assert forced["executed_as"] == "masked-1"
    assert {plan["reason"] for plan in forced["plans"].values()} == {"forced: masked"}
    assert set(forced["plans"]) == {"output", "input", "weight"}
    assert forced["executed"]["macs"] == 3 * forced["nominal"]["macs"] == 9 * 512 * 512 * 9 * 49
    assert forced["seconds"]["lowest"] > 0
    assert forced["ratio"]["median"] > 1


@pytest.mark.slow
def test_a_table_of_all_plans(command: Callable[..., Said]) -> None:
    words = ("psconv-512", "--all-plans", "--contiguous", "--dtype", "bfloat16")
    status, out, _ = command("bench", "ops", *words, *SMALL)
    assert status == 0
    lines = out.splitlines()
    assert lines[1].startswith("contiguous, 1 image; pyconv-search ")
    plans = [line.split("%")[1].strip() for line in lines if line.startswith("psconv-512  forward")]
    assert plans[0] == STANDARD
    assert {"split", "per-class", "masked-1"} <= set(plans)
    assert "psconv-512: 512: 3×3 512 g1 {1,2,1,4} both at 7×7" in lines
    assert "calls" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["psconv-65"], "error: operator must be one of psconv-64, psconv-128, "),
        (["--network", "ps-resnet-51"], "error: unknown network 'ps-resnet-51'; did you mean ps-resnet-50?"),
        (["--network", "resnet3d-50"], "error: network must be one for images"),
        (["psconv-64", "--network", "ps-resnet-50"], "error: either operators or --network, but got psconv-64 and"),
        (["psconv-64", "--plan", "merged-2"], "error: plan must be one of plain, split, per-class, masked-1 for these"),
        (["psconv-64", "--device", "cuda"], "error: device must be cpu, since PyTorch finds no CUDA device here"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(
    command: Callable[..., Said], words: list[str], message: str
) -> None:
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    status, out, err = command("bench", "ops", *words)
    assert (status, out) == (1, "")
    assert err.startswith(message)


def test_the_sum_over_a_network_counts_every_call() -> None:
    operators = [dataclasses.replace(one, times=times) for one, times in zip(named(), (3, 2), strict=False)]
    rows = [row for found in bench(operators, PLACE, ROOFLINE) for row in found]
    sums = said.totals(rows)
    assert set(sums) == {"forward", "training"}
    assert sums["forward"]["calls"] == 5
    assert sums["forward"]["standard"] == 3 * rows[0].seconds.median + 2 * rows[4].seconds.median
    assert sums["forward"]["seconds"] == 3 * rows[1].seconds.median + 2 * rows[5].seconds.median
    assert "all 5 calls, training: " in said.bench_text(rows, ROOFLINE, PLACE, True)


def test_disturbance_and_an_early_end_are_said() -> None:
    (rows,) = (found for found in bench(named(["psconv-512"]), PLACE, ROOFLINE) if found[0].mode == "forward")
    steady = [dataclasses.replace(row, seconds=Spread.of([1.0]), share=0.5) for row in rows]
    assert "other work" not in said.bench_text(steady, ROOFLINE, PLACE, True)
    loud = dataclasses.replace(steady[1], seconds=Spread(1.0, 1.0, 2.0, 3.0, 3.0))
    text = said.bench_text([steady[0], loud], ROOFLINE, PLACE, False)
    assert "\n\n~ 1 of 2 rows: other work used the machine" in text
    assert text.endswith("stopped before the end")
    slow = dataclasses.replace(ROOFLINE, compute=Measured("beads", 10**3, STEADY))
    beyond = [dataclasses.replace(steady[0], share=60.0)]
    assert "the roofline itself was measured while other work ran" in said.bench_text(beyond, slow, PLACE, True)


def test_the_process_starts_anew_with_freed_memory_kept_and_an_interrupt_ends_in_order() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in allocator.VARIABLES}
    words = [sys.executable, "-m", "pyconv_search", "bench", "ops", "--json", *map(str, SMALL)]
    process = subprocess.Popen(
        words,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # In the background of a shell interrupts are ignored, and whoever is started there inherits it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "1/32 psconv-64 forward\n"
    if sys.platform == "linux":
        started = Path(f"/proc/{process.pid}/environ").read_text(encoding="utf-8").split("\0")
        assert {f"{name}={value}" for name, value in allocator.VARIABLES.items()} <= set(started)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=600)
    found = json.loads(out)
    assert process.returncode == 130
    assert found["complete"] is False
    assert 2 <= len(found["rows"]) < 64


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from pyconv_search import cli\n"
        "sys.argv = ['pyconv-search', 'bench', 'ops', '--help']\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({'torch', 'ray', 'numpy', 'rich.progress'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
