"""Measure the ways to execute the operators of the known networks, and write the table that plans are chosen from.

    python -m benchmarks.plans [--device cpu] [--threads 1] [--only TEXT] [--write]

Prints for every operation, setting and direction the fastest plan, and how much slower the estimated and the plain one
are. Levels of a pyramid are measured apart and together, and the fastest division is taken. With ``--write`` those that
beat the estimate by more than a twentieth go into ``pyconv_search/arch/plans/measured.json``; entries that were not
measured now stay.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch

import pyconv_search
from pyconv_search.arch.plans import choice
from pyconv_search.arch.plans.choice import DIRECTIONS, Parts, Setting, key_of, least, name_of, plain, plan_of
from pyconv_search.arch.plans.estimate import estimated
from pyconv_search.arch.plans.operation import Operation, side, sortable
from pyconv_search.arch.plans.ways import pieces, ways
from pyconv_search.arch.presets import preset
from pyconv_search.arch.spec import Architecture, Conv
from pyconv_search.models import build
from pyconv_search.ops import PSConv2d, PyConv2d, execute
from pyconv_search.ops.packing import pack
from pyconv_search.ops.planning import operation_of, setting_of
from pyconv_search.ops.program import Program, program
from pyconv_search.ops.roofline import processor
from pyconv_search.ops.timing import clock_of, interleaved
from pyconv_search.space.sampling import sample

NETWORKS = (
    "pyconvresnet-50",
    "pyconvhgresnet-50",
    "ps-resnet-50",
    "ps-resnext-50-32x4d",
)
SPACES = ("quickstart", "pyconv_levels_cifar")
# An option that is estimated to take this many times as long as the best is not measured.
HOPELESS = 2.5
# By so much a plan has to beat the estimated one to be written.
CLEARLY = 1.05
# Images of fewer numbers are taken in batches of 32, others of 8.
SMALL = 40_000


def architectures() -> Iterator[Architecture]:
    """The networks whose operations are measured."""
    yield from map(preset, NETWORKS)
    for name in SPACES:
        space = pyconv_search.load_space(Path("spaces") / f"{name}.yaml")
        yield from (found.architecture for found in sample(space, min(12, space.size), 0))


def operations() -> dict[Operation, int]:
    """Every distinct operation of the networks with the width of its images, also with its channels sorted."""
    found: dict[Operation, int] = {}
    for arch in architectures():
        with torch.device("meta"):
            model = build(arch)
        for module in model.modules():
            if isinstance(module, (PSConv2d, PyConv2d)):
                module.register_forward_pre_hook(lambda m, args: _note(m, args[0], found))
        model(torch.empty(1, *arch.input, device="meta"))
    return found


def _note(module: PSConv2d | PyConv2d, x: torch.Tensor, found: dict[Operation, int]) -> None:
    signature = module.signature
    if signature is None:
        return
    operation = operation_of(signature)
    found.setdefault(operation, x.shape[3])
    level = operation.conv.levels[0]
    if isinstance(module, PSConv2d) and sortable(operation.in_channels, level) and sortable(level.width, level):
        found.setdefault(replace(operation, sorted_in=True, sorted_out=True), x.shape[3])


class Case:
    """An operation on random numbers of one type and layout."""

    def __init__(self, operation: Operation, x: torch.Tensor) -> None:
        layout = execute.layout(x)
        self.operation, self.x = operation, x

        def tensor(*shape: int) -> torch.Tensor:
            return torch.randn(shape, device=x.device).to(x.dtype).to(memory_format=layout)

        levels = operation.conv.levels
        self.weights = [
            tensor(level.width, operation.in_channels // level.groups, *side(level)) / math.sqrt(level.width)
            for level in levels
        ]
        out = [(n - 1) // s + 1 for n, s in zip(x.shape[2:], operation.stride, strict=True)]
        self.grad = tensor(len(x), operation.conv.width, *out)

    def run(self, found: Program, direction: str) -> Any:
        """One direction by a program."""
        if direction == "output":
            return execute.output(self.x, pack(self.weights, found), found)
        if direction == "input":
            return execute.input_gradient(self.grad, self.x, pack(self.weights, found), found)
        return execute.weight_gradients(self.grad, self.x, self.weights, found)


def options(operation: Operation, setting: Setting, direction: str) -> dict[tuple[int, int], list[str]]:
    """The ways worth measuring of every run of neighbouring levels, by its begin and end."""
    count, found = len(operation.conv.levels), {}
    for begin in range(count):
        for end in range(begin + 1, count + 1):
            numbers = tuple(range(begin, end))
            costs = {
                way: estimated(
                    operation, pieces(operation, numbers, way), direction, setting.channels_last, setting.half
                )
                for way in ways(operation, numbers)
            }
            if direction != "weight":
                costs = {way: cost for way, cost in costs.items() if not way.startswith("swapped")}
            if costs:
                found[begin, end] = [way for way in costs if costs[way] <= HOPELESS * min(costs.values())]
    return found


def fastest(case: Case, setting: Setting, direction: str, rounds: int) -> Parts:
    """The division of the levels, and the way of each part, that take least time."""
    best: list[tuple[float, Parts]] = [(0.0, ())]
    found = options(case.operation, setting, direction)
    for end in range(1, len(case.operation.conv.levels) + 1):
        divisions = []
        for begin in (begin for begin, other in found if other == end):
            numbers, (before, parts) = tuple(range(begin, end)), best[begin]
            for way, seconds in apart(case, numbers, found[begin, end], direction, rounds).items():
                divisions.append((before + seconds, (*parts, (numbers, way))))
        best.append(min(divisions, key=lambda division: division[0]))
    return best[-1][1]


def apart(case: Case, numbers: tuple[int, ...], found: list[str], direction: str, rounds: int) -> dict[str, float]:
    """The seconds of some levels by themselves, by way."""
    levels = tuple(case.operation.conv.levels[i] for i in numbers)
    own = Case(replace(case.operation, conv=Conv(levels)), case.x)
    parts = {way: ((tuple(range(len(levels))), way),) for way in found}
    times = interleaved(actions(own, parts, direction), rounds=rounds, clock=clock_of(case.x.device))
    return {way: times[way].seconds.median for way in found}


def actions(case: Case, plans: dict[str, Parts], direction: str) -> dict[str, Callable[[], object]]:
    """What runs each of these plans."""
    programs = {name: program(case.operation, plan_of(case.operation, parts)) for name, parts in plans.items()}
    return {name: partial(case.run, found, direction) for name, found in programs.items()}


def settings(device: str) -> Iterator[torch.Tensor]:
    """An empty tensor of every type and layout that is measured."""
    kinds = [(torch.float32, False), (torch.float32, True), (torch.bfloat16, True)]
    for dtype, last in kinds if device == "cpu" else kinds[1:]:
        layout = torch.channels_last if last else torch.contiguous_format
        yield torch.empty(1, 2, 2, 2, dtype=dtype, device=device).to(memory_format=layout)


def measure(options: argparse.Namespace) -> dict[str, dict[str, str]]:
    """By setting and direction, and by operation, the plans that beat the estimate; empty where it stands."""
    table: dict[str, dict[str, str]] = {}
    for operation, pixels in operations().items():
        if options.only not in key_of(operation):
            continue
        batch = options.batch or (32 if operation.in_channels * pixels * pixels < SMALL else 8)
        for like in settings(options.device):
            x = torch.randn(batch, operation.in_channels, pixels, pixels, device=options.device)
            case = Case(operation, x.to(like.dtype).to(memory_format=execute.layout(like)))
            setting = setting_of(case.x)
            for direction in DIRECTIONS:
                name = judge(case, setting, direction, options.rounds)
                table.setdefault(f"{setting}; {direction}", {})[key_of(operation)] = name
    return table


def judge(case: Case, setting: Setting, direction: str, rounds: int) -> str:
    """The name of the fastest plan if it clearly beats the estimate, else nothing; prints both."""
    operation = case.operation
    plans = {
        "fastest": fastest(case, setting, direction, rounds),
        "estimate": least(operation, setting, direction),
        "plain": plain(operation),
    }
    clock = clock_of(case.x.device)
    times = interleaved(actions(case, plans, direction), "fastest", rounds=2 * rounds + 1, clock=clock)
    ratio = times["estimate"].ratio
    better = ratio is not None and ratio.median > CLEARLY and ratio.lower_quartile > 1
    words = [f"{times['fastest'].seconds.median * 1e3:.2f} ms", name_of(plans["fastest"])]
    for name in ("estimate", "plain"):
        words.append(f"{name} {times[name].ratio.median:.2f}×")  # type: ignore[union-attr]
    words += [name_of(plans["estimate"])] * better
    print(f"{key_of(operation)} @{case.x.shape[3]}  {setting}; {direction}:  {'  '.join(words)}", flush=True)
    return name_of(plans["fastest"]) if better else ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plans", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with torch.no_grad():
        table = measure(options)
    if options.write:
        file = Path(str(resources.files(choice.__package__).joinpath("measured.json")))
        document = json.loads(file.read_text(encoding="utf-8"))
        plans = document["plans"]
        for key, found in table.items():
            kept = {**plans.get(key, {}), **found}
            plans[key] = {operation: name for operation, name in sorted(kept.items()) if name}
        where = f"{processor(torch.device(options.device))}, PyTorch {torch.__version__}, {options.threads} thread(s)"
        machines = sorted({*filter(None, document["machine"].split("; ")), where})
        document = {"machine": "; ".join(machines), "plans": dict(sorted(plans.items()))}
        text = json.dumps(document, indent=1, ensure_ascii=False)
        file.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
