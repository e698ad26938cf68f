"""Executed multiply-adds and moved bytes against what PyTorch counts and is given when the plans are really executed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from pyconv_search.arch.cost import cost
from pyconv_search.arch.plans.choice import DIRECTIONS, Setting, choose, name_of, plain
from pyconv_search.arch.plans.machine import NEEDED, cpu_instructions
from pyconv_search.arch.plans.network import calls, executions
from pyconv_search.arch.plans.operation import Operation
from pyconv_search.arch.plans.traffic import Work, executed, executed_macs, moved, nominal
from pyconv_search.arch.plans.ways import ways
from pyconv_search.arch.presets import PRESETS, preset
from pyconv_search.arch.spec import Conv, Level
from pyconv_search.models import build
from pyconv_search.ops import build_conv
from pyconv_search.ops.planning import executed_as, setting_of

HEIGHT, WIDTH, BATCH = 7, 9, 2
OPERATIONS = {
    "psconv": Operation(16, Conv((Level(3, 16, 1, (1, 2, 1, 4)),))),
    "stride": Operation(8, Conv((Level(3, 16, 1, (1, 2, 1, 4)),)), (2, 1)),
    "groups": Operation(16, Conv((Level(3, 16, 2, (1, 1, 2)),))),
    "shorter": Operation(9, Conv((Level(3, 7, 1, (1, 2, 1, 4)),))),
    "input": Operation(8, Conv((Level((3, 5), 8, 1, (1, 2), "input"),))),
    "depthwise": Operation(8, Conv((Level(3, 16, 8, (1, 2, 1, 4)),))),
    "pyramid": Operation(16, Conv((Level(3, 8), Level(5, 4, 4), Level(7, 8, 4))), (1, 2)),
    "joint": Operation(8, Conv((Level(1, 4), Level(3, 8, 1, (1, 2)), Level(5, 8, 8)))),
}


def plan_names(operation: Operation) -> list[str]:
    """Every way of each level beside plain other levels, and all levels at once in every way that they have together."""
    plans = [
        tuple((own, way if own == (i,) else other) for own, other in plain(operation))
        for i in range(len(operation.conv.levels))
        for way in ways(operation, (i,))
    ]
    every = tuple(range(len(operation.conv.levels)))
    merged = [((every, way),) for way in (ways(operation, every) if len(every) > 1 else ())]
    return list(dict.fromkeys(name_of(parts) for parts in [*plans, *merged]))


CASES = [(key, name) for key, operation in OPERATIONS.items() for name in plan_names(operation)]


class Counter(TorchDispatchMode):
    """The multiply-adds that really run, and the numbers in the images and weights of convolutions.

    PyTorch's formulas, without its FlopCounterMode, whose hooks on all modules let pyramids call their levels one by
    one. For the gradients of grouped convolutions they are wrong: the gradient of the weight is not divided by groups.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs = self.numbers = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        found = function(*arguments, **(named or {}))
        if function is torch.ops.aten.convolution_backward.default:
            grad, x, weight, *_, wanted = arguments
            self.macs += sum(wanted[:2]) * grad.numel() * weight[0].numel()
            self.numbers += grad.numel() + x.numel() + weight.numel()
        elif function.overloadpacket in flop_registry:
            self.macs += flop_registry[function.overloadpacket](*arguments, **(named or {}), out_val=found) // 2
        if function is torch.ops.aten.convolution.default:
            self.numbers += sum(x.numel() for x in (*arguments[:2], found))
        return found


def counted(action):
    """What an action executes and gives: (multiply-adds, bytes of its convolutions' tensors in float64), result."""
    with Counter() as counter:
        result = action()
    return Work(counter.macs, 8 * counter.numbers), result


@pytest.mark.parametrize(("key", "name"), CASES, ids=lambda value: value)
def test_every_plan_does_what_is_said_in_every_direction(key, name):
    operation = OPERATIONS[key]
    module = build_conv(operation.conv, operation.in_channels, operation.stride).double()
    x = torch.randn(BATCH, operation.in_channels, HEIGHT, WIDTH, dtype=torch.float64)
    plan = choose(operation, Setting("cpu"), forced=name).plan
    assert plan.name == name
    for of_input in (True, False):
        x.requires_grad_(of_input)
        module.requires_grad_(not of_input)
        with executed_as(name):
            forward, out = counted(lambda: module(x))
        sizes = (BATCH, HEIGHT, WIDTH), (BATCH, *out.shape[2:])
        expected = executed(plan, *sizes, itemsize=8)
        assert forward == expected == Work(executed_macs(plan, sizes[1]), moved(plan, *sizes, 8))
        backward, _ = counted(out.sum().backward)
        assert backward == expected


