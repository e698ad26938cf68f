"""What a run has spent on its trials, from the epochs in its journal, and what was planned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyconv_search.results.store import Store


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of all trials, each times the devices that it takes: of ``training`` and of ``everything``.

    Everything is training and validation of the epochs that count; what was lost with an interrupted epoch, the start
    of trials and the test split are not in it. ``unit`` is GPU, or core of a CPU.
    """

    training: float
    everything: float
    unit: str

    def to_event(self) -> dict[str, Any]:
        """What the journal's event of that name says."""
        return {"training_device_seconds": self.training, "device_seconds": self.everything, "unit": self.unit}


def spent(store: Store) -> Spent:
    """What the epochs of a store took; epochs without a rate count nothing as training."""
    resources, images = store.study.get("resources") or {}, store.study["data"].get("train") or 0
    gpus = resources.get("gpu") or 0
    devices = gpus or resources.get("cpu") or 1
    training = sum(images / epoch.images_per_second for epoch in store.epochs if epoch.images_per_second)
    everything = sum(epoch.seconds for epoch in store.epochs)
    return Spent(training * devices, everything * devices, "GPU" if gpus else "core")


def planned(store: Store) -> dict[str, Any] | None:
    """The last event that says what the run will take, networks by their names now; None where it was not estimated."""
    event = next((event for event in reversed(store.events) if event["name"] == "planned"), None)
    if event is None or store.listing is None:
        return event
    names = store.listing.names
    measured = [each | {"name": names.get(each.get("config"), each["name"])} for each in event["measured"]]
    return event | {"measured": measured}


def is_planned(store: Store, trials: int) -> bool:
    """Whether a run of so many trials was estimated before."""
    event = planned(store)
    return event is not None and event["trials"] == trials
