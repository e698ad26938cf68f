"""How trials that failed are tried again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyconv_search.errors import UserError
from pyconv_search.results.row import Row
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
        """UserError unless the batch of the study can be computed in so many parts."""
        recipe, share = study.recipe, study.recipe.batch // study.resources.workers
        if not self.accumulate:
            return
        legal = [n for n in range(recipe.accumulate + 1, share // 2 + 1) if share % n == 0]
        if self.accumulate not in legal:
            near = min(legal, key=lambda n: abs(n - self.accumulate), default=None)
            whose = f"each of {study.resources.workers} workers' {share}" if share < recipe.batch else f"the {share}"
            raise UserError(
                f"--accumulate {self.accumulate}: must divide {whose} images of a batch into more than the "
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
