"""A search space: parameters, a network written in their terms, and constraints."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from pyconv_search.arch.cost import Cost, cost
from pyconv_search.arch.presets import HEADS, settings_of
from pyconv_search.arch.readers import CLASSES, IMAGE, READERS, read
from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.fields import (
    Fields,
    Path,
    Problem,
    Problems,
    SpecError,
    integers,
    kind_of,
    shown,
    suggestion,
)
from pyconv_search.space import document
from pyconv_search.space.constraints import FUNCTIONS, Expression, ExpressionError, parse
from pyconv_search.space.document import Document
from pyconv_search.space.domains import Domain, read_domain
from pyconv_search.space.references import check_references, filled

Assignment = dict[str, Any]
COSTS = ("params", "macs", "gmacs", "activations", "receptive_field")
RESERVED = (*COSTS, *FUNCTIONS, "name")  # a study's row has a name beside its parameters
MOST_COUNTED = 500_000
_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9_]{0,40}$")


@dataclass(frozen=True)
class Parameter:
    """One named choice; it is active where ``when`` holds (always, if None)."""

    name: str
    domain: Domain
    when: Expression | None = None
    about: str = ""

    def active(self, values: Mapping[str, Any]) -> bool:
        """Whether the parameter matters, given the values of those before it; not where it asks for an inactive one."""
        if self.when is None:
            return True
        return all(values.get(name) is not None for name in self.when.names) and holds(
            self.when, values, ("parameters", self.name, "when")
        )


@dataclass(frozen=True)
class Space:
    """A validated search space. An assignment maps each active parameter, in order, to its value.

    ``network`` is what the file says of it, with references; ``base`` the settings of the preset that it begins with.
    ``recipe`` are the values of a study's recipe that the space replaces, with references too.
    """

    name: str
    about: str
    parameters: tuple[Parameter, ...]
    network: Mapping[str, Any]
    constraints: tuple[Expression, ...]
    input: tuple[int, ...]
    classes: int
    document: Document
    base: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @functools.cached_property
    def by_name(self) -> dict[str, Parameter]:
        """The parameters by their names."""
        return {parameter.name: parameter for parameter in self.parameters}

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """The network section over the preset's settings, with references; a key without a value changes nothing."""
        return {**self.base, **{key: value for key, value in self.network.items() if value is not None}}

    def architecture(
        self, values: Assignment, input: tuple[int, ...] | None = None, classes: int | None = None
    ) -> Architecture:
        """The network of an assignment, for the space's own input and classes unless others are given.

        Raises:
            SpecError: if a parameter is missing, unknown, inactive or has a value that is not in the space;
                DocumentError with the place in the space's file of every number that does not fit.
        """
        problems = Problems()
        settled = self.complete(values, (), problems)
        problems.check()
        return self.resolved(settled, input, classes)

    def resolved(
        self, values: Assignment, input: tuple[int, ...] | None = None, classes: int | None = None
    ) -> Architecture:
        """The same for an assignment that is known to be one, several times as fast."""
        problems = Problems()
        settings = filled(self.network, values, ("network",), problems)
        settings = {key: value for key, value in settings.items() if value is not None and key != "preset"}
        problems.check()
        replaced = {"depth", "blocks"} if {"depth", "blocks"} & settings.keys() else set()
        base = {key: value for key, value in self.base.items() if key not in replaced}
        try:
            arch = read({**base, **settings}, input or self.input, classes or self.classes)
            self._check_stages(arch, settings)
            return arch
        except SpecError as error:
            raise self.document.error([self._told(problem, values) for problem in error.problems]) from None

    @functools.cached_property
    def _base_stages(self) -> int:
        return len(read(self.base).stages)

    def _check_stages(self, arch: Architecture, settings: Mapping[str, Any]) -> None:
        """A preset keeps its number of stages, unless the space counts them or their blocks."""
        if not self.base or {"blocks", "num_stages"} & settings.keys() or len(arch.stages) == self._base_stages:
            return
        key = "stages" if "stages" in settings else "depth"
        text = f"makes {len(arch.stages)} stages of the preset's {self._base_stages}; if meant, give blocks"
        raise SpecError([Problem((key,), text)])

    def overrides(self, values: Assignment) -> dict[str, Any]:
        """What an assignment replaces in a study's recipe; a key without a value, or inactive, replaces nothing."""
        problems = Problems()
        found = _present(filled(self.recipe, values, ("recipe",), problems))
        problems.check()
        return found

    def _told(self, problem: Problem, values: Assignment) -> Problem:
        where = f" (with {assignment_text(values)})" if values else ""
        return Problem(("network", *problem.path), problem.text + where)

    def violated(self, values: Assignment, cost: Cost | None = None) -> list[Expression]:
        """The constraints that do not hold; without ``cost``, of those that ask for no cost.

        A constraint that names an inactive parameter holds.
        """
        env = {p.name: values.get(p.name) for p in self.parameters}
        if cost is not None:
            env.update({name: getattr(cost, name) for name in COSTS})
        return [
            c
            for i, c in enumerate(self.constraints)
            if all(env.get(name) is not None for name in c.names) and not holds(c, env, ("constraints", i))
        ]

    def fit(
        self, values: Assignment, input: tuple[int, ...] | None = None, classes: int | None = None
    ) -> tuple[Architecture, Cost] | None:
        """The network and its cost, or None where a constraint does not hold."""
        if self.violated(values):
            return None
        arch = self.resolved(values, input, classes)
        found = cost(arch)
        return None if self.violated(values, found) else (arch, found)

    def assignments(self) -> Iterator[Assignment]:
        """Every assignment, before constraints, in lexicographic order of the parameters."""
        return self._extended({}, 0, lambda p: True)

    def _extended(self, values: Assignment, i: int, wanted: Any) -> Iterator[Assignment]:
        if i == len(self.parameters):
            yield dict(values)
            return
        parameter = self.parameters[i]
        if not wanted(parameter) or not parameter.active(values):
            yield from self._extended(values, i + 1, wanted)
            return
        for value in parameter.domain.values:
            yield from self._extended({**values, parameter.name: value}, i + 1, wanted)

    @functools.cached_property
    def size(self) -> int:
        """The exact number of assignments under the conditions, before constraints.

        Only parameters that a condition reads are enumerated; the others multiply.

        Raises:
            UserError: if more than MOST_COUNTED combinations of condition-reading parameters would have to be walked.
        """
        readers = set().union(*(p.when.names for p in self.parameters if p.when)) if self.parameters else set()
        if math.prod(len(p.domain) for p in self.parameters if p.name in readers) > MOST_COUNTED:
            raise UserError(f"{self.document.file}: conditions read too many parameters to count the space exactly")
        leaves = [p for p in self.parameters if p.name not in readers]
        return sum(
            math.prod(len(p.domain) for p in leaves if p.active(values))
            for values in self._extended({}, 0, lambda p: p.name in readers)
        )

    def complete(self, given: Mapping[str, Any], path: Path, problems: Problems) -> Assignment:
        """``given`` as an assignment: every active parameter has a legal value and no other is named."""
        values: Assignment = {}
        for name in given:
            if name not in self.by_name:
                known = list(self.by_name)
                problems.add(
                    (*path, name),
                    f"is not a parameter of the space{suggestion(name, known)}; known: {', '.join(known)}",
                )
        for parameter in self.parameters:
            name, domain = parameter.name, parameter.domain
            value = given.get(name)
            if not parameter.active(values):
                if value is not None:
                    problems.add(
                        (*path, name), f"is only active when {parameter.when and parameter.when.source}; leave it out"
                    )
            elif value is None:
                if len(domain) > 1:
                    problems.add((*path, name), f"is missing; legal: {domain}")
                values[name] = domain.values[0]
            elif (index := domain.index(value)) is None:
                problems.add((*path, name), f"{shown(value)} is not in the space; legal: {domain}")
                values[name] = domain.values[0]
            else:
                values[name] = domain.values[index]
        return values


