"""The hours that `plan` tells, against sums by hand over what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
Said = tuple[int, str, str]


def test_measured_hours_follow_from_the_rates_that_are_printed(
    command: Callable[..., Said], tiny_study: Callable[..., Path]
) -> None:
    status, out, _ = command("plan", tiny_study(seeds=3, recipe={"epochs": 4, "batch": 32}), "--json")
    assert status == 0
    plan = json.loads(out)
    found, networks = plan["estimate"], plan["networks"]
    assert all(network["measured"] for network in networks)
    assert [each["name"] for each in found["measured"]] == [network["name"] for network in networks]
    training = sum(3 * 4 * 10_000 / network["images_per_second"] for network in networks)
    rest = sum(3 * (4 * 2_000 + 2_000) / network["validation_images_per_second"] for network in networks)
    assert found["training_seconds"] == pytest.approx(training)
    assert found["device_seconds"] == pytest.approx(training + rest)
    assert (found["unit"], found["trials"]) == ("core", 6)
    assert found["wall_seconds"] >= found["device_seconds"] / found["concurrent"] - 1e-9


def test_a_given_rate_needs_neither_torch_nor_measuring(tiny_study: Callable[..., Path]) -> None:
    study = tiny_study(recipe={"epochs": 6}, resources={"gpu": 0.5})
    for words, expected in ((["--images-per-second", "1000"], True), (["--no-measure"], False)):
        code = (
            "import sys; from pyconv_search import cli\n"
            f"sys.argv = ['pyconv-search', 'plan', {str(study)!r}, '--json', *{words!r}]\n"
            "try: cli.main()\n"
            "except SystemExit as end: assert not end.code\n"
            "print(sorted({'torch', 'ray'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
        *lines, modules = done.stdout.splitlines()
        plan = json.loads("\n".join(lines))
        assert modules == "[]"
        assert (plan["estimate"] is not None) == expected
        if expected:
            cheap, dear = sorted(plan["networks"], key=lambda network: network["macs"])
            slower = dear["macs"] / cheap["macs"]
            training = 6 * 10_000 / 1000 * (1 + slower)
            assert plan["estimate"]["training_seconds"] == pytest.approx(training)
            rest = (6 * 2_000 + 2_000) / 3000 * (1 + slower)
            assert plan["estimate"]["device_seconds"] == pytest.approx((training + rest) / 2)


def test_the_table(command: Callable[..., Said], tiny_study: Callable[..., Path]) -> None:
    study = tiny_study(recipe={"epochs": 90}, seeds=10)
    _, out, _ = command("plan", study, "--images-per-second", 500)
    lines = out.splitlines()
    assert lines[-3].endswith("images/s a trial")
    assert sorted(line.split()[-1] for line in lines[-2:])[-1] == "~500.0"
    assert " core-hours; " in out
    assert (
        "if no trial is stopped early or slows another\nscaled from the rate given: 500 images/s for one trial" in out
    )
    _, shared, _ = command("plan", tiny_study(resources={"gpu": 0.25, "cpu": 64}, seeds=10), "--images-per-second", 500)
    assert " on 1 GPU, 4 trials at a time" in shared
    assert "while 4 such trials share its GPU (together 2,000 images/s)" in shared
    whole = {"gpu": 8, "cpu": 8, "together": 1}
    _, eight, _ = command("plan", tiny_study(resources=whole), "--images-per-second", 500)
    assert "levels [2, 2, 1], on all its 8 GPUs\n" in eight
    _, stacked, _ = command("plan", tiny_study(resources={"together": 2}, seeds=2), "--images-per-second", 500)
    assert "slows another, and seeds are trained one by one\n" in stacked
    assert "each takes 1 core; up to 2 seeds together; scheduler none;" in stacked
    study = tiny_study()
    _, bare, _ = command("plan", study, "--no-measure")
    assert "images/s" not in bare
    assert "hours" not in bare


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_study_for_a_gpu_is_planned_where_there_is_none(
    command: Callable[..., Said], tiny_study: Callable[..., Path]
) -> None:
    study = tiny_study(resources={"gpu": 1})
    status, out, err = command("plan", study)
    assert (status, err) == (0, "")
    assert (
        "its hours are not known: the trials take a GPU, but PyTorch finds none on this machine; "
        "--images-per-second X gives the rate at which one trial trains, of the median network, levels [" in out
    )
    assert "PyTorch finds none" in json.loads(command("plan", study, "--json")[1])["estimate"]["why"]
