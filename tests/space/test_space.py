"""Spaces: sizes and samples against brute force, and the messages for every kind of mistake."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyconv_search.arch.canonical import canonical_json, from_dict, to_dict
from pyconv_search.arch.cost import cost
from pyconv_search.errors import UserError
from pyconv_search.fields import Problems, SpecError
from pyconv_search.space.describe import check, describe
from pyconv_search.space.document import parse
from pyconv_search.space.sampling import draw, sample
from pyconv_search.space.space import Space, load_space, space_of

Make = Callable[..., Space]

CONDITIONAL = """
a: {choice: [1, 2, 3]}
b: {int: [0, 4], when: a >= 2}
c: {choice: [x, y], when: b == 3 or b == 4}
d: {int: [1, 1000]}
e: {choice: [p, q, r], when: a == 1}
"""


def test_size_under_conditions_is_exact(make_space: Make) -> None:
    space = make_space(CONDITIONAL)
    brute = sum(
        1000 * (3 if a == 1 else 1) * (2 if a >= 2 and b in (3, 4) else 1)
        for a in (1, 2, 3)
        for b in (range(5) if a >= 2 else [None])
    )
    assert space.size == brute


def test_assignments_are_all_different_and_as_many_as_the_size(make_space: Make) -> None:
    space = make_space(CONDITIONAL.replace("1000", "3"))
    listed = [json.dumps(values) for values in space.assignments()]
    assert len(set(listed)) == len(listed) == space.size
    assert '{"a": 1, "d": 1, "e": "p"}' in listed


def test_an_inactive_parameter_makes_what_asks_for_it_inactive(make_space: Make) -> None:
    space = make_space("a: {choice: [1, 2]}\nb: {choice: [1, 2], when: a == 2}\nc: {choice: [7, 8], when: b != 2}")
    assert [values for values in space.assignments() if "b" not in values] == [{"a": 1}]


def test_references_fill_the_network(make_space: Make) -> None:
    space = make_space(
        "levels: {sequence: {of: [1, 2, 3], length: 3, order: nonincreasing}}\n"
        "pattern: {choice: [[1, 2, 1, 4], [2]], when: 'levels == [1, 1, 1]'}",
        network="stages:\n  - {levels: '$levels[0]', pattern: $pattern}\n  - {levels: '$levels[1]'}\n  - {}",
    )
    pyramid = space.architecture({"levels": [3, 2, 1]})
    assert [len(stage.conv.levels) for stage in pyramid.stages] == [3, 2, 1]
    plain = space.architecture({"levels": [1, 1, 1], "pattern": [1, 2, 1, 4]})
    assert [stage.conv.levels[0].pattern for stage in plain.stages] == [(1, 2, 1, 4), (1,), (1,)]


def test_constraints_hold_for_every_sample(make_space: Make) -> None:
    space = make_space(
        "w: {int: [16, 64], step: 16}\nlevels: {choice: [[1, 1, 1], [2, 2, 2], [4, 3, 2]]}",
        network="width: $w\nlevels: $levels",
        constraints="params <= 250k\nw >= 32 or levels[0] > 1",
    )
    every = {
        (w, tuple(levels))
        for w, levels in itertools.product((16, 32, 48, 64), ([1, 1, 1], [2, 2, 2], [4, 3, 2]))
        if (w >= 32 or levels[0] > 1) and cost(space.architecture({"w": w, "levels": levels})).params <= 250_000
    }
    found = list(sample(space, len(every), seed=1))
    assert {(s.values["w"], tuple(s.values["levels"])) for s in found} == every
    assert 0 < len(every) < 12
    with pytest.raises(UserError, match=f"found {len(every)} of {len(every) + 1} different networks"):
        list(sample(space, len(every) + 1, seed=1))


def test_a_constraint_on_an_inactive_parameter_holds(make_space: Make) -> None:
    space = make_space("a: {choice: [1, 2]}\nb: {choice: [1, 2], when: a == 2}", constraints="b == 2")
    assert [v for v in space.assignments() if not space.violated(v)] == [{"a": 1}, {"a": 2, "b": 2}]


def test_draws_are_uniform(make_space: Make) -> None:
    """Chi-square over 3,000 draws of 5 values; a fair stream exceeds 23.5 with probability 10⁻⁴."""
    space = make_space("a: {int: [1, 5]}")
    counts = Counter(draw(space, 7, i)["a"] for i in range(3000))
    assert sum((counts[k] - 600) ** 2 / 600 for k in range(1, 6)) < 23.5


def test_samples_are_the_same_in_another_process_and_for_ever(shipped: Path) -> None:
    space = load_space(shipped)
    n = min(4, space.size)
    here = [canonical_json(s.architecture) for s in sample(space, n, seed=5)]
    code = (
        "import sys; from pyconv_search.space.space import load_space; from pyconv_search.space.sampling import sample\n"
        "from pyconv_search.arch.canonical import canonical_json\n"
        f"for s in sample(load_space(sys.argv[1]), {n}, seed=5): print(canonical_json(s.architecture))"
    )
    root = Path(__file__).parents[2]
    there = subprocess.run([sys.executable, "-c", code, shipped], capture_output=True, text=True, cwd=root, check=True)
    assert there.stdout.split() == here
    assert [canonical_json(s.architecture) for s in sample(space, 2, seed=5)] == here[:2]


def test_draws_never_change() -> None:
    """These values are frozen: a study's random sample must be the same after every upgrade."""
    space = space_of(parse("space: t\nparameters: {a: {int: [1, 1000]}, b: {choice: [x, y, z]}}\nnetwork: {depth: 18}"))
    assert [draw(space, 0, i) for i in range(3)] == [
        {"a": 312, "b": "z"}, {"a": 237, "b": "y"}, {"a": 82, "b": "x"}]  # fmt: skip


