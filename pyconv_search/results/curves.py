"""The learning curve of each trial: of its latest training, where one began anew after another."""

from __future__ import annotations

from collections.abc import Iterable

from pyconv_search.results.row import Epoch, Row

# What a training computes; how long it took and how much memory differ each time.
NUMBERS = ("lr", "train_loss", "train_top1_error", "val_loss", "val_top1_error", "val_top5_error")


class Curves:
    """Epochs and rows taken in the order of the journal.

    A training that goes on from a checkpoint repeats the epochs since then with the numbers that they had. Other
    numbers are those of a training that began anew, or went another way from there, so that epoch and all after it
    that are known by then are no longer the trial's. A row says how many epochs are behind its training.
    """

    def __init__(self) -> None:
        self._points: dict[str, dict[int, Epoch]] = {}

    def add(self, epoch: Epoch) -> bool:
        """Take an epoch; False where its numbers are known already."""
        curve = self._points.setdefault(epoch.trial, {})
        known = curve.get(epoch.epoch)
        if known is not None and known is not epoch and _numbers(known) != _numbers(epoch):
            self._cut(curve, epoch.epoch - 1)
        fresh = epoch.epoch not in curve
        curve[epoch.epoch] = epoch
        return fresh

    def end(self, row: Row) -> None:
        """Take a row. One that knows no device is of a worker that was lost, or of a trial that could not begin."""
        if row.epochs or row.device:
            self._cut(self._points.get(row.trial, {}), row.epochs)

    def of(self, trial: str) -> list[Epoch]:
        """The epochs of one trial, in their order."""
        return [epoch for _, epoch in sorted(self._points.get(trial, {}).items())]

    def trials(self) -> Iterable[str]:
        """The trials that have an epoch, in the order in which these were first taken."""
        return [trial for trial, curve in self._points.items() if curve]

    @staticmethod
    def _cut(curve: dict[int, Epoch], last: int) -> None:
        for number in [number for number in curve if number > last]:
            del curve[number]


def _numbers(epoch: Epoch) -> list[str]:
    # As texts, so that a number that is none equals itself.
    return [repr(getattr(epoch, name)) for name in NUMBERS]
