"""One line of the journal: a record as canonical JSON, and back.

A line is ``{"kind": "row" | "epoch" | "event", …}`` with sorted keys, in UTF-8, ended by one newline. JSON has no
number for NaN and the infinities: they are written as the strings ``"nan"``, ``"inf"`` and ``"-inf"``. In the float
columns of a row or an epoch they are read back as the floats they were; anywhere else (a parameter, a value of an
event) they stay text. Half of a surrogate pair, which UTF-8 cannot hold, is written as ``?``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from pyconv_search.results.listing import PROPOSED, is_entry
from pyconv_search.results.row import Epoch, Row, epoch_from_dict, row_from_dict, to_dict

KINDS = ("row", "epoch", "event")
BEGIN = "begin"
# What the event that a trial begins holds, beside its time.
BEGIN_KEYS = {"trial": str, "network": str, "config": str, "seed": int, "macs": int, "epochs": int}
NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float,),
    "float | None": (float, type(None)),
    "dict[str, Any]": (dict,),
    "dict[str, str]": (dict,),
}
INT64 = range(-(2**63), 2**63)
# What the readers of an event rely on; other values of an event, and other events, may be anything.
EVENTS: dict[str, dict[str, tuple[type, ...]]] = {
    "start": {"git": (dict, type(None)), "environment": (dict, type(None))},
    BEGIN: {name: (kind,) for name, kind in BEGIN_KEYS.items()},
    "planned": {
        "device_seconds": (float, int),
        "wall_seconds": (float, int, type(None)),
        "concurrent": (int,),
        "trials": (int,),
        "unit": (str,),
        "device": (str,),
        "measured": (list,),
    },
}
OPTIONAL = {"start"}  # An event that may lack what it is checked for.


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
    """The record of one line, an event as its plain values; ValueError says what is wrong with the line."""
    values = _DECODER.decode(line.decode("utf-8"))
    if not isinstance(values, dict) or values.get("kind") not in KINDS:
        raise ValueError(f"not an object whose kind is one of {', '.join(KINDS)}")
    kind = values.pop("kind")
    if kind == "event":
        return _event(values)
    record: type[Row] | type[Epoch] = Row if kind == "row" else Epoch
    checked = _checked(COLUMNS[record], values)
    try:
        return row_from_dict(checked) if record is Row else epoch_from_dict(checked)
    except TypeError as error:
        raise ValueError(f"a {kind} that is not whole: {error}") from None


def is_blank(line: bytes) -> bool:
    """Whether a line holds nothing: what an editor adds at the end, or zeros where a power cut lost what was written.

    A byte order mark, which some editors put before the first line, is nothing either.
    """
    return not line.strip(b"\0 \t\r\n\xef\xbb\xbf")


def _event(values: dict[str, Any]) -> dict[str, Any]:
    name = values.get("name")
    if not isinstance(name, str):
        raise ValueError("an event without a name")
    for key, types in EVENTS.get(name, {}).items():
        if key not in values and name in OPTIONAL:
            continue
        if not isinstance(values.get(key), types) or isinstance(values.get(key), bool):
            wanted = " or ".join(kind.__name__ for kind in types)
            raise ValueError(f"{key} must be {wanted}, but got {values.get(key)!r:.80}")
    if name == "planned" and not all(
        isinstance(m, dict) and isinstance(m.get("name"), str) for m in values["measured"]
    ):
        raise ValueError(f"the event {name!r} measured what has no name")
    if name == PROPOSED and not is_entry(values.get("network")):
        raise ValueError(f"the event {name!r} has no network")
    return values


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


def _checked(wanted: Sequence[tuple[str, tuple[type, ...]]], values: dict[str, Any]) -> dict[str, Any]:
    for name, types in wanted:
        if name not in values:
            continue
        value = values[name]
        if float in types and type(value) is not float:
            value = values[name] = _float(value)
        if type(value) not in types or (type(value) is int and value not in INT64):
            raise ValueError(f"{name} must be {types[0].__name__}, but got {value!r:.80}")
    return values


def _float(value: Any) -> Any:
    if type(value) is int:
        return float(value) if value in INT64 else value
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value


_DECODER = json.JSONDecoder(parse_constant=_refuse)
COLUMNS = {record: [(name, TYPES[text]) for name, text in columns(record).items()] for record in (Row, Epoch)}
