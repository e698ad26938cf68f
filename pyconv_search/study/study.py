"""A study: which networks of a space are trained on which data, how, and what is compared."""

from __future__ import annotations

import functools
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path as FilePath
from typing import Any

from pyconv_search.errors import UserError
from pyconv_search.fields import Fields, Problem, Problems, SpecError, cut, integer, kind_of, shown, suggestion
from pyconv_search.files import expanded
from pyconv_search.space import document
from pyconv_search.space.describe import check
from pyconv_search.space.document import Document, DocumentError
from pyconv_search.space.space import COSTS, Assignment, Space, load_space
from pyconv_search.study import datasets
from pyconv_search.study.baseline import check_baseline, read_baseline
from pyconv_search.study.batches import unfit_batch
from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.study.growth import too_small
from pyconv_search.study.joint import check_recipes, own_mistakes, recipe_of
from pyconv_search.study.published import Published, read_published
from pyconv_search.study.published import to_dict as published_to_dict
from pyconv_search.study.recipe import MOST_EPOCHS, Recipe, read_recipe
from pyconv_search.study.recipe import to_dict as recipe_to_dict
from pyconv_search.study.supply import Supply, supply
from pyconv_search.study.views import unfit

MOST_TRIALS = 100_000
MEASURES = ("top1_error", "top5_error", "loss")
OBJECTIVES = (*MEASURES, *COSTS)


@dataclass(frozen=True, slots=True)
class Data:
    """The data set: its description, where it lies (None: the usual places) and how many images are held out."""

    info: DataSetInfo
    root: str | None
    validation: int | None

    @property
    def subset(self) -> tuple[int, ...]:
        """The number of classes where the data are a subset of the data set, else nothing."""
        return (self.info.classes,) if self.info.subset else ()

    @property
    def key(self) -> dict[str, Any]:
        """What a worker needs to load it, as plain JSON values; classes only of a subset."""
        values = {"name": self.info.name, "root": self.root, "validation": self.validation}
        return values | ({"classes": self.info.classes} if self.info.subset else {})

    @property
    def held_out(self) -> int:
        """How many images validate; of a subset, about how many until it is read."""
        return self.info.validation if self.validation is None else self.validation

    @property
    def train(self) -> int:
        """How many images are trained on; of a subset, about how many until it is read."""
        return self.info.train + self.info.validation - self.held_out


@dataclass(frozen=True, slots=True)
class Search:
    """How networks are chosen: ``rows`` as listed, the whole ``grid``, ``random`` ones, or proposed by ``tpe``.

    ``trials`` counts networks (each is trained once per seed). TPE draws its first ``startup`` networks at random.
    """

    kind: str
    rows: tuple[tuple[str, Assignment], ...] = ()
    trials: int = 0
    seed: int = 0
    startup: int = 10


@dataclass(frozen=True, slots=True)
class Scheduler:
    """Whether trials are stopped early: ``none``, or ``asha`` after ``grace`` epochs, keeping one in ``factor``."""

    kind: str = "none"
    grace: int = 1
    factor: int = 4


@dataclass(frozen=True, slots=True)
class Resources:
    """What one trial takes: CPU cores and GPUs, which may be a fraction of one.

    ``workers`` processes train it together, with equal shares of the cores and one GPU each, if any.
    Up to ``together`` trials that differ in their seed alone share all this, trained in one process; 0: as many as are
    measured to be faster than one by one.
    """

    cpu: int = 1
    gpu: float = 0.0
    workers: int = 1
    together: int = 1

    @property
    def threads(self) -> int:
        """The CPU cores of one worker, and its number of threads."""
        return self.cpu // self.workers

    @property
    def computes_on(self) -> str:
        """What adds up the numbers: sums of floating-point numbers depend on it."""
        one = "cuda" if self.gpu else f"cpu, {self.threads} threads"
        return one if self.workers == 1 else f"{self.workers} × {one}"


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """When a trial writes its checkpoint: after every so many epochs, and after so many ``minutes`` within one.

    ``keep`` is ``last`` (one, until the trial is complete) or ``all`` (those of whole epochs stay, each in a file).
    """

    every: int = 1
    minutes: float = 10.0
    keep: str = "last"


