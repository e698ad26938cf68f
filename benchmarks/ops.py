"""The operators, and with ``--networks`` whole networks, beside standard ones timed in the same rounds.

Every ratio is a time over that of ``nn.Conv2d`` 3×3 of the same channels, stride, layout and type (of the standard
network), taken within each round, and then the median; its quartiles stand in brackets. Timed are

- *ours*: the module of this package by the plans that it chooses, its channels in the order of a lone module;
- *sorted*: the same with its channels sorted on both sides, as they are in a network after ``sort_channels``;
- *plain*: what the papers' released code does. PyConv: parallel grouped convolutions and a concatenation. PSConv: a
  3×3 convolution whose weight is masked in every step, and two grouped convolutions;
- networks: *ours* with sorted channels as in training, *as built* without, and *plain*.

*forward* is without autograd; *training* the output and the gradients of input and weights, or a step of SGD with
momentum. 16-bit operators hold 16-bit weights; networks run under autocast. Targets are bounds for the best of ours.
On a CPU the process starts anew with glibc's variables, so that freed memory is kept, as the trials of a study have it.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
from collections.abc import Iterator

from pyconv_search.cores import usable_cores
from pyconv_search.files import expanded
from pyconv_search.training import allocator

SETTINGS = ("float32 contiguous", "float32 channels_last", "bfloat16 channels_last")
OPERATORS = (
    *(f"psconv-{width}" for width in (64, 128, 256, 512)),
    *("pyconv4-64", "pyconv3-128", "pyconv2-256"),
    *("pyconvhg4-128", "pyconvhg3-256", "pyconvhg2-512"),
    *(f"psconv-g32-{width}" for width in (128, 256, 512, 1024)),
)
# The most that each may take, as a ratio, by device; what has no target is told for its own sake.
TARGETS = {
    "cpu": {
        ("psconv-64", "forward"): 1.45,
        ("psconv-128", "forward"): 1.08,
        ("psconv-256", "forward"): 1.02,
        ("psconv-512", "forward"): 0.95,
        ("psconv-64", "training"): 1.40,
        ("psconv-128", "training"): 1.12,
        ("psconv-256", "training"): 1.02,
        ("psconv-512", "training"): 1.00,
        ("pyconv4-64", "forward"): 2.9,
        ("pyconv3-128", "forward"): 1.2,
        ("pyconv2-256", "forward"): 0.85,
        ("ps-resnet-50", "forward"): 1.03,
        ("ps-resnet-50", "training"): 1.10,
        ("pyconvresnet-50", "training"): 1.2,
    },
    "cuda": {
        **{("psconv-64", mode): 1.4 for mode in ("forward", "training")},
        **{(f"psconv-{width}", mode): 1.1 for width in (128, 256, 512) for mode in ("forward", "training")},
        **{("pyconv4-64", mode): 1.2 for mode in ("forward", "training")},
        **{(name, "training"): 1 / 0.95 for name in ("ps-resnet-50", "pyconvresnet-50")},
    },
}
COLUMNS = ("ours", "sorted", "plain")
MODES = ("forward", "training")


def main(arguments: list[str] | None = None) -> int:
    """Measure what the options ask for and print it as Markdown."""
    options = _options(arguments)
    if options.device == "cpu":
        allocator.restart_with_it()
    import torch

    torch.set_num_threads(options.threads or min(torch.get_num_threads(), usable_cores()))
    torch.backends.cudnn.benchmark = True  # both sides at their best
    print(header(options.device), flush=True)
    if options.picture:
        from benchmarks.picture import draw

        draw(options.picture, next(places(options)))
    elif options.networks:
        networks(options)
    else:
        operators(options)
    return 0


def header(device: str) -> str:
    """What the times depend on: processor, threads or driver, versions."""
    import torch

    from pyconv_search.cli.bench import versions
    from pyconv_search.ops.roofline import processor

    found = {"Python": platform.python_version(), **versions()}
    threads = torch.get_num_threads()
    where = f"{threads} thread{'s' * (threads != 1)}"
    if device == "cuda":
        found["cuDNN"], where = str(torch.backends.cudnn.version()), f"driver {driver()}"
    names = ", ".join(f"{name} {version}" for name, version in found.items())
    return f"{processor(torch.device(device))}, {where}; {names}"


def driver() -> str:
    """The version of NVIDIA's driver, as its own tool tells it."""
    try:
        words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


def places(options: argparse.Namespace) -> Iterator:
    """The settings that are asked for, each with the batch of the operators."""
    import torch

    from pyconv_search.ops.bench import Place

    for setting in options.settings:
        dtype, layout = setting.split()
        batch = options.batch or (200 if options.device == "cuda" else 16)
        device = torch.device(options.device)
        yield Place(device, getattr(torch, dtype), layout == "channels_last", batch, options.seconds)


