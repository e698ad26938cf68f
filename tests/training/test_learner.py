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
from pyconv_search.training.augment import cut_out, mixed, normalise
from pyconv_search.training.learner import Learner, make_learner
from pyconv_search.training.randomness import generator_of, seed_of
from pyconv_search.training.source import Images, View
from pyconv_search.training.tally import Diverged, Scores, Tally

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


def test_fp16_clips_the_gradients_and_not_the_scaled_ones():
    data, clipped = images(), replace(PLAIN, clip=0.5)
    half, whole = learned(replace(clipped, precision="fp16"), data), learned(clipped, data)
    moved = weights(whole.model) - weights(network())
    assert torch.linalg.norm(weights(half.model) - weights(whole.model)) < 0.05 * torch.linalg.norm(moved)


def test_fp16_gradients_that_stay_infinite_are_told():
    model = network()
    model[0].weight.register_hook(lambda gradient: torch.full_like(gradient, torch.inf))
    learner = make_learner(model, replace(PLAIN, precision="fp16", batch=2), 3, CPU)
    with pytest.raises(Diverged, match="use precision: bf16 or fp32"):
        train(learner, images(80))


def test_every_group_of_parameters_follows_the_schedule():
    recipe = replace(PLAIN, decay_norms=False, weight_decay=0.01, schedule="linear")
    learner, seen = make_learner(network(norm=True), recipe, 3, CPU), []

    def watch(step: int, tally: Tally) -> None:
        seen.append([group["lr"] for group in learner.optimizer.param_groups])

    loop.train(learner, images(), loop.view_of(learner, 1, SIZE), watch=watch)
    assert all(len(rates) == 2 and rates[0] == rates[1] for rates in seen)
    assert seen[0] != seen[-1]


def test_running_statistics_are_averaged():
    learner, kept = make_learner(network(norm=True), replace(PLAIN, ema=0.75), 3, CPU), []
    view = loop.view_of(learner, 0, SIZE)
    loop.train(learner, images(), view, watch=lambda step, tally: kept.append(learner.model[1].running_mean.clone()))
    expected = kept[0]
    for seen in kept[1:]:
        expected = 0.75 * expected + 0.25 * seen
    torch.testing.assert_close(learner.evaluated[1].running_mean, expected)


def test_of_mixed_images_the_label_of_the_larger_share_counts():
    data, recipe = images(16), replace(PLAIN, mixup=1.0, lr=0.0)
    for seed in range(12):
        scores = train(make_learner(network(), recipe, seed, CPU), data)
        (chosen,) = loop.order(16, 16, generator_of(seed, 0))
        numbers = np.random.default_rng(seed_of(seed, 0, 0, "mix"))
        numbers.random()
        inputs, kept = mixed(normalise(data.pixels[chosen], data.mean, data.std), 0.0, 1.0, numbers)
        labels = data.labels[chosen] if kept >= 0.5 else data.labels[chosen].roll(1)
        wrong = (network()(inputs).argmax(1) != labels).float().mean().item()
        assert scores.top1_error == pytest.approx(100 * wrong)


