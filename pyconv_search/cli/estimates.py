"""What ``plan`` says of the hours of a study: measured here, scaled from a given rate, or why they are not known."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from pyconv_search.cores import usable_cores
from pyconv_search.errors import UserError
from pyconv_search.report.words import count, hours, listed
from pyconv_search.study.plan import Candidate
from pyconv_search.study.study import Study
from pyconv_search.training import estimate
from pyconv_search.training.estimate import Estimate

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
        of = f"of the median network, {middle.name} ({middle.cost.gmacs:.4g} GMACs)"
        return Found(rows, None, f"{error}; --images-per-second X gives the rate of training {of}")
    room = estimate.room_on(study.resources, cpus, rates["gpus"])
    return Found(rows, estimate.estimated(study, rows, rates, room))


def found_dict(found: Found) -> dict[str, Any] | None:
    """The estimate as plain values; None where none was wanted."""
    if found.estimate is None:
        return {"why": found.why} if found.why else None
    return estimate.plain(found.rows, found.estimate)


def found_lines(found: Found) -> list[str]:
    """The estimate for people."""
    known = found.estimate
    if known is None:
        return [f"its hours are not known: {found.why}"] if found.why else []
    here = "no trial fits on this machine"
    if known.wall_seconds is not None:
        where = "this machine"
        if known.unit == "GPU" and not found.measured:
            where = count(max(1, int(known.devices)), "GPU")
        here = f"{hours(known.wall_seconds)} on {where}, {count(known.concurrent, 'trial')} at a time"
    how = f"measured on {known.device}: {listed(found.measured)}" if found.measured else "scaled from the rate given"
    return [
        f"{hours(known.device_seconds, known.unit)}; {here}; if no trial is stopped early or slows another",
        how,
    ]


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
    return () if found.estimate is None else ("images/s",)


def rate_cells(network: dict[str, Any]) -> tuple[str, ...]:
    """The cell of a network of :func:`rate_dict`; ~ where it is interpolated."""
    if "images_per_second" not in network:
        return ()
    return (f"{'' if network['measured'] else '~'}{network['images_per_second']:,.4g}",)
