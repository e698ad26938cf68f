"""What was measured of training the seeds of a network together, kept in the run's folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

from pyconv_search.files import read_json
from pyconv_search.results import files
from pyconv_search.results.store import Store

FILE = "together.json"
MOST_BYTES = 2**26
# The stack has to be faster by so much: rounds of one measurement are up to 5 % apart on a shared machine, and at the
# end of a study fewer and longer pieces of work leave more cores idle.
MARGIN = 1.1


@dataclass(frozen=True, slots=True)
class Verdict:
    """One network in one setting, which ``key`` stands for: ``size`` trials a stack, so many ``processes`` at a time.

    ``apart`` and ``stacked``: images a second of all processes by round, where each of them trained one trial, or a
    stack. ``failure`` says why it could not be measured.
    """

    key: str
    arch_id: str
    name: str
    device: str
    size: int
    processes: int
    apart: tuple[float, ...] = ()
    stacked: tuple[float, ...] = ()
    failure: str = ""
    config: str = ""

    @property
    def ratio(self) -> float:
        """Images a second of separate processes over those of stacks, the median of the rounds: below 1, stacks win."""
        return median(one / other for one, other in zip(self.apart, self.stacked, strict=True))

    @property
    def together(self) -> int:
        """How many trials to train together: 1 unless stacks were faster in every round, and by the margin."""
        if self.failure or not self.apart:
            return 1
        slowest = max(one / other for one, other in zip(self.apart, self.stacked, strict=True))
        return self.size if self.ratio <= 1 / MARGIN and slowest < 1 else 1

    def to_dict(self) -> dict[str, Any]:
        """As plain values, with what follows from it."""
        return {**asdict(self), "together": self.together}

    def __str__(self) -> str:
        where = f"{self.name} on {self.device}, {self.processes} at a time"
        if self.failure:
            return f"{where}: one by one; {self.failure}"
        found = f"stacks of {self.size} are {1 / self.ratio:.2f} × as fast"
        return f"{where}: {found}, so {'together' if self.together > 1 else 'one by one'}"


def read(folder: Path) -> dict[str, Verdict]:
    """The verdicts of a run by their key; none where the file is missing or damaged, as they can be measured again."""
    try:
        found = read_json(folder / FILE, MOST_BYTES, "a file of verdicts")["verdicts"]
        known = [{f.name: values[f.name] for f in fields(Verdict) if f.name in values} for values in found]
        verdicts = [Verdict(**{**v, "apart": tuple(v["apart"]), "stacked": tuple(v["stacked"])}) for v in known]
        kept = {verdict.key: verdict for verdict in verdicts}
        for verdict in verdicts:
            str(verdict)  # which computes with what was read
    except Exception:  # of JSON that holds anything at all
        return {}
    return kept


def of(store: Store) -> list[Verdict]:
    """The verdicts of the networks that a study has now, by the names that they have now."""
    found = read(store.folder).values()
    if store.listing is None:
        return list(found)
    names = store.listing.names
    known = [each for each in found if not each.config or each.config in store.listing.configs]
    return [replace(each, name=names.get(each.config, each.name)) for each in known]


def write(folder: Path, verdicts: dict[str, Verdict]) -> None:
    """Keep the verdicts of a run. UserError if they cannot be written."""
    values = [each.to_dict() for each in verdicts.values()]
    files.replace(folder / FILE, (json.dumps({"verdicts": values}, indent=2) + "\n").encode())
