"""What plan() tells is what runs."""

from __future__ import annotations

import re
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from pyconv_search.arch.plans.choice import DIRECTIONS, choose
from pyconv_search.errors import UserError
from pyconv_search.ops import PSConv2d, PyConv2d, Setting, executed_as, kernels, plan
from pyconv_search.ops import planning as planning_module
from pyconv_search.ops.fused import levels_of

SCALE = PSConv2d(16, 16, groups=2)
PYRAMID = PyConv2d(16, [8, 8, 16], [3, 5, 7], [1, 4, 8])
WAYS = (
    "split",
    "per-class",
    "masked",
    "masked-1",
    "grouped-1",
    "grouped",
    "depthwise",
    "merged-1",
    "merged-4",
    "plain",
)


def test_it_prints_names_shares_and_reasons():
    with executed_as("masked-1"):
        forced = plan(SCALE, Setting("cuda", "bfloat16", channels_last=True))
    assert forced.nominal == 16 * 8 * 9
    assert forced.executed == {"output": 6.0, "input": 6.0, "weight": 6.0}, "three dilations, twice as wide"
    assert str(forced) == (
        "16: 3×3 16 g2 {1,2,1,4} both on cuda, bfloat16, channels_last: 1,152 multiply-adds a pixel\n"
        "  output           masked-1   ×6.00  forced: masked-1\n"
        "  input gradient   masked-1   ×6.00  forced: masked-1\n"
        "  weight gradient  masked-1   ×6.00  forced: masked-1"
    )


def test_it_tells_what_is_chosen_for_a_setting():
    for module in (SCALE, PYRAMID):
        for setting in (Setting("cpu", instructions="AVX512"), Setting("cpu", "float16", True), Setting("mps")):
            found = plan(module, setting)
            operation = planning_module.operation_of(module.signature)
            for direction in DIRECTIONS:
                told, chosen = getattr(found, direction), choose(operation, setting, direction)
                assert told == (chosen.plan.name, chosen.reason, chosen.plan.macs)
            assert str(setting) in str(found)


def test_one_kernel_is_told_where_it_runs(monkeypatch):
    """On a GPU that can; what it executes is the kernels' own count."""
    setting = Setting("cuda", "bfloat16", channels_last=True)
    monkeypatch.setattr(planning_module, "obstacle", lambda operation, device, dtype: None)
    found = plan(SCALE, setting)
    work = kernels.executed_macs(levels_of(found.operation), 16)
    assert found.output == ("fused", "one kernel, wherever the GPU can", work.forward)
    assert found.executed["weight"] == work.grad_weight / found.nominal
    with executed_as("fused"):
        assert plan(SCALE, setting).input == ("fused", "forced: fused", work.grad_input)
        assert plan(PSConv2d(8, 8, pattern=(2,)), setting).output.name == "grouped-1"
    with executed_as("masked"):
        assert plan(SCALE, setting).output.name == "masked-2"
    assert plan(SCALE, Setting("cpu")).output.name != "fused"


def test_it_tells_why_there_is_no_kernel(monkeypatch):
    monkeypatch.setattr(planning_module, "obstacle", lambda operation, device, dtype: f"none on {device}")
    found = plan(SCALE, Setting("cuda", "float32"))
    chosen = choose(found.operation, Setting("cuda", "float32"))
    assert found.output == (chosen.plan.name, f"{chosen.reason}; not fused: none on cuda", chosen.plan.macs)
    with executed_as("fused"):
        assert plan(SCALE, torch.randn(1, 16, 5, 5)).output.reason.endswith("; not fused: none on cpu")


@pytest.mark.parametrize("module", [SCALE, PYRAMID], ids=["poly-scale", "pyramid"])
@pytest.mark.parametrize("way", [*WAYS, None])
def test_what_it_tells_is_what_runs(module, way, monkeypatch):
    """For every format, type and cast, whatever of it is forced."""
    ran = []
    inner = planning_module.program
    monkeypatch.setattr(planning_module, "program", lambda operation, one: ran.append(one) or inner(operation, one))
    x = torch.randn(2, 16, 5, 5)
    with executed_as(way) if way else nullcontext():
        for images in (x, x.to(memory_format=torch.channels_last), x[0]):
            for cast in (False, True):
                ran.clear()
                planning_module._programs.cache_clear()
                with torch.autocast("cpu", torch.bfloat16, enabled=cast):
                    told = plan(module, images)
                    module(images)
                assert told.setting.dtype == ("bfloat16" if cast else "float32")
                assert [(one.name, one.macs) for one in ran] == [
                    (each.name, each.macs) for each in (told.output, told.input, told.weight)
                ]


