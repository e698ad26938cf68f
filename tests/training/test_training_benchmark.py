"""The benchmark of training: tables that can be printed, of something small really measured."""

from __future__ import annotations

import re
import time

import pytest
import torch

from benchmarks import training
from pyconv_search.training import allocator

SMALL = ["--small-batch", "4", "--seconds", "0.001", "--threads", "1"]


@pytest.fixture(autouse=True)
def kept_settings(monkeypatch: pytest.MonkeyPatch):
    """The variables that would make the process start anew, and PyTorch's settings as they were."""
    for name, value in allocator.VARIABLES.items():
        monkeypatch.setenv(name, value)
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def test_tables_with_targets(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LEARNERS", dict(list(training.LEARNERS.items())[:1]))
    assert training.main(["quick start, levels (3,2,1)", *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {"target: ≥ 1.3", "target: ≤ 5 %"} <= set(lines)
    ratio, rate = r"\d+\.\d\d \(\d+\.\d\d–\d+\.\d\d\)", r"[\d.e+]+"
    rows = [line for line in lines if line.startswith("| quick start")]
    for row in rows:
        shape = rf"\| quick start, levels \(3,2,1\) \| 4 \| (bfloat16|float32) \| {ratio} \| {ratio} \| {rate} \| {rate} \| \d+% \|"
        assert re.fullmatch(shape, row)
    assert rows[-1].split(" | ")[2] == "float32"
    for data in training.SHAPES:
        (row,) = (line for line in lines if line.startswith(f"| {data} |"))
        assert re.fullmatch(rf"\| {data} \| .* \| {rate} \| -?\d+\.\d % \(-?\d+\.\d to -?\d+\.\d\) \|", row)


def test_processor_time_leaves_out_what_others_take() -> None:
    assert training.processor_clock(lambda: time.sleep(0.2))() < 0.1
    begun = time.process_time()
    spent = training.processor_clock(lambda: sum(range(10**6)))()
    assert 0 < spent <= time.process_time() - begun
