"""Architectures costed per second: the closed form against modules built on the meta device and counted by PyTorch.

For every file of a folder of search spaces, a seeded sample of different architectures is costed

- *cold*: ``arch.cost.cost`` with its cache of stages emptied before every architecture,
- *warm*: the same when every stage has been seen,
- *resolved*: ``space.architecture`` and then ``cost``, from an assignment of the parameters, the cache emptied once
  before the sample, as a search meets it,
- *built*: ``models.build`` on the meta device, one image through it under
  ``torch.utils.flop_counter.FlopCounterMode``, and the sum over its parameters; timed on the first ``--built``
  architectures of the sample and given as a rate.

The rates are those of one core, and drawing the sample is in none of them. ``ratio`` is cold over built: both start
from the same Architecture and know nothing about it. The counts of MACs and parameters must be equal; exit status 1 if
they are not.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import per_second
from pyconv_search.arch import cost as costs
from pyconv_search.arch.cost import cost
from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.models import build
from pyconv_search.space.sampling import Sample, sample
from pyconv_search.space.space import load_space

SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Line:
    """Architectures per second in one space, and how many of ``built_count`` agreed on MACs and parameters."""

    space: str
    networks: int
    cold: float
    warm: float
    resolved: float
    built: float
    built_count: int
    agreed: int


def main(arguments: list[str] | None = None) -> int:
    """Print one line for each space; 1 if a count differs."""
    options = _options(arguments)
    torch.set_num_threads(1)
    print(
        f"{'space':28} {'networks':>8} {'cold':>9} {'warm':>9} {'resolved':>9} {'built':>7} {'ratio':>7} {'agree':>7}"
    )
    lines = [measure(file, options) for file in sorted(options.spaces.glob("*.yaml"))]
    if not lines:
        print(f"{options.spaces}: holds no .yaml file", file=sys.stderr)
    return 0 if lines and all(line.agreed == line.built_count for line in lines) else 1


def measure(file: Path, options: argparse.Namespace) -> Line:
    """Measure one space and print its line."""
    space = load_space(file)
    samples = list(_different(sample(space, options.networks, options.seed)))
    architectures = [s.architecture for s in samples]
    few = architectures[: options.built]
    built, agreed = _built(few)
    line = Line(
        space=file.stem,
        networks=len(samples),
        cold=per_second(_cold, architectures, _forget, SECONDS),
        warm=per_second(cost, architectures, lambda: None, SECONDS),
        resolved=per_second(lambda s: cost(space.architecture(s.values)), samples, _forget, SECONDS),
        built=built,
        built_count=len(few),
        agreed=agreed,
    )
    print(
        f"{line.space:28} {line.networks:8,} {line.cold:9,.0f} {line.warm:9,.0f} {line.resolved:9,.0f} "
        f"{line.built:7.2f} {line.cold / line.built:6,.0f}× {line.agreed:3}/{line.built_count}",
        flush=True,
    )
    return line


def _different(samples: Iterator[Sample]) -> Iterator[Sample]:
    """The samples, as many as a small space has."""
    try:
        yield from samples
    except UserError:
        return


def _forget() -> None:
    costs._stage.cache_clear()


def _cold(architecture: Architecture) -> None:
    _forget()
    cost(architecture)


def _built(architectures: list[Architecture]) -> tuple[float, int]:
    """Architectures built and counted per second, and how many agree with the closed form."""
    counted(architectures[0])
    begun = time.perf_counter()
    found = [counted(architecture) for architecture in architectures]
    seconds = time.perf_counter() - begun
    closed = [(c.macs, c.params) for c in map(cost, architectures)]
    return len(architectures) / seconds, sum(a == b for a, b in zip(found, closed, strict=True))


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
    parser.add_argument("--built", type=int, default=24, help="how many of them are built")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
