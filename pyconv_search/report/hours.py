"""The hours of a run, planned and spent, in words."""

from __future__ import annotations

from pyconv_search.report.words import count, listed
from pyconv_search.results.spent import planned, spent
from pyconv_search.results.store import Store
from pyconv_search.units import device_time, duration


def hours_of(store: Store) -> dict[str, str]:
    """What was ``planned``, where it was estimated, and what is ``spent``, where an epoch is in the journal."""
    found, taken = {}, spent(store)
    plan = planned(store)
    if plan is not None:
        wall = plan["wall_seconds"]
        side = "" if wall is None else f", {duration(wall)} with {count(plan['concurrent'], 'trial')} at a time"
        names = listed([network["name"] for network in plan["measured"]])
        found["planned"] = (
            f"{device_time(plan['device_seconds'], plan['unit'])}{side}, for {count(plan['trials'], 'trial')} if none "
            f"is stopped early or slows another (measured on {plan['device']}: {names})"
        )
    if taken.everything:
        share = f", {100 * taken.everything / plan['device_seconds']:.0f} % of the plan" if plan else ""
        # Epochs of earlier versions have no rate, so that it is not known how much of their time was training.
        parts = f"; {device_time(taken.training, taken.unit)} of it training, the rest validation"
        found["spent"] = f"{device_time(taken.everything, taken.unit)}{share}{parts if taken.training else ''}"
    return found
