"""Networks trained together against the same networks trained one after the other, by the ordinary loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pyconv_search.arch.resnet import resnet
from pyconv_search.arch.spec import Architecture
from pyconv_search.models import build
from pyconv_search.models.sorting import sorted_sides
from pyconv_search.study.recipe import Recipe
from pyconv_search.training import loop, stacked
from pyconv_search.training.checkpoint import state_of
from pyconv_search.training.device import settle
from pyconv_search.training.learner import Learner, make_learner
from pyconv_search.training.source import Images, View
from pyconv_search.training.stacked import Stack
from pyconv_search.training.stacked_call import stacked_call
from pyconv_search.training.tally import Diverged

CPU = torch.device("cpu")
SEEDS = (3, 4, 9)
SIZE = (8, 8)
STEM = {"kernel": 3, "width": 8, "stride": 1, "pool": "none"}
NETWORKS = {
    "standard": resnet({"depth": 8, "stem": STEM}, (3, *SIZE), 6),
    "pyconv": resnet({"depth": 8, "stem": STEM, "levels": [3, 2, 1], "shortcut": "max+conv"}, (3, *SIZE), 6),
    "psconv": resnet({"depth": 8, "stem": STEM, "pattern": [1, 2, 1, 4]}, (3, *SIZE), 6),
}
RECIPE = Recipe(
    epochs=2,
    batch=16,
    lr=0.05,
    nesterov=True,
    decay_norms=False,
    clip=0.8,
    ema=0.8,
    label_smoothing=0.1,
    crop=1,
    flip=True,
    cutout=2,
    cutmix=1.0,
    mixup=0.5,
    mix=0.6,
    accumulate=2,
    mirror=True,
    precision="fp32",
)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    settle(CPU, 1)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def images(count: int) -> Images:
    numbers = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 6, (count,), generator=numbers)
    pixels = torch.randint(0, 156, (count, 3, *SIZE), generator=numbers) + 20 * labels[:, None, None, None]
    return Images(pixels.to(torch.uint8), labels, torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25))


TRAIN, HELD_OUT = images(70), images(30)


def learner_of(seed: int, recipe: Recipe = RECIPE, network: Architecture = NETWORKS["pyconv"]) -> Learner:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make_learner(build(network), recipe, seed, CPU)


def learners(**options: Any) -> list[Learner]:
    return [learner_of(seed, **options) for seed in SEEDS]


def views(members: list[Learner], epoch: int) -> list[View]:
    return [loop.view_of(member, epoch, SIZE) for member in members]


def alone(members: list[Learner], epoch: int) -> list[tuple[Any, Any]]:
    own = zip(members, views(members, epoch), strict=True)
    return [(loop.train(member, TRAIN, view), loop.evaluate(member, HELD_OUT, view, 16)) for member, view in own]


def together(members: list[Learner], epoch: int) -> list[tuple[Any, Any]]:
    stack, own = Stack(members), views(members, epoch)
    seen = stacked.train(stack, TRAIN, own, [(0, (0.0,) * 4)] * len(members))
    return list(zip(seen, stacked.evaluate(stack, HELD_OUT, own[0], 16), strict=True))


def everything(member: Learner) -> dict[str, Tensor]:
    tensors, numbers = state_of(member)
    return {name: tensor.clone() for name, tensor in tensors.items()} | {
        "averaged": torch.tensor(numbers.get("averaged", 0))
    }


def assert_close(found: list[Learner], expected: list[Learner]) -> None:
    """Sums in another order round otherwise, which ReLUs near zero carry on: so by the norm of each tensor."""
    for one, other in zip(found, expected, strict=True):
        ours, theirs = everything(one), everything(other)
        assert ours.keys() == theirs.keys()
        far = {name: distance(ours[name], theirs[name]) for name in ours}
        assert max(far.values()) < 1e-3, {name: value for name, value in far.items() if value >= 1e-3}


def distance(one: Tensor, other: Tensor) -> float:
    """Relative to the norm of the other."""
    return float((one.double() - other.double()).norm() / (other.double().norm() + 1e-4))


def scores_close(found: list[tuple[Any, Any]], expected: list[tuple[Any, Any]]) -> None:
    for one, other in zip(found, expected, strict=True):
        for own, reference in zip(one, other, strict=True):
            assert own.loss == pytest.approx(reference.loss, rel=1e-4)
            assert own.top1_error == pytest.approx(reference.top1_error)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_stack_learns_what_its_members_learn_alone(name: str, channels_last: bool):
    options = {"recipe": replace(RECIPE, channels_last=channels_last), "network": NETWORKS[name]}
    members, references = learners(**options), learners(**options)
    assert bool(sorted_sides(members[0].model)) == (name == "psconv")
    before = [everything(member) for member in members]
    for epoch in range(2):
        found, expected = together(members, epoch), alone(references, epoch)
        scores_close(found, expected)
    assert_close(members, references)
    # What agrees has moved by far more than the tolerance, and each member elsewhere.
    for member, was in zip(members, before, strict=True):
        now = everything(member)
        assert all(distance(now[name], was[name]) > 0.01 for name in was if name.endswith("conv1.weight"))
    assert distance(everything(members[0])["model/head.weight"], everything(members[1])["model/head.weight"]) > 0.5


@pytest.mark.parametrize("name", NETWORKS)
def test_in_float64_logits_gradients_and_statistics_are_those_of_single_calls(name: str):
    members, references = (
        [learner_of(seed, network=NETWORKS[name]).model.double() for seed in SEEDS] for _ in range(2)
    )
    inputs = torch.randn(16, 9, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inputs = inputs.contiguous(memory_format=torch.channels_last).unflatten(1, (3, 3))
    parameters = {
        name: torch.stack([member.get_parameter(name).detach() for member in members]).requires_grad_()
        for name, _ in members[0].named_parameters()
    }
    buffers = {
        name: torch.stack([member.get_buffer(name) for member in members]) for name, _ in members[0].named_buffers()
    }
    logits = stacked_call(members[0].train(), 1)(parameters, buffers, inputs)
    logits.square().sum().backward()
    for i, reference in enumerate(references):
        expected = reference.train()(inputs[:, i])
        torch.testing.assert_close(logits[i], expected, rtol=1e-10, atol=1e-12)
        expected.square().sum().backward()
        for name, parameter in reference.named_parameters():
            grad = parameters[name].grad
            assert grad is not None
            torch.testing.assert_close(grad[i], parameter.grad, rtol=1e-8, atol=1e-10)
        for name, buffer in reference.named_buffers():
            torch.testing.assert_close(buffers[name][i], buffer, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_in_bf16_a_stack_learns_as_its_members_do_but_for_rounding(name: str):
    recipe = replace(RECIPE, precision="bf16", clip=0.0, accumulate=1)
    members, references = (learners(recipe=recipe, network=NETWORKS[name]) for _ in range(2))
    found, expected = together(members, 0), alone(references, 0)
    for one, other in zip(found, expected, strict=True):
        assert [own.loss for own in one] == pytest.approx([own.loss for own in other], rel=0.02)


def test_dilated_convolutions_in_bf16_have_the_gradients_of_fp32():
    """At 32 pixels, where those of PyTorch's own grouped convolution with channels last are NaN on some CPUs."""
    small = {"depth": 11, "block": "bottleneck", "width": 8, "expansion": 2}
    network = resnet({**small, "stem": STEM, "pattern": [1, 2, 1, 4]}, (3, 32, 32), 6)
    numbers, grads = torch.Generator().manual_seed(0), []
    inputs = torch.randn(32, 9, 32, 32, generator=numbers).contiguous(memory_format=torch.channels_last)
    for precision in ("fp32", "bf16"):
        members = learners(recipe=replace(RECIPE, precision=precision), network=network)
        stack = Stack(members)
        with members[0].autocast():
            logits = stack.logits(inputs).float()
        logits.square().sum().backward()
        grads.append({name: tensor.grad for name, tensor in stack._parameters.items() if name.endswith("conv2.weight")})
    assert grads[0]
    for name, exact in grads[0].items():
        assert distance(grads[1][name], exact) < 0.5


