"""Recipes that the space's file varies together with the network: the study's, with the values of an assignment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pyconv_search.fields import Problem, Problems, SpecError
from pyconv_search.space.describe import one_each, telling
from pyconv_search.space.references import references
from pyconv_search.space.space import Assignment, Space
from pyconv_search.study.recipe import MOST_EPOCHS, Recipe, overridden, to_dict


def recipe_of(space: Space, given: str | Mapping[str, Any], values: Assignment) -> Recipe:
    """The recipe of an assignment, where the study gives ``given``.

    Raises:
        SpecError: with every mistake, under the path of the section ``recipe`` of the space's file.
    """
    problems = Problems()
    found = overridden(given, space.overrides(values), problems)
    problems.check()
    return found


def differing(recipe: Recipe, usual: Recipe) -> dict[str, Any]:
    """The values, by the names of :class:`Recipe`, in which a recipe is not the usual one."""
    own, others = to_dict(recipe), to_dict(usual)
    return {name: value for name, value in own.items() if value != others[name]}


def check_recipes(
    space: Space,
    given: str | Mapping[str, Any],
    epochs: int | None = None,
    unfit: Callable[[Recipe], Iterable[Problem]] = lambda recipe: (),
) -> int:
    """Read the recipes of all assignments, or of very many a telling part; return the largest number of epochs.

    With ``epochs`` they all have to train for so many. ``unfit``: what is wrong with one of them.

    Raises:
        DocumentError: with every mistake at its place in the space's file, each once.
    """
    found: list[Problem] = []
    most = 0
    own = _of_the_recipe(space)
    for values in telling(own)[0]:
        try:
            if own.violated(values):
                continue
            recipe = recipe_of(space, given, values)
        except SpecError as error:
            found += [_told(space, problem, values) for problem in error.problems]
            continue
        found += [_told(space, problem, values) for problem in unfit(recipe)]
        most = max(most, recipe.epochs)
        if epochs is not None and recipe.epochs != epochs:
            text = (
                f"makes {recipe.epochs} epochs of the study's {epochs}, but asha compares trials epoch by epoch; leave "
                "the epochs to the study, or give it scheduler: none"
            )
            found.append(_told(space, Problem(("recipe", "epochs"), text), values))
    if found:
        raise space.document.error(one_each(found))
    return most


def check_alone(space: Space) -> None:
    """What is wrong by itself in the section ``recipe`` of a space, whatever study it is for.

    Raises:
        DocumentError: with every such mistake at its place in the space's file.
    """
    found: list[Problem] = []
    own = _of_the_recipe(space)
    for values in telling(own)[0] if space.recipe else ():
        if own.violated(values):
            continue
        problems = Problems()
        overridden({"epochs": MOST_EPOCHS}, space.overrides(values), problems)
        found += [_told(space, problem, values) for problem in problems.found if problem.own]
    if found:
        raise space.document.error(one_each(found))


def _of_the_recipe(space: Space) -> Space:
    """The space of the parameters alone that the recipe depends on; constraints that ask for another one hold."""
    names = set(_needed(space))
    return dataclasses.replace(space, parameters=tuple(p for p in space.parameters if p.name in names))


def _needed(space: Space) -> Iterator[str]:
    """The parameters of the recipe, and those that their conditions read."""
    needed = {name for _, name, _ in references(space.recipe)}
    for parameter in reversed(space.parameters):  # a condition reads the parameters above it
        if parameter.name in needed:
            needed |= parameter.when.names if parameter.when else set()
            yield parameter.name


def _told(space: Space, problem: Problem, values: Assignment) -> Problem:
    """A problem under the path ``recipe`` where it was typed; one of the conditions' stands where it does."""
    if problem.path[:1] != ("recipe",):
        return problem
    return space.told("recipe", dataclasses.replace(problem, path=problem.path[1:]), values)
