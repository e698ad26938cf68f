"""What a study may say of published tables, and what a run's folder keeps of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyconv_search.arch.published.results import result_tables
from pyconv_search.errors import UserError
from pyconv_search.study.published import Published, from_dict
from pyconv_search.study.study import load_study, study_to_dict

Write = Callable[..., Path]
ROWS = {"rows": [{"name": "two", "levels": [2, 2, 1], "width": 8}, {"name": "three", "levels": [3, 2, 1], "width": 8}]}


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        (None, None),
        ("pyconv/table2", "pyconv/table2"),
        ({"table": "pyconv/table2"}, "pyconv/table2"),
        ({"table": "pyconv/table2", "rows": {"two": "(2,2,2,1)"}}, {"table": "pyconv/table2", "rows": {"two": "(2, 2, 2, 1)"}}),
    ],
)  # fmt: skip
def test_what_is_kept_is_read_again(write_study: Write, written: Any, kept: Any) -> None:
    study = load_study(write_study(search=ROWS, published=written))
    values = json.loads(json.dumps(study_to_dict(study)))
    assert values["published"] == kept
    assert from_dict(values["published"]) == study.published


@pytest.mark.parametrize(
    ("published", "words"),
    [
        ("pyconv/tabel2", "published: must be one of pyconv/table2,"),
        ("pyconv/tabel2", "but got 'pyconv/tabel2'; did you mean pyconv/table2?"),
        (7, "published: must be one of pyconv/table2,"),
        ({"rows": {}}, "published.table: is required, but missing"),
        ({"table": "psconv/table9"}, "did you mean psconv/table"),
        ({"table": "pyconv/table2", "row": {}}, "published.row: unknown key; did you mean rows?"),
        ({"table": "pyconv/table2", "rows": {"tow": "(2, 2, 2, 1)"}}, "published.rows.tow: unknown key: no row of this study is called 'tow'; did you mean two?"),
        ({"table": "pyconv/table2", "rows": {"x" * 9: "(2, 2, 2, 1)"}}, "its rows are called: two, three"),
        ({"table": "pyconv/table2", "rows": {"two": "(2, 2, 1, 1)"}}, "published.rows.two: pyconv/table2 has no row '(2, 2, 1, 1)'; did you mean (2, 2, 2, 1)?"),
    ],
)  # fmt: skip
def test_mistakes_name_the_place_and_what_is_near(write_study: Write, published: Any, words: str) -> None:
    path = write_study(search=ROWS, published=published)
    with pytest.raises(UserError) as caught:
        load_study(path)
    assert words in str(caught.value)
    place = next(n for n, line in enumerate(path.read_text().splitlines(), 1) if line.startswith("published:"))
    file, line, column, _ = str(caught.value).split(":", 3)
    assert (file, int(line) >= place, int(column.split()[0]) >= 1) == (str(path), True, True)


def test_names_match_whatever_their_spaces_and_capitals() -> None:
    table = result_tables()["psconv/table6"]
    assert Published("psconv/table6").row_of("resnext-29(8x64D), psconv", table) == "ResNeXt-29 (8x64d), PSConv"
    assert Published("psconv/table6", {"a": "resnext-29 (16x64d), psconv"}).row_of("a", table) == table.rows[3].row
    assert Published("psconv/table6").row_of("a", table) is None


@pytest.mark.parametrize("value", [["pyconv/table2"], 5, {"rows": 3}, {"table": None}])
def test_anything_in_an_old_folder_is_read(value: Any) -> None:
    assert isinstance(from_dict(value), Published)