def test_stacking_changes_no_number_of_a_member():
    members = learners()
    together(members, 0)
    before = [everything(member) for member in members]
    Stack(members)
    Stack(members[1:])
    for member, was in zip(members, before, strict=True):
        assert all(torch.equal(tensor, was[name]) for name, tensor in everything(member).items())


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_member_can_go_on_alone_and_the_other_way_round(channels_last: bool):
    recipe = replace(RECIPE, channels_last=channels_last)
    references = learners(recipe=recipe)
    expected = [alone(references, epoch) for epoch in range(2)]
    stacked_first, alone_first = learners(recipe=recipe), learners(recipe=recipe)
    together(stacked_first, 0)
    scores_close(alone(stacked_first, 1), expected[1])
    alone(alone_first, 0)
    scores_close(together(alone_first, 1), expected[1])
    assert_close(stacked_first, references)
    assert_close(alone_first, references)
    # A smaller stack.
    fewer = learners(recipe=recipe)
    together(fewer, 0)
    scores_close(together(fewer[:2], 1), expected[1][:2])


def test_a_stack_goes_on_in_the_middle_of_an_epoch():
    members, parts = learners(), learners()
    whole = stacked.train(Stack(members), TRAIN, views(members, 0), [(0, (0.0,) * 4)] * 3)

    class Enough(Exception):
        pass

    sums: list[tuple[float, ...]] = []

    def stop(step: int, tallies: Any) -> None:
        if step == 2:
            sums.extend(tally.plain() for tally in tallies)
            raise Enough

    with pytest.raises(Enough):
        stacked.train(Stack(parts), TRAIN, views(parts, 0), [(0, (0.0,) * 4)] * 3, stop)
    found = stacked.train(Stack(parts), TRAIN, views(parts, 0), [(2, own) for own in sums])
    assert found == whole
    assert all(
        torch.equal(everything(one)[name], tensor)
        for one, other in zip(parts, members, strict=True)
        for name, tensor in everything(other).items()
    )


