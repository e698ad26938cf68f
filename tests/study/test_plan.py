"""Plans: which networks, how many trials, and what names a trial."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pyconv_search.arch.canonical import from_dict
from pyconv_search.arch.presets import preset
from pyconv_search.arch.published.networks import network_rows
from pyconv_search.arch.published.results import result_tables
from pyconv_search.errors import UserError
from pyconv_search.study.plan import candidates, planned_trials, trial_id, trial_spec
from pyconv_search.study.study import load_study

Write = Callable[..., Path]


def test_a_grid_is_the_feasible_part_of_the_space(write_study: Write) -> None:
    study = load_study(write_study(seeds=3))
    rows = candidates(study)
    every = [v for v in study.space.assignments() if study.space.fit(v, (1, 28, 28), 10) is not None]
    assert [row.values for row in rows] == every
    assert 0 < len(every) < study.space.size
    assert planned_trials(study, len(rows)) == 3 * len(every)
    assert all(row.cost.params <= 250_000 for row in rows)


def test_rows_that_cannot_be_are_told_together(write_study: Write) -> None:
    rows = [{"levels": [2, 2, 1], "width": 32}, {"levels": [1, 1, 1], "pattern": [1], "width": 8}]
    path = write_study(search={"rows": rows})
    with pytest.raises(UserError) as caught:
        candidates(load_study(path))
    assert "search.rows[0]: does not satisfy the space's constraint params <= 250k" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_two_rows_of_one_network_are_told(write_study: Write) -> None:
    text = "space: t\nparameters: {p: {choice: [[1, 2], [1, 2, 1, 2]]}}\nnetwork: {depth: 20, pattern: $p}\n"
    path = write_study(space_text=text, search={"rows": [{"p": [1, 2]}, {"p": [1, 2, 1, 2]}]})
    with pytest.raises(UserError, match=r"search\.rows\[1\]: is the same network as rows\[0\]"):
        candidates(load_study(path))


def test_random_networks_are_seeded_and_different(write_study: Write) -> None:
    def ids(seed: int) -> list[str]:
        study = load_study(write_study(search={"random": {"trials": 6, "seed": seed}}))
        return [row.architecture.arch_id for row in candidates(study)]

    assert ids(1) == ids(1) != ids(2)
    assert len(set(ids(1))) == 6


def test_counting_the_images_works_out_no_network_again(write_study: Write) -> None:
    study = load_study(write_study())
    rows, info = candidates(study), study.data.info
    counted = replace(study, data=replace(study.data, info=replace(info, train=info.train + 1)))
    assert all(one is other for one, other in zip(candidates(counted), rows, strict=True))
    more = candidates(replace(study, data=replace(study.data, info=replace(info, classes=info.classes + 1))))
    assert more[0].architecture != rows[0].architecture


def test_a_trial_is_named_by_what_decides_its_numbers(write_study: Write) -> None:
    def name(seed: int = 0, **changes: object) -> str:
        study = load_study(write_study(**changes))
        return trial_id(study, candidates(study)[0], seed)

    same = name()
    assert (
        same
        == name(seeds=5)
        == name(resources={"cpu": 2})
        == name(resources={"cpu": 2, "workers": 2})
        == name(study="other")
        == name(weights="discard")
    )
    assert len(same) == 16
    others = {name(seed=1), name(recipe={"epochs": 3}), name(data="fashion-mnist"),
              name(data={"fashion-mnist-small": {"validation": 1000}})}  # fmt: skip
    assert len(others | {same}) == 5


def test_a_trial_is_described_by_plain_json(write_study: Write) -> None:
    study = load_study(write_study(resources={"cpu": 2, "gpu": 0.5}))
    row = candidates(study)[0]
    spec = trial_spec(study, row, 7, "/runs/a")
    assert json.loads(json.dumps(spec)) == spec
    assert from_dict(spec["architecture"]) == row.architecture
    assert (spec["seed"], spec["threads"], spec["device"], spec["folder"]) == (7, 2, "cuda", "/runs/a")


@pytest.mark.parametrize(
    ("file", "table", "others"),
    [
        ("pyconv_table2", ("pyconv", "Table 2"), ()),
        ("psconv_table4", ("psconv", "Table 2"), ("drn-a-50",)),
        ("psconv_cifar100", ("psconv", "Table 6"), ()),
    ],
)
def test_the_papers_studies_hold_the_papers_networks(
    monkeypatch: pytest.MonkeyPatch, file: str, table: tuple[str, str], others: tuple[str, ...]
) -> None:
    for name in ("IMAGENET", "CIFAR"):
        monkeypatch.setenv(name, "/somewhere")
    study = load_study(Path(__file__).parents[2] / "studies" / f"{file}.yaml")
    found = {row.architecture.arch_id: row.name for row in candidates(study)}
    printed = [row for row in network_rows() if (row.paper, row.table) == table and row.network not in others]
    assert len(printed) > 1
    assert {preset(row.network).arch_id for row in printed} <= set(found)
    assert study.published is not None
    results = {row.row for row in result_tables()[study.published.reference].rows}
    if file != "psconv_table4":  # It holds the rows of three tables.
        assert set(found.values()) == results