def test_mix_is_the_share_of_batches(monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr(loop, "mixed", lambda inputs, *rest: (calls.append(1), mixed(inputs, *rest))[1])
    learned(replace(PLAIN, mixup=1.0, mix=0.3, batch=2), images(200))
    assert len(calls) == sum(np.random.default_rng(seed_of(3, 0, i, "mix")).random() < 0.3 for i in range(100))
    assert 10 < len(calls) < 60


def test_dropout_is_new_in_every_step_and_seed_and_the_same_again():
    def seeds(seed: int) -> list[int]:
        learner, seen = make_learner(network(), replace(PLAIN, dropout=0.5), seed, CPU), []
        learner.model[-1].register_forward_pre_hook(lambda module, inputs: seen.append(torch.initial_seed()))
        train(learner, images())
        return seen

    first = seeds(3)
    torch.rand(5)
    assert seeds(3) == first
    assert len({*first, *seeds(4)}) == 6


def test_cutout_is_new_in_every_step(monkeypatch: pytest.MonkeyPatch):
    seen = set()

    def recorded(inputs: Tensor, centres: Tensor, size: int) -> Tensor:
        seen.add(tuple(centres.flatten().tolist()))
        return cut_out(inputs, centres, size)

    monkeypatch.setattr(loop, "cut_out", recorded)
    learned(replace(PLAIN, cutout=2), images())
    assert len(seen) == 3


def test_divergence_is_told_within_a_few_steps_on_a_cpu():
    learner, done = make_learner(network(), replace(PLAIN, lr=1e30), 3, CPU), []
    with pytest.raises(Diverged):
        loop.train(learner, images(160), loop.view_of(learner, 0, SIZE), watch=lambda step, tally: done.append(step))
    assert len(done) < 4


def test_no_part_of_a_batch_has_a_single_image():
    assert [part.stop - part.start for part in loop.parts_of(3, 4)] == [3]
    assert [part.stop - part.start for part in loop.parts_of(5, 4)] == [2, 3]


def test_training_mode_comes_back_after_evaluation():
    learner = make_learner(network(norm=True), PLAIN, 3, CPU)
    loop.evaluate(learner, images(), loop.view_of(learner, 0, SIZE))
    train(learner, images())
    assert learner.model[1].num_batches_tracked == 3


class Clips:
    """Twelve pictures that show six examples, two each."""

    views = 2

    def __init__(self, data: Images) -> None:
        self.data, self.mean, self.std, self.asked = data, data.mean, data.std, []

    def __len__(self) -> int:
        return 6

    def eval_batches(self, view: View, batch: int):
        self.asked.append(batch)
        yield self.data.pixels, self.data.labels[:6]


@pytest.mark.parametrize("mirror", [False, True])
def test_the_probabilities_of_an_examples_views_are_averaged(mirror: bool):
    data = images(12)
    clips, learner = Clips(data), make_learner(network(), replace(PLAIN, mirror=mirror), 3, CPU)
    found = loop.evaluate(learner, clips, loop.view_of(learner, 0, SIZE), 8)
    inputs = normalise(data.pixels, data.mean, data.std)
    looks = [inputs, inputs.flip(3)] if mirror else [inputs]
    means = [
        sum(learner.model(x)[2 * i + j].softmax(0) for x in looks for j in range(2)) / (2 * len(looks))
        for i in range(6)
    ]
    expected = functional.nll_loss(torch.stack(means).log(), data.labels[:6]).item()
    assert found.loss == pytest.approx(expected, rel=1e-5)
    assert clips.asked == [4]


def test_the_first_rate_of_an_epoch_and_its_view():
    recipe = replace(PLAIN, schedule="linear", resolution=0.5, resolution_until=1.0)
    learner = make_learner(network(), recipe, 3, CPU)
    assert loop.first_rate(learner, images(), 1) == pytest.approx(0.05)
    assert loop.view_of(learner, 0, (32, 32)).size == (16, 16)
    assert loop.view_of(learner, 0, (32, 32), full=True).size == (32, 32)
    assert loop.steps(35, 16, 2) == 2


def test_random_boxes_are_mirrored_shared_and_go_on_where_a_run_stopped():
    data = images(40)
    view = View(replace(PLAIN, scale=(1.0, 1.0), flip=True), 3, 0, SIZE)
    order = loop.order(40, 16, generator_of(3, 0))
    whole = [pixels for pixels, _ in data.train_batches(view, order, 0)]
    assert [torch.equal(a, b) for (a, _), b in zip(data.train_batches(view, order, 2), whole[2:], strict=True)] == [
        True
    ]
    parts = [[p for p, _ in data.train_batches(replace(view, rank=r, world=2), order, 0)] for r in range(2)]
    assert all(torch.equal(torch.cat(pair), one) for *pair, one in zip(*parts, whole, strict=True))
    straight = torch.cat(whole) - data.pixels[torch.cat(order)]
    # Boxes of the whole area that do not fit are the largest central ones, so only exact pictures tell.
    assert 0 < (straight.abs().flatten(1).amax(1) < 1).sum() < 40


def test_dropout_is_before_the_last_of_several_linear_layers():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    make_learner(model, replace(PLAIN, dropout=0.5), 0, CPU)
    assert [len(layer._forward_pre_hooks) for layer in model] == [0, 1]


def test_compiling_takes_the_recipes_mode_and_forgets_other_networks(monkeypatch: pytest.MonkeyPatch):
    calls = []
    monkeypatch.setattr(torch.compiler, "reset", lambda: calls.append("reset"))
    monkeypatch.setattr(torch, "compile", lambda model, mode: (calls.append(mode), model)[1])
    make_learner(network(), replace(PLAIN, compile="reduce-overhead"), 0, CPU)
    assert calls == ["reset", "reduce-overhead"]


def test_networks_of_clips_have_no_channels_last():
    model = nn.Sequential(nn.Conv3d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    learner = make_learner(model, replace(PLAIN, channels_last=True), 0, CPU)
    assert loop.laid_out(learner, torch.zeros(2, 3, 3, 3, 3)).is_contiguous()
