"""An architecture as plain JSON values and back, and the one text by which it is known."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from typing import Any

from pyconv_search.arch.heads import HEADS
from pyconv_search.arch.spec import Architecture, Conv, Level, SqueezeExcite, Stage, Stem


def to_dict(value: Any) -> Any:
    """An architecture (or a part of one) as plain JSON values.

    Fields that hold their default are left out, so that a field which a later version adds leaves every ``arch_id`` as
    it was; a head's ``kind`` stays, by which :func:`from_dict` knows it.
    """
    if isinstance(value, tuple):
        return [to_dict(item) for item in value]
    if not hasattr(value, "__dataclass_fields__"):
        return value
    pairs = ((f, getattr(value, f.name)) for f in fields(value))
    return {f.name: to_dict(v) for f, v in pairs if f.default is MISSING or v != f.default or f.name == "kind"}


def from_dict(values: dict[str, Any]) -> Architecture:
    """The architecture that :func:`to_dict` made."""
    head = values.get("head")
    return Architecture(
        **{
            **values,
            "stem": Stem(**_tuples(values["stem"])),
            "stages": tuple(_stage(stage) for stage in values["stages"]),
            "input": tuple(values["input"]),
            "head": head and HEADS[head["kind"]](**{key: _part(value) for key, value in head.items()}),
        }
    )


def _stage(values: dict[str, Any]) -> Stage:
    se = values.get("se")
    return Stage(**{**values, "conv": _part(values["conv"]), "se": se and SqueezeExcite(**se)})


def _part(value: Any) -> Any:
    """A convolution, or a tuple of convolutions or numbers, as they stand in stages and heads."""
    if isinstance(value, dict):
        return Conv(tuple(Level(**_tuples(level)) for level in value["levels"]))
    return tuple(_part(item) for item in value) if isinstance(value, list) else value


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def canonical_json(arch: Architecture) -> str:
    """The one JSON text of this architecture: sorted keys, no spaces, defaults left out."""
    return json.dumps(to_dict(arch), sort_keys=True, separators=(",", ":"))
