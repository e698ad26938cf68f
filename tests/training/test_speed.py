"""What `bench train` times: real steps, counted from outside."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import pytest
import torch

from pyconv_search.arch.cost import cost
from pyconv_search.errors import UserError
from pyconv_search.study.recipe import Recipe
from pyconv_search.training import loop, memory, speed
from pyconv_search.training.learner import Learner
from pyconv_search.training.rates import rates, rates_apart
from pyconv_search.training.source import View

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=1, batch=8, crop=2, flip=True, precision="fp32")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


@pytest.fixture
def case() -> speed.Case:
    return speed.Case(small(), RECIPE, CPU, 1)


def small():
    from pyconv_search.space.document import parse
    from pyconv_search.space.space import space_of

    text = (
        "space: s\nparameters: {w: {choice: [8]}}\n"
        "network: {depth: 11, block: bottleneck, width: $w, stem: {kernel: 3, width: 8, stride: 2, pool: none}}\n"
    )
    return space_of(parse(text)).architecture({"w": 8}, (3, 16, 16), 10)


def test_a_step_of_ours_is_one_of_the_optimizer_and_an_evaluation_sees_every_image(case: speed.Case) -> None:
    learner, source = speed.ready(case), speed.random_source(case.architecture, 24, CPU)
    before = [p.detach().clone() for p in learner.model.parameters()]
    with mock.patch.object(learner.optimizer, "step", wraps=learner.optimizer.step) as steps:
        speed.call("training", case, learner, source)()
    assert steps.call_count == 3
    moved = [not torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True)]
    assert all(moved)
    found = speed.call("forward", case, learner, source)()
    assert isinstance(found, loop.Scores)
    learner.model.eval()
    logits = learner.model((source.pixels / 255 - 0.5) / 0.25)
    assert found.top1_error == pytest.approx(100 * (logits.argmax(1) != source.labels).float().mean().item())


def test_a_plain_loop_takes_the_same_steps_without_the_settings_of_ours(case: speed.Case) -> None:
    source = speed.random_source(case.architecture, 24, CPU)
    seen: list[tuple[bool, bool, torch.Size]] = []

    def step(self: torch.optim.SGD, closure: None = None) -> None:
        assert all(p.grad is not None for p in self.param_groups[0]["params"])
        last = self.param_groups[0]["params"][0]
        seen.append((torch.are_deterministic_algorithms_enabled(), last.is_contiguous(), last.shape))

    with mock.patch.object(torch.optim.SGD, "step", step):
        speed.plain_call("training", case, source)()
    assert seen == [(False, True, torch.Size([8, 3, 3, 3]))] * 3


def test_a_constant_batch_comes_again_and_again() -> None:
    source = speed.random_source(small(), 4, CPU)
    constant = speed.Constant(source.pixels, source.labels, source.mean, source.std, 3)
    view = View(RECIPE, 0, 0, (16, 16), 1, 2)
    got = list(constant.train_batches(view, torch.arange(12).split(4), 1))
    assert len(got) == 2
    assert all(torch.equal(pixels, source.pixels[2:]) for pixels, _ in got)
    assert len(constant) == 12


def test_both_modes_are_measured(case: speed.Case) -> None:
    found = list(speed.measure(case, 0.01, plain=True))
    assert [[(row.mode, row.what) for row in rows] for rows in found] == [
        [(mode, speed.OURS), (mode, speed.PLAIN)] for mode in ("forward", "training")
    ]
    for ours, plain in found:
        assert ours.images_per_second == 8 / ours.seconds.median
        assert ours.ratio is None
        assert plain.ratio is not None
        low, high = plain.seconds.lowest / ours.seconds.highest, plain.seconds.highest / ours.seconds.lowest
        assert low <= plain.ratio.median <= high
        assert ours.peak_memory > 2**20
    assert case.passes("training") == 3
    assert replace(case, recipe=replace(RECIPE, mirror=True)).passes("forward") == 2


def test_too_large_a_batch_is_told_before_it_is_tried(case: speed.Case, monkeypatch: pytest.MonkeyPatch) -> None:
    found = cost(case.architecture)
    enough = found.training_bytes(8) + 3 * 4 * found.params
    monkeypatch.setattr(memory, "available", lambda device: enough)
    speed.check_memory(case)
    with pytest.raises(UserError, match=r"a batch of 9 images needs at least .* but .* are free; nearest: 8"):
        speed.check_memory(replace(case, recipe=replace(RECIPE, batch=9)))
    monkeypatch.setattr(memory, "available", lambda device: 1)
    with pytest.raises(UserError, match="the network alone is too large"):
        next(speed.measure(case, 0.01))


def test_memory_that_is_refused_is_told_and_other_errors_are_not_hidden(
    case: speed.Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def huge(learner: object, source: object, view: object) -> None:
        torch.empty(2**60)

    monkeypatch.setattr(loop, "train", huge)
    with pytest.raises(UserError, match=r"a batch of 8 images needs at least .* there was no more after .* [MG]B"):
        list(speed.measure(case, 0.01))
    monkeypatch.setattr(loop, "train", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        list(speed.measure(case, 0.01))


def test_free_memory_is_a_part_of_what_the_machine_has() -> None:
    free = memory.available(CPU)
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert free is None or whole / 1000 < free < whole


def spec(**changes: object) -> dict[str, object]:
    from pyconv_search.arch.canonical import to_dict
    from pyconv_search.study.recipe import to_dict as recipe_to_dict

    recipe = {**recipe_to_dict(RECIPE), "batch": 64, "compile": "default"}
    return {"architecture": to_dict(small()), "recipe": recipe, "device": "cpu", "threads": 1, **changes}


@pytest.mark.parametrize("mirror", [False, True])
def test_rates_are_those_of_the_images_that_pass_through_the_network(
    monkeypatch: pytest.MonkeyPatch, mirror: bool
) -> None:
    """On a clock that goes on by a millisecond for each image that the network sees, forward or in a step."""
    seen = [0]
    ready = speed.ready

    def watched(case: speed.Case) -> Learner:
        learner = ready(case)
        learner.model.register_forward_pre_hook(lambda module, given: seen.__setitem__(0, seen[0] + len(given[0])))
        return learner

    def clock(action: Callable[[], object]) -> Callable[[], float]:
        before = seen[0]
        action()
        return lambda taken=(seen[0] - before) / 1000: taken

    monkeypatch.setattr("pyconv_search.training.rates.ready", watched)
    monkeypatch.setattr("pyconv_search.training.rates.clock_of", lambda device: clock)
    described = spec()
    described["recipe"] = described["recipe"] | {"mirror": mirror}
    (found,) = rates([described], 0.5)["rates"]
    assert found == {"training": pytest.approx(1000), "evaluation": pytest.approx(500 if mirror else 1000)}


def test_rates_from_a_process_of_their_own_and_its_errors() -> None:
    found = rates_apart([spec(), spec()], 0.2)
    assert len(found["rates"]) == 2
    assert all(rate["training"] > 0 and rate["evaluation"] > 0 for rate in found["rates"])
    if not torch.cuda.is_available():
        assert found["gpus"] == 0
        with pytest.raises(UserError, match=re.escape("the trials take a GPU, but PyTorch finds none on this machine")):
            rates_apart([spec(device="cuda")], 0.2)