@dataclass(frozen=True)
class Study:
    """A validated study. ``objectives`` maps names to ``min`` or ``max``; the first measure selects the winner.

    The others are compared with ``baseline``; None: with the first.

    Measures are errors and losses, so ``min`` is all that they can be; a cost may also be maximised.
    """

    name: str
    about: str
    space: Space
    data: Data
    recipe: Recipe
    search: Search
    scheduler: Scheduler
    seeds: tuple[int, ...]
    objectives: Mapping[str, str]
    resources: Resources
    keep_weights: bool
    checkpoints: Checkpoints
    published: Published | None
    document: Document
    # How many minutes a trial may make no progress: infinite for ``none``, None where that follows from the epochs.
    stall: float | None = None
    baseline: Assignment | None = None

    @property
    def measure(self) -> str:
        """The objective that is measured, not computed, and that rungs and the verdict compare."""
        return next(name for name in self.objectives if name in MEASURES)

    @functools.cached_property
    def supply(self) -> Supply | None:
        """Every different configuration that the space holds on these data; None where they are too many to count."""
        return supply(self)

    @property
    def searched(self) -> int:
        """How many configurations a random or adaptive search trains: its ``trials``, or all that the space holds."""
        return self.search.trials if self.supply is None else min(self.search.trials, len(self.supply))

    def recipe_of(self, values: Assignment) -> Recipe:
        """The recipe of an assignment: the study's, with what the space's file replaces in it."""
        if not self.space.recipe:
            return self.recipe
        return recipe_of(self.space, self.document.value["recipe"], values)


def load_study(file: str | FilePath) -> Study:
    """The study in a YAML file, its space and its data set's description included.

    Raises:
        UserError: if a file cannot be read; DocumentError with every mistake in both, each with file:line:column.
    """
    doc = document.read(file)
    problems = doc.problems()
    fields = Fields(doc.value, (), problems)
    space, errors = _space(fields, expanded(file).parent)
    study = None
    try:
        study = _study(fields, space, doc)
    except SpecError as error:  # a condition that cannot be evaluated
        errors.append(space.document.error(error.problems) if space else error)
    fields.close()
    if study is not None and not problems.found:
        errors += _joint_errors(study)
    elif space is not None and not errors:
        errors += _space_errors(fields, space)
    if problems.found:
        errors.append(doc.error(problems.found))
    if errors:
        raise _together_told(errors)
    if study is None:
        raise UserError(f"{file}: is not a study")
    return study


def _together_told(errors: list[SpecError]) -> SpecError:
    """The mistakes of several files as one error."""
    if all(isinstance(error, DocumentError) for error in errors):
        return DocumentError([place for error in errors if isinstance(error, DocumentError) for place in error.located])
    return errors[0]


def _joint_errors(study: Study) -> list[SpecError]:
    """What is wrong with the space's networks and recipes, for the study's data."""
    found: list[SpecError] = []
    for checked in (
        lambda: check(study.space, study.data.info.input, study.data.info.classes),
        lambda: most_epochs(study),
        lambda: check_baseline(study.baseline, study.space, study.data.info, study.document),
    ):
        try:
            checked()
        except SpecError as error:
            found.append(error)
    return found or _growth_errors(study)


def _space_errors(fields: Fields, space: Space) -> list[SpecError]:
    """The same where the study has mistakes: what can be said of the networks for its data, if these are known."""
    data = _data(Fields(fields.values, (), Problems())) if fields.sound("data") else None
    if data is None or not fields.sound("space"):
        return []
    try:
        check(space, data.info.input, data.info.classes)
    except SpecError as error:
        return [error]
    return []


def _growth_errors(study: Study) -> list[SpecError]:
    """What is wrong with the size from which images grow, for the networks of the space."""
    varied = not {"resolution", "preset"}.isdisjoint(study.space.recipe)
    if not varied and study.recipe.resolution == 1:
        return []
    small = list(too_small(study.space, study.data.info, study.recipe_of if varied else lambda _: study.recipe))
    written = study.space.document if "resolution" in study.space.recipe else study.document
    return [written.error(small)] if small else []


def most_epochs(study: Study) -> int:
    """The largest number of epochs for which a network of the study may be trained.

    Raises:
        DocumentError: with every mistake of the recipes, at its place in the space's file.
    """
    if not study.space.recipe:
        return study.recipe.epochs
    alike = study.recipe.epochs if study.scheduler.kind == "asha" else None
    return check_recipes(
        study.space, study.document.value["recipe"], alike, partial(_unfit, study.data, study.resources)
    )


