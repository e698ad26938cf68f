"""Architectures costed per second: the closed form, one by one and over arrays, against modules on the meta device.

For every file of a folder of search spaces, side by side in one run on one core:

- *cold*: ``arch.cost.cost`` over a seeded sample of different architectures, all its caches empty at the start,
- *warm*: the same when every stage has been seen,
- *resolved*: ``space.architecture`` and then ``cost``, from an assignment of the parameters, caches empty at the start,
- *arrays*: ``space.arrays.Costs`` over random rows of choices with nothing learned before, and *again*, over the same
  rows when all is learned,
- *meta*: ``models.build`` on the meta device,
- *counted*: the same, one image through it under ``torch.utils.flop_counter.FlopCounterMode``, and the sum over its
  parameters. Meta and counted are timed on the first ``--built`` architectures of the sample.

Drawing the sample and the rows is in none of the rates. The counts of MACs and parameters must be equal, of the built
networks and the closed form, and every cost over arrays must be that one by one; exit status 1 if one is not.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import per_second
from pyconv_search.arch.cost import cost
from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.models import build
from pyconv_search.space.arrays import COLUMNS, Costs
from pyconv_search.space.choices import draws, encode
from pyconv_search.space.sampling import Sample, sample
from pyconv_search.space.space import Space, load_space

SECONDS = 0.5
RATES = ("cold", "warm", "resolved", "arrays", "again", "meta", "counted")
RATIOS = (("cold", "meta"), ("cold", "counted"), ("arrays", "cold"), ("again", "cold"), ("again", "counted"))


@dataclass(frozen=True, slots=True)
class Line:
    """Architectures per second in one space by the names in RATES, and of how many all counts agreed."""

    space: str
    networks: int
    rates: dict[str, float]
    compared: int
    agreed: int


def main(arguments: list[str] | None = None) -> int:
    """Print the rates and the ratios of every space; 1 if a count differs."""
    options = _options(arguments)
    torch.set_num_threads(1)
    print(f"{'architectures a second':24}{'networks':>9}{''.join(f'{name:>12}' for name in RATES)}{'agree':>12}")
    lines = [measure(file, options) for file in sorted(options.spaces.glob("*.yaml"))]
    if not lines:
        print(f"{options.spaces}: holds no .yaml file", file=sys.stderr)
    print(f"\n{'ratio':24}{''.join(f'{a:>8}/{b:<7}' for a, b in RATIOS)}")
    for line in lines:
        print(f"{line.space:24}{''.join(f'{line.rates[a] / line.rates[b]:15,.1f}×' for a, b in RATIOS)}")
    return 0 if lines and all(line.agreed == line.compared for line in lines) else 1


def measure(file: Path, options: argparse.Namespace) -> Line:
    """Measure one space and print its line."""
    space = load_space(file)
    samples = list(_different(sample(space, options.networks, options.seed)))
    architectures = [s.architecture for s in samples]
    few = architectures[: options.built]
    closed = [(c.executed, c.params) for c in map(cost, few)]
    arrays, again = _arrays(space, draws(space, options.rows, options.seed))
    rates = {
        "cold": per_second(cost, architectures, _forget, SECONDS),
        "warm": per_second(cost, architectures, lambda: None, SECONDS),
        "resolved": per_second(lambda s: cost(space.resolved(s.values)), samples, _forget, SECONDS),
        "arrays": arrays,
        "again": again,
        "meta": _rate(_on_meta, few)[0],
    }
    rates["counted"], found = _rate(counted, few)
    agreed = sum(a == b for a, b in zip(found, closed, strict=True)) + _equal_over_arrays(space, samples)
    line = Line(file.stem, len(samples), rates, len(few) + len(samples), agreed)
    shown = "".join(f"{rates[name]:12,.{0 if rates[name] >= 1000 else 1}f}" for name in RATES)
    print(f"{line.space:24}{line.networks:9,}{shown}{f'{line.agreed}/{line.compared}':>12}", flush=True)
    return line


def _different(samples: Iterator[Sample]) -> Iterator[Sample]:
    """The samples, as many as a small space has."""
    try:
        yield from samples
    except UserError:
        return


def _forget() -> None:
    """Empty every cache of the modules that architectures and their costs come from."""
    for name, module in list(sys.modules.items()):
        if name.startswith("pyconv_search.arch"):
            for value in list(vars(module).values()):
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


def _arrays(space: Space, choices: Any) -> tuple[float, float]:
    """Rows costed per second with nothing learned before, the median of three times, and when all is learned."""
    first, again = [], []
    for _ in range(3):
        _forget()
        costs = Costs(space)
        for seconds in (first, again):
            begun = time.perf_counter()
            costs(choices)
            seconds.append(time.perf_counter() - begun)
    return len(choices) / float(np.median(first)), len(choices) / float(np.median(again))


def _equal_over_arrays(space: Space, samples: list[Sample]) -> int:
    """How many of the samples cost over arrays what they cost one by one."""
    columns = Costs(space)(encode(space, [s.values for s in samples]))
    return sum(all(columns[name][i] == getattr(s.cost, name) for name in COLUMNS) for i, s in enumerate(samples))


def _rate(action: Callable[[Architecture], Any], architectures: list[Architecture]) -> tuple[float, list[Any]]:
    """How many architectures a second the action takes, in one pass after a first one; and its results."""
    action(architectures[0])
    begun = time.perf_counter()
    found = [action(architecture) for architecture in architectures]
    return len(architectures) / (time.perf_counter() - begun), found


def _on_meta(architecture: Architecture) -> None:
    with torch.device("meta"):
        build(architecture)


def counted(architecture: Architecture) -> tuple[int, int]:
    """(MACs, params) of the built network; FlopCounterMode counts two operations for one multiply-add."""
    with torch.device("meta"):
        network, image = build(architecture).eval(), torch.empty(1, *architecture.input)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops() // 2, sum(parameter.numel() for parameter in network.parameters())


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.costs", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--spaces", type=Path, default=Path(__file__).parent.parent / "spaces", help="folder of spaces")
    parser.add_argument("--networks", type=int, default=1000, help="sample size (all, where a space has fewer)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of choices over arrays")
    parser.add_argument("--built", type=int, default=24, help="how many of them are built")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
