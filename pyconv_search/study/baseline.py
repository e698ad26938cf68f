"""The configuration that a study names as the one that the others are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyconv_search.fields import Fields, Problem, kind_of, shown, suggestion
from pyconv_search.space.document import Document
from pyconv_search.space.space import Assignment, Space
from pyconv_search.study.datasets import DataSetInfo


def read_baseline(
    fields: Fields, kind: str, rows: Sequence[tuple[str, Assignment]], space: Space | None
) -> Assignment | None:
    """What the study's ``baseline`` says: the name of a row, or the values of a network's parameters.

    Mistakes go to ``fields.problems``.
    """
    value = fields.take("baseline", None)
    if value is None or space is None:
        return None
    if not isinstance(value, Mapping):
        return _row(fields, value, kind, rows)
    found = space.complete(value, (*fields.path, "baseline"), fields.problems)
    if fields.sound("baseline") and kind == "rows" and all(found != listed for _, listed in rows):
        fields.add("baseline", "is none of the study's rows; list it in search.rows, too")
    return found


def _row(fields: Fields, value: object, kind: str, rows: Sequence[tuple[str, Assignment]]) -> Assignment | None:
    names = {name: values for name, values in rows if name}
    if isinstance(value, str) and value in names:
        return names[value]
    given = shown(value) if isinstance(value, str) else kind_of(value)
    if kind != "rows":
        fields.add(
            "baseline", f"must be a mapping of parameters to values, since only rows have names, but got {given}"
        )
    else:
        known = suggestion(str(value), names) or f"; they are called: {', '.join(names) or 'nothing'}"
        fields.add("baseline", f"must be the name of a row, or its values as a mapping, but got {given}{known}")
    return None


def check_baseline(baseline: Assignment | None, space: Space, data: DataSetInfo, doc: Document) -> None:
    """DocumentError where the baseline breaks a constraint of the space, so that no trial can be of it."""
    if baseline is None or space.fit(baseline, data.input, data.classes) is not None:
        return
    early = space.violated(baseline)
    broken = f" {early[0].source}" if early else ""
    raise doc.error([Problem(("baseline",), f"does not satisfy the space's constraint{broken or 's'}")])
