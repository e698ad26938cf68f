"""The hours of a study against sums by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pyconv_search.study.study import Resources, Study, load_study
from pyconv_search.training.estimate import (
    Estimate,
    Rate,
    estimated,
    networks,
    plain,
    room_on,
    scaled,
    telling,
    to_measure,
)

# The shipped data: 10,000 training, 2,000 validation and 2,000 test images of 28×28.
TRAIN, VALIDATION, TEST = 10_000, 2_000, 2_000


@pytest.fixture
def study(tiny_study: Callable[..., Path]) -> Callable[..., Study]:
    def load(**changes: object) -> Study:
        return load_study(tiny_study(**changes))

    return load


def found(*rates: tuple[float, float], gpus: int = 0) -> dict[str, object]:
    return {
        "device": "abacus",
        "gpus": gpus,
        "rates": [{"training": training, "evaluation": evaluation} for training, evaluation in rates],
    }


def test_the_hours_are_the_sum_over_trials(study: Callable[..., Study]) -> None:
    one = study(seeds=3, recipe={"epochs": 5}, resources={"cpu": 2})
    rows = networks(one)
    assert [row.values["levels"] for row in rows] == [[1, 1, 1], [2, 2, 1]]
    dear, cheap = sorted(range(2), key=lambda i: -rows[i].cost.macs)
    got = estimated(one, rows, found((100.0, 400.0), (50.0, 200.0)), room=4)
    cheap_seconds = 5 * (TRAIN / 100 + VALIDATION / 400) + TEST / 400
    dear_seconds = 5 * (TRAIN / 50 + VALIDATION / 200) + TEST / 200
    assert (got.trials, got.unit, got.devices, got.concurrent, got.device) == (6, "core", 2, 4, "abacus")
    assert got.seconds == pytest.approx(3 * (cheap_seconds + dear_seconds))
    assert got.training_seconds == pytest.approx(3 * 5 * (TRAIN / 100 + TRAIN / 50))
    assert got.device_seconds == pytest.approx(2 * got.seconds)
    assert got.wall_seconds == pytest.approx(max(got.seconds / 4, dear_seconds))
    assert (got.rates[cheap].training, got.rates[dear].training) == (100.0, 50.0)
    assert [each["training"] for each in plain(rows, got)["measured"]] == [rate.training for rate in got.rates]


def test_a_single_trial_is_never_shorter_than_itself(study: Callable[..., Study]) -> None:
    one = study(recipe={"epochs": 1})
    got = estimated(one, networks(one), found((1e9, 1e9), (50.0, 200.0)), room=64)
    assert got.concurrent == 2
    assert got.wall_seconds == pytest.approx(TRAIN / 50 + (VALIDATION + TEST) / 200)
    assert estimated(one, networks(one), found((1e9, 1e9), (50.0, 200.0)), room=0).wall_seconds is None


def test_smaller_images_count_by_their_pixels(study: Callable[..., Study]) -> None:
    growing = {"epochs": 4, "resolution": {"start": 0.5, "until": 0.5}}
    one = study(recipe=growing)
    got = estimated(one, networks(one), found((100.0, 100.0), (100.0, 100.0)), room=1)
    assert one.recipe.resolution == 0.5
    sides = [16, 20, 28, 28]  # 14 and 21 of 28 pixels in whole multiples of 4, of ties the even one
    assert got.training_seconds == pytest.approx(2 * sum(side**2 for side in sides) / 28**2 * TRAIN / 100)


def test_between_measured_networks_seconds_are_interpolated(study: Callable[..., Study]) -> None:
    space = Path(__file__).parents[2] / "spaces" / "pyconv_levels_cifar.yaml"
    one = study(space=str(space), search={"random": {"trials": 6}}, data="fashion-mnist-small")
    rows = networks(one)
    low, middle, high = (rows[i].cost.macs for i in telling(rows))
    assert low < middle < high
    got = estimated(one, rows, found((400.0, 800.0), (200.0, 500.0), (100.0, 250.0)), room=1)
    for row, rate in zip(rows, got.rates, strict=True):
        macs = row.cost.macs
        near, far, fast, slow = (low, middle, 400, 200) if macs <= middle else (middle, high, 200, 100)
        share = (macs - near) / (far - near)
        assert 1 / rate.training == pytest.approx((1 - share) / fast + share / slow)
        assert rate.measured == (macs in (low, middle, high))


def test_what_an_adaptive_search_will_propose_is_drawn(study: Callable[..., Study]) -> None:
    one = study(search={"tpe": {"trials": 2}}, seeds=4)
    rows = networks(one)
    assert len({row.architecture for row in rows}) == 2
    got = estimated(one, rows, found(*[(100.0, 100.0)] * len(to_measure(one, rows))), room=1)
    assert got.trials == 8
    assert got.seconds == pytest.approx(8 * (2 * (TRAIN + VALIDATION) + TEST) / 100)


def test_a_given_rate_is_scaled_by_multiply_adds(study: Callable[..., Study]) -> None:
    one = study(recipe={"epochs": 1, "mirror": True})
    rows = networks(one)
    cheap, dear = sorted(range(2), key=lambda i: rows[i].cost.macs)
    got = scaled(one, rows, 600.0, room=1)
    assert got.rates[cheap] == Rate(600.0, 900.0)
    assert got.rates[dear].training == pytest.approx(600 * rows[cheap].cost.macs / rows[dear].cost.macs)


@pytest.mark.parametrize(
    ("cpu", "gpu", "there", "room"),
    [
        (2, 0, (5, 0), 2),
        (4, 0, (2, 8), 0),
        (1, 0.25, (64, 2), 8),
        (1, 0.3, (64, 2), 6),
        (2, 0.25, (4, 1), 2),
        (1, 1, (64, 0), 0),
    ],
)
def test_room_of_a_machine(cpu: int, gpu: float, there: tuple[int, int], room: int) -> None:
    assert room_on(Resources(cpu, gpu), *there) == room


def test_a_gpu_is_the_unit_where_trials_take_a_share_of_one() -> None:
    got = Estimate((), 8, 300.0, 400.0, 50.0, 0.25, "GPU", 4)
    assert (got.device_seconds, got.wall_seconds) == (100.0, 100.0)


def test_needs_no_torch() -> None:
    code = "import sys, pyconv_search.training.estimate; print({'torch', 'ray'} & set(sys.modules))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout == "set()\n"
