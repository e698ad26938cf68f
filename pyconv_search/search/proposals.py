"""The configurations that an adaptive search has proposed and its study still has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pyconv_search.fields import Problems, SpecError
from pyconv_search.results.listing import PROPOSED, to_entry
from pyconv_search.results.records import Record
from pyconv_search.results.row import Row
from pyconv_search.study.plan import Candidate, candidate, trial_id
from pyconv_search.study.study import Study


def still_held(study: Study, found: Iterable[Record]) -> list[Candidate]:
    """Those whose parameters, as the journal has them, are a network of the space as it is now, in order of proposal.

    A parameter that has been renamed or added, a value that has gone or a constraint that has come take networks out.
    """
    proposals: dict[str, dict[str, Any]] = {}
    for config, parameters in _proposals(found):
        proposals.setdefault(config, parameters)
    networks = ((config, _network(study, parameters)) for config, parameters in proposals.items())
    return [network for config, network in networks if network is not None and network.config == config]


def _proposals(found: Iterable[Record]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The proposals of the journal; those that an earlier version did not note are known from rows, as they began."""
    rows: list[Row] = []
    for record in found:
        if isinstance(record, Row):
            rows.append(record)
        elif isinstance(record, dict) and record["name"] == PROPOSED:
            yield record["network"]["config"], record["network"]["parameters"]
    for row in sorted(rows, key=lambda row: row.started):
        yield row.config, row.parameters


def _network(study: Study, parameters: dict[str, Any]) -> Candidate | None:
    problems = Problems()
    try:
        values = study.space.complete(parameters, (), problems)
        return None if problems.found else candidate(study, values)
    except SpecError:
        return None


def entries(study: Study, networks: Iterable[Candidate]) -> list[dict[str, Any]]:
    """What ``study.json`` says of configurations."""
    return [
        to_entry(row.config, row.name, row.values, [trial_id(study, row, seed) for seed in study.seeds])
        for row in networks
    ]
