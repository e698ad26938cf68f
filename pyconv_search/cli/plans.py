"""What ``cost`` prints of the plans by which a network's convolutions are executed, as text and as plain values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from pyconv_search.arch.plans import network
from pyconv_search.arch.plans.choice import DIRECTIONS, Setting, key_of
from pyconv_search.arch.plans.network import Executed
from pyconv_search.arch.plans.traffic import NOTHING, Work
from pyconv_search.cli.columns import table
from pyconv_search.report.words import count
from pyconv_search.units import quantity, size_text

Rows = Sequence[Executed]


def plans_dict(found: Rows, setting: Setting, batch: int) -> dict[str, Any]:
    """The plans and their work as plain values; multiply-adds and bytes are of ``batch`` images."""
    return {
        "device": setting.device,
        "instructions": setting.instructions,
        "dtype": setting.dtype,
        "channels_last": setting.channels_last,
        "batch": batch,
        **_work_dict(found),
        "parts": [
            {"name": part, **_work_dict(own), "convolutions": [_planned_dict(one) for one in own if one.choices]}
            for part, own in _parts(found)
        ],
    }


def plans_text(found: Rows, setting: Setting, batch: int) -> str:
    """Nominal and executed work by part and in all, and the plans of the convolutions that have any."""
    rows: list[tuple[str, ...]] = [
        ("", "nominal", "", "forward", "", "", "training", "", ""),
        ("part", "MACs", "bytes", "MACs", "ratio", "bytes", "MACs", "ratio", "bytes"),
        *((part, *_columns(own)) for part, own in _parts(found)),
        ("all", *_columns(found)),
    ]
    head = (
        f"executed on {setting}, {count(batch, 'image')}; training: forward and both gradients; "
        "bytes: read and written at least, by convolutions and linear layers"
    )
    plans = _plans(found)
    return "\n".join([head, "", table(rows, range(1, 9)), *(["", *plans] if plans else [])])


def _parts(found: Rows) -> list[tuple[str, list[Executed]]]:
    return [(part, list(own)) for part, own in groupby(found, key=lambda one: one.call.part)]


def _columns(own: Rows) -> tuple[str, ...]:
    least, forward = _sum(own, nominal=True), _sum(own)
    training, least_training = _sum(own, DIRECTIONS), _sum(own, DIRECTIONS, nominal=True)
    return (
        quantity(least.macs, digits=4),
        size_text(least.bytes),
        quantity(forward.macs, digits=4),
        f"{forward.macs / least.macs:.3f}",
        size_text(forward.bytes),
        quantity(training.macs, digits=4),
        f"{training.macs / least_training.macs:.3f}",
        size_text(training.bytes),
    )


def _plans(found: Rows) -> list[str]:
    """Every operation that has plans, how often it occurs, its plans; and why they were chosen."""
    times, reasons = Counter[str](), Counter[str]()
    said: dict[str, str] = {}
    for one in found:
        if one.choices and one.call.operation is not None:
            key = key_of(one.call.operation)
            times[key] += one.call.times
            reasons.update(choice.reason for choice in one.choices.values() if key not in said)
            said[key] = network.plans_text(one.choices)
    lines = [f"{times[key]} × {key}\n    {text}" for key, text in said.items()]
    return [*lines, *(["", *(f"{count(n, 'plan')}: {reason}" for reason, n in reasons.items())] if lines else [])]


def _sum(own: Iterable[Executed], directions: Sequence[str] = DIRECTIONS[:1], nominal: bool = False) -> Work:
    return sum(((one.nominal if nominal else one.work)[d] for one in own for d in directions), NOTHING)


def _work_dict(own: Rows) -> dict[str, Any]:
    """The work of each direction, nominal and executed."""
    return {
        kind: {d: {"macs": work.macs, "bytes": work.bytes} for d in DIRECTIONS for work in [_sum(own, (d,), least)]}
        for kind, least in (("nominal", True), ("executed", False))
    }


def _planned_dict(one: Executed) -> dict[str, Any]:
    assert one.call.operation is not None
    plans = {d: {"plan": choice.plan.name, "reason": choice.reason} for d, choice in one.choices.items()}
    return {"operation": key_of(one.call.operation), "times": one.call.times, "plans": plans, **_work_dict([one])}
