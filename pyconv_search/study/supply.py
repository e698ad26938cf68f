"""How many different configurations a space holds on a study's data, where they can be counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pyconv_search.space.arrays import Costs
from pyconv_search.space.choices import decode, every
from pyconv_search.space.describe import EXACT, LISTED
from pyconv_search.space.masks import Ints, distinct, satisfied
from pyconv_search.space.references import references
from pyconv_search.space.space import COSTS, Assignment
from pyconv_search.study.joint import differing

if TYPE_CHECKING:
    from pyconv_search.study.study import Study


class Supply:
    """One assignment of every different configuration that satisfies the constraints, in the order of assignments."""

    def __init__(self, study: Study, choices: Ints) -> None:
        self._space, self._choices = study.space, choices

    def __len__(self) -> int:
        return len(self._choices)

    def __iter__(self) -> Iterator[Assignment]:
        return (decode(self._space, row) for row in self._choices)


def supply(study: Study) -> Supply | None:
    """Every configuration of a study's space on the study's data; None where there are too many to look at.

    That is more than LISTED assignments, or more than EXACT networks that would have to be built one by one.
    """
    space, info = study.space, study.data.info
    if space.size > LISTED:
        return None
    costs, choices = Costs(space, info.input, info.classes), every(space)
    if space.size > EXACT and costs.unknown(choices) > EXACT:
        return None
    choices = choices[np.all([np.ones(len(choices), bool), *satisfied(space, choices)], axis=0)]
    columns = costs(choices)
    values = {name: getattr(columns, name) if name == "gmacs" else columns[name] for name in COSTS}
    choices = choices[np.all([columns.valid, *satisfied(space, choices, values)], axis=0)]
    first, _ = distinct([costs.same(choices), _recipes(study, choices)], len(choices))
    return Supply(study, choices[np.sort(first)])


def _recipes(study: Study, choices: Ints) -> Ints:
    """A number for every row, equal where the recipes are."""
    read = {name for _, name, _ in references(study.space.recipe)}
    columns = [choices[:, i] for i, parameter in enumerate(study.space.parameters) if parameter.name in read]
    first, number = distinct(columns, len(choices))
    recipes = [study.recipe_of(decode(study.space, choices[row])) for row in first]
    texts = [json.dumps(differing(recipe, study.recipe), sort_keys=True) for recipe in recipes]
    order = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return np.array([order[text] for text in texts], np.int64)[number]