def holds(expression: Expression, values: Mapping[str, Any], path: Path) -> bool:
    """Whether the expression at ``path`` is true; raises SpecError where its values do not go together."""
    try:
        return bool(expression(values))
    except ExpressionError as error:
        raise SpecError([Problem(path, str(error))]) from None


def _present(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without those that hold nothing, nor sections that hold nothing."""
    found = {key: _present(value) if isinstance(value, dict) else value for key, value in settings.items()}
    return {key: value for key, value in found.items() if value is not None and value != {}}


def assignment_text(values: Mapping[str, Any]) -> str:
    """An assignment in one line: ``levels [3, 2, 1], pattern [1]``."""
    return ", ".join(f"{name} {value}" for name, value in values.items())


def load_space(file: str | FilePath) -> Space:
    """The space in a YAML file.

    Raises:
        UserError: if the file cannot be read; DocumentError with every mistake, each with file:line:column.
    """
    return space_of(document.read(file))


def space_of(doc: Document) -> Space:
    """The space that a document describes; raises DocumentError with every mistake."""
    problems = Problems()
    fields = Fields(doc.value, (), problems)
    name, about = fields.text("space"), fields.text("about", "")
    parameters = _parameters(fields.section("parameters", None))
    network = fields.section("network")
    for key in ("preset", "family", "input", "classes"):
        if isinstance(value := network.take(key, None), str) and value.startswith("$"):
            network.add(key, f"is one for the whole space and takes no parameter, but got {value!r}")
            network.drop(key)
    base = _base(network)
    family = network.text("family", "resnet", tuple(READERS))
    if base and "family" in network and family != base.get("family", "resnet"):
        network.add("family", f"comes with the preset, which is no {family}; leave it out")
    size = integers(network.take("input", base.get("input", IMAGE)), ("network", "input"), problems)
    if len(size) not in (3, 4):
        problems.add(
            ("network", "input"), f"must be [channels, height, width] or, for video, time second, but got {list(size)}"
        )
    classes = network.integer("classes", base.get("classes", _published_classes(network, base)), low=2)
    constraints = _constraints(fields, parameters)
    fields.section("recipe", {})
    fields.close()
    sections = doc.value if isinstance(doc.value, dict) else {}
    settings, recipe = sections.get("network", {}), sections.get("recipe") or {}
    for key, section in (("network", settings), ("recipe", recipe)):
        if isinstance(section, dict):
            check_references(section, {p.name: p.domain for p in parameters}, (key,), problems)
    if problems.found:
        raise doc.error(problems.found)
    return Space(name, about, parameters, settings, constraints, size, classes, doc, base, recipe)


def _published_classes(network: Fields, base: Mapping[str, Any]) -> int:
    """Those with which the papers print the head, such as ADE20K's 150; ImageNet's for classifiers."""
    head = network.take("head", base.get("head"))
    kind = head.get("kind") if isinstance(head, Mapping) else head
    return HEADS.get(str(kind), {}).get("classes", CLASSES)


def _base(network: Fields) -> Mapping[str, Any]:
    """The settings of the network's ``preset``, which its own keys replace one by one."""
    name = network.take("preset", None)
    if name is None:
        return {}
    if not isinstance(name, str):
        network.add("preset", f"must be the name of a network, but got {kind_of(name)}")
        return {}
    try:
        return settings_of(name)
    except UserError as error:
        network.add("preset", str(error))
        return {}


def _parameters(fields: Fields) -> tuple[Parameter, ...]:
    parameters: list[Parameter] = []
    for name in fields.names():
        own = fields.section(name)
        if not _NAME.match(name) or name in RESERVED:
            fields.add(
                name,
                f"is not a usable name: a letter (a–z), then letters, digits or _; reserved: {', '.join(RESERVED)}",
            )
        about, condition = own.text("about", ""), own.take("when", None)
        domain = read_domain(own)
        own.close()
        when = None
        if condition is not None:
            above = [p.name for p in parameters]
            when = _expression(condition, above, (*own.path, "when"), own.problems, fields.names())
        if domain is not None:
            parameters.append(Parameter(name, domain, when, about))
    return tuple(parameters)


def _expression(
    source: Any, known: list[str], path: Path, problems: Problems, everywhere: Sequence[str] = ()
) -> Expression | None:
    try:
        expression = parse(source)
    except ExpressionError as error:
        problems.add(path, str(error))
        return None
    if not expression.is_condition:
        problems.add(path, f"{source!r} is no condition; for example: gmacs <= 4.2, levels == [1, 1]")
    for name in sorted(expression.names - set(known)):
        if name in everywhere:
            problems.add(path, f"{name} stands below; a condition may read the parameters above it, so move {name} up")
            continue
        above = "; a condition may read the parameters above it" if path[-1] == "when" else ""
        problems.add(
            path,
            f"unknown name {name!r}{suggestion(name, known)}{above}; known: {', '.join(known) or 'none'}"
            f" (a text stands in quotes: '{name}')",
        )
    return expression


def _constraints(fields: Fields, parameters: tuple[Parameter, ...]) -> tuple[Expression, ...]:
    known = [p.name for p in parameters] + list(COSTS)
    read = [
        _expression(source, known, ("constraints", i), fields.problems)
        for i, source in enumerate(fields.items("constraints", None))
    ]
    return tuple(expression for expression in read if expression is not None)