def _space(fields: Fields, folder: FilePath) -> tuple[Space | None, list[SpecError]]:
    """The space that the study names, or its mistakes."""
    path = fields.text("space")
    if not isinstance(path, str):
        return None, []
    where = os.path.normpath(folder / expanded(path))
    if not os.path.exists(where):
        fields.add("space", f"no such file: {cut(where, 300)} (paths are relative to the study's file)", own=True)
        return None, []
    try:
        space = load_space(where, own_mistakes)
    except SpecError as error:
        return None, [error]
    head = space.settings.get("head")
    if (head.get("kind") if isinstance(head, dict) else head) not in (None, "classifier"):
        text = f"a study trains classifiers, but the networks of {shown(space.name)} have the head {shown(head)}"
        fields.add("space", text)
    return space, []


def _study(fields: Fields, space: Space | None, doc: Document) -> Study | None:
    name, about = fields.name("study"), fields.text("about", "")
    data, recipe = _data(fields), read_recipe(fields)
    resources = _resources(fields.section("resources", {}))
    if data is not None:
        for problem in _unfit(data, resources, recipe) if fields.sound("data", "recipe", "resources") else ():
            fields.problems.note(problem)
        _check_kind(fields, data.info, space)
    scheduler = _scheduler(fields, recipe.epochs if fields.sound("recipe") else MOST_EPOCHS)
    search = _search(fields, space)
    _check_together(fields, resources, scheduler, search)
    seeds, objectives = _seeds(fields), _objectives(fields)
    keep = fields.text("weights", "keep", ("keep", "discard")) == "keep"
    checkpoints = _checkpoints(fields.section("checkpoints", {}))
    stall = _stall(fields)
    names = tuple(name for name, _ in search.rows if name) if fields.sound("search") else None
    published = read_published(fields, names)
    baseline = read_baseline(fields, search.kind, search.rows, space) if fields.sound("search") else None
    if space is None or data is None or fields.problems.found:
        return None
    return Study(
        name=name,
        about=about,
        space=space,
        data=data,
        recipe=recipe,
        search=search,
        scheduler=scheduler,
        seeds=seeds,
        objectives=objectives,
        resources=resources,
        keep_weights=keep,
        checkpoints=checkpoints,
        published=published,
        document=doc,
        stall=stall,
        baseline=baseline,
    )


def _named(fields: Fields, key: str, default: Any, known: tuple[str, ...]) -> tuple[str | None, Fields]:
    """A value that is a name, or a mapping of one name to its options: ``tpe`` or ``{tpe: {trials: 20}}``.

    The name is None where it is missing or unknown, which is a mistake. The options of ``rows`` are a list.
    """
    value = fields.take(key) if default is None else fields.take(key, default)
    single = isinstance(value, Mapping) and len(value) == 1
    name, options = next(iter(value.items())) if single else (value, {})
    path = (*fields.path, key, name) if single else (*fields.path, key)
    if value is not None and (not isinstance(name, str) or name not in known):
        shape = kind_of(value) if not isinstance(name, str) else shown(name)
        text = (
            f"must be one of {', '.join(known)}, alone or with its options as {{{known[-1]}: {{…}}}}, but got {shape}"
            f"{suggestion(str(name), known)}"
        )
        fields.add(key, text, own=True)
    if not fields.sound(key):
        return None, Fields({}, path, fields.problems)
    if options is None:
        text = f"has no value; write its options behind it, or the name alone: {key}: {name}"
        fields.problems.add(path, text, key=True, own=True)
    return name, Fields(
        {} if options is None or (name, type(options)) == ("rows", list) else options, path, fields.problems
    )


def _data(fields: Fields) -> Data | None:
    name, options = _named(fields, "data", None, tuple(datasets.DATA_SETS))
    if name is None:
        return None
    info = datasets.get(name)
    root, held_out = options.text("root", None), options.integer("validation", None, high=10**9)
    classes = options.integer("classes", None, high=10**9)
    options.close()
    try:
        info = datasets.get(info.name, classes)
    except UserError as error:
        options.add("classes", str(error), own=True)
    low, high = datasets.held_out_bounds(info)
    if held_out is not None and not info.subset and options.sound("validation") and not low <= held_out <= high:
        text = f"must be an integer between {low:,} and {high:,}, which leaves images of every class on both sides"
        options.add("validation", f"{text}, but got {held_out:,}", own=True)
    match = re.match(r"\$([A-Za-z_]\w*)", root or "")
    if root and match and match[1] not in os.environ:
        options.add("root", f"the environment variable {match[1]} is not set; set it, or write the folder itself")
    try:
        place = str(expanded(os.path.expandvars(root)).absolute()) if root else None
    except UserError as error:  # of "~" without a home
        options.add("root", str(error), own=True)
        place = None
    return Data(info, place, held_out)


