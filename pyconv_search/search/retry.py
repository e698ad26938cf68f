"""How trials that failed are tried again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyconv_search.errors import UserError
from pyconv_search.results.row import Row
from pyconv_search.study import recipe as recipes
from pyconv_search.study.recipe import Recipe
from pyconv_search.study.study import Study


@dataclass(frozen=True, slots=True)
class Retry:
    """With a whole device for each (``alone``), and with every batch in ``accumulate`` parts after ``oom``.

    Parts are for the trials alone that ran out of memory. Batch normalisation sees them, so it is another training,
    which begins anew; the row says so in its environment.
    """

    alone: bool = False
    accumulate: int = 0

    def check(self, study: Study) -> None:
        """UserError unless the trials of the study can be run in this way.

        Where the space's file varies the recipe, the batches are left to :meth:`check_rows`.
        """
        workers = study.resources.workers
        if self.alone and workers > 1:
            raise UserError(f"--alone: is for trials of one process, but each of these has {workers}; leave it out")
        if self.accumulate and not study.space.recipe:
            self._check_batch(study.recipe, workers)

    def check_rows(self, study: Study, rows: Iterable[Row]) -> None:
        """UserError unless the batch of each trial that ran out of memory can be computed in so many parts."""
        for row in rows if self.accumulate and study.space.recipe else ():
            if (row.status, row.reason) == ("failed", "oom"):
                own = recipes.from_dict(recipes.to_dict(study.recipe) | row.recipe)
                self._check_batch(own, study.resources.workers, f" of {row.name}")

    def _check_batch(self, recipe: Recipe, workers: int, of: str = "") -> None:
        share = recipe.batch // workers
        legal = [n for n in range(recipe.accumulate + 1, share // 2 + 1) if share % n == 0]
        if self.accumulate not in legal:
            near = min(legal, key=lambda n: abs(n - self.accumulate), default=None)
            whose = f"each of {workers} workers' {share}" if share < recipe.batch else f"the {share}"
            raise UserError(
                f"--accumulate {self.accumulate}: must divide {whose} images of a batch{of} into more than the "
                f"{recipe.accumulate} of the recipe, of at least two images each"
                + (f"; nearest: {near}" if near else "; there is no such number")
            )

    def applied(self, spec: dict[str, Any], reason: str) -> dict[str, Any]:
        """The description of a trial that failed for ``reason``, to be run in this way."""
        found = spec | ({"alone": True} if self.alone else {})
        parts = self._parts(reason)
        if not parts:
            return found
        return found | {"recipe": spec["recipe"] | {"accumulate": parts}, "accumulated": parts}

    def anew(self, row: Row) -> bool:
        """Whether the next attempt at a trial that failed with ``row`` is another training, which begins anew."""
        return row.environment.get("accumulate") != parts_text(self._parts(row.reason))

    def _parts(self, reason: str) -> int:
        return self.accumulate if reason == "oom" else 0


def parts_text(parts: int) -> str | None:
    """What a row's environment says under ``accumulate``; None where the batch is in the recipe's own parts."""
    return f"{parts} parts of each batch, after oom" if parts else None
