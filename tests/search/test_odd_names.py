"""Names that are no UTF-8, or more than a line: of a run's folder, of its study, and of the current folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from ray._private import utils

from pyconv_search.errors import UserError
from pyconv_search.search import connection
from pyconv_search.search.sessions import Guard

ROOT = Path(__file__).parents[2]
ODD = os.fsdecode(b"odd\xfe\nname")


def test_ray_is_given_a_command_line_in_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils, "get_entrypoint_name", lambda: f"run {ODD}")
    seen = []
    monkeypatch.setattr(ray, "init", lambda **arguments: seen.append(utils.get_entrypoint_name()))
    connection._connect("failed", None)
    assert seen == ["run odd?\nname"]
    assert utils.get_entrypoint_name() == f"run {ODD}"


def test_a_ray_that_cannot_start_is_ended_on_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its processes do then is not taken for their death."""
    guard, seen = Guard(), []
    monkeypatch.setattr(ray, "init", lambda **arguments: ODD.encode())
    monkeypatch.setattr(ray, "shutdown", lambda: seen.append(guard.ending))
    with pytest.raises(UserError, match=r"^failed: it needs names in UTF-8, and 'odd\\udcfe\\nname' is none$"):
        connection._connect("failed", guard)
    assert seen == [True]
    guard.close()


@pytest.mark.slow
def test_a_run_in_a_folder_of_such_a_name(tiny_study: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / ODD
    folder.mkdir()
    study = tiny_study(recipe={"epochs": 1, "batch": 128, "precision": "fp32"})
    for file in tmp_path.glob("*.yaml"):
        file.rename(folder / file.name)
    command = [sys.executable, "-m", "pyconv_search", "run", str(folder / study.name), "--out", str(folder / "run")]
    done = subprocess.run(command, capture_output=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (folder / "run" / "report.html").exists()


@pytest.mark.slow
def test_a_current_folder_of_such_a_name(tiny_study: Callable[..., Path], tmp_path: Path) -> None:
    """Ray gives it to the workers, and cannot: that is said, and nothing of a death."""
    (tmp_path / ODD).mkdir()
    command = [sys.executable, "-m", "pyconv_search", "run", str(tiny_study()), "--out", str(tmp_path / "run")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path / ODD, env=environment)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: Ray cannot be started on this machine: it needs names in UTF-8, and ")
    assert "Traceback" not in done.stderr