def _unfit(data: Data, resources: Resources, recipe: Recipe) -> Iterator[Problem]:
    """What is wrong with a recipe for these data on these devices."""
    yield from unfit(data.info, recipe)
    yield from unfit_batch(data.train, resources.workers, recipe)


def _check_kind(fields: Fields, info: DataSetInfo, space: Space | None) -> None:
    if space is not None and len(space.input) != len(info.input):
        kinds = {3: "images", 4: "videos"}
        fields.add(
            "space",
            f"the networks of {space.name!r} are for {kinds[len(space.input)]}, but {info.name} holds "
            f"{kinds[len(info.input)]}",
        )


def _scheduler(fields: Fields, epochs: int) -> Scheduler:
    kind, options = _named(fields, "scheduler", "none", ("none", "asha"))
    if kind != "asha":
        options.close()
        return Scheduler()
    found = Scheduler(kind, options.integer("grace", 1), options.integer("factor", 4, 2))
    if options.sound("grace") and found.grace > epochs:
        text = f"must be an integer between 1 and {epochs}, the epochs, but got {found.grace}; nearest: {epochs}"
        options.add("grace", text)
    options.close()
    return found


def _search(fields: Fields, space: Space | None) -> Search:
    kind, options = _named(fields, "search", None, ("rows", "grid", "random", "tpe"))
    if kind is None:
        return Search("grid")
    if kind == "rows":
        return Search(kind, _rows(fields, space))
    if kind == "grid":
        options.close()
        if space is not None and space.size > MOST_TRIALS:
            size = f"a grid of {space.size:,} assignments is too large (at most {MOST_TRIALS:,})"
            fields.add("search", f"{size}; use random or tpe")
        return Search(kind)
    trials = options.integer("trials", high=MOST_TRIALS)
    seed = options.integer("seed", 0, 0, 2**31 - 1)
    startup = options.integer("startup", 10) if kind == "tpe" else 10
    if space is not None and options.sound("trials") and trials > space.size:
        text = f"the space holds {space.size:,} assignments, but got {trials}; nearest: {space.size}, or grid"
        options.add("trials", text)
    options.close()
    return Search(kind, (), trials or 0, seed, startup)


def _rows(fields: Fields, space: Space | None) -> tuple[tuple[str, Assignment], ...]:
    search = fields.take("search")
    listed = search.get("rows") if isinstance(search, Mapping) else None
    path = (*fields.path, "search", "rows")
    if not isinstance(listed, list) or not listed:
        text = "must list at least one row, each a mapping of parameters to values"
        fields.problems.add(path, text, own=True)
        return ()
    rows: list[tuple[str, Assignment]] = []
    names: set[str] = set()
    first: dict[str, int] = {}
    for i, row in enumerate(listed):
        own = Fields(row, (*path, i), fields.problems)
        label = own.name("name", "")
        if label and label in names:
            own.add("name", f"{shown(label)} is the name of two rows; a row is known by its name")
        names.add(label)
        given = {key: own.take(key) for key in own.names() if key != "name"}
        if space is None or fields.problems.full:
            continue
        values = space.complete(given, (*path, i), fields.problems)
        earlier = first.setdefault(json.dumps(values, sort_keys=True), i)
        if fields.problems.sound((*path, i)) and earlier != i:
            text = f"is the same as rows[{earlier}]; more seeds repeat a row, see seeds"
            fields.problems.add((*path, i), text)
        rows.append((label, values))
    return tuple(rows)


def _seeds(fields: Fields) -> tuple[int, ...]:
    value, path = fields.take("seeds", 1), (*fields.path, "seeds")
    if not isinstance(value, list):
        return tuple(range(integer(value, path, fields.problems, 1, 1000)))
    seeds = tuple(integer(seed, (*path, i), fields.problems, 0, 2**31 - 1) for i, seed in enumerate(value))
    if fields.sound("seeds") and (not seeds or len(set(seeds)) < len(seeds)):
        fields.add("seeds", f"must be a count, or a list of different integers, but got {shown(value)}")
    return seeds


def _objectives(fields: Fields) -> dict[str, str]:
    section = fields.section("objectives", {"top1_error": "min"})
    found = {name: section.text(name, None, ("min",) if name in MEASURES else ("min", "max")) for name in OBJECTIVES}
    section.close()
    objectives = {name: found[name] for name in section.names() if found.get(name)}
    if fields.sound("objectives") and not any(name in MEASURES for name in objectives):
        fields.add("objectives", f"must hold at least one of {', '.join(MEASURES)}, which training measures")
    return objectives or {"top1_error": "min"}


