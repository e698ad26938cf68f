"""The rows and epochs of a store as typed tables, and as Parquet files beside the journal."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyconv_search.results.files import replace
from pyconv_search.results.lines import INT64, columns
from pyconv_search.results.row import Epoch, Row

if TYPE_CHECKING:
    import pandas as pd

    from pyconv_search.results.store import Store

DTYPES = {"str": "string", "int": "Int64", "float": "float64", "float | None": "float64"}


def tables(store: Store) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows (one a trial) and the epochs (one a trial and epoch), with the same types however few values there are.

    Counts are Int64, floats float64 (missing is NaN), texts string. ``parameters`` becomes one column
    ``parameter.NAME`` for each parameter of the space (lists as compact JSON, absent as missing), ``environment`` is
    JSON text.
    """
    import pandas as pd

    rows = pd.DataFrame(
        {
            name: _column([getattr(row, name) for row in store.rows], annotation)
            for name, annotation in columns(Row).items()
            if name != "parameters"
        }
        | {f"parameter.{name}": _parameter(store.rows, name) for name in parameter_names(store)}
    )
    epochs = pd.DataFrame(
        {
            name: _column([getattr(epoch, name) for epoch in store.epochs], annotation)
            for name, annotation in columns(Epoch).items()
        }
    )
    return rows, epochs


def write_tables(folder: Path | str, held: Store | None = None) -> tuple[Path, Path]:
    """Write ``rows.parquet`` and ``epochs.parquet`` into the folder of a run, each whole or not at all.

    They hold the trials of the study as it is now, in its order; the journal keeps those that have left it. ``held`` is
    what the folder holds, where that has been read already.

    UserError as from :func:`pyconv_search.results.store.read`, and when a file cannot be written.
    """
    from pyconv_search.results.store import read

    paths = Path(folder) / "rows.parquet", Path(folder) / "epochs.parquet"
    for path, table in zip(paths, tables((held or read(folder)).current()), strict=True):
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        replace(path, buffer.getvalue())
    return paths


def parameter_names(store: Store) -> list[str]:
    """The parameters of the space in its order, then any others that a row has."""
    names = dict.fromkeys(store.study["space"].get("parameters") or {})
    for row in store.rows:
        names.update(dict.fromkeys(row.parameters))
    return list(names)


def compact(value: Any) -> str:
    """A parameter's value as one short text: a text as it is, anything else as compact JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _column(values: list[Any], annotation: str) -> pd.Series:
    import pandas as pd

    if annotation.startswith("dict"):
        values = [json.dumps(v, ensure_ascii=False, sort_keys=True, separators=(",", ":")) for v in values]
    return pd.Series(values, dtype=DTYPES.get(annotation, "string"))


def _parameter(rows: Sequence[Row], name: str) -> pd.Series:
    import pandas as pd

    values = [row.parameters.get(name) for row in rows]
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds == {int} and all(value is None or value in INT64 for value in values):
        return pd.Series(values, dtype="Int64")
    if kinds and kinds <= {int, float}:
        return pd.Series([None if value is None else float(value) for value in values], dtype="float64")
    return pd.Series([None if value is None else compact(value) for value in values], dtype="string")
