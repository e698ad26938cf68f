"""What a study lists as it is now: its configurations in its order, as it calls them, and the trials that it has.

Rows are keyed by what was trained. What a configuration is called, where it stands and whether it belongs to the study
may change afterwards, so none of that is read from a row: ``study.json`` says it under ``networks``, and of an
adaptive search each event ``proposed`` since the last start.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyconv_search.results.row import Row
from pyconv_search.space.space import assignment_text

PROPOSED = "proposed"


@dataclass(frozen=True, slots=True)
class Listed:
    """A configuration: its name, its parameters, and its trials in the order of the study's seeds.

    Without parameters, in a folder of an earlier version, name and parameters are those of its rows.
    """

    config: str
    name: str = ""
    parameters: dict[str, Any] | None = None
    trials: tuple[str, ...] = ()


class Listing:
    """All of a study's configurations in its order.

    ``adaptive``: a search proposes them one after the other; ``surplus`` are those that it proposed beyond the number
    that the study asks for now.
    """

    def __init__(
        self, listed: Iterable[Listed], seeds: Sequence[int], adaptive: bool = False, surplus: Iterable[str] = ()
    ) -> None:
        self.configs = {entry.config: entry for entry in listed}
        self._order = {config: place for place, config in enumerate(self.configs)}
        self._seeds = {seed: place for place, seed in enumerate(seeds)}
        self._trials = {t: (e.config, seed) for e in self.configs.values() for t, seed in zip(e.trials, seeds)}  # noqa: B905
        self._adaptive, self._surplus = adaptive, frozenset(surplus)

    @property
    def names(self) -> dict[str, str]:
        """What the study calls each configuration now; none of a folder of an earlier version."""
        return {config: entry.name for config, entry in self.configs.items() if entry.parameters is not None}

    def holds(self, row: Row) -> bool:
        """Whether the trial of a row belongs to the study."""
        return row.config in self.configs and row.seed in self._seeds

    def holds_trial(self, trial: str) -> bool:
        """The same of a trial without a row; True where the folder does not say which trials the study has."""
        return trial in self._trials or not self._trials

    def order(self, trial: str, row: Row | None = None) -> tuple[float, float]:
        """Where a trial stands in the study, by configuration and seed; behind them stands what is not of the study."""
        config, seed = (row.config, row.seed) if row is not None else self._trials.get(trial, ("", -1))
        return self._order.get(config, math.inf), self._seeds.get(seed, math.inf)

    def called(self, row: Row) -> Row:
        """The row with the name and the parameters that its configuration has in the study now."""
        entry = self.configs.get(row.config)
        if entry is None or entry.parameters is None:
            return row
        return replace(row, name=entry.name, parameters=entry.parameters)

    def trial(self, trial: str) -> tuple[str, int] | None:
        """Name and seed of a trial of the study, with or without a row; None of any other."""
        config, seed = self._trials.get(trial, ("", -1))
        return (self.configs[config].name, seed) if config else None

    def departed(self, rows: Iterable[Row]) -> dict[str, int]:
        """How many of ``rows`` do not belong to the study, by why."""
        return dict(sorted(Counter(self._why(row) for row in rows if not self.holds(row)).items()))

    def _why(self, row: Row) -> str:
        if row.config in self.configs:
            return "of seeds that the study no longer has"
        if row.config in self._surplus:
            return "of networks beyond the number that the study asks for"
        return f"of networks that the {'space' if self._adaptive else 'study'} no longer holds"


def to_entry(config: str, name: str, parameters: dict[str, Any], trials: Sequence[str]) -> dict[str, Any]:
    """A configuration as ``study.json`` and events have it; a name that only says the parameters is left out."""
    own = {} if name == assignment_text(parameters) else {"name": name}
    return {"config": config, **own, "parameters": parameters, "trials": list(trials)}


def listing(study: dict[str, Any], events: Sequence[dict[str, Any]]) -> Listing | None:
    """What a study and the events of its journal list; None where an earlier version said nothing of it."""
    networks = study.get("networks")
    if networks is None:
        return None
    starts = (place for place in range(len(events), 0, -1) if events[place - 1]["name"] == "start")
    since = [event["network"] for event in events[next(starts, 0) :] if event["name"] == PROPOSED]
    kind, surplus = study["search"].get("kind"), study.get("surplus") or ()
    names = study["space"].get("parameters") or {}
    listed = [_listed(values, names) for values in (*networks, *since)]
    return Listing(listed, study["seeds"], kind == "tpe", surplus)


def is_listing(networks: Any) -> bool:
    """Whether the value of ``networks`` in a study.json is one: nothing, or configurations, or their ids alone."""
    if not isinstance(networks, list):
        return networks is None
    return all(isinstance(value, str) or is_entry(value) for value in networks)


def is_entry(value: Any) -> bool:
    """Whether a value is what :func:`to_entry` makes."""
    if not isinstance(value, dict):
        return False
    kinds = {"config": str, "parameters": dict, "trials": list}
    whole = all(isinstance(value.get(key), kind) for key, kind in kinds.items())
    return whole and isinstance(value.get("name", ""), str) and all(isinstance(t, str) for t in value["trials"])


def _listed(values: str | dict[str, Any], names: Iterable[str]) -> Listed:
    if isinstance(values, str):
        return Listed(values)
    given = values["parameters"]
    parameters = {name: given[name] for name in names if name in given} | given  # Events are sorted by their keys.
    name = values.get("name", assignment_text(parameters))
    return Listed(values["config"], name, parameters, tuple(values["trials"]))
