"""Training as `run` does it, beside a plain loop over the same network; and what the data take of it.

*ours* is a step of the training loop: augmentation of the batch, loss, backward pass, optimizer, the sums of loss and
errors; channels_last, sorted channels, deterministic algorithms; in the numbers that `run` chooses here, and in
float32. *plain* is a loop over the same network and a constant batch, without augmentation, sums or determinism:
float32, contiguous, eager, PyTorch's own settings, torch.optim.SGD. Ratios are our images a second over those of the
plain loop, taken within each round, and then the median; their quartiles stand in brackets. MFU: the multiply-adds of
the network, three times, a second over the highest rate that this machine reached, in the same numbers.

The second table compares training on images in memory, cropped and mirrored as the CIFAR recipe has it, with training
on one constant batch: by how much images a second rise if the data cost nothing.

On a CPU the process starts anew with glibc's variables, so that freed memory is kept, as the trials of a study have it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.ops import header
from pyconv_search.cores import usable_cores
from pyconv_search.training import allocator

SPACES = Path(__file__).parent.parent / "spaces"
NETWORKS = (
    "pyconvresnet-50",
    "29 layers, 32 px, levels (3,2,1)",
    "29 layers, 32 px, pattern {1,2,1,4}",
    "quick start, levels (3,2,1)",
    "quick start, pattern {1,2,1,4}",
)
# The least that our images a second may be of the plain loop's.
TARGETS = {"cpu": 1.3, "cuda": 2.0}
# The most, in percent, that images a second may rise without the data.
DATA_TARGET = 5
# Images and classes of data sets, and networks for them: the space and the values of its parameters.
SHAPES = {"cifar10": ((3, 32, 32), 10), "fashion-mnist": ((1, 28, 28), 10)}
LEARNERS = {
    "quick start, levels (1,1,1)": ("quickstart", {"levels": [1, 1, 1], "pattern": [1]}),
    "quick start, pattern {1,2,1,4}": ("quickstart", {"levels": [1, 1, 1], "pattern": [1, 2, 1, 4]}),
    "29 layers, levels (3,2,1)": ("pyconv_levels_cifar", {"levels": [3, 2, 1], "downsampling": "conv"}),
}


def main(arguments: list[str] | None = None) -> int:
    """Measure what the options ask for and print it as Markdown."""
    options = _options(arguments)
    if options.device == "cpu":
        allocator.restart_with_it()
    import torch

    torch.set_num_threads(options.threads or min(torch.get_num_threads(), usable_cores()))
    print(header(options.device), flush=True)
    if not options.data:
        against_plain(options)
    against_constant(options)
    return 0


def against_plain(options: argparse.Namespace) -> None:
    """The table of ratios to the plain loop."""
    from pyconv_search.cli.bench_train import Measured, dtype_of
    from pyconv_search.ops.roofline import measure_roofline
    from pyconv_search.training.speed import OURS, PLAIN, measure

    print(f"\ntarget: ≥ {TARGETS[options.device]}\n")
    print("| network | batch | numbers | ratio, training | ratio, forward | ours, images/s | plain, images/s | MFU |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    rooflines, clock = {}, processor_clock if options.processor_time else None
    for name in options.networks:
        for case in _cases(name, options):
            rows = {(row.mode, row.what): row for found in measure(case, options.seconds, True, clock) for row in found}
            dtype = dtype_of(case)
            if dtype not in rooflines:
                rooflines[dtype] = measure_roofline(case.device, dtype, min(3.0, options.seconds))
            ours, plain = rows["training", OURS], rows["training", PLAIN]
            mfu = Measured(name, "", case, tuple(rows.values()), rooflines[dtype]).mfu(ours)
            ratios = [_ratio(rows[mode, PLAIN].ratio) for mode in ("training", "forward")]
            rates = [f"{row.images_per_second:.4g}" for row in (ours, plain)]
            # The roofline is timed by the wall clock, and would say nothing beside the time of one process.
            share = "–" if options.processor_time else f"{mfu:.0%}"
            _line(name, case.recipe.batch, str(dtype).removeprefix("torch."), *ratios, *rates, share)


def _cases(name: str, options: argparse.Namespace) -> Iterator:
    """The network in the numbers that `run` chooses, and in float32 where these are others."""
    from benchmarks.networks import architecture
    from pyconv_search.training.device import find_device, precision

    arch, device = architecture(name), find_device(options.device)
    for wanted in dict.fromkeys((precision(_recipe(arch, options, "auto"), device), "fp32")):
        yield _case(arch, _recipe(arch, options, wanted), device)


def _recipe(arch, options: argparse.Namespace, precision: str):
    """The papers' recipe for such images."""
    from pyconv_search.cli.bench_train import recipe_for

    large = arch.input[-1] >= 128
    batch = (options.batch if large else options.small_batch) or {
        ("cpu", True): 16,
        ("cpu", False): 128,
        ("cuda", True): 256,
        ("cuda", False): 1024,
    }[options.device, large]
    given = {"batch": batch, "precision": precision, "deterministic": not options.nondeterministic}
    return recipe_for(arch, None, given, options.device)[1]


