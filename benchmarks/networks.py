"""Whole networks timed beside their baselines: inference, and training steps of SGD."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.plain import made_plain
from pyconv_search.arch.presets import preset
from pyconv_search.arch.spec import Architecture
from pyconv_search.models import build
from pyconv_search.models.sorting import sort_channels
from pyconv_search.ops.bench import Place, compared
from pyconv_search.ops.timing import Times
from pyconv_search.space.space import load_space

SPACES = Path(__file__).parent.parent / "spaces"


@dataclass(frozen=True, slots=True)
class Group:
    """Networks for images of one size, and the baseline of all."""

    baseline: str
    networks: tuple[str, ...]
    small: bool = False


GROUPS = (
    Group("resnet-50", ("ps-resnet-50", "pyconvresnet-50", "pyconvhgresnet-50")),
    Group("resnext-50-32x4d", ("ps-resnext-50-32x4d",)),
    Group(
        "29 layers, 32 px",
        ("29 layers, 32 px, pattern {1,2,1,4}", "29 layers, 32 px, levels (3,2,1)"),
        small=True,
    ),
    Group("quick start", ("quick start, pattern {1,2,1,4}", "quick start, levels (3,2,1)"), small=True),
)
# Networks of the shipped spaces: the space and the values of its parameters.
OF_SPACES = {
    "29 layers, 32 px": ("psconv_patterns_cifar", {"pattern": [1], "axes": None}),
    "29 layers, 32 px, pattern {1,2,1,4}": ("psconv_patterns_cifar", {"pattern": [1, 2, 1, 4], "axes": "both"}),
    "29 layers, 32 px, levels (3,2,1)": ("pyconv_levels_cifar", {"levels": [3, 2, 1], "downsampling": "conv"}),
    "quick start": ("quickstart", {"levels": [1, 1, 1], "pattern": [1]}),
    "quick start, pattern {1,2,1,4}": ("quickstart", {"levels": [1, 1, 1], "pattern": [1, 2, 1, 4]}),
    "quick start, levels (3,2,1)": ("quickstart", {"levels": [3, 2, 1], "pattern": None}),
}
VARIANTS: dict[str, Callable[[nn.Module], object]] = {
    "ours": sort_channels,
    "as built": lambda model: None,
    "plain": made_plain,
}


def architecture(name: str) -> Architecture:
    """The network of a preset, or one of OF_SPACES."""
    if name not in OF_SPACES:
        return preset(name)
    space, values = OF_SPACES[name]
    return load_space(SPACES / f"{space}.yaml").architecture(values)


def measure(group: Group, place: Place, training: bool) -> Iterator[tuple[str, dict[str, Times]]]:
    """The times of the networks of a group by variant (``baseline`` and VARIANTS), each network in a run of its own."""
    arch = architecture(group.baseline)
    images = place.images(*arch.input)
    for name in group.networks:
        actions = {"baseline": call(build(arch), place, images, training)}
        for variant, change in VARIANTS.items():
            model = build(architecture(name))
            change(model)
            actions[variant] = call(model, place, images, training)
        yield name, compared(actions, "baseline", place.device, place.seconds)


def call(model: nn.Module, place: Place, images: torch.Tensor, training: bool) -> Callable[[], object]:
    """One step of SGD with momentum, or one inference; 16-bit numbers are those of autocast, as in `run`."""
    model = model.to(place.device).to(memory_format=place.layout).train(training)
    images = images.float()
    half = place.dtype != torch.float32

    def outputs() -> torch.Tensor:
        with torch.autocast(place.device.type, place.dtype, enabled=half):
            return model(images)

    if not training:
        return torch.no_grad()(outputs)
    labels = torch.zeros(len(images), dtype=torch.long, device=place.device)
    # A rate so small that the numbers stay as they are, whose size some processors' speed depends on.
    optimizer = torch.optim.SGD(model.parameters(), 1e-6, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(outputs().float(), labels).backward()
        optimizer.step()

    return step
