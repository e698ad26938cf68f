"""Every shipped file with one slip of the pen in it: it is refused, or it means what it meant.

The slips are made by the marks of PyYAML's own scanner in the text, so that each is of the structure and none of prose.
What a file means is read off the loaded space or study, every value of it.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyconv_search.errors import UserError
from pyconv_search.space import describe
from pyconv_search.space.space import Space, load_space
from pyconv_search.study.joint import check_space
from pyconv_search.study.study import load_study, study_to_dict

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("spaces/*.yaml"), *ROOT.glob("studies/*.yaml")])
Slip = Callable[[str], Iterator[str]]


def cut(text: str, start: int, end: int, new: str = "") -> str:
    return text[:start] + new + text[end:]


def nodes(node: yaml.Node) -> Iterator[yaml.Node]:
    yield node
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from nodes(key)
            yield from nodes(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from nodes(item)


def pairs(text: str) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    for node in nodes(yaml.compose(text)):
        if isinstance(node, yaml.MappingNode):
            yield from node.value


def colons(text: str) -> list[int]:
    return [t.start_mark.index for t in yaml.scan(text) if isinstance(t, yaml.ValueToken)]


def end(node: yaml.Node, text: str) -> int:
    """Where a node's own text ends; block collections end at the next token."""
    return len(text[: node.end_mark.index].rstrip())


def blank_dropped(text: str) -> Iterator[str]:
    yield from (cut(text, i + 1, i + 2) for i in colons(text) if text[i + 1] == " ")


def colon_dropped(text: str) -> Iterator[str]:
    yield from (cut(text, i, i + 1) for i in colons(text))


def no_break_space(text: str) -> Iterator[str]:
    yield from (cut(text, i + 1, i + 2, "\u00a0") for i in colons(text) if text[i + 1] == " ")
    yield from (cut(text, k.start_mark.index, k.start_mark.index, "\u00a0") for k, _ in pairs(text))
    yield from (
        cut(text, end(v, text), end(v, text), "\u00a0")
        for _, v in pairs(text)
        if isinstance(v, yaml.ScalarNode) and not v.style
    )


def value_dropped(text: str) -> Iterator[str]:
    yield from (cut(text, v.start_mark.index, end(v, text)) for _, v in pairs(text))


def decimal_comma(text: str) -> Iterator[str]:
    for node in nodes(yaml.compose(text)):
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith("float") and "." in node.value:
            yield cut(text, node.start_mark.index, node.end_mark.index, node.value.replace(".", ","))


def misspelt(text: str) -> Iterator[str]:
    for key, _ in pairs(text):
        start, name = key.start_mark.index, key.value
        if not key.style and name != "cifar10":  # cifar100 is another data set
            yield cut(text, start, start + len(name), name[0] + name[2:] if len(name) > 1 else name * 2)
            yield cut(text, start, start + len(name), name + name[-1])
            yield cut(text, start, start + len(name), name.capitalize())


def key_twice(text: str) -> Iterator[str]:
    for key, value in pairs(text):
        start, stop = key.start_mark.index, end(value, text)
        line = text.rfind("\n", 0, start) + 1
        block = not text[line:start].strip(" -")
        between = "\n" + " " * (start - line) if block else ", "
        yield cut(text, stop, stop, between + text[start:stop])


def indentation(text: str) -> Iterator[str]:
    lines = text.splitlines(keepends=True)
    for i, line in enumerate(lines):
        if line.strip() and not line.lstrip().startswith("#"):
            for changed in (" " + line, "  " + line, line.removeprefix(" "), line.removeprefix("  ")):
                if changed != line:
                    yield "".join([*lines[:i], changed, *lines[i + 1 :]])


def item_twice(text: str) -> Iterator[str]:
    for node in nodes(yaml.compose(text)):
        if isinstance(node, yaml.SequenceNode) and node.flow_style:
            for item in node.value:
                start, stop = item.start_mark.index, end(item, text)
                yield cut(text, stop, stop, f", {text[start:stop]}")


SLIPS: list[Slip] = [
    blank_dropped, colon_dropped, no_break_space, value_dropped, decimal_comma, misspelt, key_twice, indentation,
]  # fmt: skip


def space_meaning(space: Space) -> Any:
    parameters = [(p.name, p.about.split(), p.domain.kind, list(p.domain.values), p.when) for p in space.parameters]
    sections = (dict(space.network), dict(space.recipe), dict(space.base), [c.source for c in space.constraints])
    return space.name, space.about.split(), parameters, space.input, space.classes, sections


@pytest.fixture
def meaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], Any]:
    """What a file with this text means, None if it is refused; a refusal names the file, in few lines."""
    monkeypatch.setattr(describe, "EXACT", 12)
    for name in ("CIFAR", "IMAGENET"):
        monkeypatch.setenv(name, "/data")
    for folder in ("spaces", "studies"):
        shutil.copytree(ROOT / folder, tmp_path / folder)

    def read(file: Path, text: str) -> Any:
        path = tmp_path / file.parent.name / "mutated.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            if file.parent.name == "spaces":
                space = load_space(path)
                check_space(space)
                return space_meaning(space)
            study = load_study(path)
            return {k: v for k, v in study_to_dict(study).items() if k != "source"}, space_meaning(study.space)
        except UserError as error:
            told = str(error).splitlines()
            assert all(line.startswith((str(path), str(tmp_path))) and len(line) < 2500 for line in told), told
            return None

    return read


def slipped(file: Path, slip: Slip, most: int | None) -> list[str]:
    """All slips of a kind in a file, or a seeded sample of them."""
    text = file.read_text(encoding="utf-8")
    found = [changed for changed in slip(text) if changed != text]
    return found if most is None else random.Random(file.stem).sample(found, min(most, len(found)))


def accepted(file: Path, slip: Slip, most: int | None, meaning: Callable[[Path, str], Any]) -> list[str]:
    """The changed lines of those that are accepted with another meaning."""
    whole = meaning(file, file.read_text(encoding="utf-8"))
    assert whole is not None
    before = file.read_text(encoding="utf-8").splitlines()
    wrong = []
    for text in slipped(file, slip, most):
        found = meaning(file, text)
        if found is not None and found != whole:
            wrong.append("\n".join(line for line in text.splitlines() if line not in before) or text)
    return wrong


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}-{f.stem}")
def test_a_slip_is_refused_or_changes_nothing(file: Path, meaning: Callable[[Path, str], Any]) -> None:
    assert [line for slip in SLIPS for line in accepted(file, slip, 2, meaning)] == []


@pytest.mark.slow
@pytest.mark.parametrize("slip", SLIPS, ids=lambda slip: slip.__name__)
@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}-{f.stem}")
def test_every_slip_is_refused_or_changes_nothing(file: Path, slip: Slip, meaning: Callable[[Path, str], Any]) -> None:
    assert accepted(file, slip, None, meaning) == []


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}-{f.stem}")
def test_an_item_that_stands_twice_is_refused_or_counts(file: Path, meaning: Callable[[Path, str], Any]) -> None:
    whole = meaning(file, file.read_text(encoding="utf-8"))
    assert all(meaning(file, text) != whole for text in slipped(file, item_twice, None))


def test_every_kind_of_slip_is_made() -> None:
    """The numbers of slips in the quick start's study, counted by hand in the file of this commit or above."""
    text = (ROOT / "studies" / "quickstart.yaml").read_text(encoding="utf-8")
    counts = {slip.__name__: len(list(slip(text))) for slip in (*SLIPS, item_twice)}
    assert counts["blank_dropped"] >= 30
    assert counts["decimal_comma"] == 2
    assert all(count >= 2 for count in counts.values())
