"""Costs over arrays against the ordinary path, row by row, on spaces that are meant to break the rules of influence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pyconv_search.arch.cost import Cost, cost
from pyconv_search.fields import SpecError
from pyconv_search.space import arrays, influence, parts
from pyconv_search.space.arrays import COLUMNS, Costs
from pyconv_search.space.choices import decode, draws, encode, every
from pyconv_search.space.document import parse
from pyconv_search.space.masks import satisfied
from pyconv_search.space.sampling import draw
from pyconv_search.space.space import COSTS, Space, load_space, space_of

SMALL = {"depth": 11, "block": "bottleneck", "input": [3, 32, 32], "classes": 10}
STEM = {"kernel": 3, "width": 16, "stride": 1, "pool": "none"}
WIDTHS = {f"w{i}": {"int": [8, 24], "step": 8} for i in range(3)}
WIDTH_STAGES = [{"width": f"$w{i}"} for i in range(3)]

# Name: parameters, what differs from SMALL in the network, whether every row is a network.
NASTY: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "basic blocks fed by the stage before": (
        {**WIDTHS, "g": {"choice": [1, 4, 8]}},
        {"block": "basic", "depth": 14, "stem": STEM, "groups": "$g", "stages": WIDTH_STAGES},
        True,
    ),
    "own output widths": (
        {"o0": {"choice": [16, 40]}, "o1": {"choice": [24, 48]}, "o2": {"choice": [8, 56]}},
        {"stem": STEM, "stages": [{"out": f"$o{i}"} for i in range(3)], "expansion": 2},
        True,
    ),
    "one sequence for all stages": (
        {
            "levels": {"sequence": {"of": [1, 2, 3], "length": 4, "order": "any"}},
            "blocks": {"sequence": {"of": [1, 2, 5], "length": 4, "order": "nondecreasing"}},
            "kernels": {"choice": [[3, 5, 7], [5, 3, 1]], "when": "levels[3] == 3"},
        },
        {"depth": None, "blocks": "$blocks", "levels": "$levels", "kernels": "$kernels", "input": [3, 64, 48]},
        True,
    ),
    "as many stages as blocks": (
        {"blocks": {"choice": [[1], [2, 1], [1, 2, 1], [1, 1, 1, 1, 1], 3]}, "w": {"int": [8, 16], "step": 8}},
        {"depth": None, "blocks": "$blocks", "width": "$w", "stem": STEM},
        True,
    ),
    "resolution": (
        {
            "s": {"choice": [1, 2, 4]},
            "pool": {"choice": ["max", "none"]},
            "k": {"choice": [3, 5, 7]},
            "s0": {"choice": [1, 2, 3]},
            "s2": {"choice": [1, 2, 4, 8]},
        },
        {"stem": {**STEM, "kernel": "$k", "stride": "$s", "pool": "$pool"},
         "stages": [{"stride": "$s0"}, {}, {"stride": "$s2"}], "input": [1, 30, 37], "shortcut": "max+conv"},
        False,
    ),
    "depth, block and expansion": (
        {
            "depth": {"choice": [18, 50, 101]},
            "block": {"choice": ["basic", "bottleneck"]},
            "e": {"int": [1, 3], "when": "block == 'bottleneck'"},
            "stemw": {"choice": [8, 24]},
            "short": {"choice": ["conv", "max+conv"], "when": "depth != 18"},
        },
        {"depth": "$depth", "block": "$block", "expansion": "$e", "shortcut": "$short",
         "stem": {"width": "$stemw"}, "input": [3, 224, 224]},
        True,
    ),
    "mistakes in one stage and in all": (
        {
            "g": {"choice": [1, 6, 5]},
            "g1": {"choice": [1, 3, 8]},
            "split": {"choice": ["equal", [1, 2], "top-heavy"]},
            "n": {"choice": [1, 2, 4]},
            "w": {"choice": [12, 16, 30]},
        },
        {"stem": STEM, "groups": "$g", "split": "$split", "width": "$w", "stages": [{"levels": "$n"}, {"groups": "$g1"}, {}]},
        False,
    ),
    "a stage that never fits": (
        {"w": {"choice": [8, 16]}, "g": {"choice": [7, 9]}, "n": {"choice": [1, 2]}},
        {"stem": STEM, "width": "$w", "stages": [{"levels": "$n"}, {"groups": "$g"}, {}]},
        False,
    ),
    "two mistakes that meet": (
        {"n": {"choice": [3, [1], [2]]}, "k": {"choice": [3, [3, 5, 7], 2]}, "k1": {"choice": [3, [3, 5], []]}, "p": {"choice": [[1, 2], [[1]], 0]}},
        {"stem": STEM, "stages": [{"levels": "$n", "kernels": "$k"}, {"kernels": "$k1", "pattern": "$p"}, {}]},
        False,
    ),
    "lists with holes": (
        {"a": {"choice": [1, 2]}, "b": {"choice": [1, 3]}, "c": {"choice": [1, 2, 3], "when": "a == 2"},
         "p": {"choice": [[[1], [1, 2]], [[2], [1]]], "when": "b == 3"}},
        {"depth": None, "blocks": ["$a", 1, "$c"], "levels": ["$b", 2, "$c"], "pattern": "$p", "stem": STEM},
        False,
    ),
    "whole sections": (
        {"stem": {"choice": [STEM, {"kernel": 5, "width": 8}]},
         "stages": {"choice": [[{}, {}, {"stride": 1}], [{"levels": 2}, {}, {"width": 24, "axes": "input"}]]},
         "pattern": {"choice": [[1], [1, 2, 4]]}},
        {"stem": "$stem", "stages": "$stages", "pattern": "$pattern"},
        True,
    ),
    "conditional parts and levels spelled out": (
        {"a": {"choice": [1, 2]},
         "blocks": {"choice": [[2, 1, 1], [2, 2, 1], [1, 3, 3]]},
         "levels": {"choice": [[{"kernel": 3}, {"kernel": 5}, {}], [{"kernel": 3}, {"kernel": 1}, {}], [2, 1, 1]], "when": "a == 2"},
         "w": {"choice": [[8, 1], [24, 2]], "when": "a == 1"}},
        {"depth": None, "blocks": "$blocks", "levels": "$levels", "width": "$w[0]", "groups": "$w[1]"},
        True,
    ),
    "a family in which an output width reaches every later stage": (
        {"a": {"choice": [256, 384]}, "b": {"choice": [1088, 960]}, "n": {"choice": [1, 2]}, "w": {"choice": [32, 64]}},
        {"depth": None, "family": "inception-resnet", "input": [3, 75, 80], "blocks": [1, 2, 1], "levels": "$n",
         "stages": [{"out": "$a", "width": "$w"}, {"out": "$b", "width": 64}, {"width": "$w"}]},
        True,
    ),
    "a preset's own depth where none is chosen": (
        {"a": {"choice": [1, 2]}, "d": {"choice": [18, 34], "when": "a == 2"}, "g": {"choice": [1, 2]}},
        {"preset": "resnet-18", "depth": "$d", "block": None, "width": 8, "groups": "$g", "input": [3, 64, 64]},
        True,
    ),
    "blocks in the place of a preset's depth": (
        {"a": {"choice": [1, 2]}, "b": {"choice": [[1, 1], [2, 1, 1]], "when": "a == 2"}, "g": {"choice": [1, 2]}},
        {"preset": "resnet-18", "depth": None, "blocks": "$b", "block": "basic", "width": 8, "groups": "$g", "input": [3, 64, 64]},
        True,
    ),
    "explicit levels and two places for one parameter": (
        {"k": {"choice": [3, 5, 7]}, "d": {"choice": [[1], [1, 2, 1, 4], [3]]}, "ax": {"choice": ["both", "input", "output"]}},
        {"stem": STEM, "stages": [{"levels": [{"kernel": "$k", "pattern": "$d"}, {"kernel": 1}]}, {"pattern": "$d[0]"},
                                  {"kernels": ["$k"], "axes": "$ax"}]},
        True,
    ),
}  # fmt: skip


def space_from(parameters: dict[str, Any], network: dict[str, Any], constraints: list[str] | None = None) -> Space:
    full = {k: v for k, v in {**SMALL, **network}.items() if v is not None}
    document = {"space": "t", "parameters": parameters, "network": full, "constraints": constraints or []}
    return space_of(parse(yaml.safe_dump(document, sort_keys=False), "t.yaml"))


def one_by_one(space: Space, choices: Any, **images: Any) -> list[tuple[Any, Cost] | None]:
    """The architecture and cost of every row by the ordinary path, None where it raises."""
    found: list[tuple[Any, Cost] | None] = []
    for row in choices.tolist():
        try:
            arch = space.architecture(decode(space, row), **images)
            found.append((arch, cost(arch)))
        except SpecError:
            found.append(None)
    return found


def agree(space: Space, choices: Any, costs: Costs | None = None, **images: Any) -> int:
    """Assert that arrays and the ordinary path agree in every row and on which are equal; the number that is valid."""
    expected = one_by_one(space, choices, **images)
    costs = costs or Costs(space, **images)
    found = costs(choices)
    assert found.valid.tolist() == [e is not None for e in expected]
    for name in COLUMNS:
        assert found[name].dtype == np.int64
        assert found[name].tolist() == [-1 if e is None else getattr(e[1], name) for e in expected], name
    assert found.gmacs[found.valid].tolist() == [e[1].gmacs for e in expected if e]
    architectures = [e[0] for e in expected if e]
    numbers = costs.same(choices[found.valid]).tolist()
    assert len(set(numbers)) == len(set(architectures)) == len(set(zip(numbers, architectures, strict=True)))
    return len(architectures)


def drawn(space: Space, n: int, seed: int = 0) -> Any:
    return encode(space, [draw(space, seed, i) for i in range(n)])


def test_the_columns_are_all_the_integers_that_add_up() -> None:
    peaks = {"inference_peak", "training_peak", "pool_indices"}
    assert set(COLUMNS) == {f.name for f in dataclasses.fields(Cost) if f.type == "int"} - peaks >= {"params", "macs"}


def test_shipped_spaces_agree_row_by_row(shipped: Path) -> None:
    space = load_space(shipped)
    assert agree(space, drawn(space, 500)) == 500


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("chunk", [50, arrays.CHUNK])
def test_nasty_spaces_agree_row_by_row(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters, network, all_valid = NASTY[name]
    monkeypatch.setattr(arrays, "CHUNK", chunk)
    space = space_from(parameters, network)
    choices = every(space) if space.size <= 700 else drawn(space, 600)
    valid = agree(space, choices)
    assert valid == len(choices) if all_valid else valid < len(choices)


@pytest.mark.parametrize("name", ["resolution", "basic blocks fed by the stage before"])
def test_other_images_and_tables_without_addresses_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "DENSE", 4)
    monkeypatch.setattr(parts, "WIDEST_GROUP", 20)
    space = space_from(*NASTY[name][:2])
    images = {"input": (2, 70, 65), "classes": 7}
    costs = Costs(space, **images)
    for seed in range(3):  # what the first call learned serves the next
        agree(space, drawn(space, 100, seed), costs, **images)


def test_a_rule_that_is_too_narrow_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the rule that a stage's width reaches the next stage, the ordinary path contradicts what is known."""
    monkeypatch.setattr(influence, "_LOCAL", (*influence._LOCAL, "width"))
    space = space_from(WIDTHS, {"stem": STEM, "stages": WIDTH_STAGES})
    with pytest.raises(RuntimeError, match=r"stage2 depends on a parameter that the rules of influence miss"):
        Costs(space)(every(space))