@pytest.mark.parametrize("key", OPERATIONS)
def test_nominal_work_is_what_the_module_does(key):
    operation = OPERATIONS[key]
    module = build_conv(operation.conv, operation.in_channels, operation.stride).bfloat16()
    x = torch.randn(BATCH, operation.in_channels, HEIGHT, WIDTH).bfloat16()
    with FlopCounterMode(display=False) as counter, executed_as("plain"):
        out = module(x)
    arrays = [x, out, *module.parameters()]
    expected = Work(counter.get_total_flops() // 2, sum(one.nelement() * one.element_size() for one in arrays))
    assert nominal(operation, (BATCH, HEIGHT, WIDTH), (BATCH, *out.shape[2:]), itemsize=2) == expected


def test_the_gradients_take_twice_the_work_again():
    operation = Operation(8, Conv((Level(3, 16),)))  # PyTorch counts gradients of grouped weights G times
    module, x = build_conv(operation.conv, 8, 1), torch.randn(BATCH, 8, HEIGHT, WIDTH, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        module(x).sum().backward()
    size = (BATCH, HEIGHT, WIDTH)
    assert counter.get_total_flops() // 2 == 3 * nominal(operation, size, size, itemsize=4).macs


@pytest.mark.parametrize(
    "name", ["ps-resnet-50", "pyconvresnet-50", "pyconvhgresnet-50", "ps-resnext-50-32x4d", "pyconvresnet-50+pyconvssd"]
)
def test_a_network_executes_what_is_said(name):
    side = 300 if "+" in name else 64
    arch = replace(preset(name), input=(3, side, side))
    model, images = build(arch), torch.randn(BATCH, *arch.input)
    forward, out = counted(lambda: model(images))
    outs = out if isinstance(out, tuple) else (out,)
    backward, _ = counted(lambda: torch.autograd.grad([y.sum() for y in outs], list(model.parameters())))
    found = executions(arch, setting_of(images), BATCH, itemsize=8)
    macs = {d: sum(one.work[d].macs for one in found) for d in DIRECTIONS}
    assert forward.macs == macs["output"]
    assert backward.macs == macs["input"] + macs["weight"]


@pytest.mark.parametrize("name", PRESETS)
def test_every_network_is_covered(name):
    arch = preset(name)
    found = executions(arch, Setting("cpu", "bfloat16", True, "AVX512"), batch=3, itemsize=2)
    closed = cost(arch)
    assert sum(one.nominal["weight"].macs for one in found) == 3 * closed.macs
    for part in closed.parts:
        assert sum(one.nominal["output"].macs for one in found if one.call.part == part.name) == 3 * part.macs
    first = found[0]
    assert (first.call.on_image, first.work["input"]) == (True, Work(0, 0))
    assert not any(one.call.on_image for one in found[1:])


def test_convolutions_that_have_plans_are_those_that_the_modules_plan():
    """A standard convolution of any groups is one of PyTorch's, at whatever place, and so is every one for video."""
    planned = {name: any(call.planned for call in calls(preset(name))) for name in PRESETS}
    named = {name for name in PRESETS if name.startswith(("ps-", "pyconv")) and "3d" not in name}
    assert {name for name, own in planned.items() if own} == named - {"pyconvresnet-50-top4321"}


def test_the_bytes_of_a_network_without_plans_are_its_tensors():
    arch = replace(preset("resnet-18"), input=(3, 32, 32))
    model = build(arch).double()
    seen = []
    for module in model.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.register_forward_hook(
                lambda module, x, y: seen.append(
                    x[0].numel() + y.numel() + sum(weight.numel() for weight in module.parameters())
                )
            )
    model(torch.randn(BATCH, 3, 32, 32, dtype=torch.float64))
    found = executions(arch, Setting("cpu", "float64"), BATCH, itemsize=8)
    assert sum(one.work["output"].bytes for one in found) == 8 * sum(seen)


def test_instructions_are_those_of_pytorch(monkeypatch):
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    found = cpu_instructions()
    if not found:
        pytest.skip("this system does not tell the flags of an x86 processor")
    assert found == torch.backends.cpu.get_cpu_capability()


@pytest.mark.parametrize(
    ("lines", "asked", "expected"),
    [
        ("flags : fpu avx2 fma", "", "AVX2"),
        ("flags : fpu sse2", "", "DEFAULT"),
        ("flags : fma avx2 avx512vl avx512bw avx512dq avx512f", "", "AVX512"),
        ("flags : fma avx2 avx512vl avx512bw avx512dq avx512f", "avx2", "AVX2"),
        ("Features : fp asimd sve", "", ""),
    ],
)
def test_instructions_of_other_machines(tmp_path, monkeypatch, lines, asked, expected):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", asked)
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor : 0\n{lines}\n")
    assert cpu_instructions(file) == expected
    assert cpu_instructions(tmp_path / "none") == ""
    assert list(NEEDED) == ["AVX512", "AVX2", "DEFAULT"]
