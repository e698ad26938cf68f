"""Which parameters can change which part of a network, read off the references in a space's network section.

A part (stem, stage1, …, head) depends on the numbers of its own and on the shape that reaches it. The rules below name
the keys of which more can be said than that they change everything; where a key has no rule, they are not used at all.
Too wide a reach costs time, too narrow a one would give wrong costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pyconv_search.arch.pyramid import CONV_KEYS
from pyconv_search.arch.resnet import IMAGENET_BLOCKS
from pyconv_search.fields import Path
from pyconv_search.space.references import indexed, reference, references
from pyconv_search.space.space import Space

View = Callable[[Any], Any]
_LOCAL = (*CONV_KEYS, "blocks", "shortcut")  # keys of one stage that leave the shape it puts out as it is
_STAGE = (*_LOCAL, "width", "out", "stride")
_STEM = ("kernel", "width", "stride", "pool")
_COMMON = (*CONV_KEYS, "shortcut")  # keys of the network that every stage reads, and no other part
_NETWORK = (*_COMMON, "depth", "blocks", "block", "width", "expansion")
_FIXED = ("family", "input", "classes", "preset", "form", "se", "non_local", "time_stride", "head")


@dataclass(frozen=True)
class Influence:
    """The parameters that one part depends on: their columns, each with the class of every value.

    Values of one class are alike to the part. The last entry of ``classes`` is that of an inactive parameter, so that
    the index -1 finds it.
    """

    name: str
    inputs: tuple[tuple[int, npt.NDArray[np.int64]], ...]


def influences(space: Space) -> tuple[Influence, ...]:
    """The influences on stem, stage1, … and head, in this order; a part that no network has may be among them."""
    stages = _stages(space)
    whole = not _ruled(space.settings)
    names = ["stem", *(f"stage{i + 1}" for i in range(stages)), "head"]
    return tuple(Influence(name, tuple(_inputs(space, part, stages, whole))) for part, name in enumerate(names))


def _ruled(network: Any) -> bool:
    """Whether there is a rule for every key of the network; they are those of residual networks."""
    stem, stages = network.get("stem", {}), network.get("stages", [])
    return (
        network.get("family", "resnet") == "resnet"
        and _known(network, (*_NETWORK, "stem", "stages"))
        and isinstance(stem, dict)
        and _known(stem, _STEM)
        and isinstance(stages, list)
        and all(isinstance(stage, dict) and _known(stage, _STAGE) for stage in stages)
    )


def _known(section: dict[str, Any], keys: tuple[str, ...]) -> bool:
    """Whether every key has a rule, or is one of those that are harmless where no parameter changes them."""
    rest = {key: value for key, value in section.items() if key not in keys}
    return set(rest) <= set(_FIXED) and not any(references(rest))


def _stages(space: Space) -> int:
    """The number of stages, or the largest where it is searched."""
    written = [len(v) for v in _candidates(space, "stages") if isinstance(v, list) and v]
    if written:
        return max(written)
    blocks = [len(v) if isinstance(v, list) else 1 for v in _candidates(space, "blocks") if v is not None]
    depths = [4 if depth in IMAGENET_BLOCKS else 3 for depth in _candidates(space, "depth") if depth is not None]
    return max([*blocks, *depths], default=4)


def _candidates(space: Space, key: str) -> list[Any]:
    """What a key of the network may hold; the preset's own value is in force where a parameter is inactive."""
    value, usual = space.network.get(key), space.base.get(key)
    read = reference(value)
    if read is None:
        return [usual if value is None else value]
    return [*(indexed(v, read[1]) for v in space.by_name[read[0]].domain.values), usual]


def _inputs(space: Space, part: int, stages: int, whole: bool) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    seen: dict[str, list[tuple[View, tuple[int, ...]]]] = {}
    whole = whole or (part > stages and _headed(space))
    for path, name, indices in references(space.network):
        view = _itself if whole else _view(path, part, stages)
        if view is not None:
            seen.setdefault(name, []).append((view, indices))
    for column, parameter in enumerate(space.parameters):
        if views := seen.get(parameter.name):
            yield column, _classes(parameter.domain.values, views)


def _headed(space: Space) -> bool:
    """Whether the networks have a head of their own, which may read any stage."""
    return space.settings.get("head") is not None


def _classes(values: Any, views: list[tuple[View, tuple[int, ...]]]) -> npt.NDArray[np.int64]:
    if (_itself, ()) in views:
        return np.arange(len(values) + 1)
    known: dict[str, int] = {}
    alike = [repr([view(indexed(value, indices)) for view, indices in views]) for value in values]
    return np.array([known.setdefault(text, len(known)) for text in alike] + [len(known)])


def _view(path: Path, part: int, stages: int) -> View | None:
    """What ``part`` (0 the stem, stages + 1 the head) sees of a value at ``path``; None where it sees nothing."""
    in_stages, stage_or_head = 0 < part <= stages, part > 0
    match path:
        case ("stages", int(i), key, *_) if key in _LOCAL:
            return _if(part == i + 1)
        case ("stages", int(i), "width" | "out", *_):
            return _if(part in (i + 1, i + 2))
        case ("stages", int(i), "stride"):  # how often the resolution is halved is checked with the head
            return _if(part > i)
        case ("blocks", int(i)):
            return _if(part == i + 1)
        case ("blocks" | "levels",) if in_stages:
            return partial(_entry, part - 1)
        case ("blocks",):
            return _length if stage_or_head else None
        case (key, *_) if key in _COMMON:
            return _if(in_stages)
        case ("depth" | "block" | "width" | "expansion",):
            return _if(stage_or_head)
    return _itself


def _if(sees: bool) -> View | None:
    return _itself if sees else None


def _itself(value: Any) -> Any:
    return value


def _entry(stage: int, value: Any) -> Any:
    """What a stage sees of a list with one number for each: its length and its own entry."""
    if isinstance(value, list) and all(isinstance(n, int) for n in value):
        return len(value), *value[stage : stage + 1]
    return (value,)


def _length(value: Any) -> Any:
    return len(value) if isinstance(value, list) else None
