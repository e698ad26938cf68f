"""A search space: parameters, a network written in their terms, and constraints."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path as FilePath
from typing import Any

from pyconv_search.arch.cost import Cost, cost
from pyconv_search.arch.presets import HEADS, settings_of
from pyconv_search.arch.readers import CLASSES, IMAGE, READERS, read
from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.fields import (
    ABSENT,
    Fields,
    Path,
    Problem,
    Problems,
    SpecError,
    closest,
    integers,
    kind_of,
    path_text,
    shown,
    suggestion,
)
from pyconv_search.space import document
from pyconv_search.space.constraints import FUNCTIONS, Expression, ExpressionError, parse
from pyconv_search.space.document import Document
from pyconv_search.space.domains import Domain, read_domain
from pyconv_search.space.references import check_references, filled, typed

Assignment = dict[str, Any]
COSTS = ("params", "macs", "gmacs", "activations", "receptive_field")
RESERVED = (*COSTS, *FUNCTIONS, "name", "true", "false")  # a study's row has a name beside its parameters
MOST_COUNTED = 500_000
MOST_PARAMETERS = 250
MOST_READ = 300  # networks of a space with mistakes that are looked at for more
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
        """The network section over the preset's settings, with references."""
        return {**self.base, **self.network}

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
        settings = {key: value for key, value in settings.items() if value is not ABSENT and key != "preset"}
        problems.check()
        replaced = {"depth", "blocks"} if {"depth", "blocks"} & settings.keys() else set()
        base = {key: value for key, value in self.base.items() if key not in replaced}
        try:
            arch = read({**base, **settings}, input or self.input, classes or self.classes)
            self._check_stages(arch, settings)
            return arch
        except SpecError as error:
            raise self.document.error([self.told("network", problem, values) for problem in error.problems]) from None

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
        """What an assignment replaces in a study's recipe; what is inactive replaces nothing."""
        problems = Problems()
        found = _present(filled(self.recipe, values, ("recipe",), problems))
        problems.check()
        return found

    def told(self, section: str, problem: Problem, values: Assignment) -> Problem:
        """A problem of the filled ``section`` (network or recipe) where it was typed, with the assignment it is of.

        A value that came through a reference was typed where the parameter's values stand.
        """
        path = (section, *problem.path)
        context = f"with {assignment_text(values)}" if values else ""
        found = typed(getattr(self, section), problem.path)
        if found is not None and found[0] in values and (found[2] or not problem.key):
            name, indices, rest = found
            place = self.by_name[name].domain.place(values[name])
            context = f"as {path_text(path)}, {context}"
            path = ("parameters", name, *place, *(indices + rest if len(place) > 1 else ()))
        return replace(problem, path=path, context=f" ({context})" if context else "")

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
        doubtful = set(self._misspelt(given, path, problems))  # parameters of which nothing more can be said
        for parameter in self.parameters:
            name, domain = parameter.name, parameter.domain
            value = given.get(name)
            unsure = name in doubtful or bool(parameter.when and parameter.when.names & doubtful)
            index = None if value is None else domain.index(value)
            if value is not None and index is None:
                problems.add((*path, name), f"{shown(value)} is not in the space; legal: {domain}", own=True)
                unsure = True
            elif not unsure and not parameter.active(values):
                if value is not None:
                    text = f"is only active when {parameter.when and parameter.when.source}; leave it out"
                    problems.add((*path, name), text)
                continue
            elif not unsure and value is None and len(domain) > 1:
                problems.add((*path, name), f"is missing; legal: {domain}")
                unsure = True
            if unsure:
                doubtful.add(name)
            values[name] = domain.values[index or 0]
        return values

    def _misspelt(self, given: Mapping[str, Any], path: Path, problems: Problems) -> Iterator[str]:
        """The parameters that were probably meant by names that are none, each of which is a mistake."""
        known = list(self.by_name)
        for name in given:
            if name in self.by_name or problems.full:
                continue
            near = closest(name, [other for other in known if other not in given] or known)
            hint = f"; did you mean {near}?" if near else ""
            text = f"is not a parameter of the space{hint}; known: {', '.join(known)}"
            problems.add((*path, name), text, key=True, own=True)
            if near:
                yield near

    def certain_mistakes(self, whole: bool) -> Iterator[Problem]:
        """What is wrong with the networks of a space that has other mistakes, and may lack parameters and conditions.

        That is what is wrong by itself; where network and parameters are ``whole``, also what is wrong with them all.
        """
        usual = {p.name: p.domain.values[0] for p in self.parameters}
        others = ({**usual, p.name: value} for p in self.parameters for value in p.domain.values[1:])
        common: set[Problem] | None = None
        for values in (usual, *islice(others, MOST_READ)):
            found: tuple[Problem, ...] = ()
            try:
                self.resolved(values)
            except SpecError as error:
                found = error.problems
            yield from (problem for problem in found if problem.own)
            plain = {replace(problem, context="") for problem in found}
            common = plain if common is None else common & plain
        yield from sorted(common or (), key=str) if whole else ()


