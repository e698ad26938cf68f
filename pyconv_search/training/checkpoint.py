"""Checkpoints and weights as safetensors files: written whole or not at all, and never with pickle."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pyconv_search.errors import UserError
from pyconv_search.fields import shown
from pyconv_search.files import open_plain
from pyconv_search.models.sorting import canonical_state, follow_order
from pyconv_search.models.tensors import check_header
from pyconv_search.results import files
from pyconv_search.results.row import Epoch, epoch_from_dict
from pyconv_search.training.learner import Learner

FORMAT = "pyconv-search checkpoint 2"

_log = logging.getLogger(__name__)


class DamagedCheckpoint(ValueError):
    """A file that is no whole checkpoint of ours; the message names it."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A trial somewhere in its training.

    ``plan`` tells one training from another: a digest of all that decides it. ``resumed`` counts how often the trial
    went on from a checkpoint, ``train_seconds`` is wall time of training alone, ``started`` an ISO time. ``begun``: the
    steps taken of the epoch after ``history``, with the sums of a Tally over them. ``tensors`` and ``numbers`` are the
    state of the learner (:func:`state_of`); ``best`` the weights of the best epoch so far, where these are asked for.
    """

    trial: str
    plan: str
    history: tuple[Epoch, ...]
    resumed: int
    started: str
    train_seconds: float
    tensors: dict[str, Tensor]
    numbers: dict[str, Any]
    begun: tuple[int, tuple[float, ...]] = (0, (0.0, 0.0, 0.0, 0.0))
    best: dict[str, Tensor] = field(default_factory=dict)


def state_of(learner: Learner) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that a learner has learned: tensors by name, and plain numbers.

    The names begin with ``model/`` (the state dict), ``momentum/`` (of SGD, by parameter; without the parameters that
    have none yet) and ``average/`` (the state dict of the averaged weights, where there are any).
    """
    tensors = _named("model/", learner.model.state_dict()) | _named("momentum/", momentum_of(learner))
    numbers: dict[str, Any] = {"scaler": learner.scaler.state_dict()}
    if learner.averages is not None:
        tensors |= _named("average/", learner.averages.module.state_dict())
        numbers["averaged"] = int(learner.averages.n_averaged)
    return tensors, numbers


def momentum_of(learner: Learner) -> dict[str, Tensor]:
    """The momentum of SGD by parameter name; without the parameters that have none yet."""
    state = learner.optimizer.state
    states = ((name, state.get(p, {}).get("momentum_buffer")) for name, p in learner.model.named_parameters())
    return {name: buffer for name, buffer in states if buffer is not None}