def test_a_member_that_diverges_leaves_the_others_as_they_are():
    members, references = learners(), learners()
    with torch.no_grad():
        next(members[1].model.parameters()).fill_(float("nan"))
    found = together(members, 0)
    assert isinstance(found[1][0], Diverged)
    left, expected = [members[0], members[2]], [references[0], references[2]]
    scores_close([found[0], found[2]], alone(expected, 0))
    assert_close(left, expected)


def test_an_epoch_in_which_all_diverge_ends_at_once():
    members, steps = learners(), list[int]()
    for member in members:
        with torch.no_grad():
            next(member.model.parameters()).fill_(float("inf"))
    found = stacked.train(
        Stack(members), TRAIN, views(members, 0), [(0, (0.0,) * 4)] * 3, lambda step, _: steps.append(step)
    )
    assert all(isinstance(each, Diverged) for each in found)
    assert steps == []


def test_what_cannot_be_stacked_is_told():
    first = learner_of(3)
    assert stacked.obstacle([first, learner_of(4)]) == ""
    others = {
        "recipes or devices": learner_of(4, replace(RECIPE, lr=0.1)),
        "networks differ": learner_of(4, network=NETWORKS["standard"]),
        "several processes": replace(learner_of(4), world=2),
    }
    for words, other in others.items():
        assert words in stacked.obstacle([first, other])
        with pytest.raises(ValueError, match=words):
            Stack([first, other])
    dropped = [learner_of(seed, replace(RECIPE, dropout=0.5)) for seed in SEEDS]
    assert "dropout" in stacked.obstacle(dropped)


def test_members_at_different_steps_are_refused():
    members = learners()
    with pytest.raises(ValueError, match="same step"):
        stacked.train(Stack(members), TRAIN, views(members, 0), [(0, (0.0,) * 4), (1, (0.0,) * 4), (0, (0.0,) * 4)])
