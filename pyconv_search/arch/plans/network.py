"""The convolutions of a network, and the work that the plans chosen for them take beside the nominal one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pyconv_search.arch import counting, network
from pyconv_search.arch.plans.choice import DIRECTIONS, Choice, Setting, choose
from pyconv_search.arch.plans.operation import Operation
from pyconv_search.arch.plans.traffic import NOTHING, Size, Work, executed
from pyconv_search.arch.spec import Architecture
from pyconv_search.arch.trace import Layer, each


@dataclass(frozen=True, slots=True)
class Call:
    """A convolution, all its levels, or a linear layer, and how many ``times`` a part of a network calls it.

    ``operation`` is that of a convolution of the specification on images, in the order of channels of a lone module,
    and None for other layers. ``on_image``: it reads the network's input, whose gradient nobody asks for.
    """

    part: str
    times: int
    layers: tuple[Layer, ...]
    operation: Operation | None
    on_image: bool

    def sizes(self, batch: int) -> tuple[Size, Size]:
        """Of what it reads and puts out for ``batch`` images; only for an ``operation``."""
        (_, *into), (_, *out) = self.layers[0].inputs[0].shape, self.layers[0].output.shape
        return (batch, into[0], into[1]), (batch, out[0], out[1])

    @property
    def planned(self) -> bool:
        """Whether a plan executes it, and not one convolution of PyTorch as it stands."""
        levels = self.operation.conv.levels if self.operation is not None else ()
        return len(levels) > 1 or any(len(level.pattern) > 1 for level in levels)

    def nominal(self, batch: int, itemsize: int) -> Work:
        """One call for ``batch`` images, one direction: its multiply-adds; its input, weights and output once."""
        numbers = self.layers[0].inputs[0].size + sum(layer.output.size for layer in self.layers)
        weights = sum(layer.params for layer in self.layers)
        macs = sum(counting.macs(layer) for layer in self.layers)
        return Work(batch * macs, itemsize * (batch * numbers + weights))


def calls(arch: Architecture) -> Iterator[Call]:
    """The convolutions and linear layers that inference calls, in its order; those of equal blocks together."""
    for part in network.parts(arch):
        for number, unit in enumerate(part.units):
            image = unit.inputs[0].storage if part.name == "stem" and number == 0 else None
            own = [v for v in unit.layers if v.kind in ("conv", "linear") and not v.training]
            while own:
                count = len(own[0].conv.levels) if own[0].conv is not None else 1
                levels, own = tuple(own[:count]), own[count:]
                on_image = levels[0].inputs[0].storage == image
                yield Call(part.name, len(unit.names), levels, _operation(levels[0]), on_image)


def _operation(layer: Layer) -> Operation | None:
    channels, *sides = layer.inputs[0].shape
    if layer.conv is None or len(sides) != 2:
        return None
    height, width = each(layer.stride, 2)
    return Operation(channels, layer.conv, (height, width))


@dataclass(frozen=True, slots=True)
class Executed:
    """A call of a network with its plan for each of DIRECTIONS, if it has plans, and the work of all its ``times``.

    ``nominal`` and ``work`` hold one direction's work by its name; the gradient of the network's input takes none.
    """

    call: Call
    choices: dict[str, Choice]
    nominal: dict[str, Work]
    work: dict[str, Work]


# What takes an operation, a type, the sizes of input and output and the bytes of a number, and gives the work of each
# direction in one kernel, or None if it has none for it.
Fused = Callable[[Operation, str, tuple[Size, Size], int], dict[str, Work] | None]


def executions(
    arch: Architecture, setting: Setting, batch: int = 1, itemsize: int = 4, fused: tuple[Choice, Fused] | None = None
) -> list[Executed]:
    """Every call of a network as it is executed on ``setting``, for ``batch`` images of ``itemsize``-byte numbers.

    ``fused`` says of which operations one kernel takes the place of plans, and how that is to be called.
    """
    return [_executed(call, setting, (batch, itemsize), fused) for call in calls(arch)]


def _executed(call: Call, setting: Setting, at: tuple[int, int], fused: tuple[Choice, Fused] | None) -> Executed:
    own = call.nominal(*at).times(call.times)
    nominal = {d: NOTHING if call.on_image and d == "input" else own for d in DIRECTIONS}
    if call.operation is None or not call.planned:
        return Executed(call, {}, nominal, nominal)
    (batch, itemsize), choices, work = at, {}, None
    sizes = call.sizes(batch)
    if fused is not None:
        work = fused[1](call.operation, setting.dtype, sizes, itemsize)
        choices = dict.fromkeys(DIRECTIONS, fused[0])
    if work is None:
        choices = {d: choose(call.operation, setting, d) for d in DIRECTIONS}
        work = {d: executed(choice.plan, *sizes, itemsize) for d, choice in choices.items()}
    return Executed(call, choices, nominal, {d: one.times(call.times) for d, one in work.items()})


def plans_text(choices: Mapping[str, Choice]) -> str:
    """The names of the plans by direction; one name where they are all the same."""
    names = {direction: choice.plan.name for direction, choice in choices.items()}
    if len(set(names.values())) == 1:
        return next(iter(names.values()))
    return "; ".join(f"{direction} {name}" for direction, name in names.items())
