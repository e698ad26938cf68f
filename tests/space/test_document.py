"""YAML with positions: what is accepted, and where each refusal points."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pyconv_search.errors import UserError
from pyconv_search.space.document import MOST_BYTES, parse, read

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e6, 1e6) | st.text("abcxyz ", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1, max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=5), PLAIN, min_size=1, max_size=4), st.booleans())
@settings(max_examples=150, deadline=None)
def test_values_are_those_that_pyyaml_dumped(value: object, flow: bool) -> None:
    assert parse(yaml.safe_dump(value, default_flow_style=flow)).value == value


def _refused(text: str) -> None:
    doc = parse(text, "f")
    raise doc.error(doc.refused)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("5e-4", 0.0005), ("1.5", 1.5), (".5", 0.5), ("no", "no"), ("off", "off"), ("12:30", "12:30"),
     ("2020-01-01", "2020-01-01"), ("0x10", "0x10"), ("-7", -7), ("~", None), ("", None), ("'1'", "1"), ("none", "none")],
)  # fmt: skip
def test_scalars_of_the_dialect(text: str, value: object) -> None:
    assert parse(f"a: {text}").value == {"a": value}


def test_every_mark_points_at_its_text() -> None:
    text = "a: 1\nb:\n  - {c: hello}\n  - [7, 8]\n"
    doc = parse(text, "f.yaml")
    lines = text.splitlines()
    for path, start in {("a",): "1", ("b", 0, "c"): "hello", ("b", 1, 1): "8"}.items():
        line, column = doc.marks[path]
        assert lines[line - 1][column - 1 :].startswith(start)
    assert doc.locate(("b", 1, 9, "deeper")) == (4, 5)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: 1\na: 2\n", "f:2:1", "stands here twice"),
        ("a: !!python/object/apply:os.system ['true']\n", "f:1:4", "not allowed"),
        ("a: !!binary aGk=\n", "f:1:4", "not allowed"),
        ("a: {when: b == [1]}", "f:1:16", "stands in quotes"),
        ("a: [1, 2\nb: 3\n", "f:2:2", "not valid YAML"),
        ("a: &x\n  - *x\n", "f:1:4", "contains itself"),
        ("a: 1\n---\nb: 2\n", "f:2:1", "not valid YAML"),
        ("? [a]\n: 1\n", "f:1:3", "must be a plain text"),
        ("a: " + "9" * 30, "f:1:4", "too large"),
        ("a: 1e999", "f:1:4", "too large"),
        ("a: " + "9" * 5000, "f:1:4", "is not a number"),
        ("a: " + "[" * 60 + "]" * 60, "f:1:43", "nested too deeply"),
        ("a: \x00", "f", "not valid YAML"),
        ("a: " + "9" * 400, "f:1:4", "too large"),
    ],
)
def test_refusals_name_the_place(text: str, place: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        _refused(text)
    assert str(caught.value).startswith(place)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bomb_of_anchors_is_refused_quickly() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"] + [
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)
    ]
    with pytest.raises(UserError, match="expands to more than"):
        parse("\n".join(lines))


def test_extreme_nesting_is_refused_without_a_traceback() -> None:
    with pytest.raises(UserError, match="nested too deeply"):
        parse("[" * 100_000)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: caf\xe9\n")
    (tmp_path / "big.yaml").write_bytes(b"#" * (MOST_BYTES + 1))
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    expected = {"missing.yaml": "no such file", "latin.yaml": "latin.yaml:2: is not UTF-8", "big.yaml": "larger than",
                "empty.yaml": "is empty", ".": "cannot be read"}  # fmt: skip
    for name, words in expected.items():
        with pytest.raises(UserError, match=words):
            read(tmp_path / name)


def outcome(text: str) -> object:
    """The value of a text, or the number of lines of its refusal."""
    try:
        return [parse(text).value]
    except UserError as error:
        return len(str(error).splitlines())


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_gives_a_value_or_one_line(text: str) -> None:
    found = outcome(text)
    assert found == 1 or (isinstance(found, list) and found != [math.inf])
