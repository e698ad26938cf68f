"""A trial that does no work, for what a study costs beside the training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pyconv_search.results.row import Epoch, Row
from pyconv_search.search.outcome import blank_row


class Nothing:
    """A trial of one epoch that trains nothing."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.history: list[Epoch] = []

    @property
    def done(self) -> bool:
        return bool(self.history)

    def advance(self) -> Epoch:
        error = 20.0 + int(self.spec["trial"][:8], 16) % 6000 / 100  # differs from trial to trial, as a search needs
        self.history.append(Epoch(self.spec["trial"], 1, 0.1, 1.0, error, 1.0, error, 10.0, 0.0))
        return self.history[-1]

    def finish(self) -> Row:
        return self._row("complete", "", "")

    def so_far(self) -> Row:
        return self._row("stopped", "scheduler", "")

    def fail(self, error: BaseException) -> Row:
        return self._row("failed", "error", str(error))

    def close(self) -> None:
        """There is nothing to give back."""

    def _row(self, status: str, reason: str, detail: str) -> Row:
        error = self.history[-1].val_top1_error if self.history else None
        return replace(blank_row(self.spec, status, reason, detail), epochs=len(self.history), val_top1_error=error)