def operators(options: argparse.Namespace) -> None:
    """The table of every setting, and the best of all."""
    from pyconv_search.arch.plans.operators import named

    best: dict[tuple[str, str], tuple[float, str]] = {}
    for setting, place in zip(options.settings, places(options), strict=True):
        print(f"\n### {setting}, batch {place.batch}\n\n| | | target | {' | '.join(COLUMNS)} | standard |")
        print("|---|---|---|" + "---|" * (len(COLUMNS) + 1), flush=True)
        for operator in named(options.operators or OPERATORS):
            for mode in MODES:
                times = _operator(operator, place, mode)
                key = (operator.name, mode)
                cells = [_ratio(times[column]) if column in times else "" for column in COLUMNS]
                print(_line(operator.name, mode, _target(options, key), *cells, _each(times["standard"])), flush=True)
                for column in ("ours", "sorted"):
                    if column in times:
                        found = (times[column].ratio.median, f"{setting}, {column}")
                        best[key] = min(best.get(key, found), found)
    print("\n### best\n\n| | | target | best | of |\n|---|---|---|---|---|")
    for key, (ratio, what) in best.items():
        print(_line(*key, _target(options, key), f"{ratio:.2f}", what))


def _operator(operator, place, mode: str) -> dict:
    """The times of an operator's implementations, interleaved; those of a standard convolution as ``standard``."""
    from copy import deepcopy

    from torch import nn

    from benchmarks.plain import plain
    from pyconv_search.arch.plans.operation import sortable
    from pyconv_search.ops import build_conv
    from pyconv_search.ops.bench import call, compared

    own = operator.operation
    (level, *others), shape = own.conv.levels, (own.in_channels, own.conv, own.stride)
    modules = {"standard": nn.Conv2d(own.in_channels, own.conv.width, 3, own.stride, 1, bias=False)}
    modules["ours"] = build_conv(own.conv, own.in_channels, own.stride)
    if not others and sortable(own.in_channels, level) and sortable(own.conv.width, level):
        modules["sorted"] = deepcopy(modules["ours"])
        modules["sorted"].sorted_in = modules["sorted"].sorted_out = True
    if (released := plain(*shape)) is not None:
        modules["plain"] = released
    x = place.images(own.in_channels, operator.height, operator.width)
    actions = {name: call(mode, place.module(module), x) for name, module in modules.items()}
    return compared(actions, "standard", place.device, place.seconds)


def networks(options: argparse.Namespace) -> None:
    """The table of whole networks for every setting."""
    from dataclasses import replace

    from benchmarks.networks import GROUPS, VARIANTS, measure

    for setting, place in zip(options.settings, places(options), strict=True):
        print(
            f"\n### {setting}\n\n| | | batch | target | {' | '.join(VARIANTS)} | ours, images/s | baseline, images/s |"
        )
        print("|---|---|---|---|" + "---|" * (len(VARIANTS) + 2), flush=True)
        for group in GROUPS:
            batch = _batch(options, group.small)
            for mode in MODES:
                for name, times in measure(group, replace(place, batch=batch), mode == "training"):
                    cells = [_ratio(times[variant]) for variant in VARIANTS]
                    rates = [f"{batch / times[key].seconds.median:.4g}" for key in ("ours", "baseline")]
                    print(_line(name, mode, batch, _target(options, (name, mode)), *cells, *rates), flush=True)


def _batch(options: argparse.Namespace, small: bool) -> int:
    """Images at once: what is asked for, or what fits 16 GB (a GPU of 80 GB)."""
    if small:
        return options.small_batch or (1024 if options.device == "cuda" else 128)
    return options.batch or (256 if options.device == "cuda" else 8)


def _target(options: argparse.Namespace, key: tuple[str, str]) -> str:
    target = TARGETS[options.device].get(key)
    return "" if target is None else f"≤ {target:.2f}"


def _ratio(times) -> str:
    ratio = times.ratio
    return f"{ratio.median:.2f} ({ratio.lower_quartile:.2f}–{ratio.upper_quartile:.2f})"


def _each(times) -> str:
    return f"{times.seconds.median * 1e3:.3f} ms"


def _line(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ops", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("operators", nargs="*", help="such as psconv-64; default: the papers'")
    parser.add_argument("--networks", action="store_true", help="whole networks instead")
    parser.add_argument(
        "--picture",
        type=expanded,
        metavar="FILE.svg",
        help="time against MACs of every plan, in the first setting, instead",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, help="default: all, on CUDA bfloat16 channels_last")
    parser.add_argument("--batch", type=int, help="images at once; default: 16 for operators (CUDA: 200, as in the "
                        "PSConv paper) and 8 for networks of 224 px (CUDA: 256)")  # fmt: skip
    parser.add_argument("--small-batch", type=int, help="of networks for small images; default: 128 (CUDA: 1024)")
    parser.add_argument("--seconds", type=float, default=2.0, help="at least, for each comparison")
    parser.add_argument("--threads", type=int, help="of a CPU; default: PyTorch's")
    options = parser.parse_args(arguments)
    options.settings = options.settings or (SETTINGS if options.device == "cpu" else SETTINGS[-1:])
    return options


if __name__ == "__main__":
    sys.exit(main())
