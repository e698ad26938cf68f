"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pyconv_search.cli.catalogue import networks_text, published
from pyconv_search.report.digest import digest
from pyconv_search.results.store import read
from pyconv_search.space.describe import check
from pyconv_search.space.space import load_space
from pyconv_search.study.study import load_study

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = sorted(set(re.findall(r"pyconv-search ((?:space |data )?[a-z]+)\b(?! needs)", README)))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_is_there(words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyconv_search", *words.split(), "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_commands_are_found() -> None:
    assert {"space check", "space describe", "space sample", "cost", "plan", "run", "status", "report", "data list",
            "data check"} <= set(COMMANDS)  # fmt: skip


def test_the_space_and_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space, study = blocks("yaml")
    (tmp_path / "space.yaml").write_text(space)
    loaded = load_space(tmp_path / "space.yaml")
    check(loaded)
    monkeypatch.setenv("CIFAR", "/data")
    (tmp_path / "study.yaml").write_text(study.replace("../spaces", str(ROOT / "spaces")))
    assert load_study(tmp_path / "study.yaml").search.trials == 40


def test_the_python_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (lines,) = blocks("python")
    names: dict[str, object] = {}
    exec(lines[: lines.index("store = ")].replace("runs/quickstart", "reports/quickstart"), names)
    exec('store = ps.read("reports/quickstart")\nrows, epochs = ps.tables(store)', names)
    assert len(names["rows"]) == 10  # type: ignore[arg-type]


def test_every_link_into_the_repository_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) > 8
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_what_the_caption_says_of_the_committed_report_is_what_it_holds() -> None:
    found = digest(read(ROOT / "reports" / "quickstart"))
    assert {(len(c.values), c.first.epochs) for c in found.candidates} == {(2, 5)}
    assert len(found.comparisons) == 4
    assert not any(comparison.statement == "differs" for comparison in found.comparisons)
    assert "In this run two seeds and five epochs resolved no difference" in README


def test_as_many_printed_rows_match_as_it_says() -> None:
    last = networks_text(published()).splitlines()[-1]
    matching, printed = re.findall(r"^(\d+) of (\d+) printed rows match to every digit", last)[0]
    assert f"{matching} of the {printed} printed rows match to every digit" in README
