"""One mistake makes one message: every value of shipped files replaced by one that cannot be, and hand-made cases."""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pyconv_search.errors import UserError
from pyconv_search.space import describe
from pyconv_search.space.document import parse
from pyconv_search.space.space import space_of
from pyconv_search.study.joint import check_space, own_mistakes
from pyconv_search.study.study import load_study

ROOT = Path(__file__).parents[2]
Write = Callable[..., Path]
WRONG: list[Any] = ["wrong!", ["x"], -7, 10**7, True, None]
FILES = [ROOT / name for name in ("spaces/resnet18_cifar.yaml", "spaces/pyconvph_heads.yaml",
                                  "studies/quickstart.yaml", "studies/recipe_and_pattern_cifar10.yaml")]  # fmt: skip


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    children: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if path:
        yield path
    for key, child in children:
        yield from leaves(child, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> str:
    whole = copy.deepcopy(value)
    target = whole
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = new
    return yaml.safe_dump(whole, sort_keys=False, default_flow_style=None)


def messages(load: Callable[[], Any]) -> list[str]:
    try:
        load()
    except UserError as error:
        return str(error).splitlines()
    return []


def told(text: str) -> list[str]:
    return messages(lambda: check_space(space_of(parse(text, "f"), own_mistakes)))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_a_value_that_cannot_be_is_one_message(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(describe, "EXACT", 12)
    monkeypatch.setenv("CIFAR", "/data")
    shutil.copytree(ROOT / "spaces", tmp_path / "spaces")
    value = yaml.safe_load(file.read_text())
    cases = [(path, wrong) for path in leaves(value) for wrong in WRONG]
    study = tmp_path / "studies" / "s.yaml"
    study.parent.mkdir()
    for path, wrong in random.Random(0).sample(cases, 60):
        text = put(value, path, wrong)
        study.write_text(text)
        found = told(text) if file.parent.name == "spaces" else messages(lambda: load_study(study))
        assert len(found) <= 1, (path, wrong, found)


HEAD = "space: t\nparameters: {a: {choice: [1, 2]}, b: {choice: [conv, max+conv], when: a == 2}}\n"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "space: t\nnetwork: {depth: 18, groups: 6}",
            ["f:2:30 network.groups: 6 does not divide 64 input channels; nearest: 4, 8"],
        ),
        (
            "space: t\nnetwork: {depth: 18, width:64, pattern: 0,5}",
            [
                "f:2:22 network.width:64: unknown key; here it has no value. Write a blank after the colon: width: 64",
                "f:2:41 network.pattern: must be an integer between 1 and 64, but got 0; nearest: 1",
                "f:2:43 network.5: unknown key; a comma ends a value inside { }. With a decimal point: pattern: 0.5",
            ],
        ),
        (
            "space: t\nnetwork: {depth 18}",
            ["f:2:11 network.depth 18: unknown key; here it has no value. Write a colon: depth: 18"],
        ),
        (
            "space: t\nnetwork:\n  depth:\n",
            ["f:3:3 network.depth: has no value; write one behind it, or leave the key out"],
        ),
        (
            "space: t\nnetwork: {dpth: 50, levels: [4, 3, 2, 1]}",
            ["f:2:11 network.dpth: unknown key; did you mean depth?"],
        ),
        (
            f"{HEAD}network: {{depth: 18, width: $a, shortcut: $b}}\nconstraints: [a == 1 or 2, b == 'max_conv', 1 < 2, true]",
            [
                "f:4:25 constraints[0]: '2' is no condition; every part of and, or, not compares something: "
                "gmacs <= 4.2, levels == [1, 1], groups in [1, 2]",
                "f:4:33 constraints[1]: 'max_conv' is no value of b; did you mean max+conv?; legal: conv, max+conv",
                "f:4:45 constraints[2]: '1 < 2' is the same for every network; compare a parameter or a cost",
                "f:4:52 constraints[3]: must be a text such as 'gmacs <= 4.2', but got true/false (true)",
            ],
        ),
        (
            f"{HEAD}network: {{depth: 18, width: $a, form: $b}}",
            [
                "f:2:48 parameters.b.choice[0]: must be one of post, pre, ires, but got 'conv' (as network.form, with a 2, b conv)",
                "f:2:54 parameters.b.choice[1]: must be one of post, pre, ires, but got 'max+conv' (as network.form, with a 2, b max+conv)",
            ],
        ),
        (
            "space: t\nparameters: {a: {choice: [1, 2], wen: b}}\nnetwork: {depth: 18, width: $a, familly: x}\nconstraint: []",
            [
                "f:2:34 parameters.a.wen: unknown key; did you mean when?",
                "f:3:33 network.familly: unknown key; did you mean family? (with a 1)",
                "f:4:1 constraint: unknown key; did you mean constraints?",
            ],
        ),
        (
            "space: t\nspace: u\nnetwork: {depth: 18, depth: 50, pattern: [1,5, 2]}",
            [
                "f:2:1 space: this key stands here twice; leave one of them out",
                "f:3:22 network.depth: this key stands here twice; leave one of them out",
                "f:3:43 network.pattern[0]: 1,5 is two numbers here; with a decimal point: 1.5; else put a blank behind the comma",
            ],
        ),
        (
            "space: t\nnetwork: {depth: 18}\nrecipe: {lrr: 0.1, warmup: , augment: {crop: 04}}",
            [
                "f:3:10 recipe.lrr: unknown key; did you mean lr?",
                "f:3:20 recipe.warmup: has no value; write one behind it, or leave the key out",
                "f:3:46 recipe.augment.crop: 04 begins with 0; write 4, or quotes around a text (a decimal comma is a point here)",
            ],
        ),
    ],
)  # fmt: skip
def test_every_mistake_is_told_once_and_all_at_once(text: str, lines: list[str]) -> None:
    assert told(text) == lines


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"search": {"nsga2": {"trials": 3}}}, "search: must be one of rows, grid, random, tpe"),
        ({"search": {"grid": [1]}}, "search.grid: must be a mapping of keys to values, but got a list ([1])"),
        ({"search": {"tpe": None}}, "search.tpe: has no value; write its options behind it, or the name alone"),
        ({"data": {"cifar11": {"validation": "x"}}}, "data: must be one of fashion-mnist-small,"),
        ({"data": {"cifar10": {"validation": 5}}}, "data.cifar10.validation: must be an integer between 10 and 49,990"),
        ({"scheduler": {"hyperband": {"grace": 9}}}, "scheduler: must be one of none, asha"),
        ({"recipe": {"preset": "fast", "warmup": 4}}, "recipe.preset: must be one of pyconv-imagenet"),
        ({"recipe": {"epoch": 9, "warmup": 4, "schedule": {"steps": [5]}}}, "recipe.epoch: unknown key; did you mean epochs?"),
        ({"recipe": {"epochs": 0, "warmup": 1}, "scheduler": {"asha": {"grace": 2}}}, "recipe.epochs: must be an integer between"),
        ({"recipe": {"epochs": 2, "batch": "x", "accumulate": 3}}, "recipe.batch: must be an integer of 2 or more"),
        ({"recipe": {"epochs": 2, "batch": 60000}, "resources": {"workers": 2, "cpu": "x"}}, "resources.cpu: must be an integer"),
        ({"search": {"rows": [{"levels": [9, 9, 9], "width": 8}]}}, "search.rows[0].levels: [9, 9, 9] is not in the space"),
        ({"search": {"rows": [{"levls": [1, 1, 1], "width": 8}]}}, "search.rows[0].levls: is not a parameter of the space; did you mean levels?"),
        ({"search": {"rows": [{"levels": [1, 1, 1], "pattern": None, "width": 8}]}}, "search.rows[0].pattern: has no value"),
        ({"search": {"rows": [{"name": "a\nb", "levels": [2, 2, 1], "width": 8}]}}, "search.rows[0].name: must be one line of text"),
        ({"search": {"rows": [{"name": "a\u202eb", "levels": [2, 2, 1], "width": 8}]}}, "search.rows[0].name: holds a right-to-left override (U+202E); leave it out"),
        ({"study": "a\u2066b"}, "study: holds a left-to-right isolate (U+2066); leave it out"),
        ({"objectives": {"top1_eror": "min"}}, "objectives.top1_eror: unknown key; did you mean top1_error?"),
        ({"published": {"table": "pyconv/table9", "rows": {"x": "y"}}}, "published.table: must be one of"),
        ({"resources": None, "checkpoints": {"every": None}}, "checkpoints.every: has no value"),
    ],
)  # fmt: skip
def test_a_first_mistake_makes_no_second(write_study: Write, changes: dict[str, Any], words: str) -> None:
    found = messages(lambda: load_study(write_study(**changes)))
    assert len(found) == 1, found
    assert words in found[0]


def test_mistakes_of_study_space_and_recipe_come_together(write_study: Write) -> None:
    space = "space: s\nnetwork: {depth: 20, groups: 3, zzz: 8}\nrecipe: {lr: -1}\n"
    path = write_study(space_text=space, seeds="x")
    found = messages(lambda: load_study(path))
    assert [line.partition(": ")[0].rpartition(" ")[2] for line in found] == ["network.groups", "network.zzz", "seeds"]
    found = messages(lambda: load_study(write_study(space_text=space)))
    assert [line.partition(": ")[0].rpartition(" ")[2] for line in found] == [
        "network.groups", "network.zzz", "recipe.lr"]  # fmt: skip
    found = messages(lambda: load_study(write_study(space_text=space.replace("network", "netwrk"), seeds="x")))
    assert [line.partition(": ")[0].rpartition(" ")[2] for line in found] == ["netwrk", "recipe.lr", "seeds"]