def test_a_rule_that_overlooks_a_mistake_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no part sees the axes, a row with a wrong one fails although each of its parts stands in a network."""
    view = influence._view
    monkeypatch.setattr(
        influence, "_view", lambda path, part, stages: None if path == ("axes",) else view(path, part, stages)
    )
    blocks = {f"b{i}": {"choice": [1, 2]} for i in range(2)}
    space = space_from(
        {**blocks, "axes": {"choice": ["both", "neither"]}},
        {"stem": STEM, "axes": "$axes", "stages": [{"blocks": "$b0"}, {"blocks": "$b1"}, {}]},
    )
    with pytest.raises(RuntimeError, match="do not fit together"):
        Costs(space)(np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]))


def test_a_key_without_a_rule_reaches_every_part(make_space: Callable[..., Space]) -> None:
    space = make_space("a: {choice: [1, 2]}\nb: {choice: [1, 2]}", network="levels: $a\nnews: $b")
    assert [[column for column, _ in part.inputs] for part in influence.influences(space)] == [[0, 1]] * 5


VALUES = st.sampled_from([1, 2, 3, 4, 6, 8, 16, [1, 2], [3, 5, 7], [1, 2, 1], [2, 1, 2, 1], "equal", "top-heavy", "pyramid",
                          "matched", "both", "input", "output", "conv", "max+conv", [[1], [1, 2], [2]]])  # fmt: skip
LEGAL: dict[str, list[Any]] = {
    "levels": [1, 2, 3, [1, 2, 3], [2, 2, 1]], "kernels": [3, [3, 5, 7], [1, 3, 5]], "pattern": [[1, 2], [1, 2, 1, 4], [[1], [2], [1, 2]]],
    "groups": [1, 2, 4, "pyramid", "matched"], "split": ["equal", "top-heavy", [1, 1, 2]], "axes": ["both", "input", "output"],
    "width": [8, 16, 24], "expansion": [1, 2], "shortcut": ["conv", "max+conv"], "block": ["basic", "bottleneck"],
    "blocks": [[1, 2, 1], [2, 1, 1], [1, 1, 3]], "out": [16, 32], "stride": [1, 2, 3], "kernel": [3, 5], "pool": ["max", "none"],
}  # fmt: skip
KEYS = {
    "network": ["levels", "kernels", "pattern", "groups", "split", "axes", "width", "expansion", "shortcut", "block", "blocks"],
    "stage": ["levels", "kernels", "pattern", "groups", "split", "axes", "width", "out", "stride", "shortcut", "blocks"],
    "stem": ["kernel", "width", "stride", "pool"],
}  # fmt: skip


@st.composite
def spaces(draw: Any) -> Space:
    """A random space: parameters with legal and illegal values, some with conditions, at random keys of the network."""
    parameters: dict[str, Any] = {}

    def section(kind: str, fixed: dict[str, Any]) -> dict[str, Any]:
        values = dict(fixed)
        for key in draw(st.lists(st.sampled_from(KEYS[kind]), max_size=3, unique=True)):
            legal = [1, 2, 3] if (kind, key) == ("stage", "blocks") else LEGAL[key]
            choice = [*legal, draw(VALUES)] if draw(st.integers(0, 5)) == 0 else legal
            name = f"p{len(parameters)}"
            parameter: dict[str, Any] = {"choice": [v for i, v in enumerate(choice) if v not in choice[:i]]}
            if parameters and draw(st.booleans()):
                asked = draw(st.sampled_from(list(parameters)))
                parameter["when"] = f"{asked} != {parameters[asked]['choice'][0]!r}"
            parameters[name] = parameter
            values[key] = f"${name}"
        return values

    network = section("network", {"stem": section("stem", STEM), "depth": 11, "block": "bottleneck"})
    if draw(st.booleans()):
        network["stages"] = [section("stage", {}) for _ in range(3)]
    return space_from(parameters, {**network, **({"depth": None} if "blocks" in network else {})})


@given(spaces())
@settings(max_examples=40, deadline=None)
def test_random_spaces_agree_row_by_row(space: Space) -> None:
    agree(space, draws(space, 60, 0))


def test_every_and_encode_and_decode_are_those_of_the_space(shipped: Path) -> None:
    space = load_space(shipped)
    choices = every(space)
    listed = list(space.assignments())
    assert [decode(space, row) for row in choices.tolist()] == listed
    assert np.array_equal(encode(space, listed[::7]), choices[::7])


def test_draws_are_uniform_and_respect_conditions(make_space: Callable[..., Space]) -> None:
    """Chi-square of 24,000 draws on 4 values: 21.1 is exceeded with probability 10⁻⁴."""
    space = make_space("a: {choice: [1, 2, 3]}\nb: {int: [1, 4], when: a >= 2}\nc: {choice: [7, 8], when: b != 2}")
    choices = draws(space, 36_000, seed=3)
    legal = {tuple(row) for row in every(space).tolist()}
    assert {tuple(row) for row in choices.tolist()} == legal
    counts = np.bincount(choices[choices[:, 1] >= 0, 1], minlength=4)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 21.1
    assert np.array_equal(draws(space, 50, seed=3), choices[:50])
    assert not np.array_equal(draws(space, 50, seed=4), choices[:50])


def test_draws_over_arrays_never_change(make_space: Callable[..., Space]) -> None:
    """Frozen values: NumPy promises PCG64's raw stream for ever."""
    space = make_space("a: {int: [1, 1000]}\nb: {choice: [x, y, z]}")
    assert draws(space, 3, 0).tolist() == [[271, 1], [24, 2], [971, 1]]