def test_shipped_spaces_check_sample_and_round_trip(shipped: Path) -> None:
    space = load_space(shipped)
    check(space)
    described = describe(space)
    assert described.size == space.size
    assert described.networks > 0
    for found in described.samples:
        assert from_dict(json.loads(json.dumps(to_dict(found.architecture)))) == found.architecture
        assert not space.violated(found.values, found.cost)


def test_description_of_a_small_space_is_exact(make_space: Make) -> None:
    space = make_space("w: {int: [16, 64], step: 16}", network="width: $w", constraints="params <= 1.5M\nw >= 32")
    costs = {w: cost(space.architecture({"w": w})) for w in (16, 32, 48, 64)}
    accepted = [w for w in (32, 48, 64) if costs[w].params <= 1_500_000]
    described = describe(space)
    assert described.exact
    assert (described.size, described.looked_at, described.networks) == (4, 4, len(accepted))
    assert described.accepted == len(accepted) / 4
    assert dict(described.acceptance) == {"params <= 1.5M": len(accepted) / 3, "w >= 32": 3 / 4}
    assert (described.spreads["macs"].low, described.spreads["macs"].high) == (
        costs[min(accepted)].macs, costs[max(accepted)].macs)  # fmt: skip
    assert sum(described.spreads["macs"].counts) == len(accepted)


def test_description_of_a_larger_space_is_exact() -> None:
    """One by one, every twentieth of the 21,603 assignments bounds what the description says of all of them."""
    space = load_space(Path(__file__).parents[2] / "spaces" / "psconv_patterns.yaml")
    described = describe(space)
    assert (described.exact, described.looked_at) == (True, space.size)
    fits = [fit for i, values in enumerate(space.assignments()) if i % 20 == 0 and (fit := space.fit(values))]
    fields = [found.receptive_field for _, found in fits]
    spread = described.spreads["receptive_field"]
    assert spread.low <= min(fields) < max(fields) <= spread.high <= 3000
    assert described.accepted == sum(spread.counts) / space.size
    assert abs(described.accepted - len(fits) / len(range(0, space.size, 20))) < 0.05
    assert described.networks <= sum(spread.counts)


def test_rows_are_completed_or_refused(make_space: Make) -> None:
    space = make_space("a: {choice: [1, 2]}\nb: {int: [2, 8], step: 2, when: a == 2}\nc: {choice: [only]}")
    problems = Problems()
    assert space.complete({"a": 1}, (), problems) == {"a": 1, "c": "only"}
    assert space.complete({"a": 2, "b": 4}, (), problems) == {"a": 2, "b": 4, "c": "only"}
    assert not problems.found
    space.complete({"a": 1, "b": 2, "d": 1}, ("rows", 0), problems)
    space.complete({"a": 2, "b": 3}, ("rows", 1), problems)
    space.complete({"a": 2}, ("rows", 2), problems)
    assert [str(p) for p in problems.found] == [
        "rows[0].d: is not a parameter of the space; known: a, b, c",
        "rows[0].b: is only active when a == 2; leave it out",
        "rows[1].b: 3 is not in the space; legal: integers 2 … 8 in steps of 2",
        "rows[2].b: is missing; legal: integers 2 … 8 in steps of 2",
    ]