def _case(arch, recipe, device):
    import torch

    from pyconv_search.training.speed import Case

    return Case(arch, recipe, device, torch.get_num_threads())


def against_constant(options: argparse.Namespace) -> None:
    """The table of what the data take."""
    from pyconv_search.space.space import load_space

    print(f"\ntarget: ≤ {DATA_TARGET} %\n\n| data | network | numbers | images/s | rise without the data |")
    print("|---|---|---|---|---|", flush=True)
    for data, (size, classes) in SHAPES.items():
        for name, (space, values) in LEARNERS.items():
            arch = load_space(SPACES / f"{space}.yaml").architecture(values, size, classes)
            _constant_line(data, name, arch, options)


def _constant_line(data: str, name: str, arch, options: argparse.Namespace) -> None:
    from pyconv_search.cli.bench_train import dtype_of
    from pyconv_search.ops.timing import clock_of, interleaved
    from pyconv_search.training.device import find_device
    from pyconv_search.training.speed import Constant, call, random_source, ready

    device = find_device(options.device)
    case = _case(arch, _recipe(arch, options, "auto"), device)
    batch, batches = case.recipe.batch, 2
    source, learner = random_source(arch, batch * batches, device), ready(case)
    constant = Constant(source.pixels[:batch], source.labels[:batch], source.mean, source.std, batches)
    actions = {
        "data": call("training", case, learner, source),
        "constant": call("training", case, learner, constant),
    }
    clock = processor_clock if options.processor_time else clock_of(device)
    times = interleaved(actions, "constant", seconds=4 * options.seconds, clock=clock)
    ratio, rate = times["data"].ratio, batch * batches / times["data"].seconds.median
    rise, low, high = (100 * (each - 1) for each in (ratio.median, ratio.lower_quartile, ratio.upper_quartile))
    dtype = str(dtype_of(case)).removeprefix("torch.")
    _line(data, name, dtype, f"{rate:.4g}", f"{rise:.1f} % ({low:.1f} to {high:.1f})")


def processor_clock(action: Callable[[], object]) -> Callable[[], float]:
    """The clock of the time that the processor spent on this process, whatever others did meanwhile."""
    begun = time.process_time()
    action()
    seconds = time.process_time() - begun
    return lambda: seconds


def _ratio(ratio) -> str:
    return f"{ratio.median:.2f} ({ratio.lower_quartile:.2f}–{ratio.upper_quartile:.2f})"


def _line(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), help="of benchmarks.networks, or presets")
    parser.add_argument("--data", action="store_true", help="only what the data take")
    parser.add_argument("--processor-time", action="store_true", help="of this process instead of the wall "
                        "clock's: for one thread of a machine that others use")  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, help="images of 128 px and more at once; default: 16, on CUDA 256")
    parser.add_argument("--small-batch", type=int, help="smaller images at once; default: 128, on CUDA 1024")
    parser.add_argument("--nondeterministic", action="store_true", help="ours with the recipe's deterministic: false")
    parser.add_argument("--seconds", type=float, default=10.0, help="at least, for each comparison")
    parser.add_argument("--threads", type=int, help="of a CPU; default: PyTorch's")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