@pytest.mark.parametrize(
    "constraint",
    ["gmacs <= 0.02", "params <= 100k or n == 1", "10k <= params <= 2M and not n == 2", "macs / 2 > params * 20",
     "len(p) > 1 and p[1] == 2", "len(p) < n or p[n - 2] >= 2", "when_two == 5", "when_two == 6 and params > 50k",
     "receptive_field in [15, 31] or 60k > params", "0.5 < params", "not (gmacs > 0.01 and n != 3)"],
)  # fmt: skip
def test_constraints_hold_where_the_space_says(constraint: str) -> None:
    space = space_from(
        {"n": {"choice": [1, 2, 3]}, "p": {"choice": [[1], [1, 2], [2, 1]]}, "when_two": {"choice": [5, 6], "when": "n == 2"},
         "w": {"int": [8, 24], "step": 8}},
        {"stem": STEM, "width": "$w", "levels": "$n", "pattern": "$p"},
        [constraint],
    )  # fmt: skip
    choices = every(space)
    columns = Costs(space)(choices)
    expected = [
        not space.violated(decode(space, row), found[1])
        for row, found in zip(choices.tolist(), one_by_one(space, choices), strict=True)
        if found
    ]
    costs = {name: getattr(columns, name) if name == "gmacs" else columns[name] for name in COSTS}
    assert satisfied(space, choices, costs)[0].tolist() == expected
    without = [not space.violated(decode(space, row)) for row in choices.tolist()]
    assert satisfied(space, choices)[0].tolist() == without


