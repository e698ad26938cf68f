"""What a study will run, worked out before anything runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from pyconv_search.arch.canonical import to_dict as arch_to_dict
from pyconv_search.arch.cost import Cost, cost
from pyconv_search.arch.spec import Architecture
from pyconv_search.fields import Problems
from pyconv_search.space.constraints import Expression
from pyconv_search.space.sampling import sample
from pyconv_search.space.space import Assignment, assignment_text
from pyconv_search.study.recipe import to_dict as recipe_to_dict
from pyconv_search.study.study import Study


@dataclass(frozen=True, slots=True)
class Candidate:
    """One network of a study, to be trained once for each seed."""

    name: str
    values: Assignment
    architecture: Architecture
    cost: Cost


def candidate(study: Study, values: Assignment, name: str = "") -> Candidate | None:
    """The network of an assignment on the study's data, or None where a constraint of the space does not hold."""
    info = study.data.info
    fit = study.space.fit(values, info.input, info.classes)
    return None if fit is None else Candidate(name or assignment_text(values), values, *fit)


def candidates(study: Study) -> list[Candidate]:
    """Every network that is known beforehand, each once, in the order in which they run; none for an adaptive search.

    Raises:
        DocumentError: if a listed row breaks a constraint of the space or repeats another row's network.
        UserError: if the space cannot give as many random networks as asked for.
    """
    if study.search.kind == "rows":
        return _rows(study)
    if study.search.kind == "grid":
        every = (candidate(study, values) for values in study.space.assignments())
        return list({found.architecture: found for found in every if found is not None}.values())
    if study.search.kind == "random":
        info = study.data.info
        drawn = sample(study.space, study.search.trials, study.search.seed, info.input, info.classes)
        return [Candidate(assignment_text(s.values), s.values, s.architecture, s.cost) for s in drawn]
    return []


def _rows(study: Study) -> list[Candidate]:
    problems = Problems()
    found: dict[Architecture, tuple[int, Candidate]] = {}
    for i, (name, values) in enumerate(study.search.rows):
        row = candidate(study, values, name)
        if row is None:
            broken = ", ".join(c.source for c in _broken(study, values))
            problems.add(("search", "rows", i), f"does not satisfy the space's constraint {broken}")
        elif row.architecture in found:
            problems.add(("search", "rows", i), f"is the same network as rows[{found[row.architecture][0]}]")
        else:
            found[row.architecture] = (i, row)
    if problems.found:
        raise study.document.error(problems.found)
    return [row for _, row in found.values()]


def _broken(study: Study, values: Assignment) -> list[Expression]:
    early = study.space.violated(values)
    if early:
        return early
    arch = study.space.resolved(values, study.data.info.input, study.data.info.classes)
    return study.space.violated(values, cost(arch))


def planned_trials(study: Study, known: int) -> int:
    """How many trials the study has, where ``known`` is the number of networks known beforehand."""
    return (study.search.trials if study.search.kind == "tpe" else known) * len(study.seeds)


def trial_id(study: Study, arch: Architecture, seed: int) -> str:
    """16 hexadecimal digits that name one (architecture, seed, recipe, data) for ever.

    Where the data lie, how the trial is scheduled and what it is called do not enter.
    """
    return _digest(
        {
            "architecture": arch_to_dict(arch),
            "seed": seed,
            "recipe": recipe_to_dict(study.recipe),
            "data": [study.data.info.name, study.data.validation, *study.data.subset],
        }
    )[:16]


def trial_spec(study: Study, row: Candidate, seed: int, folder: str | None) -> dict[str, Any]:
    """Everything that one trial needs, as plain JSON values."""
    return {
        "trial": trial_id(study, row.architecture, seed),
        "name": row.name,
        "seed": seed,
        "architecture": arch_to_dict(row.architecture),
        "parameters": row.values,
        "recipe": recipe_to_dict(study.recipe),
        "data": study.data.key,
        "threads": study.resources.cpu,
        "device": "cuda" if study.resources.gpu else "cpu",
        "folder": folder,
        "keep_weights": study.keep_weights,
        "checkpoints": asdict(study.checkpoints),
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
