"""Trials of one network that differ in their seed, trained in a stack, each with a checkpoint and a row of its own."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from pyconv_search.errors import UserError
from pyconv_search.results.row import Epoch, Row
from pyconv_search.search.outcome import detail_of, failed_row
from pyconv_search.search.trial import Trial
from pyconv_search.training import memory, stacked
from pyconv_search.training.device import broken
from pyconv_search.training.stacked import Stack
from pyconv_search.training.tally import Diverged, Tally

_log = logging.getLogger(__name__)


class Group:
    """Trials that one worker runs together, epoch by epoch; ``rows`` are those of its members that have ended.

    Members that are at the same step are trained in a stack, so those that are behind, after an interruption, catch up
    first, alone or in a smaller stack. Whatever goes wrong with one becomes its row. If the stack itself fails (it
    takes the memory of all members), they go on from their checkpoints one by one.

    Raises:
        UserError: as :class:`Trial` does; it concerns the whole study.
    """

    def __init__(self, specs: Sequence[dict[str, Any]], trial: type[Trial] = Trial) -> None:
        self.rows: list[Row] = []
        self._make, self._apart = trial, False
        self._stack: Stack | None = None
        self._histories: dict[str, list[Epoch]] = {}
        self._members = [member for spec in specs if (member := self._made(spec))]

    @property
    def done(self) -> bool:
        """Whether all members have a row."""
        return not self._members

    @property
    def epochs(self) -> list[Epoch]:
        """Every epoch of every member so far."""
        return [epoch for history in self._histories.values() for epoch in history]

    def advance(self) -> None:
        """One more epoch of the members that are behind the others, of all if none is; the rows of those that end.

        Raises:
            UserError: if a checkpoint or the weights cannot be written.
        """
        left = [member for member in self._members if not member.done]
        least = min((member.epochs_run for member in left), default=0)
        behind = sorted((member for member in left if member.epochs_run == least), key=_step)
        for _, members in groupby(behind, _step):
            self._epoch(list(members))
        for member in [member for member in self._members if member.done]:
            self._finish(member)

    def close(self) -> None:
        """Give back the memory of the members that will not go on here."""
        self._stack = None
        for member in self._members:
            member.close()

    def _epoch(self, members: list[Trial]) -> None:
        if self._apart or len(members) == 1 or stacked.obstacle([member.learner for member in members]):
            for member in members:
                self._alone(member)
            return
        try:
            results = _advance(members, self._stack_of(members))
        except UserError:
            raise
        except Exception as error:
            if broken(error):
                raise
            self._part(members, error)
            return
        for member, result in zip(members, results, strict=True):
            if isinstance(result, Diverged):
                self._end(member, member.fail(result))

    def _stack_of(self, members: Sequence[Trial]) -> Stack:
        learners = tuple(member.learner for member in members)
        if self._stack is None or self._stack.learners != learners:
            self._stack = Stack(learners)
        return self._stack

    def _part(self, members: Sequence[Trial], error: Exception) -> None:
        """Go on without stacks; what was trained of this epoch is lost."""
        _log.warning("%d trials could not be trained together and go on one by one: %s", len(members), detail_of(error))
        self._apart, self._stack = True, None
        traceback.clear_frames(error.__traceback__)  # They hold tensors.
        for member in members:
            member.close()
        for member in members:
            self._members.remove(member)
            again = self._made(member.spec)
            if again is not None:
                self._members.append(again)

    def _alone(self, member: Trial) -> None:
        try:
            member.advance()
        except UserError:
            raise
        except Exception as error:
            self._fail(member, error)

    def _finish(self, member: Trial) -> None:
        try:
            row = member.finish()
        except UserError:
            raise
        except Exception as error:
            self._fail(member, error)
        else:
            self._end(member, row)

    def _fail(self, member: Trial, error: Exception) -> None:
        if broken(error):
            raise error
        self._end(member, member.fail(error))

    def _end(self, member: Trial, row: Row) -> None:
        self._members.remove(member)
        self._stack = None
        self.rows.append(row)

    def _made(self, spec: dict[str, Any]) -> Trial | None:
        try:
            member = self._make(spec)
        except UserError:
            raise
        except Exception as error:
            if broken(error):
                raise
            self.rows.append(failed_row(spec, error))
            return None
        self._histories[spec["trial"]] = member.history
        return member


def _step(member: Trial) -> int:
    """The step of its epoch at which a trial goes on; those that are ahead come last."""
    return member.begun[0]


def _advance(members: Sequence[Trial], stack: Stack) -> list[Epoch | Diverged]:
    """One epoch of all members in a stack.

    Times are each member's share of the time that all took, the peak memory that of all together.
    """
    first, share = members[0], 1 / len(members)
    first.settle()
    train, held_out = first.sources
    memory.reset_peak(stack.learners[0].device)
    begun = counted = time.perf_counter()
    before = [member.train_seconds for member in members]

    def count() -> None:
        nonlocal counted
        now = time.perf_counter()
        for member in members:
            member.train_seconds += share * (now - counted)
        counted = now

    def watch(step: int, tallies: Sequence[Tally]) -> None:
        if time.perf_counter() - counted > 60 * first.spec["checkpoints"]["minutes"]:
            count()
            for member, tally in zip(members, tallies, strict=True):
                if stacked.diverged(member.learner, tally) is None:
                    member.save((step, tally.plain()))

    for member in members:
        member.together = max(member.together, len(members))
    seen = stacked.train(stack, train, [m.view for m in members], [m.begun for m in members], watch)
    count()
    found = stacked.evaluate(stack, held_out, first.whole_view)
    seconds = share * (time.perf_counter() - begun)
    results: list[Epoch | Diverged] = []
    for member, own, validated, earlier in zip(members, seen, found, before, strict=True):
        if isinstance(own, Diverged) or isinstance(validated, Diverged):
            results.append(own if isinstance(own, Diverged) else validated)  # type: ignore[arg-type]
            continue
        epoch = member.epoch_of(own, validated, seconds, member.train_seconds - earlier)
        member.note(epoch)
        results.append(epoch)
    return results