def test_constraints_that_cannot_be_evaluated_are_an_error() -> None:
    space = space_from({"n": {"choice": [1, 2]}}, {"levels": "$n", "stem": STEM}, ["n == 1 or n[0] == 2"])
    assert satisfied(space, every(space)[:1])[0].tolist() == [True]
    with pytest.raises(SpecError, match=r"constraints\[0\]: 'n == 1 or n\[0\] == 2' cannot be evaluated"):
        satisfied(space, every(space))


@pytest.mark.parametrize(
    ("choices", "words"),
    [([[0]], "N-by-2"), ([[0.0, 0.0]], "float64"), ([[0, 2]], "b: an index must be between -1 and 1, but got 2"),
     ([[-2, 0]], "a: an index must be between -1 and 2, but got -2")],
)  # fmt: skip
def test_choices_that_are_none_are_refused(choices: Any, words: str, make_space: Callable[..., Space]) -> None:
    space = make_space("a: {choice: [1, 2, 3]}\nb: {choice: [1, 2]}", network="levels: $a")
    with pytest.raises(ValueError, match=words):
        Costs(space)(np.array(choices))


def test_an_inactive_parameter_leaves_the_head_of_the_preset() -> None:
    network = {
        "preset": "resnet-18+fpn",
        "head": "$head",
        "width": 8,
        "stages": [{"width": "$w"}, {}, {}, {}],
        "input": [3, 64, 64],
    }
    parameters = {"w": {"choice": [8, 16]}, "head": {"choice": ["classifier"], "when": "w == 16"}}
    document = {"space": "t", "parameters": parameters, "network": network}
    space = space_of(parse(yaml.safe_dump(document, sort_keys=False), "t.yaml"))
    assert agree(space, every(space)) == 2


def test_no_rows_and_no_parameters(make_space: Callable[..., Space]) -> None:
    space = space_from({}, {"stem": STEM})
    assert agree(space, every(space)) == 1
    assert Costs(space)(every(space)[:0])["params"].tolist() == []