def mistakes(text: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        check(space_of(parse(text, "f.yaml")))
    return str(caught.value).splitlines()


def test_several_mistakes_are_told_at_once_with_their_places() -> None:
    text = """\
space: broken
parameters:
  levels: {choice: [[1, 1, 1, 1], [4, 3, 2, 1]]}
  pattern: {choice: [[1], [1, 2]], wen: 'levels == [1, 1, 1, 1]'}
  split: {choice: [equal], when: 'level[0] > 1'}
network:
  familly: resnet
  depth: 50
  levels: $level
  pattern: $pattern[3]
constraints:
  - gmac <= 4.2
  - params <=
"""
    assert mistakes(text) == [
        "f.yaml:4:36 parameters.pattern.wen: unknown key; did you mean when?",
        "f.yaml:5:35 parameters.split.when: unknown name 'level'; did you mean levels?; a condition may read the "
        "parameters above it; known: levels, pattern (a text stands in quotes: 'level')",
        "f.yaml:9:11 network.levels: unknown parameter 'level'; did you mean levels?; known: levels, pattern, split",
        "f.yaml:10:12 network.pattern: $pattern[3] does not exist where pattern is [1]",
        "f.yaml:12:5 constraints[0]: unknown name 'gmac'; did you mean gmacs?; known: levels, pattern, split, params, "
        "macs, gmacs, activations, receptive_field (a text stands in quotes: 'gmac')",
        "f.yaml:13:14 constraints[1]: 'params <=' is not an expression; for example: gmacs <= 4.2, levels == [1, 1]",
    ]


def test_networks_that_do_not_fit_are_told_with_the_nearest_legal_number() -> None:
    text = """\
space: broken
parameters:
  groups: {choice: [1, 6]}
network:
  depth: 50
  familly: resnet
  stages:
    - {levels: [{kernel: 3, width: 32}, {kernel: 4, width: 32, groups: $groups}]}
    - {levels: 2, split: [1, 2]}
    - {}
    - {pattern: []}
"""
    assert mistakes(text.replace("[1, 2]}", "[1, 1]}")) == [
        "f.yaml:3:24 parameters.groups.choice[1]: 6 does not divide 64 input channels; nearest: 4, 8 "
        "(as network.stages[0].levels[1].groups, with groups 6)",
        "f.yaml:6:3 network.familly: unknown key; did you mean family? (with groups 1)",
        "f.yaml:8:50 network.stages[0].levels[1].kernel: must be odd, but got 4; nearest: 3, 5 (with groups 1)",
        "f.yaml:11:17 network.stages[3].pattern: must hold at least one dilation, but got an empty list; "
        "a standard convolution is [1] (with groups 1)",
    ]
    assert any("cannot split 128 channels 1:2 over 2 levels; nearest width: 126, 129" in m for m in mistakes(text))


def test_conditions_that_cannot_be_evaluated_are_told_with_their_place() -> None:
    text = (
        "space: t\nparameters:\n  a: {choice: [[1], [2]]}\n  b: {choice: [1, 2], when: a > 1}\nnetwork: {depth: 18}\n"
    )
    assert mistakes(text)[0].startswith("f.yaml:4:29 parameters.b.when: 'a > 1' cannot be evaluated")
    text = "space: t\nparameters:\n  a: {choice: [[1], [2]]}\nnetwork: {depth: 18}\nconstraints:\n  - a > 1\n"
    assert mistakes(text)[0].startswith("f.yaml:6:5 constraints[0]: 'a > 1' cannot be evaluated")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1, 2]", "f.yaml:1:1: must be a mapping of keys to values, but got a list ([1, 2])"),
        ("space: t", "f.yaml:1:1 network: is required, but missing"),
        ("space: 3\nnetwork: {depth: 18}", "f.yaml:1:8 space: must be a text, but got an integer (3)"),
        ("space: t\nnetwork: {depth: 19}", "f.yaml:2:18 network.depth: must be 18, 34, 50, 101 or 152, or 6·n + 2 for "
                                           "3 stages of basic blocks, but got 19; nearest: 18, 20"),
        ("space: t\nnetwork: {depth: 18, input: [3, 16, 16]}", "f.yaml:2:29 network.input: 16×16 pixels are too few: the "
         "network reduces each side 32 times; at least 32×32, or fewer strides"),
        ("space: t\nnetwork: {depth: 18, input: [3, 16]}", "f.yaml:2:29 network.input: must be [channels, height, width] or, for video, time second, "
                                                           "but got [3, 16]"),
        ("space: t\nnetwork: {depth: 18}\nparameters: {sum: {choice: [1]}}", "f.yaml:3:14 parameters.sum: is not a usable "
         "name: a letter (a–z), then letters, digits or _; reserved: params, macs, gmacs, activations, receptive_field, len, "
         "sum, min, max, abs, name, true, false"),
        ("space: t\nnetwork: {depth: 18, blocks: [2, 2, 2, 2]}", "f.yaml:2:18 network.depth: give either depth or blocks "
         "(the number of blocks in each stage), one of the two"),
        ("space: t\nnetwork: {depth: 50, stages: [{}, {}, {groups: 7}, {}]}", "f.yaml:2:48 network.stages[2].groups: 7 does "
         "not divide 256 input channels; nearest: 4, 8"),
    ],
)  # fmt: skip
def test_single_mistakes(text: str, expected: str) -> None:
    assert expected in mistakes(text)


