"""Measure every way to execute the operators of the known networks, and write the table that plans are chosen from.

    python -m benchmarks.plans [--device cpu] [--threads 1] [--only TEXT] [--write]

Prints for every operation, setting and direction the fastest plan, beside the one that the estimate would have chosen
and how much slower that is. With ``--write`` the fastest go into ``pyconv_search/arch/plans/measured.json``; entries of
other settings stay. Levels of a pyramid are measured apart and together, and the fastest division is taken.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
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
from pyconv_search.ops.planning import operation_of, setting_of
from pyconv_search.ops.program import Program, program
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
HOPELESS = 3.0


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

    def __init__(self, operation: Operation, pixels: int, x: torch.Tensor) -> None:
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
            return execute.output(self.x, self.weights, found)
        if direction == "input":
            return execute.input_gradient(self.grad, self.x, self.weights, found)
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


def fastest(case: Case, setting: Setting, direction: str, rounds: int) -> tuple[Parts, dict[str, float]]:
    """The division of the levels that takes least time, and the seconds of every option by name."""
    seconds: dict[tuple[tuple[int, ...], str], float] = {}
    clock = clock_of(case.x.device)
    for (begin, end), found in options(case.operation, setting, direction).items():
        part = Conv(case.operation.conv.levels[begin:end])
        alone = replace(case.operation, conv=part)
        own = Case(alone, 0, case.x)
        programs = {way: program(alone, plan_of(alone, ((tuple(range(end - begin)), way),))) for way in found}
        actions = {way: lambda p=p, own=own: own.run(p, direction) for way, p in programs.items()}
        times = interleaved(actions, rounds=rounds, clock=clock)
        numbers = tuple(range(begin, end))
        seconds |= {(numbers, way): times[way].seconds.median for way in found}
    best: list[tuple[float, Parts]] = [(0.0, ())]
    for end in range(1, len(case.operation.conv.levels) + 1):
        found_here = [
            (best[numbers[0]][0] + time, (*best[numbers[0]][1], (numbers, way)))
            for (numbers, way), time in seconds.items()
            if numbers[-1] == end - 1
        ]
        best.append(min(found_here, key=lambda option: option[0]))
    return best[-1][1], {name_of((part,)): time for part, time in seconds.items()}


def settings(device: str) -> Iterator[torch.Tensor]:
    """An empty tensor of every type and layout that is measured."""
    kinds = [(torch.float32, False), (torch.float32, True), (torch.bfloat16, True)]
    for dtype, last in kinds if device == "cpu" else kinds[1:]:
        layout = torch.channels_last if last else torch.contiguous_format
        yield torch.empty(1, 2, 2, 2, dtype=dtype, device=device).to(memory_format=layout)


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, str]]:
    """The fastest plans by setting and direction, and by operation."""
    table: dict[str, dict[str, str]] = {}
    for operation, pixels in operations().items():
        if arguments.only and arguments.only not in key_of(operation):
            continue
        small = operation.in_channels * pixels * pixels < 40_000
        batch = arguments.batch or (32 if small else 8)
        for like in settings(arguments.device):
            x = torch.randn(batch, operation.in_channels, pixels, pixels, device=arguments.device)
            x = x.to(like.dtype).to(memory_format=execute.layout(like))
            setting, case = setting_of(x), Case(operation, pixels, x)
            for direction in DIRECTIONS:
                parts, seconds = fastest(case, setting, direction, arguments.rounds)
                candidates = {
                    "fastest": parts,
                    "estimate": least(operation, setting, direction),
                    "plain": plain(operation),
                }
                actions = {
                    name: lambda p=program(operation, plan_of(operation, found)), d=direction: case.run(p, d)
                    for name, found in candidates.items()
                }
                times = interleaved(actions, "fastest", rounds=arguments.rounds, clock=clock_of(x.device))
                if times["estimate"].ratio.median < 0.98:
                    parts = candidates["estimate"]
                table.setdefault(f"{setting}; {direction}", {})[key_of(operation)] = name_of(parts)
                line = f"{times['fastest'].seconds.median * 1e3:8.2f} ms  {name_of(parts)}"
                for name in ("estimate", "plain"):
                    line += f"  | {name} {times[name].ratio.median:.2f}× {name_of(candidates[name])}"
                print(f"{key_of(operation)} @{pixels}  {setting}; {direction}: {line}", flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plans", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    with torch.no_grad():
        table = measure(arguments)
    if arguments.write:
        file = Path(str(resources.files(choice.__package__).joinpath("measured.json")))
        plans = json.loads(file.read_text(encoding="utf-8"))["plans"]
        for key, found in table.items():
            plans[key] = {**plans.get(key, {}), **found}
        ordered = {key: dict(sorted(plans[key].items())) for key in sorted(plans)}
        file.write_text(json.dumps({"plans": ordered}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
