"""Loss and errors, summed over images where these are computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pyconv_search.training import pulse


class Diverged(ArithmeticError):
    """The loss became infinite or NaN."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Mean cross-entropy in nats, top-1 and top-5 error in percent (top-k of all k classes where these are fewer)."""

    loss: float
    top1_error: float
    top5_error: float


def ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """The place of the right class, from 0, among the ``logits`` (N × classes) of each of N images.

    Of equal logits the lower class comes first, as in a stable sort; equal ones are frequent in bf16.
    """
    right = logits.gather(1, labels[:, None])
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return ((logits > right) | ((logits == right) & earlier)).sum(1)


class Tally:
    """Sums that stay on the device until somebody asks: loss, wrong at top 1 and top 5, images; in float64."""

    def __init__(self, device: torch.device, sums: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)) -> None:
        self.sums = torch.tensor(sums, dtype=torch.float64, device=device)

    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Count the ``logits`` (N × classes) of N images, and ``loss``, the sum of theirs."""
        pulse.beat()
        place = ranks(logits, labels)
        count = torch.full_like(self.sums[0], len(labels))
        self.sums += torch.stack((loss.double(), (place >= 1).sum().double(), (place >= 5).sum().double(), count))

    def check(self) -> None:
        """Raise Diverged if the loss is not finite; waits for the device."""
        loss = self.sums[0].item()
        if not math.isfinite(loss):
            raise Diverged(f"the loss became {loss}")

    def plain(self) -> tuple[float, ...]:
        """The four sums, with which another tally can go on."""
        return tuple(self.sums.tolist())

    def scores(self) -> Scores:
        """The means.

        Raises:
            Diverged: if the loss is not finite.
        """
        self.check()
        loss, top1, top5, count = self.sums.tolist()
        return Scores(loss / count, 100 * top1 / count, 100 * top5 / count)