def test_describe_answers_without_torch() -> None:
    code = (
        "import sys; from pyconv_search.space.space import load_space; from pyconv_search.space.describe import describe\n"
        "describe(load_space('spaces/pyconv_levels.yaml'))\n"
        "print(sorted({'torch', 'ray', 'optuna', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("space: t\nnetwork: {depth: 18, stem: {width: 64000000000}}", "between 1 and 65536, but got 64000000000"),
        ("space: t\nnetwork: {depth: 500000000000}", "between 8 and 10000, but got 500000000000; nearest: 10000"),
        (
            "space: t\nnetwork: {depth: 18, pattern: [1, ~, 4]}",
            "network.pattern[1]: must be an integer between 1 and 64, but got nothing",
        ),
        (
            "space: t\nparameters: {a: {int: [~, 4]}}\nnetwork: {depth: 18}",
            "parameters.a.int[0]: must be an integer, but got nothing",
        ),
        (
            "space: t\nnetwork: {depth: 18}\n" + "\n".join(f"k{i}: 1" for i in range(20000)),
            "f.yaml:1:1: and more mistakes",
        ),
        (
            "space: t\nparameters: {a: {choice: [" + "7, " * 30000 + "7]}}\nnetwork: {depth: 18}",
            "f.yaml:1:1: and more mistakes",
        ),
        ("space: t\nparameters: {name: {choice: [1]}}\nnetwork: {depth: 18}", "parameters.name: is not a usable name"),
    ],
)
def test_hostile_and_mistyped_files_are_refused_for_little_work(
    bounded: Callable[[int], Any], text: str, words: str
) -> None:
    with bounded(15_000_000):
        found = mistakes(text)
    assert any(words in line for line in found)
    assert len(found) <= 60


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("space: t\nnetwork: {depth: 18}\nconstraints: [gmacs]", "constraints[0]: 'gmacs' is no condition"),
        (
            "space: t\nnetwork: {depth: 18}\nconstraints: [gmacs <= 0.1]",
            "constraints: no assignment satisfies all of them",
        ),
        (
            "space: t\nparameters: {l: {choice: [[1, 2]]}}\nnetwork: {depth: 50, groups: 3}\nconstraints: ['l == [1, 2]']",
            "network.groups: 3 does not divide 64 input channels",
        ),
        ("space: t\nparameters: {d: {int: [30, 60]}}\nnetwork: {depth: $d}", "(and 24 more mistakes here)"),
        (
            "space: t\nparameters:\n  a: {choice: [1], when: b == 1}\n  b: {choice: [1]}\nnetwork: {depth: 18}",
            "b stands below; a condition may read the parameters above it, so move b up",
        ),
        (
            "space: t\nnetwork: {depth: 18, pattern: {1, 2}}",
            "network.pattern: must be a list such as [1, 2, 1, 4], but got a mapping",
        ),
        (
            "space: t\nparameters: {a: {int: [1, 2], choice: [1]}}\nnetwork: {depth: 18}",
            "must have exactly one of the keys choice, ordered, int, float, sequence, but got choice, int",
        ),
    ],
)
def test_what_new_users_write(text: str, words: str) -> None:
    found = mistakes(text)
    assert any(words in line for line in found), found
    assert len(found) == 1


