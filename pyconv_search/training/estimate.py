"""What a study will take, from how fast some of its networks are: arithmetic alone, without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pyconv_search.errors import UserError
from pyconv_search.space.sampling import sample
from pyconv_search.study.growth import resolution
from pyconv_search.study.plan import Candidate, candidate, candidates, planned_trials, trial_spec
from pyconv_search.study.recipe import Recipe
from pyconv_search.study.study import Data, Resources, Study

# Networks that stand for those that an adaptive search will propose.
_DRAWN = 16


@dataclass(frozen=True, slots=True)
class Rate:
    """Images per second of one trial alone on its resources; ``measured`` or interpolated."""

    training: float
    evaluation: float
    measured: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """What all trials of a study take if none is stopped early and none slows another.

    ``rates``: of the study's networks, in their order. ``training_seconds`` and ``seconds``: of training, and of
    everything (validation and test, too), summed over the trials. A trial takes ``devices`` of a ``unit``: GPUs, or
    cores of a CPU. ``concurrent`` trials run at a time (0: not even one fits); ``device`` is what was measured on.
    """

    rates: tuple[Rate, ...]
    trials: int
    training_seconds: float
    seconds: float
    longest: float
    devices: float
    unit: str
    concurrent: int
    device: str = ""

    @property
    def device_seconds(self) -> float:
        """Seconds of single devices."""
        return self.seconds * self.devices

    @property
    def wall_seconds(self) -> float | None:
        """How long the machines take; None where no trial fits."""
        return max(self.seconds / self.concurrent, self.longest) if self.concurrent else None


def plain(rows: Sequence[Candidate], found: Estimate) -> dict[str, Any]:
    """The estimate as plain JSON values, with what was measured."""
    values = {key: value for key, value in asdict(found).items() if key not in ("rates", "longest")}
    measured = [
        {
            "name": row.name,
            "config": row.config,
            "macs": row.cost.macs,
            "training": rate.training,
            "evaluation": rate.evaluation,
        }
        for row, rate in zip(rows, found.rates, strict=True)
        if rate.measured
    ]
    own = {"device_seconds": found.device_seconds, "wall_seconds": found.wall_seconds, "measured": measured}
    return {**values, **own}


def networks(study: Study) -> list[Candidate]:
    """The study's networks, or random ones in the place of those that an adaptive search will propose."""
    known = candidates(study)
    if known:
        return known
    info, found = study.data.info, []
    try:
        for drawn in sample(study.space, _DRAWN, study.search.seed, info.input, info.classes):
            found.append(candidate(study, drawn.values))
    except UserError:  # the space holds fewer
        pass
    return [each for each in found if each is not None]


def telling(rows: Sequence[Candidate]) -> list[int]:
    """The positions of the cheapest, the median and the dearest network by multiply-adds."""
    order = _by_cost(rows)
    return list(dict.fromkeys((order[0], median(rows), order[-1])))


def median(rows: Sequence[Candidate]) -> int:
    """The position of the median network by multiply-adds, of two the cheaper."""
    return _by_cost(rows)[(len(rows) - 1) // 2]


def _by_cost(rows: Sequence[Candidate]) -> list[int]:
    return sorted(range(len(rows)), key=lambda i: rows[i].cost.macs)


def to_measure(study: Study, rows: Sequence[Candidate]) -> list[dict[str, Any]]:
    """The descriptions of trials of the telling networks."""
    return [trial_spec(study, rows[i], study.seeds[0], None) for i in telling(rows)]


def estimated(study: Study, rows: Sequence[Candidate], found: Mapping[str, Any], room: int) -> Estimate:
    """The estimate from what :func:`pyconv_search.training.rates.rates` found for the telling networks of ``rows``.

    ``room``: how many trials fit on the machines at once. Between measured networks the seconds of an image are
    interpolated in multiply-adds, beyond them they grow in proportion.
    """
    measured = {i: Rate(**each, measured=True) for i, each in zip(telling(rows), found["rates"], strict=True)}
    rates = [measured.get(i) or _interpolated(rows, measured, row.cost.macs) for i, row in enumerate(rows)]
    return _estimate(study, rows, rates, room, found["device"])


def scaled(study: Study, rows: Sequence[Candidate], images_per_second: float, room: int) -> Estimate:
    """The estimate if the median network trains on so many images a second, and all do as many multiply-adds.

    A forward pass is taken for a third of a training step. ``room``: as for :func:`estimated`.
    """
    middle = rows[median(rows)].cost.macs
    rates = []
    for row in rows:
        training = images_per_second * middle / row.cost.macs
        rates.append(Rate(training, 3 * training / (2 if row.recipe.mirror else 1)))
    return _estimate(study, rows, rates, room, "")


def _interpolated(rows: Sequence[Candidate], measured: Mapping[int, Rate], macs: int) -> Rate:
    points: dict[int, list[Rate]] = {}
    for i, rate in measured.items():
        points.setdefault(rows[i].cost.macs, []).append(rate)
    known = sorted(points)
    nearest = min(max(macs, known[0]), known[-1])

    def per_second(name: str) -> float:
        seconds = [sum(1 / getattr(each, name) for each in points[m]) / len(points[m]) for m in known]
        return 1 / (float(np.interp(nearest, known, seconds)) * macs / nearest)

    return Rate(per_second("training"), per_second("evaluation"))


def trial_seconds(data: Data, recipe: Recipe, rate: Rate) -> tuple[float, float]:
    """The seconds of a trial's training, and of all of it.

    Smaller images count by their pixels, an example of a video by its clips and crops.
    """
    seen, of = _pixels(data, recipe)
    training = seen / of * data.train / rate.training
    views = recipe.clips * recipe.crops if len(data.info.input) == 4 else 1
    return training, training + views * (recipe.epochs * data.held_out + data.info.test) / rate.evaluation


def training_macs(data: Data, row: Candidate) -> int:
    """The multiply-adds of a trial's training, three times those of a forward pass; smaller images by their pixels."""
    seen, of = _pixels(data, row.recipe)
    return 3 * row.cost.macs * data.train * seen // of


def _pixels(data: Data, recipe: Recipe) -> tuple[int, int]:
    """The pixels of an image over all epochs of training, and at its full size."""
    height, width = data.info.input[-2:]
    seen = [math.prod(resolution(recipe, epoch, (height, width))) for epoch in range(recipe.epochs)]
    return sum(seen), height * width


def _estimate(study: Study, rows: Sequence[Candidate], rates: Sequence[Rate], room: int, device: str) -> Estimate:
    each = [trial_seconds(study.data, row.recipe, rate) for row, rate in zip(rows, rates, strict=True)]
    trials = planned_trials(study, len(rows))
    share = trials / len(rows)
    training, everything = (share * sum(column) for column in zip(*each, strict=True))
    resources = study.resources
    return Estimate(
        rates=tuple(rates),
        trials=trials,
        training_seconds=training,
        seconds=everything,
        longest=max(seconds for _, seconds in each),
        devices=resources.gpu or resources.cpu,
        unit="GPU" if resources.gpu else "core",
        concurrent=min(room, trials),
        device=device,
    )


def room_on(resources: Resources, cpus: float, gpus: float) -> int:
    """How many trials fit at once on a machine with so many cores and GPUs."""
    amounts = [(cpus, resources.cpu), (gpus, resources.gpu)]
    return min(parts(have, amount) for have, amount in amounts if amount)


def parts(have: float, amount: float) -> int:
    """How many shares of ``amount`` there are; a fraction is a share of one device, never of two halves."""
    return math.floor(have) * math.floor(1 / amount + 1e-9) if amount < 1 else math.floor(have / amount)
