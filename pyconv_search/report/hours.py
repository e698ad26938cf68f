"""The hours of a run, planned and spent, in words."""

from __future__ import annotations

from pyconv_search.report.words import count, hours, listed
from pyconv_search.results.spent import planned, spent
from pyconv_search.results.store import Store


def hours_of(store: Store) -> dict[str, str]:
    """What was ``planned``, where it was estimated, and what is ``spent``, where an epoch is in the journal."""
    found, taken = {}, spent(store)
    plan = planned(store)
    if plan is not None:
        wall = plan["wall_seconds"]
        side = "" if wall is None else f", {hours(wall)} with {count(plan['concurrent'], 'trial')} at a time"
        names = listed([network["name"] for network in plan["measured"]])
        found["planned"] = (
            f"{hours(plan['device_seconds'], plan['unit'])}{side}, for {count(plan['trials'], 'trial')} if none is "
            f"stopped early or slows another (measured on {plan['device']}: {names})"
        )
    if taken.everything:
        share = f", {100 * taken.everything / plan['device_seconds']:.0f} % of the plan" if plan else ""
        found["spent"] = (
            f"{hours(taken.everything, taken.unit)}{share}; {hours(taken.training, taken.unit)} of it training, "
            "the rest validation"
        )
    return found
