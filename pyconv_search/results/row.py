"""The two records that a trial leaves behind: one Row, and one Epoch for each pass over the training images."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

STATUSES = ("complete", "stopped", "failed")
REASONS = ("", "scheduler", "nan", "oom", "lost", "error")


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of one trial: a point of its learning curve.

    Errors are top-k errors in percent; losses are mean cross-entropies in nats; ``seconds`` is the wall time of
    training and validation together. ``epoch`` counts from 1. ``images_per_second`` is that of training alone;
    ``peak_memory`` in bytes, of the device's allocator on a GPU and of the whole process on a CPU (0: not known).
    """

    trial: str
    epoch: int
    lr: float
    train_loss: float
    train_top1_error: float
    val_loss: float
    val_top1_error: float
    val_top5_error: float
    seconds: float
    images_per_second: float = 0.0
    peak_memory: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one trial, that is of one (architecture, seed) under one recipe on one data set.

    ``status`` is ``complete`` (all epochs run), ``stopped`` (the scheduler ended it after ``epochs``) or ``failed``
    (see ``reason``: ``nan`` – the loss became infinite or NaN, ``oom`` – out of memory, ``lost`` – the worker process
    died, ``error`` – anything else, described in ``detail``). Validation figures are those of the last epoch run, or,
    of a complete trial whose recipe selects the best epoch, of that one, whose weights are tested and saved; test
    figures exist for complete trials alone, because the test split is read once, at the end. Errors are in percent,
    ``macs`` are multiply-adds for one image, ``activations`` and ``receptive_field`` as in
    :mod:`pyconv_search.arch.cost`. ``peak_memory`` is the largest of its epochs. ``scales`` holds, for a complete
    trial, the share of each scale (a kernel and its dilation) by layer, as in :mod:`pyconv_search.models.scales`.

    ``config`` names the configuration, that is the architecture and the recipe, whose seeds belong together; without
    one it is the ``arch_id``. ``recipe`` are the values in which the recipe is not the study's.
    """

    trial: str
    arch_id: str
    name: str
    seed: int
    status: str
    reason: str
    detail: str
    epochs: int
    parameters: dict[str, Any]
    params: int
    macs: int
    activations: int
    receptive_field: int
    val_loss: float | None = None
    val_top1_error: float | None = None
    val_top5_error: float | None = None
    test_loss: float | None = None
    test_top1_error: float | None = None
    test_top5_error: float | None = None
    train_seconds: float = 0.0
    images_per_second: float | None = None
    peak_memory: int = 0
    device: str = ""
    host: str = ""
    started: str = ""
    finished: str = ""
    resumed: int = 0
    scales: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    config: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.config:
            object.__setattr__(self, "config", self.arch_id)
        if self.status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}, but got {self.status!r}")
        if self.reason not in REASONS:
            raise ValueError(f"reason must be one of {', '.join(map(repr, REASONS))}, but got {self.reason!r}")


def to_dict(record: Row | Epoch) -> dict[str, Any]:
    """The record as plain JSON values, the lists and mappings among them its own."""
    return {name: getattr(record, name) for name in (ROW if isinstance(record, Row) else EPOCH)}


def row_from_dict(values: dict[str, Any]) -> Row:
    """The Row that :func:`to_dict` made; keys that a newer version added are left out."""
    return Row(**{name: values[name] for name in ROW if name in values})


def epoch_from_dict(values: dict[str, Any]) -> Epoch:
    """The Epoch that :func:`to_dict` made; keys that a newer version added are left out."""
    return Epoch(**{name: values[name] for name in EPOCH if name in values})


ROW, EPOCH = (tuple(f.name for f in fields(record)) for record in (Row, Epoch))
