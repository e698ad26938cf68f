"""Two processes that train together against one that trains alone, and against batch normalisation by hand.

Run as a program, this file is one of the processes: ``test_parallel.py RANK FOLDER``; or, with ``test_parallel.py three
FOLDER``, the parent of three, which train without and with a new beginning between.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

import pyconv_search
from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.study.recipe import Recipe
from pyconv_search.training import loop, parallel
from pyconv_search.training.augment import normalise
from pyconv_search.training.data import Split
from pyconv_search.training.device import settle
from pyconv_search.training.learner import Learner, make_learner
from pyconv_search.training.randomness import generator_of
from pyconv_search.training.source import Images, View, to_device
from pyconv_search.training.tally import Diverged, Tally

CPU = torch.device("cpu")
SIZE = (8, 8)
RECIPE = Recipe(
    epochs=2,
    batch=16,
    lr=0.05,
    label_smoothing=0.1,
    crop=1,
    flip=True,
    cutout=3,
    clip=0.5,
    ema=0.9,
    precision="fp32",
    channels_last=False,
)
ONE_STEP = Recipe(epochs=1, batch=70, lr=0.1, weight_decay=0.0, ema=0.5, precision="fp32", channels_last=False)


def network(norm: bool) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        middle = [nn.BatchNorm2d(8)] if norm else []
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), *middle, nn.ReLU(), nn.Flatten(), nn.Linear(8 * SIZE[0] * SIZE[1], 7)
        )


def images(count: int = 70) -> Images:
    numbers = np.random.default_rng(0)
    split = Split(numbers.integers(0, 256, (count, 3, *SIZE), np.uint8), numbers.integers(0, 7, count))
    info = DataSetInfo("noise", "", (3, *SIZE), 7, count, 0, 0, (0.4,) * 3, (0.25,) * 3, "", "")
    return to_device(split, info, CPU)


def trained(recipe: Recipe, norm: bool) -> tuple[Learner, list[Any]]:
    """A training over all epochs by however many processes there are, and its scores."""
    learner, scores = parallel.joined(make_learner(network(norm), recipe, 5, CPU)), []
    for epoch in range(recipe.epochs):
        view = loop.view_of(learner, epoch, SIZE)
        scores.append(asdict(loop.train(learner, images(), view)))
        scores.append(asdict(loop.evaluate(learner, images(33), view, batch=8)))
    return learner, scores


def state(learner: Learner) -> dict[str, Tensor]:
    found = {f"average/{n}": t for n, t in learner.evaluated.state_dict().items()}
    return found | {f"model/{n}": t for n, t in learner.model.state_dict().items()}


SCENARIOS = {
    "plain": (RECIPE, False),
    "accumulate": (replace(RECIPE, accumulate=2), False),
    "norm": (ONE_STEP, True),
    "norms": (RECIPE, True),
}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    settle(CPU, 1)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found in all scenarios."""
    folder = tmp_path_factory.mktemp("pair")
    environment = {**os.environ, "PYTHONPATH": str(Path(pyconv_search.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(folder)], env=environment) for rank in (0, 1)
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", ["plain", "accumulate"])
def test_two_processes_equal_one(pair: list[dict[str, Any]], name: str):
    learner, scores = trained(*SCENARIOS[name])
    for found in pair:
        for tensor, expected in zip(found[name]["state"].values(), state(learner).values(), strict=True):
            torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-6)
        for one, other in zip(found[name]["scores"], scores, strict=True):
            assert one == pytest.approx(other, rel=1e-5)
    assert not torch.allclose(state(learner)["model/0.weight"], network(False)[0].weight, atol=1e-3)


@pytest.mark.parametrize("name", SCENARIOS)
def test_both_processes_have_the_same_weights_statistics_and_scores(pair: list[dict[str, Any]], name: str):
    first, second = (found[name] for found in pair)
    assert first["scores"] == second["scores"]
    assert all(torch.equal(first["state"][n], second["state"][n]) for n in first["state"])


def test_batch_normalisation_sees_the_part_of_its_process(pair: list[dict[str, Any]]):
    model, data = network(True), images()
    (batch,) = loop.order(70, 70, generator_of(5, 0), 2)
    inputs, labels = normalise(data.pixels, data.mean, data.std)[batch], data.labels[batch]
    halves, losses = [deepcopy(model), deepcopy(model)], 0.0
    for half, part in zip(halves, (slice(0, 35), slice(35, 70)), strict=True):
        loss = functional.cross_entropy(half(inputs[part]), labels[part], reduction="sum") / 70
        loss.backward()
        losses += loss.item()
    for name, tensor in pair[0]["norm"]["state"].items():
        if name.startswith("average"):
            continue
        own = name.removeprefix("model/")
        if "running" in own or "batches" in own:
            torch.testing.assert_close(tensor, halves[0].state_dict()[own])
            continue
        gradient = sum(half.get_parameter(own).grad for half in halves)
        torch.testing.assert_close(tensor, model.get_parameter(own) - 0.1 * gradient, rtol=1e-4, atol=1e-6)
    assert pair[0]["norm"]["scores"][0]["loss"] == pytest.approx(losses, rel=1e-5)
    assert not torch.equal(halves[0][1].running_mean, halves[1][1].running_mean)


def test_a_loss_that_is_not_finite_ends_the_process_that_sees_it(pair: list[dict[str, Any]]):
    assert [found["nan"] for found in pair] == ["", "the loss became nan"]


