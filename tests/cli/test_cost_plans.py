"""What ``cost`` says of the plans by which a network's convolutions are executed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from pyconv_search.arch.cost import cost
from pyconv_search.arch.plans.choice import DIRECTIONS
from pyconv_search.arch.plans.operation import Operation
from pyconv_search.arch.presets import preset
from pyconv_search.arch.spec import Conv, Level
from pyconv_search.ops.fused_work import fused_work

Said = tuple[int, str, str]
ON_AVX512 = ("--instructions", "AVX512")


def test_json_has_nominal_and_executed_work_by_part_and_in_all(command: Callable[..., Said]) -> None:
    said = json.loads(command("cost", "ps-resnext-50-32x4d", "--json", "--batch", 2, *ON_AVX512)[1])
    plans, closed = said["plans"], cost(preset("ps-resnext-50-32x4d"))
    assert (plans["device"], plans["instructions"], plans["dtype"]) == ("cpu", "AVX512", "float32")
    assert plans["channels_last"] is True
    assert [part["name"] for part in plans["parts"]] == [part.name for part in closed.parts]
    assert plans["nominal"]["output"]["macs"] == 2 * closed.macs
    for kind in ("nominal", "executed"):
        for direction in DIRECTIONS:
            for unit in ("macs", "bytes"):
                parts = sum(part[kind][direction][unit] for part in plans["parts"])
                assert parts == plans[kind][direction][unit]
    stage = plans["parts"][1]
    assert [one["times"] for one in stage["convolutions"]] == [1, 2]
    assert set(stage["convolutions"][0]["plans"]) == set(DIRECTIONS)
    assert plans["parts"][0]["convolutions"] == []


def test_text_tells_the_plans_and_why(command: Callable[..., Said]) -> None:
    status, said, _ = command("cost", "pyconvresnet-50", "--contiguous", "--dtype", "bfloat16", *ON_AVX512)
    assert status == 0
    assert "executed on cpu (AVX512), bfloat16, contiguous, 1 image;" in said
    lines = said.splitlines()
    whole = next(line for line in lines if line.startswith("all ") and "GB" not in line and "MB" in line)
    assert whole.split()[1:3] == ["3.820", "G"]
    assert "2 × 64: 3×3 16 g1, 5×5 16 g4, 7×7 16 g8, 9×9 16 g16" in lines
    assert lines[-1].endswith("for cpu (AVX512), bfloat16, contiguous")


def test_a_network_without_plans_executes_what_is_nominal(command: Callable[..., Said]) -> None:
    plans = json.loads(command("cost", "resnet-50", "--json", "--device", "cuda")[1])["plans"]
    assert plans["nominal"] == plans["executed"]
    assert plans["instructions"] == ""


def test_a_gpu_runs_poly_scale_convolutions_and_pyramids_in_one_kernel(command: Callable[..., Said]) -> None:
    words = ("--device", "cuda", "--dtype", "bfloat16")
    plans = json.loads(command("cost", "ps-resnet-50", "--json", *words)[1])["plans"]
    convolutions = [one for part in plans["parts"] for one in part["convolutions"]]
    assert {plan["plan"] for one in convolutions for plan in one["plans"].values()} == {"fused"}
    assert {d: one["bytes"] for d, one in plans["executed"].items()} == {
        d: one["bytes"] for d, one in plans["nominal"].items()
    }
    # Classes of 128 channels fill the kernels' matrix products; narrower ones that lie interleaved do not.
    ratios = [one["executed"]["output"]["macs"] / one["nominal"]["output"]["macs"] for one in convolutions]
    assert ratios[0] > 2
    assert ratios[-1] == 1.0


def test_without_a_kernel_for_the_type_a_gpu_has_plans() -> None:
    operation = Operation(8, Conv((Level(3, 8, 8, (1, 2)),)))
    sizes = (1, 4, 4), (1, 4, 4)
    assert fused_work(operation, "float32", sizes, 4) is None  # the pattern runs over the groups
    operation = Operation(8, Conv((Level(3, 8, 1, (1, 2)),)))
    assert fused_work(operation, "float64", sizes, 8) is None
    assert set(fused_work(operation, "float16", sizes, 2) or ()) == set(DIRECTIONS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--instructions", "MMX"], "--instructions must be one of AVX512, AVX2, DEFAULT, but got MMX"),
        (["--device", "cuda", *ON_AVX512], "--instructions is for --device cpu only, but got AVX512"),
    ],
)
def test_instructions_that_cannot_be(command: Callable[..., Said], words: list[str], message: str) -> None:
    assert command("cost", "resnet-50", *words) == (1, "", f"error: {message}\n")
