"""Whether the seeds of a network train faster in a stack than side by side, found out by doing both.

As many processes as the machines let run train at the same time, each with the resources of one trial: first each a
trial of its own, then each a stack of them, in turns. So the same resources are used, and what the processes take from
each other, of caches or of a GPU that they share, counts.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import ray
import torch
from ray.exceptions import RayError
from rich.console import Console

from pyconv_search.errors import UserError
from pyconv_search.results import verdicts
from pyconv_search.results.verdicts import Verdict
from pyconv_search.search.connection import room
from pyconv_search.search.outcome import detail_of, device_name
from pyconv_search.search.trial import Trial
from pyconv_search.search.waiting import say
from pyconv_search.search.work import Work
from pyconv_search.study.plan import Candidate, trial_spec
from pyconv_search.study.study import Study
from pyconv_search.training import loop, stacked
from pyconv_search.training.stacked import Stack
from pyconv_search.training.tally import Diverged

ROUNDS = 3
# A process that stands still is not waited for any longer. What is measured takes seconds; to read the data takes more.
LIMIT_SECONDS = 900.0
SECONDS = 1.5
# Multiply-adds a second of training on a core and on a GPU, the order of magnitude: small networks reach from 3 to 40
# billion on a core of a server. It is only to tell studies that are worth a measurement.
RATE = {"cpu": 1e10, "cuda": 1e12}
# A measurement takes some 15 seconds with the start of the processes, so this is 2.5 % of what it decides about.
WORTH_SECONDS = 600.0


class Racer:
    """A process that trains one trial, or a stack of ``specs``, for a while."""

    def prepare(self, specs: Sequence[dict[str, Any]]) -> str:
        """Build the networks; the device that they are trained on.

        Raises:
            UserError: if they cannot be stacked.
        """
        own = [{**spec, "folder": None} for spec in specs]
        self._alone, self._trials = Trial(own[0]), [Trial(spec) for spec in own]
        obstacle = stacked.obstacle([trial.learner for trial in self._trials])
        if obstacle:
            raise UserError(f"cannot be stacked: {obstacle}")
        self._stack = Stack([trial.learner for trial in self._trials])
        return device_name(self._alone.learner.device)

    def race(self, together: bool, seconds: float) -> float:
        """Images a second over all members, after ``seconds``; a step at least."""
        device, recipe = self._alone.learner.device, self._alone.learner.recipe
        self._alone.settle()
        train, steps = self._epochs(together), 0
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds or not steps:
            steps += train(begun + seconds)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return steps * recipe.batch * (len(self._stack) if together else 1) / (time.perf_counter() - begun)

    def _epochs(self, together: bool) -> Callable[[float], int]:
        """What trains an epoch, or the part of it before a time; it tells how many steps these were."""
        first, trials = self._alone, self._trials
        source, none = first.sources[0], (0, (0.0, 0.0, 0.0, 0.0))

        def train(until: float) -> int:
            done = 0

            def watch(step: int, tally: Any) -> None:
                nonlocal done
                done = step
                if time.perf_counter() >= until:
                    raise _Enough

            try:
                if together:
                    views = [trial.view for trial in trials]
                    for result in stacked.train(self._stack, source, views, [none] * len(trials), watch):
                        if isinstance(result, Diverged):
                            raise result
                else:
                    loop.train(first.learner, source, first.view, none, watch)
            except _Enough:
                pass
            return done

        return train


class _Enough(Exception):
    """Time is over."""


def race(
    specs: Sequence[dict[str, Any]], processes: int, cpu: float, gpu: float, seconds: float = SECONDS
) -> tuple[str, list[float], list[float]]:
    """The device, and the images a second of all processes by round: each with a trial of its own, each with a stack.

    Ray must run, with nothing else on it.

    Raises:
        RayError: if a process failed, or stands still.
    """
    racer: Any = ray.remote(num_cpus=cpu, num_gpus=gpu)(Racer)
    racers: list[Any] = [racer.remote() for _ in range(processes)]
    found: dict[bool, list[float]] = {False: [], True: []}
    try:
        device = ray.get([each.prepare.remote(specs) for each in racers], timeout=LIMIT_SECONDS)[0]
        for number in range(ROUNDS + 1):
            for together in (False, True) if number % 2 else (True, False):
                turns = [each.race.remote(together, seconds if number else 0.0) for each in racers]
                rates = ray.get(turns, timeout=LIMIT_SECONDS)
                if number:  # The first round is a step of each, which finds plans and allocates.
                    found[together].append(sum(rates))
    finally:
        for each in racers:
            ray.kill(each)
    return device, found[False], found[True]


def sizes(study: Study, work: Work, console: Console, ending: Callable[[], bool]) -> Callable[[Candidate], int]:
    """How many trials of a network to train together: the study's number, or what is measured here, or was before.

    Not measured, but trained one by one, are networks of which fewer trials wait than there is room for at once, and
    those whose training takes no longer than some minutes. What ``ending`` tells to be over is not measured any more.

    Raises:
        UserError: if the study has no room on the machines, or verdicts cannot be written.
    """
    if study.resources.together:
        return lambda network: study.resources.together
    processes, known = room(study), verdicts.read(work.folder)
    chosen: dict[str, int] = {}
    for network, size in _questions(study, work, processes):
        key = _key(study, network, size, processes)
        if ending():
            break
        if key not in known:
            known[key] = _verdict(study, network, (size, processes), key)
            verdicts.write(work.folder, known)
            say(console, str(known[key]))
        chosen[network.config] = known[key].together
    return lambda network: chosen.get(network.config, 1)


def _questions(study: Study, work: Work, processes: int) -> list[tuple[Candidate, int]]:
    """The networks to ask about, each with the size of its stacks."""
    waiting = work.queued
    numbers = Counter(id(network) for network in waiting)
    counts = {id(network): (network, numbers[id(network)]) for network in waiting}
    # All processes are to have work: stacks are no larger than leaves one for each.
    most = max(len(waiting) // processes, 1)
    found = [(network, min(count, most)) for network, count in counts.values()]
    return [(network, size) for network, size in found if size > 1 and _effort(study, network) >= WORTH_SECONDS]


def _effort(study: Study, network: Candidate) -> float:
    """About how many seconds all trials of a network take, one after the other, with the resources of one."""
    rate = RATE["cuda"] * study.resources.gpu if study.resources.gpu else RATE["cpu"] * study.resources.cpu
    return 3 * network.cost.macs * study.data.train * network.recipe.epochs * len(study.seeds) / rate


def _verdict(study: Study, network: Candidate, setting: tuple[int, int], key: str) -> Verdict:
    size, processes = setting
    specs = [trial_spec(study, network, seed, None) for seed in study.seeds[:size]]
    resources = study.resources
    try:
        device, apart, together = race(specs, processes, resources.cpu, resources.gpu)
    except RayError as error:
        reason = detail_of(getattr(error, "cause", None) or error, 1)
        own = (key, network.architecture.arch_id, network.name, "-", size, processes)
        return Verdict(*own, failure=reason, config=network.config)
    own = (key, network.architecture.arch_id, network.name, device, size, processes)
    return Verdict(*own, tuple(apart), tuple(together), config=network.config)


def _key(study: Study, network: Candidate, size: int, processes: int) -> str:
    """A digest of what decides the speed: another machine, version or recipe is another question."""
    spec = trial_spec(study, network, study.seeds[0], None)
    machines = sorted(
        json.dumps({k: v for k, v in node["Resources"].items() if k in ("CPU", "GPU") or "accelerator" in k})
        for node in ray.nodes()
        if node["Alive"]
    )
    decides = [spec["architecture"], spec["recipe"], spec["device"], study.resources.cpu, study.resources.gpu]
    text = json.dumps([decides, size, processes, machines, torch.__version__], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