def test_blocks_take_the_place_of_a_preset_s_depth() -> None:
    space = space_of(parse("space: t\nnetwork: {preset: resnet-50, blocks: [1, 2, 1, 1], block: bottleneck}", "t.yaml"))
    assert [stage.blocks for stage in space.architecture({}).stages] == [1, 2, 1, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"levels": [2, 1]}, "pattern: is missing; legal: [1], [1, 2]"),
        (
            {"levels": [2, 1], "pattern": [1], "levle": 1},
            "levle: is not a parameter of the space; did you mean levels?",
        ),
        ({"levels": [3, 1], "pattern": [1]}, "levels: [3, 1] is not in the space; legal: [1, 1], [2, 1]"),
    ],
)
def test_an_assignment_of_a_caller_is_checked(make_space: Make, values: dict[str, object], message: str) -> None:
    parameters = "levels: {choice: [[1, 1], [2, 1]]}\npattern: {choice: [[1], [1, 2]]}"
    space = make_space(parameters, "levels: [1, 1, $levels[0]]\npattern: $pattern".replace("$levels[0]", "1"))
    with pytest.raises(SpecError) as caught:
        space.architecture(values)
    assert str(caught.value).startswith(message)
    assert space.architecture({"levels": [2, 1], "pattern": [1]}) == space.resolved({"levels": [2, 1], "pattern": [1]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "space: t\nnetwork: {preset: resnet-50, stages: [{levels: 2}]}",
            "f.yaml:2:38 network.stages: makes 1 stages of the preset's 4; if meant, give blocks",
        ),
        (
            "space: t\nnetwork: {preset: resnet-50, depth: 56}",
            "f.yaml:2:37 network.depth: makes 3 stages of the preset's 4; if meant, give blocks",
        ),
        (
            "space: t\nparameters: {a: {choice: [1, 2]}}\nnetwork: {depth: 18}",
            "f.yaml:2:14 parameters.a: is used by nothing; write $a where the network or the recipe has it, or leave it out",
        ),
        (
            "space: t\nparameters: {a: {choice: [5, 2]}}\nnetwork: {depth: 18, classes: $a}",
            "f.yaml:3:31 network.classes: is one for the whole space and takes no parameter, but got '$a'",
        ),
        (
            "space: t\nnetwork: {preset: resnet-50, family: inception-resnet}",
            "f.yaml:2:38 network.family: comes with the preset, which is no inception-resnet; leave it out",
        ),
        ("space: t\nnetwork: {preset: 50}", "f.yaml:2:19 network.preset: must be the name of a network, but got an integer (50)"),
    ],
)  # fmt: skip
def test_what_would_change_nothing_or_too_much_is_told(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        check(space_of(parse(text, "f.yaml")))
    assert str(caught.value).splitlines() == [message]


def test_a_space_that_nothing_satisfies_can_be_described(make_space: Make) -> None:
    space = make_space("width: {choice: [16, 32]}", "width: $width", "params < 1")
    described = describe(space)
    assert (described.networks, described.accepted, described.acceptance) == (0, 0.0, (("params < 1", 0.0),))
    with pytest.raises(SpecError, match="no assignment satisfies all of them"):
        check(space)
    check(space, may_be_empty=True)


@pytest.mark.parametrize(
    ("head", "classes"),
    [("ssd", 81), ("{kind: aspp}", 150), ("fpn", 1000), ("classifier", 1000), ("ssd, classes: 21", 21)],
)
def test_a_head_brings_its_published_number_of_classes(head: str, classes: int) -> None:
    space = space_of(
        parse(f"space: t\nnetwork: {{preset: ps-resnet-50, input: [3, 320, 320], output_stride: 8, head: {head}}}")
    )
    assert space.architecture({}).classes == classes