def holds(expression: Expression, values: Mapping[str, Any], path: Path) -> bool:
    """Whether the expression at ``path`` is true; raises SpecError where its values do not go together."""
    try:
        return bool(expression(values))
    except ExpressionError as error:
        raise SpecError([Problem(path, str(error))]) from None


def _present(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings without those that are absent, nor sections of which nothing is left."""
    found = {key: _present(value) if isinstance(value, dict) else value for key, value in settings.items()}
    return {key: value for key, value in found.items() if value is not ABSENT and value != {}}


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
    problems = doc.problems()
    found = _space_of(doc, problems)
    foreign = [] if problems.full else list(_foreign(found))
    if not problems.found and not foreign:
        return found
    if problems.sound(("network", "preset"), ("network", "family"), ("network", "input")):
        for problem in found.certain_mistakes(problems.sound(("network",), ("parameters",))):
            problems.note(problem)
    for name, problem in foreign:
        if problems.sound(("parameters", name, found.by_name[name].domain.kind)):
            problems.note(problem)
    raise doc.error(problems.found)


def _space_of(doc: Document, problems: Problems) -> Space:
    """The space, without the parameters and conditions that have mistakes."""
    fields = Fields(doc.value, (), problems)
    name, about = fields.name("space"), fields.text("about", "")
    declared = fields.section("parameters", {})
    parameters = _parameters(declared, doc)
    domains = dict.fromkeys(declared.names()) | {p.name: p.domain for p in parameters}
    network = fields.section("network")
    for key in ("preset", "family", "input", "classes"):
        if isinstance(value := network.take(key, None), str) and value.startswith("$"):
            text = f"is one for the whole space and takes no parameter, but got {shown(value)}"
            network.add(key, text, own=True)
            network.drop(key)
    base = _base(network)
    family = network.text("family", "resnet", tuple(READERS))
    if base and "family" in network and network.sound("family") and family != base.get("family", "resnet"):
        network.add("family", f"comes with the preset, which is no {family}; leave it out")
    size = integers(network.take("input", base.get("input", IMAGE)), ("network", "input"), problems)
    if network.sound("input") and len(size) not in (3, 4):
        text = f"must be [channels, height, width] or, for video, time second, but got {shown(list(size))}"
        network.add("input", text, own=True)
    classes = network.integer("classes", base.get("classes", _published_classes(network, base)), low=2)
    constraints = _constraints(fields, doc, domains)
    recipe = fields.section("recipe", {})
    fields.close()
    sections = {"network": network, "recipe": recipe}
    for key, section in sections.items() if problems.sound(("parameters", "any")) else ():
        check_references(section.values, domains, (key,), problems)
    return Space(
        name, about, parameters, network.values, constraints, size, classes, doc, base, recipe.values
    )  # fmt: skip


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
        network.add("preset", f"must be the name of a network, but got {kind_of(name)}", own=True)
        return {}
    try:
        return settings_of(name)
    except UserError as error:
        network.add("preset", str(error), own=True)
        return {}


def _parameters(fields: Fields, doc: Document) -> tuple[Parameter, ...]:
    """The parameters without mistakes."""
    parameters: list[Parameter] = []
    domains: dict[str, Domain | None] = {}  # of those above
    for name in fields.names():
        if len(domains) == MOST_PARAMETERS:
            fields.add(name, f"is one parameter more than the {MOST_PARAMETERS} that a space may have")
            break
        own = fields.section(name)
        if not _NAME.match(name) or name in RESERVED:
            text = f"is not a usable name: a letter (a–z), then letters, digits or _; reserved: {', '.join(RESERVED)}"
            fields.problems.add(own.path, text, key=True)
        about, condition = own.text("about", ""), own.take("when", None)
        domain = read_domain(own)
        own.close()
        when = None
        if condition is not None:
            when = _expression(condition, (*own.path, "when"), doc, domains, fields)
        domains[name] = domain
        if domain is not None and own.sound("when"):
            parameters.append(Parameter(name, domain, when, about))
    return tuple(parameters)


def _constraints(
    fields: Fields, doc: Document, domains: Mapping[str, Domain | None]
) -> tuple[Expression, ...]:  # fmt: skip
    known = {**domains, **dict.fromkeys(COSTS)}
    read = [
        _expression(source, ("constraints", i), doc, known, fields)
        for i, source in enumerate(fields.items("constraints", []))
    ]
    return tuple(expression for expression in read if expression is not None)


def _expression(
    source: Any, path: Path, doc: Document, domains: Mapping[str, Domain | None], fields: Fields
) -> Expression | None:
    """The condition that ``source`` spells in terms of the names of ``domains``; None where there is a mistake."""
    wrong: list[tuple[str, int | None]]
    try:
        expression = parse(source)
        wrong = [*islice(expression.unconditional(), 1)] or [*_unknown(expression, path, domains, fields)]
    except ExpressionError as error:
        wrong = [(str(error), error.offset)]
    for text, offset in wrong:
        fields.problems.note(Problem(path, text, at=None if offset is None else doc.inside(path, offset)))
    return None if wrong else expression


def _unknown(
    expression: Expression, path: Path, domains: Mapping[str, Domain | None], fields: Fields
) -> Iterator[tuple[str, int]]:
    """The names that a condition may not read, each with its offset."""
    if not fields.problems.sound(("parameters", "any")):
        return
    for name, offset in expression.names_at():
        if name in domains:
            continue
        if path[0] == "parameters" and name in fields.names():
            said = f"{name} stands below; a condition may read the parameters above it, so move {name} up"
            yield (
                said if name != path[1] else f"{name} is the parameter itself; a condition may read those above it",
                offset,
            )
            continue
        above = "; a condition may read the parameters above it" if path[-1] == "when" else ""
        known = f"known: {', '.join(domains) or 'none'} (a text stands in quotes: {shown(name)})"
        yield f"unknown name {shown(name)}{suggestion(name, domains)}{above}; {known}", offset


def _foreign(space: Space) -> Iterator[tuple[str, Problem]]:
    """The parameters that conditions compare with what is none of their values, each with the mistake."""
    conditions = [(("parameters", p.name, "when"), p.when) for p in space.parameters if p.when]
    for path, expression in (*conditions, *((("constraints", i), c) for i, c in enumerate(space.constraints))):
        for name, constants, one_will_do, offset in expression.compared():
            if name not in space.by_name:
                continue
            domain = space.by_name[name].domain
            foreign = [value for value in constants if domain.index(value) is None]
            if one_will_do and len(foreign) < len(constants):  # a list may hold more numbers than the space
                foreign = [value for value in foreign if isinstance(value, str)]
            for value in foreign[:1]:
                texts = [other for other in domain.values[:1000] if isinstance(other, str)]
                hint = suggestion(value, texts) if isinstance(value, str) else ""
                text = f"{shown(value)} is no value of {name}{hint}; legal: {domain}"
                yield name, Problem(path, text, at=space.document.inside(path, offset))
