"""What a study will run, worked out before anything runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from pyconv_search.arch.canonical import to_dict as arch_to_dict
from pyconv_search.arch.cost import Cost, cost
from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.fields import Problems
from pyconv_search.space.sampling import sample
from pyconv_search.space.space import COSTS, Assignment, assignment_text
from pyconv_search.study.joint import differing
from pyconv_search.study.recipe import Recipe, essence
from pyconv_search.study.recipe import to_dict as recipe_to_dict
from pyconv_search.study.study import Study
from pyconv_search.units import sides


@dataclass(frozen=True)
class Candidate:
    """One configuration of a study, that is an architecture and a recipe, to be trained once for each seed.

    ``overrides`` are the values, by the names of :class:`Recipe`, in which the recipe is not the study's.
    """

    name: str
    values: Assignment
    architecture: Architecture
    cost: Cost
    recipe: Recipe
    overrides: dict[str, Any]

    @cached_property
    def config(self) -> str:
        """What names the configuration within its study: the ``arch_id``, where the recipe is the study's."""
        return _config(self.architecture, self.overrides)


# The parts of a study on which its configurations depend, the very objects; what of its data does; its configurations.
_latest: tuple[tuple[Any, ...], tuple[Any, ...], list[Candidate]] = ((), (), [])


def candidate(study: Study, values: Assignment, name: str = "") -> Candidate | None:
    """The configuration of an assignment on the study's data, or None where a constraint of the space does not hold."""
    info = study.data.info
    fit = study.space.fit(values, info.input, info.classes)
    return None if fit is None else _candidate(study, values, name, *fit)


def _candidate(study: Study, values: Assignment, name: str, arch: Architecture, cost: Cost) -> Candidate:
    recipe = study.recipe_of(values)
    return Candidate(name or assignment_text(values), values, arch, cost, recipe, differing(recipe, study.recipe))


def _config(arch: Architecture, overrides: dict[str, Any]) -> str:
    return _digest([arch.arch_id, overrides]) if overrides else arch.arch_id


def candidates(study: Study) -> list[Candidate]:
    """Every configuration that is known beforehand, each once, in the order in which they run; none for an adaptive
    search.

    A random search of a space that holds no more networks than were asked for trains them all.
    They are kept until another study is asked for, since a run asks for them in several places.

    Raises:
        DocumentError: if a listed row breaks a constraint of the space or repeats another row's configuration.
        UserError: if so many random networks cannot be found in a space that is too large to be counted.
    """
    global _latest
    parts = (study.space, study.search, study.recipe, study.document)
    shape = (study.data.info.input, study.data.info.classes)  # But not the images, which a run counts in between.
    same = all(part is kept for part, kept in zip(parts, _latest[0], strict=False))
    if not same or not _latest[0] or shape != _latest[1]:
        _latest = (parts, shape, _candidates(study))
    return list(_latest[2])


def _candidates(study: Study) -> list[Candidate]:
    if study.search.kind == "rows":
        return _rows(study)
    if study.search.kind == "grid":
        every = (candidate(study, values) for values in study.space.assignments())
        return list({found.config: found for found in every if found is not None}.values())
    return _random(study) if study.search.kind == "random" else []


def _random(study: Study) -> list[Candidate]:
    def same(values: Assignment, arch: Architecture) -> str:
        return _config(arch, differing(study.recipe_of(values), study.recipe))

    info, search, found = study.data.info, study.search, {}
    try:
        for s in sample(study.space, search.trials, search.seed, info.input, info.classes, same):
            row = _candidate(study, s.values, "", s.architecture, s.cost)
            found[row.config] = row
    except UserError:  # It draws in vain; what is left is known where the space can be counted.
        if study.supply is None:
            raise
        every = (candidate(study, values) for values in study.supply)
        rest = [row for row in every if row is not None and row.config not in found]
        found |= {row.config: row for row in rest[: search.trials - len(found)]}
    return list(found.values())


def _rows(study: Study) -> list[Candidate]:
    problems = Problems()
    found: dict[str, tuple[int, Candidate]] = {}
    for i, (name, values) in enumerate(study.search.rows):
        row = candidate(study, values, name)
        if row is None:
            broken = " and ".join(_broken(study, values))
            problems.add(("search", "rows", i), f"does not satisfy the space's constraint {broken}")
        elif row.config in found:
            alike = " by the same recipe" if study.space.recipe else ""
            problems.add(("search", "rows", i), f"is the same network as rows[{found[row.config][0]}]{alike}")
        else:
            found[row.config] = (i, row)
    if problems.found:
        raise study.document.error(problems.found)
    return [row for _, row in found.values()]


def _broken(study: Study, values: Assignment) -> list[str]:
    """The constraints that do not hold; of those on costs the costs, and the input size at which they are so high."""
    early = study.space.violated(values)
    if early:
        return [constraint.source for constraint in early]
    info = study.data.info
    found = cost(study.space.resolved(values, info.input, info.classes))
    broken = study.space.violated(values, found)
    names = [name for name in COSTS if any(name in constraint.names for constraint in broken)]
    told = ", ".join(f"{name} is {getattr(found, name):,.12g}" for name in names)
    at = f"{told} at {sides(info.input)} and {info.classes:,} classes, the data's"
    return [*(constraint.source for constraint in broken[:-1]), f"{broken[-1].source} ({at})"]


def planned_trials(study: Study, known: int) -> int:
    """How many trials the study has, where ``known`` is the number of configurations known beforehand."""
    return (study.searched if study.search.kind == "tpe" else known) * len(study.seeds)


def trial_id(study: Study, row: Candidate, seed: int) -> str:
    """16 hexadecimal digits that name one (architecture, seed, recipe, data) for ever.

    Where the data lie, how the trial is scheduled and what it is called do not enter.
    """
    return _digest(
        {
            "architecture": arch_to_dict(row.architecture),
            "seed": seed,
            "recipe": essence(row.recipe),
            "data": [study.data.info.name, study.data.validation, *study.data.subset],
        }
    )[:16]


def trial_spec(study: Study, row: Candidate, seed: int, folder: str | None) -> dict[str, Any]:
    """Everything that one trial needs, as plain JSON values."""
    return {
        "trial": trial_id(study, row, seed),
        "config": row.config,
        "name": row.name,
        "seed": seed,
        "architecture": arch_to_dict(row.architecture),
        "parameters": row.values,
        "recipe": recipe_to_dict(row.recipe),
        "overrides": row.overrides,
        "data": study.data.key,
        "workers": study.resources.workers,
        "threads": study.resources.threads,
        "device": "cuda" if study.resources.gpu else "cpu",
        "folder": folder,
        "keep_weights": study.keep_weights,
        "checkpoints": asdict(study.checkpoints),
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
