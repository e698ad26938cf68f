"""What `bench ops` measures: the right calls, by the right plans, with figures that fit together."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from pyconv_search.arch.plans import operators as catalogue
from pyconv_search.arch.plans.choice import DIRECTIONS
from pyconv_search.arch.plans.operation import Operation, side
from pyconv_search.arch.plans.operators import Operator
from pyconv_search.arch.plans.traffic import nominal
from pyconv_search.arch.plans.ways import ways
from pyconv_search.arch.presets import preset
from pyconv_search.arch.spec import Conv, Level
from pyconv_search.errors import UserError
from pyconv_search.models import build
from pyconv_search.ops import bench, build_conv
from pyconv_search.ops.bench import STANDARD, Place, call, compared, forcible
from pyconv_search.ops.fused import levels_of
from pyconv_search.ops.kernels import executed_macs
from pyconv_search.ops.plain import PLAIN
from pyconv_search.ops.psconv import PSConv2d
from pyconv_search.ops.pyconv import PyConv2d
from pyconv_search.ops.roofline import Measured, Roofline
from pyconv_search.ops.timing import Spread, Times

ROOT = Path(__file__).parents[2]
STEADY = Times(Spread.of([1.0]), 1)
ROOFLINE = Roofline("abacus", 1, "float32", Measured("copy", 10**9, STEADY), Measured("beads", 10**9, STEADY))
PLACE = Place(torch.device("cpu"), batch=2, seconds=0.001)
POLY = Operator("poly", Operation(8, Conv((Level(3, 8, 1, (1, 2, 1, 4)),)), (2, 1)), 6, 7, 3, True)
PYRAMID = Operator("pyramid", Operation(8, Conv((Level(3, 4), Level(5, 4, 4)))), 5, 5, 1, True)
GROUPED = Operator("grouped", Operation(8, Conv((Level(3, 8, 4),))), 5, 5, 1, False)
SHAPES = {"poly": (2, 8, 6, 7), "pyramid": (2, 8, 5, 5), "grouped": (2, 8, 5, 5)}


def rows_of(*operators: Operator, **options) -> list[bench.Row]:
    return [row for rows in bench.bench(operators, PLACE, ROOFLINE, **options) for row in rows]


def test_every_operator_and_mode_stands_beside_the_standard_convolution():
    rows = rows_of(POLY, PYRAMID, GROUPED)
    assert [(row.operator.name, row.mode) for row in rows[::2]] == [
        (name, mode) for name in ("poly", "pyramid", "grouped") for mode in ("forward", "training")
    ]
    assert {row.what for row in rows[::2]} == {STANDARD}
    assert all(row.ratio == Spread.of([1.0]) for row in rows[::2])
    for row, standard in zip(rows[1::2], rows[::2], strict=True):
        assert row.ratio.lowest <= row.seconds.highest / standard.seconds.lowest
        assert row.ratio.highest >= row.seconds.lowest / standard.seconds.highest
        assert list(row.choices) == ([] if row.operator is GROUPED else list(DIRECTIONS[: len(bench.MODES[row.mode])]))


def test_work_is_nominal_and_executed_and_the_share_that_of_the_roofline():
    rows = rows_of(POLY, PYRAMID, GROUPED, way="masked")
    for row in rows:
        own, passes = row.operator.operation, 1 if row.mode == "forward" else 3
        conv = own.conv if row.what != STANDARD else Conv((Level(3, own.conv.width),))
        one = nominal(Operation(own.in_channels, conv, own.stride), *row.operator.sizes(PLACE.batch), itemsize=4)
        assert row.nominal == one.times(passes)
        share = ROOFLINE.share(row.nominal.macs, row.nominal.bytes, row.seconds.median)
        assert row.share == pytest.approx(share, rel=1e-12)
        if row.operator is POLY and row.what != STANDARD:
            assert (row.what, row.choices["output"].reason) == ("masked-1", "forced: masked")
            assert row.executed.macs == 3 * row.nominal.macs
            assert row.executed.bytes == 3 * row.nominal.bytes
        elif not row.choices:
            assert row.executed == row.nominal
        else:
            assert row.executed.macs >= row.nominal.macs


def test_where_triton_runs_one_kernel_for_all_of_it_is_a_way_as_others():
    """In its interpreter it runs on a CPU; nothing is executed here, which would take minutes."""
    pytest.importorskip("triton")
    code = (
        "from pyconv_search.ops import bench, build_conv\n"
        "from tests.ops.test_bench import PLACE, POLY\n"
        "module = build_conv(POLY.operation.conv, 8, (2, 1))\n"
        "bench.check_way([POLY], 'fused', PLACE)\n"
        "for way in ('fused', 'masked'):\n"
        "    found = bench.candidate(POLY, 'training', module, PLACE.images(8, 6, 7), way)\n"
        "    print(found.what, [work.macs for work in found.works], {work.bytes for work in found.works})"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    work, least = executed_macs(levels_of(POLY.operation), 8, (2, 1), (3, 7)), 4 * (16 * 42 + 16 * 21 + 576)
    macs = [round(42 * each) for each in (work.forward, work.grad_input, work.grad_weight)]
    assert done.stdout.splitlines() == [
        f"fused {macs} {{{least}}}",
        f"masked-1 {[3 * 576 * 42] * 3} {{{3 * least}}}",
    ]
    with pytest.raises(UserError, match="but got 'fused'"):
        bench.check_way([POLY], "fused", PLACE)


def test_all_plans_are_timed_each_once():
    for operator in (POLY, PYRAMID):
        rows = [row for row in rows_of(operator, all_plans=True) if row.mode == "forward"]
        plans = [row.what for row in rows]
        assert len(set(plans)) == len(plans)
        assert set(plans) >= {STANDARD, *forcible(operator.operation, PLACE).values()}
    assert [row.what for row in rows_of(GROUPED, all_plans=True)] == [STANDARD, "one convolution of PyTorch"] * 2


def test_ways_that_can_be_forced():
    assert forcible(POLY.operation, PLACE) == {
        "plain": "split", "split": "split", "per-class": "per-class", "masked-1": "masked-1"
    }  # fmt: skip
    found = forcible(PYRAMID.operation, PLACE)
    assert (
        found.items()
        >= {
            "plain": "1:grouped-1 2:grouped-4",
            "grouped-1": "1:grouped-1 2:grouped-1",
            "grouped-2": "1:grouped-1 2:grouped-2",
            "merged-1": "1+2:grouped-1",
        }.items()
    )
    own = {way for number in (0, 1) for way in ways(PYRAMID.operation, (number,))}
    assert set(found) == {"plain", "merged-1", *own}


def test_a_way_that_no_operator_has_is_told_with_those_they_have():
    bench.check_way([POLY, PYRAMID], "merged-1", PLACE)
    bench.check_way([POLY, PYRAMID], "", PLACE)
    with pytest.raises(UserError, match="plan must be one of plain, split, per-class, masked-1 for these") as caught:
        bench.check_way([POLY, GROUPED], "merged-1", PLACE)
    assert "but got 'merged-1'" in str(caught.value)
    with pytest.raises(UserError, match="plan must be one of none"):
        bench.check_way([GROUPED], "grouped-4", PLACE)


@pytest.mark.parametrize("operator", [POLY, PYRAMID])
def test_the_calls_compute_the_output_and_both_gradients(operator):
    torch.manual_seed(0)
    own = operator.operation
    module = build_conv(own.conv, own.in_channels, own.stride).double()
    x = torch.randn(SHAPES[operator.name], dtype=torch.float64)
    expected = module(x)
    for way in ("", *forcible(own, PLACE)):
        out = call("forward", module, x, way)()
        assert not out.requires_grad
        torch.testing.assert_close(out, expected)
        found = call("training", module, x, way)()
        assert [one.shape for one in found] == [x.shape, *(weight.shape for weight in module.parameters())]
    assert not x.requires_grad
    assert all(weight.grad is None for weight in module.parameters())


def test_short_calls_are_timed_several_at_once(monkeypatch):
    """A clock that is advanced by the actions: half a millisecond for the baseline, so four calls make two of them."""
    now, log = [0.0], []

    def action(name: str, seconds: float):
        def act() -> None:
            now[0] += seconds
            log.append(name)

        return act

    def clock_of(device):
        def clock(act):
            begun = now[0]
            log.append("read")
            act()
            seconds = now[0] - begun
            return lambda: seconds

        return clock

    monkeypatch.setattr(bench, "clock_of", clock_of)
    actions = {"base": action("b", 0.0005), "slow": action("s", 0.001)}
    times = compared(actions, "base", torch.device("cpu"), seconds=0.0)
    assert times["slow"].seconds.median == pytest.approx(0.001)
    assert times["slow"].ratio.median == pytest.approx(2.0)
    calls = [len(part) for part in " ".join(log).replace(" ", "").split("read")[-2:]]
    assert calls == [4, 4]


def test_times_far_apart_are_told():
    (row, *_) = rows_of(GROUPED)
    quiet = dataclasses.replace(row, seconds=Spread(1.0, 1.0, 1.1, 1.1, 9.0))
    loud = dataclasses.replace(row, seconds=Spread(1.0, 1.0, 1.1, 1.2, 1.2))
    assert (quiet.disturbed, loud.disturbed) == (False, True)


def test_the_named_operators_are_the_papers_at_their_sizes():
    found = {one.name: one for one in catalogue.named()}
    for name, (width, side_of_image) in {
        "psconv-64": (64, 56), "psconv-128": (128, 28), "psconv-256": (256, 14), "psconv-512": (512, 7),
        "pyconv4-64": (64, 56), "pyconv3-128": (128, 28), "pyconv2-256": (256, 14), "pyconv1-512": (512, 7),
    }.items():  # fmt: skip
        own = found[name]
        assert (own.operation.in_channels, own.operation.conv.width) == (width, width)
        assert (own.height, own.width, own.operation.stride) == (side_of_image, side_of_image, (1, 1))
    assert [level.groups for level in found["pyconv4-64"].operation.conv.levels] == [1, 4, 8, 16]
    assert [level.groups for level in found["pyconvhg4-128"].operation.conv.levels] == [32] * 4
    assert found["psconv-g32-128"].operation.conv.levels[0].groups == 32
    with pytest.raises(UserError, match=r"operator must be one of psconv-64, .* but got 'psconv-65'; did you mean"):
        catalogue.named(["psconv-65"])


@pytest.mark.parametrize("name", ["ps-resnet-50", "pyconvresnet-50", "pyconvresnet-18", "pyconvresnet-50+pyconvssd"])
def test_a_networks_operators_are_those_of_its_modules(name):
    arch = preset(name)
    with torch.device("meta"):
        model, image = build(arch).eval(), torch.empty(1, *arch.input)
    seen: dict[tuple, int] = {}

    def called(module, inputs, output):
        if isinstance(module, nn.Conv2d) and module.padding == (0, 0):
            return  # the detector's last convolutions are not padded, which no operation is
        key = (tuple(inputs[0].shape[1:]), tuple(output.shape[1:]), kernels(module))
        seen[key] = seen.get(key, 0) + 1

    blocks = [model.stages, *([model.head.extra] if "+" in name else [])]
    for module in (module for part in blocks for module in part.modules()):
        if isinstance(module, (PSConv2d, PyConv2d)) or (type(module) in PLAIN and max(module.kernel_size) > 1):
            module.register_forward_hook(called)
    inner = {id(level) for module in model.modules() if isinstance(module, PyConv2d) for level in module.levels}
    for module in model.modules():
        if id(module) in inner:
            module._forward_hooks.clear()
    model(image)
    found = {}
    for one in catalogue.operators(arch):
        rows, columns = (-(-a // b) for a, b in zip((one.height, one.width), one.operation.stride, strict=True))
        into = (one.operation.in_channels, one.height, one.width)
        sides = tuple(side(level) for level in one.operation.conv.levels)
        found[into, (one.operation.conv.width, rows, columns), sides] = one.times
    assert found == seen


def kernels(module: nn.Module) -> tuple:
    sizes = [module.kernel_size] if isinstance(module, nn.Conv2d) else module.kernel_size
    return tuple(tuple(size) for size in sizes)


def test_networks_for_video_have_no_such_operators():
    with pytest.raises(UserError, match="network must be one for images"):
        catalogue.operators(preset("resnet3d-50"))
