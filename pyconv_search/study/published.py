"""Which published table a study repeats, and which of its rows stand for which printed ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pyconv_search.arch.published.results import ResultTable, result_tables
from pyconv_search.fields import Fields, shown, suggestion


@dataclass(frozen=True, slots=True)
class Published:
    """A reference such as ``pyconv/table2``, and the printed row of each row of the study that is named otherwise."""

    reference: str
    rows: Mapping[str, str] = field(default_factory=dict)

    def row_of(self, name: str, table: ResultTable) -> str | None:
        """The printed row that a row of the study stands for; spaces and capitals in names do not count."""
        wanted = plain(self.rows.get(name, name))
        return next((result.row for result in table.rows if plain(result.row) == wanted), None)


def plain(name: str) -> str:
    """A row's name without what papers print in several ways: ``(2, 2, 2, 1)`` and ``(2,2,2,1)`` are one."""
    return "".join(name.lower().split())


def read_published(fields: Fields, names: tuple[str, ...] | None) -> Published | None:
    """What the study's ``published`` says: a reference, or ``{table: …, rows: {name in the study: printed row}}``.

    ``names`` are the names of the study's rows, None where these have mistakes. Mistakes go to ``fields.problems``.
    """
    value = fields.take("published", None)
    if not isinstance(value, Mapping):
        reference = fields.text("published", None, tuple(result_tables()))
        return None if reference is None else Published(reference)
    own = fields.section("published")
    reference = own.text("table", choices=tuple(result_tables()))
    rows = own.section("rows", {})
    own.close()
    table = result_tables().get(reference or "")
    return None if table is None else Published(reference, _rows(rows, names, table))


def _rows(rows: Fields, names: tuple[str, ...] | None, table: ResultTable) -> dict[str, str]:
    printed = {plain(result.row): result.row for result in table.rows}
    found = {}
    for name in rows.names():
        if rows.problems.full:
            break
        target = rows.text(name)
        if names is not None and name not in names:
            hint = suggestion(name, names) or f"; its rows are called: {', '.join(names) or 'nothing'}"
            text = f"unknown key: no row of this study is called {shown(name)}{hint}"
            rows.problems.add((*rows.path, name), text, key=True, own=True)
        elif target is None:
            continue
        elif plain(target) not in printed:
            known = list(printed.values())
            hint = suggestion(target, known) or f"; there are: {', '.join(known)}"
            rows.add(name, f"{table.reference} has no row {shown(target)}{hint}")
        else:
            found[name] = printed[plain(target)]
    return found


def to_dict(published: Published | None) -> str | dict[str, Any] | None:
    """The published table as plain JSON values; without a mapping, the reference alone."""
    if published is None:
        return None
    if not published.rows:
        return published.reference
    return {"table": published.reference, "rows": dict(published.rows)}


def from_dict(value: Any) -> Published | None:
    """What :func:`to_dict` made; what an earlier version or another hand wrote there is taken as a reference."""
    if isinstance(value, Mapping) and isinstance(value.get("rows", {}), Mapping):
        rows = {str(name): str(row) for name, row in value.get("rows", {}).items()}
        return Published(str(value.get("table", "")), rows)
    return Published(str(value)) if value else None