def _resources(fields: Fields) -> Resources:
    cpu, gpu = fields.integer("cpu", 1, 1, 4096), fields.number("gpu", 0.0, 0.0, 1024.0)
    if gpu > 1 and gpu != int(gpu):
        fields.add(
            "gpu",
            f"must be a fraction of one GPU or a whole number of them, but got {gpu:g}; "
            f"nearest: {int(gpu)}, {int(gpu) + 1}",
        )
    workers = fields.integer("workers", max(int(gpu), 1), 1, 1024)
    if fields.sound("gpu", "workers") and gpu and workers != max(int(gpu), 1):
        fields.add("workers", f"each has one GPU, of which there are {gpu:g}; nearest: {max(int(gpu), 1)}")
    if fields.sound("cpu", "gpu", "workers") and cpu % workers:
        above = cpu + workers - cpu % workers
        fields.add("cpu", f"{cpu} cores cannot be divided by {workers} workers; nearest: {above}")
    together = _together(fields)
    fields.close()
    return Resources(cpu, gpu, workers, together)


def _together(fields: Fields) -> int:
    """A number of trials, or ``auto``, which is 0."""
    given = fields.take("together", 1)
    if isinstance(given, str):
        if given != "auto":
            fields.add("together", f"must be a number of trials, or auto, but got {shown(given)}", own=True)
        return 0
    return integer(given, (*fields.path, "together"), fields.problems, 1, 1000)


def _check_together(fields: Fields, resources: Resources, scheduler: Scheduler, search: Search) -> None:
    """What trials that are trained together cannot do."""
    path = (*fields.path, "resources", "together")
    if not fields.sound("resources", "scheduler", "search"):
        return
    if resources.together != 1 and resources.workers > 1:
        fields.problems.add(
            path, f"needs trials of one process, but each has {resources.workers} workers; nearest: together: 1"
        )
    if resources.together != 1 and scheduler.kind != "none":
        fields.problems.add(
            path,
            f"needs scheduler: none, but got {scheduler.kind}, which stops single trials; nearest: together: 1",
        )
    if resources.together == 0 and search.kind == "tpe":
        fields.problems.add(
            path,
            "auto measures every network before the first trial, but tpe proposes them one after the other; "
            "nearest: together: 1, or a number",
        )


def _checkpoints(fields: Fields) -> Checkpoints:
    found = Checkpoints(
        every=fields.integer("every", 1),
        minutes=fields.number("minutes", 10.0, 0.1),
        keep=fields.text("keep", "last", ("last", "all")),
    )
    fields.close()
    return found


def _stall(fields: Fields) -> float | None:
    value = fields.take("stall", None)
    if value == "none":
        return math.inf
    if isinstance(value, str) and not value[:1].isdigit():  # else perhaps with a decimal comma
        fields.add("stall", f"must be a number of minutes, or none, but got {shown(value)}", own=True)
        return None
    return fields.number("stall", None, 0.01)


def study_to_dict(study: Study) -> dict[str, Any]:
    """The resolved study as plain JSON values: what a run's folder keeps as ``study.json``."""
    space, data = study.space, study.data
    return {
        "format": 1,
        "name": study.name,
        "about": study.about,
        "space": {
            "name": space.name,
            "about": space.about,
            "parameters": {p.name: str(p.domain) for p in space.parameters},
        },
        "data": data.key | {"about": data.info.about},
        "recipe": recipe_to_dict(study.recipe),
        "search": {
            "kind": study.search.kind,
            "rows": [{"name": name, **values} for name, values in study.search.rows],
            "trials": study.search.trials,
            "seed": study.search.seed,
            "startup": study.search.startup,
        },
        "scheduler": {"kind": study.scheduler.kind, "grace": study.scheduler.grace, "factor": study.scheduler.factor},
        "seeds": list(study.seeds),
        "objectives": dict(study.objectives),
        "resources": asdict(study.resources) | {"together": study.resources.together or "auto"},
        "computes_on": study.resources.computes_on,
        "weights": "keep" if study.keep_weights else "discard",
        "checkpoints": asdict(study.checkpoints),
        "stall": "none" if study.stall == math.inf else study.stall,
        "network": dict(space.network),
        "space_recipe": dict(space.recipe) or None,
        "input": list(data.info.input),
        "classes": data.info.classes,
        "published": published_to_dict(study.published),
        "source": {
            "study_file": FilePath(study.document.file).name,
            "study": study.document.text,
            "space_file": FilePath(space.document.file).name,
            "space": space.document.text,
        },
    }
