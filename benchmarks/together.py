"""Seeds of a network trained side by side, each in a process of its own, against stacks of them, with the same cores.

As many processes train at the same time as ``--processes`` says, each on ``--cpu`` cores (``--gpu`` GPUs, or a part of
one): in one half of the turns each trains one trial, in the other a stack of ``--size`` trials that differ in their
seed. Both are the engine's own training, with the data set's images and their augmentation, without validation and
checkpoints. The ratio is that of images a second, side by side over stacked, round by round: above 1 separate processes
are faster. It is the measurement by which ``resources: {together: auto}`` decides.
"""

from __future__ import annotations

import argparse
from statistics import median
from typing import Any

from pyconv_search.arch.canonical import to_dict
from pyconv_search.arch.cost import cost
from pyconv_search.arch.resnet import resnet
from pyconv_search.arch.spec import Architecture
from pyconv_search.search.connection import connected
from pyconv_search.search.measuring import race
from pyconv_search.study.recipe import Recipe
from pyconv_search.study.recipe import to_dict as recipe_to_dict

# Of spaces/quickstart.yaml (11 layers) and spaces/pyconv_levels_cifar.yaml (29 layers), with other widths.
SIZES: dict[str, dict[str, Any]] = {
    "0.5": {"depth": 11, "width": 12, "expansion": 2, "stem": {"width": 12, "stride": 2}},
    "4": {"depth": 11, "width": 16, "expansion": 2, "stem": {"width": 16, "stride": 1}},
    "12": {"depth": 29, "width": 8, "expansion": 4, "stem": {"width": 8, "stride": 1}},
}
KINDS: dict[str, dict[str, Any]] = {
    "standard": {"levels": [1, 1, 1]},
    "PyConv": {"levels": [3, 2, 1]},
    "PSConv": {"levels": [1, 1, 1], "pattern": [1, 2, 1, 4]},
}


def network(size: str, kind: str, image: tuple[int, int, int], classes: int) -> Architecture:
    """A bottleneck network of about so many million multiply-adds."""
    values = dict(SIZES[size])
    stem = {"kernel": 3, "pool": "none", **values.pop("stem")}
    first = {} if values["depth"] == 29 else {"stages": [{"stride": 2}, {}, {}]}
    return resnet({"block": "bottleneck", "stem": stem, **first, **values, **KINDS[kind]}, image, classes)


def specs(arch: Architecture, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The trials of a stack, as plain values."""
    recipe = Recipe(epochs=30, batch=options.batch, crop=4, flip=True, precision=options.precision)
    common = {
        "name": "",
        "architecture": to_dict(arch),
        "parameters": {},
        "recipe": recipe_to_dict(recipe),
        "data": {"name": options.data, "root": options.root, "validation": None},
        "threads": options.cpu,
        "device": "cuda" if options.gpu else "cpu",
        "folder": None,
        "keep_weights": False,
        "checkpoints": {"every": 1, "minutes": 10.0, "keep": "last"},
    }
    return [{"trial": f"t{seed}", "seed": seed, **common} for seed in range(options.size)]


def main() -> None:
    """Print a row for every network."""
    options = _options()
    image, classes = ((3, 32, 32), 10) if options.data == "cifar10" else ((1, 28, 28), 10)
    print(
        f"{options.processes} processes with {options.cpu} CPU and {options.gpu:g} GPU, stacks of {options.size}, "
        f"batch {options.batch}, {options.precision}, {options.data}"
    )
    print("| network | MMACs | side by side, images/s | stacked, images/s | ratio (lowest to highest) |")
    print("|---|---|---|---|---|")
    with connected(None):
        for size in options.sizes:
            for kind in options.kinds:
                arch = network(size, kind, image, classes)
                resources = (options.processes, options.cpu, options.gpu, options.seconds)
                device, apart, stacked = race(specs(arch, options), *resources)
                ratios = sorted(one / other for one, other in zip(apart, stacked, strict=True))
                print(
                    f"| {kind}, {device} | {cost(arch).macs / 1e6:.2f} "
                    f"| {median(apart):,.0f} | {median(stacked):,.0f} "
                    f"| {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |",
                    flush=True,
                )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--cpu", type=int, default=1)
    parser.add_argument("--gpu", type=float, default=0.0)
    parser.add_argument("--size", type=int, default=3, help="trials in a stack")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    parser.add_argument("--seconds", type=float, default=3.0, help="for each turn; there are six, and one to warm up")
    parser.add_argument("--data", default="cifar10", choices=("cifar10", "fashion-mnist-small"))
    parser.add_argument("--root", help="folder or archive of the data")
    parser.add_argument(
        "--sizes", nargs="*", default=list(SIZES), choices=list(SIZES), help="millions of multiply-adds"
    )
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
