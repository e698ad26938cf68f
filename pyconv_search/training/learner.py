"""A model in training, with all that decides the course of the training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pyconv_search.models.blocks import ResidualBlock
from pyconv_search.models.sorting import sort_channels
from pyconv_search.study.recipe import Recipe
from pyconv_search.training.device import precision

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True, eq=False)
class Learner:
    """A model with its optimizer.

    ``model`` holds the weights that are trained; ``network`` is what is called in their place (compiled, or shared by
    several processes); ``averages`` are those that are evaluated, where the recipe averages. This process is number
    ``rank`` of ``world`` that train it together.
    """

    model: nn.Module
    network: Callable[[Tensor], Any]
    averages: AveragedModel | None
    optimizer: torch.optim.SGD
    scaler: torch.amp.GradScaler
    recipe: Recipe
    seed: int
    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def precision(self) -> str:
        """``fp32``, ``bf16`` or ``fp16``, what is really computed in."""
        return precision(self.recipe, self.device)

    @property
    def evaluated(self) -> nn.Module:
        """The model that is validated, tested and saved."""
        return self.model if self.averages is None else self.averages.module

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, AUTOCAST.get(self.precision), enabled=self.precision in AUTOCAST)


def make_learner(model: nn.Module, recipe: Recipe, seed: int, device: torch.device) -> Learner:
    """``model`` moved to ``device``, with SGD over its parameters and what else the recipe asks for.

    The channels around its poly-scale convolutions are sorted, so that no step gathers them.
    """
    sort_channels(model)
    if recipe.zero_init:
        zero_last_norms(model)
    if recipe.dropout:
        drop_before_classifier(model, recipe.dropout)
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    if any(parameter.dim() == 5 for parameter in model.parameters()):
        layout = torch.contiguous_format
    model = model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    averages = None
    if recipe.ema:
        averages = AveragedModel(model, multi_avg_fn=_average(recipe.ema), use_buffers=True)
    scaler = torch.amp.GradScaler(device.type, enabled=precision(recipe, device) == "fp16")
    return Learner(
        model,
        compiled(model, recipe),
        averages,
        make_optimizer(model, recipe),
        scaler,
        recipe,
        seed,
        device,
    )


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD over all parameters; without ``decay_norms`` those of one dimension (normalisation, biases) do not decay."""
    parameters = list(model.parameters())
    spared = [p for p in parameters if p.dim() <= 1 and not recipe.decay_norms]
    groups = [{"params": [p for p in parameters if not any(p is s for s in spared)]}]
    if spared:
        groups.append({"params": spared, "weight_decay": 0.0})  # type: ignore[dict-item]
    return torch.optim.SGD(
        groups, recipe.peak, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay
    )


Tensors = tuple[Tensor, ...] | list[Tensor]


def _average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """The exponential moving average of tensors of one type; counts and orders of channels are copied."""
    floating = get_ema_multi_avg_fn(decay)

    def update(averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            floating(averaged, current, count)
        else:
            torch._foreach_copy_(averaged, current)

    return update


def compiled(model: nn.Module, recipe: Recipe) -> Callable[[Tensor], Any]:
    """The model as the recipe wants it compiled."""
    if recipe.compile == "none":
        return model
    # What other networks left behind counts towards a limit, beyond which PyTorch silently computes uncompiled.
    torch.compiler.reset()
    return torch.compile(model, mode=recipe.compile)


def zero_last_norms(model: nn.Module) -> None:
    """Start the normalisation that ends a residual branch at zero, in blocks whose branch ends in one."""
    for block in model.modules():
        if isinstance(block, ResidualBlock) and block.last_norm is not None:
            nn.init.zeros_(block.last_norm.get_parameter("weight"))


def drop_before_classifier(model: nn.Module, probability: float) -> None:
    """Let the model's linear classifier read its input with dropout while training; no name in the state changes."""

    def drop(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return functional.dropout(inputs[0], probability, module.training), *inputs[1:]

    classifiers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    classifiers[-1].register_forward_pre_hook(drop)
