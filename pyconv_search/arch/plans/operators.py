"""Operators by name, and those of a network: what is worth timing, without torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from pyconv_search.arch.plans.network import Call, calls
from pyconv_search.arch.plans.operation import Operation, side
from pyconv_search.arch.plans.traffic import Size
from pyconv_search.arch.presets import preset
from pyconv_search.arch.spec import Architecture
from pyconv_search.errors import UserError
from pyconv_search.fields import suggestion

# Networks whose stages hold the operators that have a name, and what the names begin with.
SOURCES = {
    "psconv": "ps-resnet-50",
    "pyconv": "pyconvresnet-50",
    "pyconvhg": "pyconvhgresnet-50",
    "psconv-g32": "ps-resnext-50-32x4d",
}


@dataclass(frozen=True, slots=True)
class Operator:
    """An operation on images of ``height`` by ``width``, which occurs ``times`` times where it was found."""

    name: str
    operation: Operation
    height: int
    width: int
    times: int
    planned: bool

    def sizes(self, batch: int) -> tuple[Size, Size]:
        """Of what it reads and puts out for ``batch`` images."""
        rows, columns = self.operation.stride
        return (batch, self.height, self.width), (batch, -(-self.height // rows), -(-self.width // columns))


def named(names: Sequence[str] = ()) -> list[Operator]:
    """The operators with these names, or all: the papers' convolutions at the sizes that they have in their networks.

    ``psconv-64`` … ``psconv-512`` and ``pyconv4-64``, ``pyconv3-128`` … of the 50-layer networks (the first number
    counts levels, the last one output channels), ``pyconvhg4-128`` … with the groups of PyConvHGResNet, and
    ``psconv-g32-128`` … with the 32 groups of PS-ResNeXt; all of stride 1.

    Raises:
        UserError: if a name is unknown, with those that are known.
    """
    known = _known()
    for name in names:
        if name not in known:
            hint = suggestion(name, known)
            raise UserError(f"operator must be one of {', '.join(known)}, but got {name!r}{hint}")
    return [known[name] for name in names or known]


@lru_cache(maxsize=1)
def _known() -> dict[str, Operator]:
    found = {}
    for prefix, network in SOURCES.items():
        for one in operators(preset(network)):
            levels = len(one.operation.conv.levels)
            name = f"{prefix}{levels if prefix.startswith('pyconv') else ''}-{one.operation.conv.width}"
            if one.operation.stride == (1, 1):
                found[name] = Operator(name, one.operation, one.height, one.width, 1, one.planned)
    return found


def operators(arch: Architecture) -> list[Operator]:
    """The spatial convolutions of a network's blocks and head, each once; named by their part and a number within it.

    Raises:
        UserError: if the network is for video.
    """
    if arch.dimensions != 2:
        raise UserError("network must be one for images: convolutions for video have no plans")
    times: Counter[tuple[Operation, int, int]] = Counter()
    first: dict[tuple[Operation, int, int], Call] = {}
    for call in calls(arch):
        if call.operation is not None and any(max(side(level)) > 1 for level in call.operation.conv.levels):
            _, height, width = call.layers[0].inputs[0].shape
            times[call.operation, height, width] += call.times
            first.setdefault((call.operation, height, width), call)
    numbers: Counter[str] = Counter()
    found = []
    for key, call in first.items():
        numbers[call.part] += 1
        found.append(Operator(f"{call.part}-{numbers[call.part]}", *key, times[key], call.planned))
    return found
