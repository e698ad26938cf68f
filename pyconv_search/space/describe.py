"""What a space holds, before anything is spent on it: size, costs, how much each constraint lets through."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from itertools import islice

from pyconv_search.arch.cost import Cost, cost
from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.fields import Path, Problem, SpecError
from pyconv_search.space.sampling import Sample, draw, sample
from pyconv_search.space.space import COSTS, Assignment, Space

EXACT = 1500
BINS = 10


@dataclass(frozen=True, slots=True)
class Spread:
    """The distribution of one cost: smallest, median, largest, and counts in equal bins between the two ends."""

    low: float
    median: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Description:
    """``looked_at`` assignments were looked at: all of them if ``exact``, else a seeded sample.

    ``acceptance`` gives, for each constraint, the share of assignments that satisfy it: of all for a constraint on
    parameters, of those that satisfy all these for a constraint on costs. ``accepted`` is the share that satisfies
    every constraint, ``networks`` how many different architectures these are (all there are, if ``exact``).
    """

    size: int
    exact: bool
    looked_at: int
    networks: int
    accepted: float
    acceptance: tuple[tuple[str, float], ...]
    spreads: dict[str, Spread]
    samples: tuple[Sample, ...]


def describe(space: Space, seed: int = 0) -> Description:
    """Cost the whole space if it has at most EXACT assignments, else EXACT seeded draws of it."""
    exact = space.size <= EXACT
    chosen = list(space.assignments()) if exact else [draw(space, seed, i) for i in range(EXACT)]
    accepted: list[tuple[Architecture, Cost]] = []
    asked, held = Counter[str](), Counter[str]()
    for values in chosen:
        violated = space.violated(values)
        readable = {c.source for c in space.constraints if not (violated and c.names & set(COSTS))}
        if not violated:
            arch = space.architecture(values)
            found = cost(arch)
            violated = space.violated(values, found)
            if not violated:
                accepted.append((arch, found))
        asked.update(readable)
        held.update(readable - {c.source for c in violated})
    networks = {arch for arch, _ in accepted}
    return Description(
        size=space.size,
        exact=exact,
        looked_at=len(chosen),
        networks=len(networks),
        accepted=len(accepted) / len(chosen),
        acceptance=tuple((c.source, held[c.source] / max(asked[c.source], 1)) for c in space.constraints),
        spreads={name: spread([getattr(c, name) for _, c in accepted]) for name in COSTS if accepted},
        samples=_samples(space, seed, len(networks)),
    )


def _samples(space: Space, seed: int, networks: int) -> tuple[Sample, ...]:
    try:
        return tuple(sample(space, min(3, networks), seed))
    except UserError:
        return ()


def spread(values: list[float]) -> Spread:
    """The distribution of ``values``."""
    low, high = min(values), max(values)
    counts = [0] * BINS
    for value in values:
        counts[min(int((value - low) / (high - low) * BINS), BINS - 1) if high > low else 0] += 1
    return Spread(low, statistics.median(values), high, tuple(counts))


def check(space: Space, input: tuple[int, int, int] | None = None, classes: int | None = None) -> None:
    """Build every network of a small space, and of a large one every value of every parameter and a seeded sample.

    They are built for the space's own input and classes, unless a study's are given.

    Raises:
        DocumentError: with every number that does not fit, each once.
    """
    found: dict[Path, dict[str, Problem]] = {}
    accepted = 0
    try:
        exact = space.size <= EXACT
        chosen = list(space.assignments()) if exact else _covering(space)
    except SpecError as error:
        raise space.document.error(error.problems) from None
    for values in chosen:
        try:
            if not space.violated(values):
                accepted += not space.violated(values, cost(space.architecture(values, input, classes)))
        except SpecError as error:
            for problem in error.problems:
                found.setdefault(problem.path, {}).setdefault(problem.text.partition(" (with ")[0], problem)
    if exact and not accepted and not found:
        found[("constraints",)] = {"": _nothing(space, input, classes)}
    if found:
        raise space.document.error([_first(list(alike.values())) for alike in found.values()])


def _first(alike: list[Problem]) -> Problem:
    more = f" (and {len(alike) - 1} more mistakes here)" if len(alike) > 1 else ""
    return Problem(alike[0].path, alike[0].text + more)


def _nothing(space: Space, input: tuple[int, int, int] | None, classes: int | None) -> Problem:
    """What is wrong with a space that holds no network: the network itself, or else its constraints."""
    try:
        space.architecture(next(space.assignments()), input, classes)
    except SpecError as error:
        return error.problems[0]
    return Problem(
        ("constraints",), "no assignment satisfies all of them; see what each lets through with space describe"
    )


def _covering(space: Space) -> list[Assignment]:
    """Seeded draws, and for every value of every parameter one draw in which it stands, if it can be active."""
    chosen = [draw(space, 0, i) for i in range(EXACT // 3)]
    for parameter in space.parameters:
        hosts = [values for values in chosen if parameter.name in values]
        for i, value in enumerate(islice(parameter.domain.values, EXACT // 3)):
            if hosts:
                host = {**hosts[i % len(hosts)], parameter.name: value}
                chosen.append(
                    {p.name: host.get(p.name, p.domain.values[0]) for p in space.parameters if p.active(host)}
                )
    return chosen
