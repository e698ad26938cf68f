"""What ``plan`` says of the hours of a study: measured here, scaled from a given rate, or why they are not known."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from pyconv_search.cores import usable_cores
from pyconv_search.errors import UserError
from pyconv_search.report.words import count, listed
from pyconv_search.study.plan import Candidate
from pyconv_search.study.study import Study
from pyconv_search.training import estimate
from pyconv_search.training.estimate import Estimate
from pyconv_search.units import device_time, duration, number, quantity

# For all networks together.
SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Found:
    """The networks that were looked at, and the estimate or ``why`` there is none (empty if none was wanted)."""

    rows: tuple[Candidate, ...] = ()
    estimate: Estimate | None = None
    why: str = ""

    @property
    def measured(self) -> list[str]:
        """The names of the networks that were measured."""
        rates = self.estimate.rates if self.estimate else ()
        return [row.name for row, rate in zip(self.rows, rates, strict=False) if rate.measured]


def found(study: Study, measure: bool, images_per_second: float | None) -> Found:
    """The estimate of a study, measured in a process of its own unless a rate is given or measuring is not wanted."""
    if images_per_second is None and not measure:
        return Found()
    rows, cpus = tuple(estimate.networks(study)), usable_cores()
    if images_per_second is not None:
        gpu = study.resources.gpu
        room = estimate.parts(max(1, gpu), gpu) if gpu else estimate.room_on(study.resources, cpus, 0)
        return Found(rows, estimate.scaled(study, rows, images_per_second, room))
    from pyconv_search.training.rates import rates_apart

    if sys.stderr.isatty():
        print("measuring …", end="\r", file=sys.stderr, flush=True)
    try:
        rates = rates_apart(estimate.to_measure(study, rows), SECONDS)
    except UserError as error:
        middle = rows[estimate.median(rows)]
        of = f"of the median network, {middle.name} ({quantity(middle.cost.macs, 'MACs', 4)})"
        return Found(rows, None, f"{error}; --images-per-second X gives the rate at which one trial trains, {of}")
    room = estimate.room_on(study.resources, cpus, rates["gpus"])
    return Found(rows, estimate.estimated(study, rows, rates, room))


def found_dict(found: Found) -> dict[str, Any] | None:
    """The estimate as plain values; None where none was wanted."""
    if found.estimate is None:
        return {"why": found.why} if found.why else None
    return estimate.plain(found.rows, found.estimate)


def found_lines(found: Found, together: int = 1) -> list[str]:
    """The estimate for people; ``together`` as a study's resources have it."""
    known = found.estimate
    if known is None:
        return [f"its hours are not known: {found.why}"] if found.why else []
    here = "no trial fits on this machine"
    if known.wall_seconds is not None:
        where = "this machine"
        if known.unit == "GPU" and not found.measured:
            where = count(max(1, int(known.devices)), "GPU")
        here = f"{duration(known.wall_seconds)} on {where}, {count(known.concurrent, 'trial')} at a time"
    alone = "" if together == 1 else ", and seeds are trained one by one"
    how = f"measured on {known.device}: {listed(found.measured)}" if found.measured else _given(found, known)
    return [
        f"{device_time(known.device_seconds, known.unit)}; {here}; if no trial is stopped early or slows another"
        f"{alone}",
        how,
    ]


def _given(found: Found, known: Estimate) -> str:
    """What the rate given refers to: one trial, of which a device may hold several."""
    middle = estimate.median(found.rows)
    rate = f"{known.rates[middle].training:,.6g}"
    one = f"scaled from the rate given: {rate} images/s for one trial of the median network, {found.rows[middle].name}"
    beside = estimate.parts(1, known.devices) if known.unit == "GPU" else 1
    if beside > 1:
        whole = f"{known.rates[middle].training * beside:,.6g}"
        return f"{one}, while {beside} such trials share its GPU (together {whole} images/s)"
    return f"{one}, on all its {known.devices:g} GPUs" if known.unit == "GPU" and known.devices > 1 else one


def rate_dict(found: Found, index: int) -> dict[str, Any]:
    """The rates of one network."""
    if found.estimate is None:
        return {}
    rate = found.estimate.rates[index]
    return {
        "images_per_second": rate.training,
        "validation_images_per_second": rate.evaluation,
        "measured": rate.measured,
    }


def rate_head(found: Found) -> tuple[str, ...]:
    """The heading of the column of rates, where there is one."""
    return () if found.estimate is None else ("images/s a trial",)


def rate_cells(network: dict[str, Any]) -> tuple[str, ...]:
    """The cell of a network of :func:`rate_dict`; ~ where it is interpolated."""
    if "images_per_second" not in network:
        return ()
    return (f"{'' if network['measured'] else '~'}{number(network['images_per_second'], 4)}",)
