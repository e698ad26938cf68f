"""What ``recipes`` prints: the named recipes with their sources, or one with every value it has."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from typing import Any

from pyconv_search.cli.columns import table
from pyconv_search.errors import UserError
from pyconv_search.fields import Fields, Problems, shown, suggestion
from pyconv_search.study.presets import ABOUT, RECIPES
from pyconv_search.study.recipe import read_recipe, to_dict


def named(name: str | None) -> list[str]:
    """The recipe of that name, or all; UserError where there is none."""
    if name is not None and name not in RECIPES:
        raise UserError(
            f"no recipe is called {shown(name)}{suggestion(name, RECIPES)}; there are: {', '.join(RECIPES)}"
        )
    return [name] if name else list(RECIPES)


def recipe_dict(name: str) -> dict[str, Any]:
    """One recipe: its source, its values as a study would write them, and all values that it comes to."""
    problems = Problems()
    recipe = to_dict(read_recipe(Fields({"recipe": name}, (), problems)))
    problems.check()
    return {"name": name, "about": ABOUT[name], "values": RECIPES[name], "recipe": recipe}


def recipes_text(names: Iterable[str]) -> str:
    """Every recipe with its source and values, for people."""
    lines = ["A study names one, or one as preset and what replaces its values: recipe: {preset: NAME, epochs: 30}"]
    for name in names:
        written = ", ".join(f"{key}: {_yaml(value)}" for key, value in RECIPES[name].items())
        lines += ["", name, *_wrapped(ABOUT[name]), *_wrapped(f"{{{written}}}")]
    return "\n".join(lines)


def recipe_text(name: str) -> str:
    """One recipe with its source and every value, for people."""
    found = recipe_dict(name)
    rows: list[tuple[object, ...]] = [(key, _yaml(value)) for key, value in found["recipe"].items()]
    return "\n".join([name, *_wrapped(found["about"]), "", table(rows)])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def _yaml(value: Any) -> str:
    """The value as it stands in YAML inside of braces."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_yaml(item)}' for key, item in value.items())}}}"
    return value if isinstance(value, str) else json.dumps(value)
