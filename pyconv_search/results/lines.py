"""One line of the journal: a record as canonical JSON, and back.

A line is ``{"kind": "row" | "epoch" | "event", …}`` with sorted keys, in UTF-8, ended by one newline. JSON has no
number for NaN and the infinities: they are written as the strings ``"nan"``, ``"inf"`` and ``"-inf"``. In the float
columns of a row or an epoch they are read back as the floats they were; anywhere else (a parameter, a value of an
event) they stay text. Half of a surrogate pair, which UTF-8 cannot hold, is written as ``?``.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import Any

from pyconv_search.results.row import Epoch, Row, epoch_from_dict, row_from_dict, to_dict

KINDS = ("row", "epoch", "event")
BEGIN = "begin"
# What the event that a trial begins holds, beside its time.
BEGIN_KEYS = {"trial": str, "network": str, "config": str, "seed": int, "macs": int, "epochs": int}
NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "float | None": (float, int, type(None)),
    "dict[str, Any]": (dict,),
    "dict[str, str]": (dict,),
}


def columns(record: type[Row] | type[Epoch]) -> dict[str, str]:
    """The name and the annotation of each field of a record, in order."""
    return {f.name: str(f.type) for f in fields(record)}


def encode(kind: str, values: dict[str, Any]) -> bytes:
    """The journal line of a record; TypeError for a value that is not plain JSON."""
    text = json.dumps(
        {**_finite(values), "kind": kind}, allow_nan=False, ensure_ascii=False, sort_keys=True, separators=(",", ":")
    )
    return text.encode("utf-8", errors="replace") + b"\n"


def encode_record(record: Row | Epoch) -> bytes:
    """The journal line of a row or an epoch."""
    return encode("row" if isinstance(record, Row) else "epoch", to_dict(record))


def decode(line: bytes) -> Row | Epoch | dict[str, Any]:
    """The record of one line, an event as its plain values; ValueError tells what is wrong with the line."""
    values = json.loads(line.decode("utf-8"), parse_constant=_refuse)
    if not isinstance(values, dict) or values.get("kind") not in KINDS:
        raise ValueError(f"not an object whose kind is one of {', '.join(KINDS)}")
    kind = values.pop("kind")
    if kind == "event":
        if not isinstance(values.get("name"), str):
            raise ValueError("an event without a name")
        if values["name"] == BEGIN:
            for key, kind in BEGIN_KEYS.items():
                if not isinstance(values.get(key), kind):
                    raise ValueError(f"{key} must be {kind.__name__}, but got {values.get(key)!r}")
        return values
    record: type[Row] | type[Epoch] = Row if kind == "row" else Epoch
    checked = _checked(record, values)
    try:
        return row_from_dict(checked) if record is Row else epoch_from_dict(checked)
    except TypeError as error:
        raise ValueError(f"a {kind} that is not whole: {error}") from None


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _checked(record: type[Row] | type[Epoch], values: dict[str, Any]) -> dict[str, Any]:
    for name, annotation in columns(record).items():
        if name not in values:
            continue
        if annotation.startswith("float"):
            values[name] = _float(values[name])
        if not isinstance(values[name], TYPES[annotation]) or isinstance(values[name], bool):
            raise ValueError(f"{name} must be {annotation}, but got {values[name]!r}")
    return values


def _float(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value
