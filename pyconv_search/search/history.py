"""What TPE proposes from, held in memory: the networks that were accepted, and nothing of what was refused."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial

from pyconv_search.results.row import Row
from pyconv_search.search.ledger import decode, directions, distribution, tell
from pyconv_search.space.space import Assignment
from pyconv_search.study.study import Study


class History:
    """The trials that a sampler reads, in the order in which they were accepted, by configuration.

    Optuna cannot take a trial back. So all asking is done for one trial, which stays under way and which the sampler
    leaves out of account.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._storage = optuna.storages.InMemoryStorage()
        self._optuna = optuna.create_study(study_name="history", storage=self._storage, directions=directions(study))
        self._asking = self._optuna.ask()._trial_id
        self._forms = {p.name: distribution(p.domain) for p in study.space.parameters}
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, config: str | None) -> bool:
        return config in self._numbers

    def add(self, config: str, trial: FrozenTrial) -> None:
        """Take up a network that was accepted, whatever became of it."""
        self._optuna.add_trial(trial)
        self._numbers[config] = len(self._numbers) + 1

    def tell(self, config: str, rows: Sequence[Row], steps: Mapping[int, float]) -> None:
        """Take up what became of a network, if it is under way."""
        if not self._optuna_trial(config).state.is_finished():
            tell(self._optuna, self._numbers[config], self._study, rows, steps)

    def proposals(self, most: int) -> Iterator[Assignment]:
        """Up to ``most`` assignments that TPE proposes one after the other, each in the place of those before it.

        They are a function of the search's seed and of what this history holds.
        """
        # What Optuna reads of a study, it reads once for a sampler; so this one is as fresh as the sampler.
        past = optuna.load_study(study_name="history", storage=self._storage, sampler=_sampler(self._study, len(self)))
        trial = self._storage.get_trial(self._asking)
        space = past.sampler.infer_relative_search_space(past, trial)
        for _ in range(most):
            yield self._assignment(past, trial, past.sampler.sample_relative(past, trial, space))

    def _assignment(self, past: optuna.Study, trial: FrozenTrial, sampled: Mapping[str, Any]) -> Assignment:
        values: Assignment = {}
        for parameter in self._study.space.parameters:
            name, form = parameter.name, self._forms[parameter.name]
            if parameter.active(values):
                alone = name not in sampled
                value = past.sampler.sample_independent(past, trial, name, form) if alone else sampled[name]
                values[name] = decode(parameter.domain, value)
        return values

    def _optuna_trial(self, config: str) -> FrozenTrial:
        study_id, number = self._optuna._study_id, self._numbers[config]
        return self._storage.get_trial(self._storage.get_trial_id_from_study_id_trial_number(study_id, number))


class _Tpe(TPESampler):
    """TPE that fits its densities once for all that is proposed from one history, which is nearly all that it costs."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._fits: dict[tuple[str, ...], dict[bool, Any]] = {}

    def _build_parzen_estimator(
        self,
        study: optuna.Study,
        search_space: dict[str, BaseDistribution],
        trials: list[FrozenTrial],
        handle_below: bool,
    ) -> Any:
        fitted = super()._build_parzen_estimator(study, search_space, trials, handle_below)
        self._fits.setdefault(tuple(search_space), {})[handle_below] = fitted
        return fitted

    def _sample(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        fits = self._fits.get(tuple(search_space))
        if fits is None:
            return super()._sample(study, trial, search_space)
        samples = fits[True].sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(samples, self._compute_acquisition_func(samples, fits[True], fits[False]))
        return {name: form.to_external_repr(best[name]) for name, form in search_space.items()}


def _sampler(study: Study, number: int) -> TPESampler:
    digest = hashlib.sha256(f"{study.search.seed}/tpe/{number}".encode()).digest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _Tpe(
            n_startup_trials=study.search.startup,
            multivariate=True,
            group=True,
            constant_liar=True,
            seed=int.from_bytes(digest[:4]),
        )
