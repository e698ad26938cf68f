"""The training loop against a plain one, and its scores against brute force."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pyconv_search.arch.resnet import resnet
from pyconv_search.models import build
from pyconv_search.models.sorting import canonical_state, sorted_sides
from pyconv_search.study.datasets import DataSetInfo
from pyconv_search.study.recipe import Recipe
from pyconv_search.training import loop
from pyconv_search.training.augment import draw_moves, moved
from pyconv_search.training.data import Split
from pyconv_search.training.device import settle
from pyconv_search.training.learner import Learner, make_learner
from pyconv_search.training.randomness import generator_of
from pyconv_search.training.schedule import learning_rate
from pyconv_search.training.source import Images, to_device
from pyconv_search.training.tally import Diverged, Scores, ranks

CPU = torch.device("cpu")
RECIPE = Recipe(
    epochs=3,
    batch=16,
    lr=0.05,
    nesterov=True,
    weight_decay=0.01,
    warmup=0.5,
    label_smoothing=0.1,
    crop=1,
    flip=True,
    precision="fp32",
    channels_last=False,
)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    settle(CPU, 1)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def network(classes: int = 7, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 16, classes),
        )


def images(count: int = 70, classes: int = 7, seed: int = 0) -> Images:
    numbers = np.random.default_rng(seed)
    split = Split(numbers.integers(0, 256, (count, 3, 8, 8), np.uint8), numbers.integers(0, classes, count))
    info = DataSetInfo("noise", "", (3, 8, 8), classes, count, 0, 0, MEAN, STD, "", "")
    return to_device(split, info, CPU)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def train(learner: Learner, data: Images, epoch: int) -> Scores:
    return loop.train(learner, data, loop.view_of(learner, epoch, tuple(data.pixels.shape[2:])))


def evaluate(learner: Learner, data: Images, batch: int = 512) -> Scores:
    return loop.evaluate(learner, data, loop.view_of(learner, 0, tuple(data.pixels.shape[2:]), full=True), batch)


def smoothed_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    logp = logits - logits.exp().sum(1, keepdim=True).log()
    target = torch.full_like(logp, smoothing / logp.shape[1])
    target[torch.arange(len(labels)), labels] += 1 - smoothing
    return -(target * logp).sum(1).mean()


def plain_training(model: nn.Module, data: Images, recipe: Recipe, seed: int) -> None:
    """Nesterov SGD written out, one batch after the other."""
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    velocity = [torch.zeros_like(p) for p in model.parameters()]
    model.train()
    step = 0
    for epoch in range(recipe.epochs):
        shuffled = torch.randperm(len(data), generator=generator_of(seed, epoch))
        for i, start in enumerate(range(0, len(data), recipe.batch)):
            chosen = shuffled[start : start + recipe.batch]
            moves = draw_moves(len(chosen), recipe.crop, recipe.flip, generator_of(seed, epoch, i))
            pixels = moved(data.pixels[chosen], moves, recipe.crop)
            logits = model((pixels / 255 - mean) / std)
            loss = smoothed_loss(logits, data.labels[chosen], recipe.label_smoothing)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            lr = learning_rate(recipe, step, math.ceil(len(data) / recipe.batch))
            with torch.no_grad():
                for p, v, g in zip(model.parameters(), velocity, gradients, strict=True):
                    g = g + recipe.weight_decay * p
                    v.mul_(recipe.momentum).add_(g)
                    p -= lr * (g + recipe.momentum * v)
            step += 1


def test_equals_a_plain_loop():
    data, model, reference = images(), network(), network()
    learner = make_learner(model, RECIPE, 5, CPU)
    for epoch in range(RECIPE.epochs):
        train(learner, data, epoch)
    plain_training(reference, data, RECIPE, 5)
    for name, tensor in reference.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network().state_dict()["6.weight"], model.state_dict()["6.weight"], atol=1e-3)


@pytest.mark.parametrize("other", [{"weight_decay": 0.0}, {"nesterov": False}, {"label_smoothing": 0.0}, {"crop": 0}])
def test_every_part_of_the_recipe_reaches_the_weights(other: dict[str, float]):
    found = []
    for recipe in (RECIPE, replace(RECIPE, **other)):
        learner = make_learner(network(), recipe, 5, CPU)
        train(learner, images(), 0)
        found.append(weights(learner.model)["6.weight"])
    assert not torch.equal(*found)


def test_weight_decay_reaches_every_parameter():
    learner = make_learner(network(), RECIPE, 0, CPU)
    (group,) = learner.optimizer.param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in learner.model.parameters()}
    assert group["weight_decay"] == RECIPE.weight_decay


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_two_runs_are_equal_bit_for_bit(precision: str, channels_last: bool):
    recipe = replace(RECIPE, precision=precision, channels_last=channels_last)
    found = []
    for _ in range(2):
        learner = make_learner(network(), recipe, 5, CPU)
        scores = [train(learner, images(), epoch) for epoch in range(2)]
        found.append((scores, evaluate(learner, images(33, seed=9)), weights(learner.model)))
        torch.rand(3)
    assert found[0][:2] == found[1][:2]
    assert all(torch.equal(a, b) for a, b in zip(found[0][2].values(), found[1][2].values(), strict=True))


def test_bf16_computes_in_bf16_and_keeps_the_weights_in_fp32():
    learner = make_learner(network(), replace(RECIPE, precision="bf16"), 5, CPU)
    seen = []
    learner.model[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    train(learner, images(), 0)
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in learner.model.parameters()} == {torch.float32}


def test_channels_last_reaches_weights_and_images():
    learner = make_learner(network(), replace(RECIPE, channels_last=True), 5, CPU)
    seen = []
    learner.model[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    evaluate(learner, images())
    assert learner.model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert not seen[0].is_contiguous()


def test_channels_of_poly_scale_convolutions_are_sorted_before_the_optimizer_is_made():
    stem = {"kernel": 3, "width": 8, "stride": 1, "pool": "none"}
    settings = {"blocks": [1, 1], "pattern": [1, 2, 1, 4], "stem": stem}
    torch.manual_seed(0)
    plain = build(resnet(settings, (3, 8, 8), 7))
    learner = make_learner(deepcopy(plain), replace(RECIPE, lr=1e-3), 5, CPU)
    assert len(sorted_sides(learner.model)) == 4
    train(learner, images(), 0)
    optimizer = torch.optim.SGD(plain.parameters(), 1e-3, 0.9, nesterov=True, weight_decay=0.01)
    train(replace(learner, model=plain, network=plain, optimizer=optimizer), images(), 0)
    assert sorted_sides(plain) == []
    state = canonical_state(learner.model)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-3, atol=1e-5)


def test_seed_and_epoch_decide_the_order():
    drawn = {tuple(torch.randperm(50, generator=generator_of(s, e)).tolist()) for s in (0, 1, 10) for e in (0, 1)}
    assert len(drawn) == 6


@pytest.mark.parametrize(
    ("count", "batch", "expected"),
    [(64, 16, [16] * 4), (70, 16, [16] * 4 + [6]), (65, 16, [16] * 4), (10, 16, [10]), (3, 1, [1] * 3), (1, 4, [1])],
)
def test_only_a_last_batch_of_one_is_left_out(count: int, batch: int, expected: list[int]):
    batches = loop.order(count, batch, generator_of(0, 0))
    assert [len(b) for b in batches] == expected
    assert loop.steps(count, batch) == len(expected)
    assert len(torch.cat(batches).unique()) == sum(expected)


def test_ranks_against_sorting():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(-3, 3, (200, 9), generator=generator).float()  # Full of ties.
    labels = torch.randint(9, (200,), generator=generator)
    expected = [
        sorted(range(9), key=lambda c, row=row: (-row[c], c)).index(label)
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    assert ranks(logits, labels).tolist() == expected
    assert torch.equal(ranks(logits, labels) == 0, logits.argmax(1) == labels)


@pytest.mark.parametrize("classes", [3, 7])
def test_scores_against_brute_force(classes: int):
    data, learner = images(53, classes), make_learner(network(classes), RECIPE, 0, CPU)
    found = evaluate(learner, data, batch=10)
    losses, wrong = [], {1: 0, 5: 0}
    for pixels, label in zip(data.pixels, data.labels.tolist(), strict=True):
        with torch.no_grad():
            logits = learner.model(((pixels / 255 - data.mean) / data.std)[None])[0].tolist()
        losses.append(math.log(sum(math.exp(v - logits[label]) for v in logits)))
        for k in wrong:
            wrong[k] += label not in sorted(range(classes), key=lambda c: -logits[c])[:k]
    assert found.loss == pytest.approx(sum(losses) / 53, rel=1e-5)
    assert found.top1_error == pytest.approx(100 * wrong[1] / 53)
    assert found.top5_error == pytest.approx(100 * wrong[5] / 53)
    assert (found.top5_error == 0) == (classes <= 5)


def test_evaluation_does_not_depend_on_the_batch_size_and_changes_nothing():
    data, learner = images(65), make_learner(network(), RECIPE, 0, CPU)
    train(learner, data, 0)
    before = weights(learner.model)
    found = [evaluate(learner, data, batch) for batch in (1, 7, 64, 65, 1000)]
    assert len({(scores.top1_error, scores.top5_error) for scores in found}) == 1
    assert [scores.loss for scores in found] == pytest.approx([found[0].loss] * 5, rel=1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.model.state_dict().items())


def test_label_smoothing_is_in_the_training_loss_alone():
    data, base = images(), replace(RECIPE, lr=0.0, crop=0, flip=False, batch=70)
    plain, smooth = (make_learner(network(), replace(base, label_smoothing=amount), 0, CPU) for amount in (0.0, 0.3))
    logits = network().train()((data.pixels / 255 - data.mean) / data.std)
    assert train(plain, data, 0).loss == pytest.approx(smoothed_loss(logits, data.labels, 0.0).item(), rel=1e-5)
    assert train(smooth, data, 0).loss == pytest.approx(smoothed_loss(logits, data.labels, 0.3).item(), rel=1e-5)
    assert evaluate(plain, data) == evaluate(smooth, data)


def test_training_scores_are_means_over_all_images():
    data, recipe = images(70), replace(RECIPE, lr=0.0, label_smoothing=0.0, crop=0, flip=False)
    learner = make_learner(network(), recipe, 0, CPU)
    for module in learner.model:
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats, module.running_mean, module.running_var = False, None, None
    trained = train(learner, data, 0)
    batches = loop.order(70, 16, generator_of(0, 0))
    parts = [evaluate(learner, Images(data.pixels[b], data.labels[b], data.mean, data.std)) for b in batches]
    assert trained.loss == pytest.approx(sum(p.loss * len(b) for p, b in zip(parts, batches, strict=True)) / 70)


def test_a_loss_that_is_not_finite_is_told_at_once():
    learner = make_learner(network(), replace(RECIPE, lr=1e30), 0, CPU)
    with pytest.raises(Diverged, match=r"nan|inf"):
        train(learner, images(), 0)
    with pytest.raises(Diverged, match=r"nan|inf"):
        evaluate(learner, images())


def test_arrays_are_not_copied_on_a_cpu_nor_changed():
    numbers = np.random.default_rng(0)
    split = Split(numbers.integers(0, 256, (9, 3, 8, 8), np.uint8), numbers.integers(0, 7, 9))
    before = split.images.copy()
    info = DataSetInfo("noise", "", (3, 8, 8), 7, 9, 0, 0, MEAN, STD, "", "")
    held = to_device(split, info, CPU)
    train(make_learner(network(), RECIPE, 0, CPU), held, 0)
    assert held.pixels.data_ptr() == split.images.ctypes.data
    assert np.array_equal(split.images, before)
