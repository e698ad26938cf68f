"""The printed accuracies of the papers (``results.yaml``): tables under a reference such as ``pyconv/table2``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from pyconv_search.arch.published.data import read
from pyconv_search.arch.published.networks import NetworkRow, network_rows

PAPERS = {
    "pyconv": "PyConv (Duta et al. 2020, arXiv:2006.11538)",
    "psconv": "PSConv (Li et al. 2020, arXiv:2007.06191)",
}
REAL = ("lr", "momentum", "weight_decay", "gamma", "warmup")


@dataclass(frozen=True, slots=True)
class Metric:
    """What a printed number is; ``better`` is ``lower`` or ``higher``."""

    key: str
    title: str
    unit: str
    better: str


@dataclass(frozen=True, slots=True)
class PublishedRecipe:
    """How a paper trained its networks; None where it does not say. Units as in :class:`pyconv_search.study.recipe`."""

    name: str
    epochs: int | None = None
    batch: int | None = None
    lr: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    schedule: str | None = None
    steps: tuple[int, ...] | None = None
    gamma: float | None = None
    warmup: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """One printed row: ``values`` by metric, none where only the text tells of it; ``sd`` is over the paper's runs."""

    row: str
    values: Mapping[str, Decimal]
    recipe: PublishedRecipe
    sd: Decimal | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class ResultTable:
    """One printed table. ``input`` is (channels, [frames,] height, width), ``convention`` that of its GFLOPs."""

    reference: str
    paper: str
    table: str
    title: str
    data: str
    split: str
    input: tuple[int, ...]
    convention: str
    metrics: tuple[Metric, ...]
    rows: tuple[Result, ...]

    @property
    def source(self) -> str:
        """Paper and table, for a reader."""
        return f"{PAPERS[self.paper]}, {self.table}"

    def counts(self, result: Result) -> NetworkRow | None:
        """What the same row prints of parameters and GFLOPs, if anything."""
        place = (self.paper, self.table, result.row)
        return next((r for r in network_rows() if r.printed and (r.paper, r.table, r.row) == place), None)


@cache
def result_tables() -> dict[str, ResultTable]:
    """Every table of ``results.yaml`` by its reference, in its order."""
    content = read("results.yaml")
    metrics = {key: Metric(key, **values) for key, values in content["metrics"].items()}
    recipes = {name: _recipe(name, values) for name, values in content["recipes"].items()}
    return {reference: _table(reference, values, metrics, recipes) for reference, values in content["tables"].items()}


def _recipe(name: str, values: dict[str, Any]) -> PublishedRecipe:
    found: dict[str, Any] = {"name": name, **values}
    for key, read_as in (("epochs", int), ("batch", int), *((k, float) for k in REAL)):
        if key in values:
            found[key] = read_as(values[key])
    if "steps" in values:
        found["steps"] = tuple(map(int, values["steps"]))
    return PublishedRecipe(**found)


def _table(
    reference: str, values: dict[str, Any], metrics: dict[str, Metric], recipes: dict[str, PublishedRecipe]
) -> ResultTable:
    recipe = recipes[values.pop("recipe")]
    rows = tuple(_result(row, metrics, recipes, recipe) for row in values.pop("rows"))
    used = tuple(metric for key, metric in metrics.items() if any(key in row.values for row in rows))
    size = tuple(map(int, values.pop("input")))
    return ResultTable(reference, reference.split("/")[0], input=size, metrics=used, rows=rows, **values)


def _result(
    values: dict[str, Any], metrics: dict[str, Metric], recipes: dict[str, PublishedRecipe], recipe: PublishedRecipe
) -> Result:
    numbers = {key: Decimal(values.pop(key)) for key in metrics if key in values}
    sd = Decimal(values.pop("sd")) if "sd" in values else None
    return Result(
        values=numbers, sd=sd, recipe=recipes[values.pop("recipe")] if "recipe" in values else recipe, **values
    )
