"""A whole network as traced parts: stem, stages and head, each made of units that may repeat."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from pyconv_search.arch.blocks import Place, non_local
from pyconv_search.arch.families import FAMILIES
from pyconv_search.arch.heads.classifier import Classifier
from pyconv_search.arch.heads.head import Head
from pyconv_search.arch.spec import Architecture, Stage, Stem
from pyconv_search.arch.trace import Layer, Shape, Tensor, Trace

CLASSIFIER = Classifier()


@dataclass(frozen=True, slots=True)
class Unit:
    """Layers that run ``len(names)`` times in a row, under each of the names.

    ``output`` is what the next unit reads; the last one has ``results`` instead, what the network puts out.
    """

    names: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    layers: tuple[Layer, ...]
    output: Tensor | None
    results: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a network and the shape of what it puts out."""

    name: str
    units: tuple[Unit, ...]
    shape: Shape


def parts(arch: Architecture) -> Iterator[Part]:
    """The parts in the order of the forward pass."""
    part = stem(arch.family, arch.stem, arch.form, arch.input)
    yield part
    features = []
    for i, one in enumerate(arch.stages):
        part = stage(arch.family, one, arch.form, i, part.shape)
        features.append(part.shape)
        yield part
    behind = final(arch.family, arch.form, part.shape)
    if behind.units:
        features[-1] = behind.shape
        yield behind
    yield head(arch.head or CLASSIFIER, tuple(features[i] for i in taps(arch)), arch.classes, arch.input)


def tapped(arch: Architecture) -> tuple[Shape, ...]:
    """The shapes of the features that the head reads."""
    *_, last = parts(arch)
    return tuple(x.shape for x in last.units[0].inputs)


def taps(arch: Architecture, training: bool = True) -> tuple[int, ...]:
    """The stages whose features the head reads, counted from 0; without ``training``, those that inference reads."""
    found = (arch.head or CLASSIFIER).taps(len(arch.stages))
    if training:
        return found
    *_, last = parts(arch)
    read = {x.storage for layer in last.units[0].layers if not layer.training for x in layer.inputs}
    return tuple(i for i, x in zip(found, last.units[0].inputs, strict=True) if x.storage in read)


def layers(arch: Architecture) -> list[Layer]:
    """Every layer of the network with its full name, in the order of the calls; functions have no name.

    A layer's tensors are numbered within its own block.
    """
    return [
        layer._replace(name=f"{name}.{layer.name}" if name and layer.name else layer.name)
        for part in parts(arch)
        for unit in part.units
        for name in unit.names
        for layer in unit.layers
    ]


def _unit(t: Trace, output: Tensor | None, *names: str) -> Unit:
    return Unit(names, t.inputs, tuple(t.layers), output)


@lru_cache(maxsize=4096)
def stem(family: str, stem: Stem, form: str, shape: Shape) -> Part:
    """The stem on an image of ``shape``."""
    t = Trace(shape)
    y = FAMILIES[family].stem(t, t.inputs[0], stem, form)
    return Part("stem", (_unit(t, y, "stem"),), y.shape)


@lru_cache(maxsize=65536)
def stage(family: str, stage: Stage, form: str, index: int, shape: Shape) -> Part:
    """Stage ``index`` (from 0) on features of ``shape``."""
    units, n = [], stage.blocks
    t = Trace(shape)
    y = FAMILIES[family].transition(t, t.inputs[0], index)
    if t.layers:
        units.append(_unit(t, y, f"transitions.{index}"))
    shape = y.shape
    for place, numbers in places(n, FAMILIES[family].alike(form)):
        t = Trace(shape)
        y = FAMILIES[family].block(t, t.inputs[0], stage, form, place)
        units.append(_unit(t, y, *(f"stages.{index}.{i}" for i in numbers)))
        shape = y.shape
    if stage.non_local:
        t = Trace(shape)
        units.append(_unit(t, non_local(t, t.inputs[0]), f"stages.{index}.{n}"))
    return Part(f"stage{index + 1}", tuple(units), shape)


def places(blocks: int, alike: bool) -> Iterator[tuple[Place, range]]:
    """Where the blocks of a stage stand, those of one kind together; ``alike`` says that all but the first are one."""
    if blocks == 1:
        yield Place(True, False, True), range(1)
        return
    yield Place(True, False, False), range(1)
    if alike:
        yield Place(False, False, False), range(1, blocks)
        return
    if blocks == 2:
        yield Place(False, True, True), range(1, 2)
        return
    yield Place(False, True, False), range(1, 2)
    if blocks > 3:
        yield Place(False, False, False), range(2, blocks - 1)
    yield Place(False, False, True), range(blocks - 1, blocks)


@lru_cache(maxsize=4096)
def final(family: str, form: str, shape: Shape) -> Part:
    """What stands behind the last stage; no units where there is nothing."""
    t = Trace(shape)
    y = FAMILIES[family].final(t, t.inputs[0], form)
    return Part("final", (_unit(t, y, "final"),) if t.layers else (), y.shape)


@lru_cache(maxsize=4096)
def head(head: Head, features: tuple[Shape, ...], classes: int, image: Shape) -> Part:
    """The head on the features that it taps."""
    t = Trace(*features)
    out = head.trace(t, t.inputs, classes, image)
    flat = (1,) * (len(image) - len(out[0].shape))
    return Part("head", (replace(_unit(t, None, ""), results=tuple(out)),), (*out[0].shape, *flat))
