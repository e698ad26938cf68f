"""What a run will take, measured where its trials run, before the first of them starts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray

from pyconv_search.errors import UserError
from pyconv_search.study.plan import candidates
from pyconv_search.study.study import Study
from pyconv_search.training import estimate
from pyconv_search.training.rates import rates

# For all networks together; measuring is given up after LIMIT.
SECONDS = 4.0
LIMIT = 30.0
# Multiply-adds of a training of a minute or so on one core, for which measuring would take a good part of the time.
LEAST = 2e12


def worth(study: Study) -> bool:
    """Whether a study is large enough to be measured beforehand, by the multiply-adds of its training."""
    rows = candidates(study)
    return (
        not rows or 3 * study.data.train * len(study.seeds) * sum(r.cost.macs * r.recipe.epochs for r in rows) > LEAST
    )


def planned(study: Study, room: int, ending: Callable[[], bool]) -> dict[str, Any] | None:
    """The estimate of a study as plain values, from a task with the resources of a worker; None once it is ``ending``.

    ``room``: how many trials fit on the machines at once.

    Raises:
        UserError: if nothing could be measured.
    """
    rows = estimate.networks(study)
    found = _measured(study, estimate.to_measure(study, rows), ending)
    return found and estimate.plain(rows, estimate.estimated(study, rows, found, room))


def _measured(study: Study, specs: Sequence[dict[str, Any]], ending: Callable[[], bool]) -> dict[str, Any] | None:
    # Its process is not used for trials: the memory that it keeps would count as theirs.
    task = ray.remote(max_calls=1, max_retries=0)(rates)
    workers = specs[0].get("workers", 1)
    options = {"num_cpus": study.resources.cpu / workers, "num_gpus": study.resources.gpu / workers}
    answer, end = task.options(**options).remote(specs, SECONDS), time.monotonic() + LIMIT
    while not ray.wait([answer], timeout=0.2)[0]:
        if ending() or time.monotonic() > end:
            ray.cancel(answer, force=True)
            if ending():
                return None
            raise UserError(f"measuring took more than {LIMIT:g} seconds")
    try:
        return ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        raise UserError(str(error.cause)) from None
    except ray.exceptions.RayError as error:
        raise UserError(" ".join(str(error).split())[:200]) from None