def test_what_processes_tell_each_other(pair: list[dict[str, Any]]):
    for rank, found in enumerate(pair):
        assert found["place"] == (rank, 2)
        assert found["gathered"] == (0.0,) * 4 + (1.0, 2.0, 3.0, 4.0)
        assert found["decided"] == [True, False]
        assert found["largest"] == 2**40 + 1
        assert found["order"] == ["first", "second"]
        assert "disagree: [(7, 0), (7, 1)]" in found["unequal"]


def test_alone_there_is_nothing_to_exchange():
    learner = make_learner(network(True), RECIPE, 5, CPU)
    assert parallel.place() == (0, 1)
    assert parallel.joined(learner) is learner
    assert parallel.decided(True, CPU)
    assert parallel.largest(3, CPU) == 3
    assert parallel.gathered(Tally(CPU, (1.0, 2.0, 3.0, 4.0))) == (1.0, 2.0, 3.0, 4.0)


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("scale", [(0.0, 0.0), (0.3, 1.0)])
def test_the_parts_of_all_processes_are_the_batch(world: int, scale: tuple[float, float]):
    recipe, data = replace(RECIPE, scale=scale, crop=0 if scale[1] else 2), images(71)
    batches = loop.order(71, 16, generator_of(5, 1), world)
    assert len(batches) == 5
    whole = list(data.train_batches(View(recipe, 5, 1, SIZE), batches, 0))
    parts = [list(data.train_batches(View(recipe, 5, 1, SIZE, rank, world), batches, 0)) for rank in range(world)]
    for step, (pixels, labels) in enumerate(whole):
        torch.testing.assert_close(torch.cat([part[step][0] for part in parts]), pixels)
        assert torch.equal(torch.cat([part[step][1] for part in parts]), labels)
        assert max(len(part[step][1]) for part in parts) - min(len(part[step][1]) for part in parts) <= 1
    held_out = [list(data.eval_batches(View(recipe, 5, 1, SIZE, rank, world), 10)) for rank in range(world)]
    assert torch.equal(torch.cat([labels for part in held_out for _, labels in part]), data.labels)


def test_no_process_is_left_with_a_single_image():
    assert [loop.steps(64 + rest, 16, 4) for rest in range(10)] == [4] * 8 + [5] * 2


def test_three_processes_that_begin_anew_sum_in_the_order_they_had(tmp_path: Path):
    environment = {**os.environ, "PYTHONPATH": str(Path(pyconv_search.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, __file__, "three", str(tmp_path)], env=environment, check=True, timeout=120)
    through, anew = (torch.load(tmp_path / f"{name}.pt") for name in ("through", "anew"))
    assert all(torch.equal(through[name], anew[name]) for name in through)


class _Backwards(nn.Module):
    """Its layers are called in another order than they are registered: PyTorch would reorder what it sums."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first, self.middle = nn.Linear(64, 7), nn.Linear(3 * SIZE[0] * SIZE[1], 300), nn.Linear(300, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x.flatten(1)).relu()).relu())


def _begin_anew(rank: int, folder: Path, name: str) -> None:
    """Two epochs in one of three processes; ``anew``: with the weights of the first in a fresh learner for the second."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/{name}", rank=rank, world_size=3)
    torch.manual_seed(0)
    recipe = replace(RECIPE, momentum=0.0, ema=0.0, batch=12)
    learner = parallel.joined(make_learner(_Backwards(), recipe, 5, CPU))
    for epoch in range(2):
        if epoch and name == "anew":
            learner = parallel.joined(make_learner(learner.model, recipe, 5, CPU))
        loop.train(learner, images(), loop.view_of(learner, epoch, SIZE))
    if rank == 0:
        torch.save(learner.model.state_dict(), folder / f"{name}.pt")
    distributed.barrier()


def _three(folder: Path) -> None:
    settle(CPU, 1)
    context = multiprocessing.get_context("fork")
    for name in ("through", "anew"):
        processes = [context.Process(target=_begin_anew, args=(rank, folder, name)) for rank in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()


def _divergence() -> str:
    """What is raised when the second process's part of the images blows up."""
    learner, found = parallel.joined(make_learner(network(True), ONE_STEP, 5, CPU)), images()
    view = loop.view_of(learner, 0, SIZE)
    if view.rank:
        with torch.no_grad():
            learner.model[0].bias.fill_(torch.nan)
    try:
        loop.train(learner, found, view)
    except Diverged as error:
        return str(error)
    except RuntimeError:  # The other one has gone.
        return ""
    return "no error"


def _exchange(rank: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"place": parallel.place()}
    found["gathered"] = parallel.gathered(Tally(CPU, tuple(rank * n for n in (1.0, 2.0, 3.0, 4.0))))
    found["decided"] = [parallel.decided(wish if rank == 0 else not wish, CPU) for wish in (True, False)]
    found["largest"] = parallel.largest(2**40 + rank, CPU)
    with parallel.first_before_others(), (folder / "order").open("a") as file:
        file.write("second " if rank else "first ")
    distributed.barrier()
    found["order"] = (folder / "order").read_text().split()
    try:
        parallel.check_equal("epochs", 7, rank)
    except RuntimeError as error:
        found["unequal"] = str(error)
    return found


def _main(rank: int, folder: Path) -> None:
    settle(CPU, 1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = _exchange(rank, folder)
    for name, scenario in SCENARIOS.items():
        learner, scores = trained(*scenario)
        found[name] = {"state": state(learner), "scores": scores}
    found["nan"] = _divergence()
    torch.save(found, folder / f"{rank}.pt")
    os._exit(0)  # The process group is broken by now.


if __name__ == "__main__":
    if sys.argv[1] == "three":
        _three(Path(sys.argv[2]))
    else:
        _main(int(sys.argv[1]), Path(sys.argv[2]))
