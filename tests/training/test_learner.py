"""What a recipe adds to plain SGD, each against the same thing written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pyconv_search.arch.resnet import resnet
from pyconv_search.models import build
from pyconv_search.study.recipe import Recipe
from pyconv_search.training import loop
from pyconv_search.training.augment import mixed, normalise
from pyconv_search.training.learner import Learner, make_learner
from pyconv_search.training.randomness import generator_of, seed_of
from pyconv_search.training.source import Images
from pyconv_search.training.tally import Scores

CPU = torch.device("cpu")
PLAIN = Recipe(epochs=2, batch=16, lr=0.1, schedule="constant", momentum=0.0, weight_decay=0.0, precision="fp32")
SIZE = (6, 6)


def images(count: int = 48, classes: int = 5) -> Images:
    numbers = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=numbers)
    mean, std = torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25)
    return Images(pixels, torch.randint(0, classes, (count,), generator=numbers), mean, std)


def network(norm: bool = False) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        middle = nn.BatchNorm2d(8) if norm else nn.Identity()
        return nn.Sequential(nn.Conv2d(3, 8, 3), middle, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5))


def train(learner: Learner, data: Images, epoch: int = 0) -> Scores:
    return loop.train(learner, data, loop.view_of(learner, epoch, SIZE))


def learned(recipe: Recipe, data: Images, norm: bool = False) -> Learner:
    learner = make_learner(network(norm), recipe, 3, CPU)
    train(learner, data)
    return learner


def batches(data: Images, recipe: Recipe) -> list[tuple[Tensor, Tensor]]:
    chosen = loop.order(len(data), recipe.batch, generator_of(3, 0))
    return [(normalise(data.pixels[b], data.mean, data.std), data.labels[b]) for b in chosen]


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_parts_of_a_batch_add_up_to_it(accumulate: int):
    data = images(42)  # The last batch has ten images, which eight parts do not divide.
    whole, parts = learned(PLAIN, data), learned(replace(PLAIN, accumulate=accumulate), data)
    torch.testing.assert_close(weights(parts.model), weights(whole.model), rtol=1e-4, atol=1e-6)
    normed = learned(replace(PLAIN, accumulate=accumulate), data, norm=True)
    assert not torch.allclose(weights(normed.model), weights(learned(PLAIN, data, norm=True).model), atol=1e-4)


@pytest.mark.parametrize("clip", [1e-3, 0.5, 1e3])
def test_clipping_bounds_the_norm_of_every_step(clip: float):
    data, recipe = images(), replace(PLAIN, clip=clip)
    found, expected = learned(recipe, data).model, network()
    for inputs, labels in batches(data, recipe):
        gradients = torch.autograd.grad(functional.cross_entropy(expected(inputs), labels), list(expected.parameters()))
        norm = torch.sqrt(sum((g.double() ** 2).sum() for g in gradients)).item()
        with torch.no_grad():
            for p, g in zip(expected.parameters(), gradients, strict=True):
                p -= 0.1 * g * min(1.0, clip / norm)
    torch.testing.assert_close(weights(found), weights(expected), rtol=1e-4, atol=1e-6)


def test_averaged_weights_are_evaluated():
    data, recipe = images(), replace(PLAIN, ema=0.75)
    learner = make_learner(network(norm=True), recipe, 3, CPU)
    assert torch.equal(weights(learner.evaluated), weights(learner.model))
    kept: list[Tensor] = []
    view = loop.view_of(learner, 0, SIZE)
    loop.train(learner, data, view, watch=lambda step, tally: kept.append(weights(learner.model)))
    expected = kept[0]
    for seen in kept[1:]:
        expected = 0.75 * expected + 0.25 * seen
    torch.testing.assert_close(weights(learner.evaluated), expected)
    assert not torch.allclose(weights(learner.model), expected, atol=1e-4)
    averaged = loop.evaluate(learner, data, view)
    plain = loop.evaluate(replace(learner, averages=None), data, view)
    assert averaged.loss != plain.loss
    learner.evaluated.eval()
    logits = learner.evaluated(normalise(data.pixels, data.mean, data.std))
    assert averaged.loss == pytest.approx(functional.cross_entropy(logits, data.labels).item(), rel=1e-5)


def test_counts_and_orders_are_copied_into_the_averages():
    learner = make_learner(residual(pattern=[1, 2, 1, 4]), replace(PLAIN, ema=0.7), 0, CPU)
    data = images()
    for _ in range(5):
        loop.train(learner, data, loop.view_of(learner, 0, SIZE))
    ours, theirs = learner.evaluated.state_dict(), learner.model.state_dict()
    whole = [name for name, tensor in theirs.items() if not tensor.is_floating_point()]
    assert any(name.endswith("order_in") for name in whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in whole)


@pytest.mark.parametrize("alphas", [{"cutmix": 1.0}, {"mixup": 0.7}])
def test_mixed_images_are_trained_on_mixed_labels(alphas: dict[str, float]):
    data, recipe = images(), replace(PLAIN, label_smoothing=0.1, **alphas)
    found, expected = learned(recipe, data).model, network()
    for i, (inputs, labels) in enumerate(batches(data, recipe)):
        numbers = np.random.default_rng(seed_of(3, 0, i, "mix"))
        numbers.random()
        inputs, kept = mixed(inputs, recipe.cutmix, recipe.mixup, numbers)
        target = kept * functional.one_hot(labels, 5) + (1 - kept) * functional.one_hot(labels.roll(1), 5)
        loss = functional.cross_entropy(expected(inputs), target.float(), label_smoothing=0.1)
        gradients = torch.autograd.grad(loss, list(expected.parameters()))
        with torch.no_grad():
            for p, g in zip(expected.parameters(), gradients, strict=True):
                p -= 0.1 * g
    torch.testing.assert_close(weights(found), weights(expected), rtol=1e-4, atol=1e-6)


def test_mirrored_evaluation_averages_probabilities():
    data = images()
    learner = make_learner(network(), replace(PLAIN, mirror=True), 0, CPU)
    found = loop.evaluate(learner, data, loop.view_of(learner, 0, SIZE))
    inputs = normalise(data.pixels, data.mean, data.std)
    both = (learner.model(inputs).softmax(1) + learner.model(inputs.flip(3)).softmax(1)) / 2
    assert found.loss == pytest.approx(functional.nll_loss(both.log(), data.labels).item(), rel=1e-5)
    assert found.top1_error == pytest.approx(100 * (both.argmax(1) != data.labels).float().mean().item())


def residual(**settings: object) -> nn.Module:
    stem = {"kernel": 3, "width": 8, "stride": 1, "pool": "none"}
    return build(resnet({"blocks": [1, 1], "stem": stem, **settings}, (3, 8, 8), 5))


@pytest.mark.parametrize("settings", [{}, {"block": "basic"}, {"levels": [2, 1]}, {"pattern": [1, 2, 1, 4]}])
def test_residual_branches_start_at_zero(settings: dict[str, object]):
    learner = make_learner(residual(**settings), replace(PLAIN, zero_init=True), 0, CPU)
    seen = []
    for block in [m for stage in learner.model.stages for m in stage]:
        block.register_forward_hook(
            lambda module, inputs, output: seen.append((output, module.act(module.shortcut(inputs[0]))))
        )
    learner.model(torch.randn(4, 3, 8, 8))
    assert len(seen) == 2
    assert all(torch.equal(output, shortcut) for output, shortcut in seen)


def test_a_branch_that_ends_in_a_convolution_starts_as_it_does():
    torch.manual_seed(0)
    plain = residual(form="pre")
    before = weights(plain)
    make_learner(plain, replace(PLAIN, zero_init=True), 0, CPU)
    assert torch.equal(weights(plain), before)


def test_dropout_reaches_the_classifier_alone_and_only_in_training():
    torch.manual_seed(0)
    learner = make_learner(residual(), replace(PLAIN, dropout=0.5), 0, CPU)
    names = set(residual().state_dict())
    assert set(learner.model.state_dict()) == names
    learner.model.head.weight.data.fill_(0.01)
    learner.model.head.bias.data.zero_()
    inputs = torch.randn(64, 3, 8, 8)
    learner.model.eval()
    whole = learner.model(inputs)[:, 0]
    assert torch.equal(learner.model(inputs)[:, 0], whole)
    learner.model.train()
    for module in learner.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    kept = learner.model(inputs)[:, 0] / whole
    # Half of the 64 inputs doubled: mean 1.
    assert kept.std() > 0.05
    assert abs(kept.mean() - 1) < 0.1


def test_norms_and_biases_may_be_spared_from_weight_decay():
    model = residual()
    learner = make_learner(model, replace(PLAIN, weight_decay=0.01, decay_norms=False), 0, CPU)
    decays = {id(p): group["weight_decay"] for group in learner.optimizer.param_groups for p in group["params"]}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            expected = 0.01 if name == "weight" and not isinstance(module, nn.BatchNorm2d) else 0.0
            assert decays[id(parameter)] == expected
    assert len(decays) == len(list(model.parameters()))


def test_fp16_scales_the_loss_and_keeps_the_weights():
    data = images()
    scaled, whole = learned(replace(PLAIN, precision="fp16"), data), learned(PLAIN, data)
    assert scaled.precision == "fp16"
    assert scaled.scaler.get_scale() > 1
    assert {p.dtype for p in scaled.model.parameters()} == {torch.float32}
    moved = weights(whole.model) - weights(network())
    assert torch.linalg.norm(weights(scaled.model) - weights(whole.model)) < 0.02 * torch.linalg.norm(moved)


def test_compiled_training_is_the_same_training():
    data = images(32)
    torch.use_deterministic_algorithms(False)
    eager, compiled = learned(PLAIN, data, norm=True), learned(replace(PLAIN, compile="default"), data, norm=True)
    assert compiled.network is not compiled.model
    torch.testing.assert_close(weights(compiled.model), weights(eager.model), rtol=1e-3, atol=1e-5)
