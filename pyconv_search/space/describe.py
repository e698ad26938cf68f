"""What a space holds, before anything is spent on it: size, costs, how much each constraint lets through."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from pyconv_search.arch.cost import cost
from pyconv_search.errors import UserError
from pyconv_search.fields import Path, Problem, Problems, SpecError
from pyconv_search.space.arrays import Costs
from pyconv_search.space.choices import decode, encode, every
from pyconv_search.space.masks import Ints, Mask, satisfied
from pyconv_search.space.references import references
from pyconv_search.space.sampling import Sample, draw, sample
from pyconv_search.space.space import COSTS, Assignment, Space
from pyconv_search.units import sides

EXACT = 1500  # networks that are built one by one, about half a second
LISTED = 1_000_000  # assignments that are looked at all together
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
    """Cost the whole space if that takes no more than EXACT networks built one by one, else EXACT seeded draws of it.

    Raises:
        DocumentError: if an assignment that satisfies the constraints on parameters is no network.
    """
    costs = Costs(space)
    choices, exact = _looked_at(space, costs, seed)
    on_parameters = satisfied(space, choices)
    built = choices[np.all([np.ones(len(choices), bool), *on_parameters], axis=0)]
    columns = costs(built)
    for row in built[~columns.valid][:1]:
        space.resolved(decode(space, row))
    values = {name: getattr(columns, name) if name == "gmacs" else columns[name] for name in COSTS}
    on_costs = satisfied(space, built, values)
    accepted = np.all([columns.valid, *on_costs], axis=0)
    networks = len(np.unique(costs.same(built[accepted])))
    asks_costs = [bool(c.names & set(COSTS)) for c in space.constraints]
    held = [after if asks else before for asks, before, after in zip(asks_costs, on_parameters, on_costs, strict=True)]
    return Description(
        size=space.size,
        exact=exact,
        looked_at=len(choices),
        networks=networks,
        accepted=int(accepted.sum()) / len(choices),
        acceptance=tuple((c.source, _share(rows)) for c, rows in zip(space.constraints, held, strict=True)),
        spreads={name: spread(column[accepted]) for name, column in values.items() if networks},
        samples=_samples(space, seed, networks),
    )


def _looked_at(space: Space, costs: Costs, seed: int) -> tuple[Ints, bool]:
    """The choices to look at, and whether they are all there are."""
    if space.size <= LISTED:
        choices = every(space)
        if space.size <= EXACT or costs.unknown(choices) <= EXACT:
            return choices, True
    return encode(space, [draw(space, seed, i) for i in range(EXACT)]), False


def _samples(space: Space, seed: int, networks: int) -> tuple[Sample, ...]:
    try:
        return tuple(sample(space, min(3, networks), seed))
    except UserError:
        return ()


def spread(values: npt.NDArray[Any]) -> Spread:
    """The distribution of ``values``."""
    ordered, n = np.sort(values), len(values)
    low, high = ordered[0].item(), ordered[-1].item()
    bins = ((values - low) / ((high - low) or 1) * BINS).astype(np.int64)
    counts = np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)
    middle = ordered[(n - 1) // 2 : n // 2 + 1].tolist()
    return Spread(low, statistics.median(middle), high, tuple(counts.tolist()))


def _share(held: Mask) -> float:
    return int(held.sum()) / max(len(held), 1)


def check(
    space: Space, input: tuple[int, ...] | None = None, classes: int | None = None, may_be_empty: bool = False
) -> None:
    """Build every network of a small space, and of a large one every value of every parameter and a seeded sample.

    They are built for the space's own input and classes, unless a study's are given. A space of which no network
    satisfies the constraints is a mistake, unless it ``may_be_empty``.

    Raises:
        DocumentError: with every number that does not fit, each once.
    """
    found: list[Problem] = []
    accepted = 0
    try:
        chosen, exact = telling(space)
    except SpecError as error:
        raise space.document.error(error.problems) from None
    for values in chosen:
        try:
            if not space.violated(values):
                accepted += not space.violated(values, cost(space.resolved(values, input, classes)))
        except SpecError as error:
            found += error.problems
    found = found or list(_unused(space))  # what is wrong elsewhere may have taken a reference's place
    if exact and not accepted and not found and not may_be_empty:
        found = [_nothing(space, input, classes)]
    if found:
        raise space.document.error(one_each(found))


def telling(space: Space) -> tuple[list[Assignment], bool]:
    """The assignments to look at for mistakes, and whether they are all there are, as of a small space."""
    exact = space.size <= EXACT
    return (list(space.assignments()) if exact else _covering(space)), exact


def one_each(problems: Iterable[Problem]) -> list[Problem]:
    """One problem for each place, those that are wrong by themselves first; of a range of values, with their number."""
    found = list(problems)
    told = Problems(sorted(found, key=lambda problem: not problem.own)).found
    texts: dict[Path, set[str]] = {}
    for problem in found:
        texts.setdefault(problem.path, set()).add(problem.text)
    return [_with_number(problem, len(texts.get(problem.path, ())) - 1) for problem in told]


def _with_number(problem: Problem, others: int) -> Problem:
    """A problem in a range of values, which are not typed one by one, with how many others there are."""
    in_range = problem.path[:1] == ("parameters",) and len(problem.path) == 3
    more = f" (and {others} more mistakes here)" if in_range and others > 0 else ""
    return replace(problem, context=problem.context + more)


def _unused(space: Space) -> Iterator[Problem]:
    """The parameters that change nothing: not the network or the recipe, no condition and no constraint."""
    conditions = [parameter.when for parameter in space.parameters if parameter.when]
    used = {name for section in (space.network, space.recipe) for _, name, _ in references(section)}
    used |= {name for expression in (*conditions, *space.constraints) for name in expression.names}
    for parameter in space.parameters:
        if parameter.name not in used:
            text = (
                f"is used by nothing; write ${parameter.name} where the network or the recipe has it, or leave it out"
            )
            yield Problem(("parameters", parameter.name), text, key=True)


def _nothing(space: Space, input: tuple[int, ...] | None, classes: int | None) -> Problem:
    """What is wrong with a space that holds no network: the network itself, or else its constraints."""
    try:
        space.resolved(next(space.assignments()), input, classes)
    except SpecError as error:
        return error.problems[0]
    at = f"at {sides(input or space.input)} and {classes or space.classes:,} classes"
    whose, option = (", the data's", " with --data") if input else ("", "")
    return Problem(
        ("constraints",),
        f"no assignment satisfies all of them {at}{whose}; see what each lets through with `space describe`{option}",
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
