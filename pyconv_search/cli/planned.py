"""What ``plan`` prints: the trials of a study, their images, networks, hours and files, before anything runs."""

from __future__ import annotations

import dataclasses
from typing import Any

from pyconv_search.cli import estimates
from pyconv_search.cli.columns import table
from pyconv_search.report.words import count
from pyconv_search.space.space import COSTS
from pyconv_search.study.plan import candidates, planned_trials
from pyconv_search.study.study import Study, most_epochs
from pyconv_search.training.data.at_hand import AtHand
from pyconv_search.training.estimate import training_macs
from pyconv_search.units import quantity, sides

MOST_SHOWN = 50


def plan_dict(known: AtHand, found: estimates.Found) -> dict[str, Any]:
    """The plan as plain values. ``training_macs`` counts forward and backward (three times forward) over all epochs."""
    study = known.study
    rows, data, seeds = candidates(study), study.data, len(study.seeds)
    trials = planned_trials(study, len(rows))
    return {
        "study": study.name,
        "data": data.info.name,
        "images": {"train": data.train, "validation": data.held_out, "test": data.info.test}
        | {"estimated": known.estimated, "found_at": known.found_at or None},
        "input": list(data.info.input),
        "classes": data.info.classes,
        "search": study.search.kind,
        "scheduler": study.scheduler.kind,
        "seeds": list(study.seeds),
        "asked_for": study.search.trials or None,
        "trials": trials,
        "epochs_at_most": seeds * sum(row.recipe.epochs for row in rows) if rows else trials * most_epochs(study),
        "training_macs": seeds * sum(training_macs(data, row) for row in rows) if rows else None,
        "resources_per_trial": dataclasses.asdict(study.resources),
        "estimate": estimates.found_dict(found),
        "networks": [
            {
                "name": row.name,
                "arch_id": row.architecture.arch_id,
                "parameters": row.values,
                "recipe": row.overrides,
                **{name: getattr(row.cost, name) for name in COSTS},
                **estimates.rate_dict(found, i),
            }
            for i, row in enumerate(rows)
        ],
    }


def plan_text(known: AtHand, found: estimates.Found) -> str:
    """The plan for people."""
    study, plan = known.study, plan_dict(known, found)
    lines = [study.name, *([study.about] if study.about else []), "", *_trials(study, plan), _images(known)]
    lines.append(_resources(study, plan))
    if plan["training_macs"] is not None:
        macs = quantity(plan["training_macs"], "MACs")
        lines.append(f"{macs} of training in all, if no trial is stopped early")
    lines += estimates.found_lines(found, study.resources.together)
    shown = plan["networks"][:MOST_SHOWN]
    if shown:
        rows = [("network", "MACs", "parameters", "arch_id", *estimates.rate_head(found))]
        rows += [
            (
                each["name"],
                quantity(each["macs"], digits=4),
                quantity(each["params"], digits=4),
                each["arch_id"][:12],
                *estimates.rate_cells(each),
            )
            for each in shown
        ]
        size = f"{sides(study.data.info.input)} and {count(study.data.info.classes, 'class')}"
        lines += ["", f"costs, and the space's constraints, at {size}, the data's", table(rows, (1, 2, 4))]
    if len(plan["networks"]) > len(shown):
        lines.append(f"… and {len(plan['networks']) - len(shown):,} more (--json lists all)")
    return "\n".join(lines)


def _trials(study: Study, plan: dict[str, Any]) -> list[str]:
    """How many trials there are, and why they are fewer than asked for."""
    kind, seeds = "configuration" if study.space.recipe else "network", len(study.seeds)
    different = plan["trials"] // seeds
    epochs = f"{plan['epochs_at_most']:,} epochs in all{' at most' if study.scheduler.kind != 'none' else ''}"
    of = f"{count(different, kind)} ({plan['search']}) × {count(seeds, 'seed')}"
    lines = [f"{count(plan['trials'], 'trial')}: {of}, {epochs}"]
    if study.search.trials > different:
        size = sides(study.data.info.input)
        lines.append(
            f"{study.search.trials:,} were asked for, but the space holds no more than {count(different, kind)} at "
            f"{size}, the data's size"
        )
    return lines


def _images(known: AtHand) -> str:
    """How many images each split has, and how that is known."""
    data = known.study.data
    noun = "image" if len(data.info.input) == 3 else "video"
    held_out = f"{data.held_out:,} to validate" if data.held_out else "none to validate"
    sizes = f"{count(data.train, noun)} to train on, {held_out}, {data.info.test:,} to test"
    if known.estimated:
        return f"{data.info.name}: about {sizes}, by the data set's description; it is not on this machine"
    if not known.found_at:
        return f"{data.info.name}: {sizes}; it is not on this machine"
    return f"{data.info.name}: {sizes}{f', counted in {known.found_at}' if data.info.subset else ''}"


def _resources(study: Study, plan: dict[str, Any]) -> str:
    """What a trial takes, who stops it and what is compared."""
    resources = study.resources
    gpus = f" and {resources.gpu:g} GPU{'s' if resources.gpu > 1 else ''}" if resources.gpu else ""
    processes = f" in {resources.workers} processes" if resources.workers > 1 else ""
    together = {0: "as many seeds together as are faster so; ", 1: ""}.get(
        resources.together, f"up to {resources.together} seeds together; "
    )
    objectives = ", ".join(f"{name} ({to})" for name, to in study.objectives.items())
    return (
        f"each takes {count(resources.cpu, 'core')}{gpus}{processes}; {together}scheduler {plan['scheduler']}; "
        f"objectives {objectives}"
    )