def test_the_setting_is_where_the_module_computes():
    x = torch.randn(2, 16, 5, 5)
    capability = torch.backends.cpu.get_cpu_capability()
    assert plan(SCALE, x).setting == Setting("cpu", "float32", False, capability)
    assert plan(SCALE, x[0]).setting == Setting("cpu", "float32", False, capability)
    assert plan(SCALE, x.to(memory_format=torch.channels_last)).setting.channels_last
    moved = PSConv2d(16, 16).to(memory_format=torch.channels_last)
    assert plan(moved, x).setting.channels_last, "as PyTorch's convolutions, if the weight is"
    with torch.autocast("cpu", torch.bfloat16):
        assert plan(SCALE, x).setting.dtype == "bfloat16"
        assert plan(PSConv2d(16, 16, dtype=torch.float64), x.double()).setting.dtype == "float64"
    on_meta = plan(PSConv2d(16, 16, device="meta"), x.to("meta"))
    assert on_meta.setting == Setting("meta")
    assert "nothing is known of meta" in str(on_meta)


def test_one_dilation_is_left_to_pytorch():
    x = torch.randn(1, 16, 5, 5)
    for module in (PSConv2d(16, 16, pattern=(2,), groups=4), PSConv2d(16, 16, 1, groups=4)):
        with executed_as("depthwise"):
            found = plan(module, x)
        assert found.output.name == "grouped-4"
        assert "PyTorch's own" in found.output.reason
        assert found.executed == dict.fromkeys(DIRECTIONS, 1.0)


def test_modules_and_inputs_without_a_plan_are_told():
    x = torch.randn(1, 16, 5, 5)
    for module, name in ((nn.Conv2d(16, 16, 3), "Conv2d"), (nn.Sequential(SCALE), "Sequential"), (3, "int")):
        with pytest.raises(UserError, match=f"module must be a PSConv2d or a PyConv2d, but got {name}"):
            plan(module, x)
    watched = PyConv2d(16, [8, 8], [3, 5])
    handle = watched.levels[1].register_forward_hook(lambda *_: None)
    with pytest.raises(UserError, match="some of its levels were replaced or are watched"):
        plan(watched, x)
    handle.remove()
    assert plan(watched, x).nominal == 16 * 8 * (9 + 25)
    with pytest.raises(UserError, match="input must have 16 channels"):
        plan(SCALE, x[:, :8])
    with pytest.raises(UserError, match="input must be on cpu"):
        plan(SCALE, x.to("meta"))
    with pytest.raises(UserError, match=r"x must be a tensor or a Setting, but got a text \('cuda'\)"):
        plan(SCALE, "cuda")


@pytest.mark.parametrize(
    "way",
    [
        *WAYS,
        "fused",
        "strips4",
        "grouped-16",
        "2:split 1:masked-4",
        "1:grouped-1 2+3:grouped-4",
        "1:depthwise 2:strips2-4",
    ],
)
def test_ways_that_exist_can_be_forced(way):
    with executed_as(way):
        assert planning_module._forced[-1] == way
    assert planning_module._forced == [""]


@pytest.mark.parametrize(
    ("way", "hint"),
    [
        ("splitt", "; did you mean split?"),
        ("masks", "; did you mean masked?"),
        ("grouped-0", "; did you mean grouped?"),
        ("split-2", "; did you mean split?"),
        ("merged", ""),
        ("1:grouped", ""),
        ("1:plain", ""),
        ("1:fused", ""),
        ("strips3", "; did you mean strips"),
        ("1:split, 2:split", ""),
        ("grouped-1 2:split", ""),
        ("x:split", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_ways_that_do_not_exist_are_told(way, hint):
    message = (
        "way must be one of plain, grouped, swapped, strips2, strips4, depthwise, split, per-class, masked, fused, a "
        f"number of groups as in grouped-4, masked-4 or merged-4, or a whole plan such as '1:grouped-1 2+3:grouped-4', but got {way!r}"
    )
    with pytest.raises(UserError, match=re.escape(message)) as found, executed_as(way):
        pass
    assert hint in str(found.value)
    assert planning_module._forced == [""]


def test_a_forced_way_ends_with_an_error_inside():
    with pytest.raises(ZeroDivisionError), executed_as("masked"):
        _ = 1 / 0
    with executed_as("masked"), executed_as("split"):
        assert plan(SCALE, Setting("cpu")).output.name == "split"
    assert planning_module._forced == [""]
