"""The names that published checkpoints give to the tensors of our networks, and what does not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from pyconv_search.errors import UserError

Shape = tuple[int, ...]
MOST_NAMES = 4


def released_keys(model: nn.Module) -> dict[str, str]:
    """The published name of every tensor in the model's state dict; our own name where nothing like it was published.

    A poly-scale convolution goes by the name that a standard one would have.
    """
    keys = {}
    for name in model.state_dict():
        path, _, tensor = name.rpartition(".")
        keys[name] = f"{_released_path(model, path)}.{tensor}"
    return keys


def _released_path(model: nn.Module, path: str) -> str:
    match path.split("."):
        case ["stem", "conv"]:
            return "conv1"
        case ["stem", "norm"]:
            return "bn1"
        case ["head"]:
            return "fc"
        case ["stages", stage, block, "shortcut", part]:
            # An nn.Sequential in the release, so that a pooling in front shifts the numbers.
            parts = [name for name, _ in model.get_submodule(f"stages.{stage}.{block}.shortcut").named_children()]
            return f"layer{int(stage) + 1}.{block}.downsample.{parts.index(part)}"
        case ["stages", stage, block, conv, "levels", level]:
            # The released pyramids name their levels like this whichever convolution of the block they are.
            return f"layer{int(stage) + 1}.{block}.{conv}.conv2_{int(level) + 1}"
        case ["stages", stage, block, layer]:
            return f"layer{int(stage) + 1}.{block}.{layer.replace('norm', 'bn')}"
    return path


def kind_of_checkpoint(names: Iterable[str]) -> str:
    """Which of the known layouts the names are of, in words."""
    keys = set(names)
    if "conv1.weight" not in keys:
        return "a checkpoint of no known layout"
    if any(".gwconv." in key for key in keys):
        return "a PSConv checkpoint"
    if any(".conv2_1." in key for key in keys):
        return "a PyConv checkpoint"
    return "a plain ResNet checkpoint"


def compare(name: str, expected: Mapping[str, Shape], state: Mapping[str, Tensor]) -> None:
    """Raise UserError, with the first names of each kind, unless ``state`` holds just what is expected.

    The batch counts of batch normalisation may be missing: PyTorch before 0.4.1 had none.
    """
    missing = [key for key in expected if key not in state and not key.endswith(".num_batches_tracked")]
    unexpected = [key for key in state if key not in expected]
    other = [key for key in expected if key in state and tuple(state[key].shape) != expected[key]]
    if not (missing or unexpected or other):
        return
    lines = [f"{name}: {kind_of_checkpoint(state)}, but not of this network; nothing was loaded"]
    if missing:
        lines.append(f"  missing: {_few([f'{key} ({_text(expected[key])})' for key in missing])}")
    if unexpected:
        lines.append(f"  not in the network: {_few([f'{key} ({_text(state[key].shape)})' for key in unexpected])}")
    if other:
        shapes = [f"{key} is {_text(state[key].shape)} and must be {_text(expected[key])}" for key in other]
        lines.append(f"  of another shape: {_few(shapes)}")
    raise UserError("\n".join(lines))


def _few(words: list[str]) -> str:
    more = len(words) - MOST_NAMES
    return ", ".join(words[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _text(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape)) or "a number"
