"""What ``cost`` prints: a network's cost by part and in all, as text and as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from pyconv_search.arch.canonical import to_dict
from pyconv_search.arch.cost import Cost, Part
from pyconv_search.arch.spec import Architecture, Conv
from pyconv_search.arch.trace import each
from pyconv_search.cli.columns import table
from pyconv_search.units import quantity, size_text

ITEMSIZES = {"float32": 4, "bfloat16": 2, "float16": 2}


def cost_dict(arch: Architecture, found: Cost, batch: int, dtype: str) -> dict[str, Any]:
    """The cost as plain values."""
    return {
        "arch_id": arch.arch_id,
        **dataclasses.asdict(found),
        "gmacs": found.gmacs,
        "memory": {"batch": batch, "dtype": dtype, **_memory(found, batch, dtype)},
        "architecture": to_dict(arch),
    }


def _memory(found: Cost, batch: int, dtype: str) -> dict[str, int]:
    """Bytes."""
    itemsize = ITEMSIZES[dtype]
    return {
        "weights": found.weight_bytes(itemsize),
        "inference": found.inference_bytes(batch, itemsize),
        "training": found.training_bytes(batch, itemsize),
    }


def cost_text(name: str, arch: Architecture, found: Cost, batch: int, dtype: str) -> str:
    """The cost of a network by part, by level of its pyramids, and in all, per image."""
    rows: list[tuple[str, ...]] = [("part", "output", "params", "MACs", "thop-2019", "activations")]
    convs = {f"stage{i}": stage.conv for i, stage in enumerate(arch.stages, 1)}
    for part in found.parts:
        size = "×".join(map(str, part.size))
        rows.append((part.name, size, *_counts(part.params, part.macs, part.thop, part.activations)))
        rows += _levels(part, convs.get(part.name))
    rows.append(("all", "", *_counts(found.params, found.macs, found.thop, found.activations)))
    head = f"{name}  arch_id {arch.arch_id[:16]}  input {'×'.join(map(str, arch.input))}, {arch.classes} classes"
    return "\n".join([head, "", table(rows, (2, 3, 4, 5)), "", *_summary(found, batch, dtype)])


def _counts(*numbers: int) -> tuple[str, ...]:
    return tuple(f"{number:,}" for number in numbers)


def _levels(part: Part, conv: Conv | None) -> Iterator[tuple[str, ...]]:
    """One line a level of the part's pyramids, over all its blocks."""
    for j, level in enumerate(part.levels):
        what = ""
        if conv is not None:
            kernel = "×".join(map(str, each(conv.levels[j].kernel, len(part.size) - 1)))
            what = f"{kernel}, {conv.levels[j].width}, G={conv.levels[j].groups}"
        yield f"  level {j + 1}", what, *_counts(level.params, level.macs), "", ""


def _summary(found: Cost, batch: int, dtype: str) -> list[str]:
    memory = {name: size_text(size) for name, size in _memory(found, batch, dtype).items()}
    attention = f"; {quantity(found.executed, digits=4)} with attention's matrix products"
    return [
        f"{quantity(found.params, digits=4)} parameters, {quantity(found.macs, 'MACs', 4)} (multiply-adds of "
        f"convolutions and linear layers{attention if found.executed != found.macs else ''}), "
        f"{quantity(found.thop, 'FLOPs', 4)} by thop-2019",
        f"receptive field {found.receptive_field} px",
        f"{dtype}, batch {batch}: weights {memory['weights']}, activations at their peak {memory['inference']} in "
        f"inference, {memory['training']} in training",
    ]