def restore(checkpoint: Checkpoint, learner: Learner) -> None:
    """Put the state of a checkpoint into a fresh learner of the same recipe.

    The channels of the model are sorted if those of the checkpoint are, and else not: numbers are summed in the order
    in which they were before.

    Raises:
        DamagedCheckpoint: if the names or shapes are not those of the model.
    """
    parameters = dict(learner.model.named_parameters())
    momentum = _section(checkpoint.tensors, "momentum/")
    if any(name not in parameters or parameters[name].shape != buffer.shape for name, buffer in momentum.items()):
        raise DamagedCheckpoint("the momentum is that of another network")
    _fill(learner.model, _section(checkpoint.tensors, "model/"))
    for name, buffer in momentum.items():
        # The layout of the parameter, as the optimizer would have made it.
        own = torch.empty_like(parameters[name]).copy_(buffer)
        learner.optimizer.state[parameters[name]]["momentum_buffer"] = own
    if learner.averages is not None:
        _fill(learner.averages.module, _section(checkpoint.tensors, "average/"))
    try:
        if learner.averages is not None:
            learner.averages.n_averaged.fill_(checkpoint.numbers["averaged"])
        learner.scaler.load_state_dict(checkpoint.numbers["scaler"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DamagedCheckpoint(f"its numbers are those of another training: {shown(error, 300)}") from None


def _fill(model: nn.Module, state: dict[str, Tensor]) -> None:
    try:
        follow_order(model, state)
        model.load_state_dict(state)
    except RuntimeError as error:
        raise DamagedCheckpoint(f"the weights are those of another network: {error}") from None


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the one that was there stays until the new one is whole.

    Raises:
        UserError: if it cannot be written, with path and reason.
    """
    tensors = checkpoint.tensors | _named("best/", checkpoint.best)
    metadata = {
        "format": FORMAT,
        "trial": checkpoint.trial,
        "plan": checkpoint.plan,
        "epoch": str(len(checkpoint.history)),
        "begun": json.dumps(checkpoint.begun),
        "numbers": json.dumps(checkpoint.numbers),
        "curve": json.dumps([asdict(epoch) for epoch in checkpoint.history]),
        "resumed": str(checkpoint.resumed),
        "started": checkpoint.started,
        "train_seconds": repr(checkpoint.train_seconds),
    }
    tensors = _plain(tensors)
    _write(path, tensors, {**metadata, "sha256": _digest(tensors, metadata)})


def load(path: Path) -> Checkpoint | None:
    """The checkpoint that :func:`save` wrote; None where there is none.

    Raises:
        DamagedCheckpoint: if the file is torn, altered or foreign.
        UserError: if it cannot be read.
    """
    try:
        os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    os.close(open_plain(path))
    try:
        check_header(path)
        tensors, metadata = _read(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (safetensors.SafetensorError, ValueError) as error:
        raise DamagedCheckpoint(f"{path}: not a checkpoint: {shown(error, 300)}") from None
    if metadata.get("format") != FORMAT:
        found = shown(metadata.get("format"))
        raise DamagedCheckpoint(f"{path}: not a checkpoint: its format is {found}, not {FORMAT!r}")
    if metadata.pop("sha256", None) != _digest(tensors, metadata):
        raise DamagedCheckpoint(f"{path}: damaged: its content is not what was written")
    try:
        return _made(tensors, metadata)
    except (LookupError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise DamagedCheckpoint(f"{path}: not a checkpoint of this version: {shown(error, 300)}") from None


def _made(tensors: dict[str, Tensor], metadata: dict[str, str]) -> Checkpoint:
    """What the content of a file says; an error of Python's where it says something else."""
    steps, sums = json.loads(metadata["begun"])
    numbers = json.loads(metadata["numbers"])
    if type(steps) is not int or not all(isinstance(n, (int, float)) for n in sums) or not isinstance(numbers, dict):
        raise ValueError("its numbers are none")
    return Checkpoint(
        trial=metadata["trial"],
        plan=metadata["plan"],
        history=tuple(epoch_from_dict(values) for values in json.loads(metadata["curve"])),
        resumed=int(metadata["resumed"]),
        started=metadata["started"],
        train_seconds=float(metadata["train_seconds"]),
        tensors={name: tensor for name, tensor in tensors.items() if not name.startswith("best/")},
        numbers=numbers,
        begun=(steps, tuple(sums)),
        best=_section(tensors, "best/"),
    )


def set_aside(path: Path, reason: object) -> Path:
    """Rename a file that is of no use to ``….corrupt`` and say so in the log; its new path.

    What :func:`keep` kept of the same training goes with it.
    """
    aside = path.with_name(path.name + ".corrupt")
    os.replace(path, aside)
    for kept in path.parent.glob(f"{path.stem}.epoch-*{path.suffix}"):
        os.replace(kept, kept.with_name(kept.name + ".corrupt"))
    _log.warning("%s; kept as %s, the trial starts again", reason, aside.name)
    return aside


def keep(path: Path, epoch: int) -> None:
    """Let the checkpoint at ``path`` stay under a name of its own, ``….epoch-012.safetensors``, whatever follows."""
    kept = path.with_name(f"{path.stem}.epoch-{epoch:03d}{path.suffix}")
    kept.unlink(missing_ok=True)
    try:
        os.link(path, kept)
    except OSError:  # a file system without links
        shutil.copyfile(path, kept)


def remove(path: Path) -> None:
    """Remove a checkpoint, and what a killed process left of one half written. None need be there."""
    for part in (path, *path.parent.glob(f".{path.name}.*.part")):
        part.unlink(missing_ok=True)


def save_weights(model: nn.Module, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the model's state, parameters and buffers by name, with ``metadata`` in the file's header.

    Channels that are sorted are written as they were built; the model stays as it is.

    Raises:
        UserError: if it cannot be written, with path and reason.
    """
    _write(path, _plain(canonical_state(model)), dict(metadata))


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"{path.parent}: cannot be made: {error.strerror or error}") from None
    files.replace(path, safetensors.torch.save(tensors, metadata))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safetensors.safe_open(path, framework="pt") as file:
        tensors: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, dict(file.metadata() or {})


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of all that a checkpoint holds: safetensors itself has no checksum."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _section(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
