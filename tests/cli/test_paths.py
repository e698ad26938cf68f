"""Every path that a command takes may begin with ``~``, which shells do not expand in ``--out=~/runs``."""

from __future__ import annotations

import pwd
import shutil
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import pyconv_search as ps
from pyconv_search.cli import app
from pyconv_search.errors import UserError
from pyconv_search.files import expanded

ROOT = Path(__file__).parents[2]


Parameter = tuple[str, str, Any, bool]


def callbacks(group: typer.Typer) -> Iterator[Callable[..., Any]]:
    """The function of every command."""
    yield from (command.callback for command in group.registered_commands if command.callback)
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from callbacks(inner.typer_instance)


def parameters() -> Iterator[Parameter]:
    """Each parameter that takes a path: its function, its name, typer's description; whether it is a ``Path`` or text."""
    for callback in callbacks(app):
        for name, hint in typing.get_type_hints(callback, include_extras=True).items():
            if name == "return":
                continue
            kind, description = typing.get_args(hint)[:2]
            is_path = Path in (kind, *typing.get_args(kind))
            if is_path or "FILE" in str(description.metavar) or name in ("file", "folder", "out", "root"):
                yield callback.__name__, name, description, is_path


FOUND = list(parameters())


@pytest.mark.parametrize("parameter", FOUND, ids=lambda found: f"{found[0]} {found[1]}")
def test_a_home_is_expanded(parameter: Parameter, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the parameter's own parser; typer's own for paths leaves ``~`` as it is."""
    _, _, description, is_path = parameter
    monkeypatch.setenv("HOME", "/somewhere")
    assert description.parser is not None
    assert description.parser("~/x.yaml") == (Path("/somewhere/x.yaml") if is_path else "/somewhere/x.yaml")
    assert description.parser("resnet-50") == (Path("resnet-50") if is_path else "resnet-50")


def test_the_parameters_are_found() -> None:
    assert {
        ("run", "study"), ("run", "out"), ("status", "folder"), ("report", "out"), ("cost", "network"), ("cost", "draw"),
        ("space_check", "file"), ("data_check", "root"), ("data_pack", "out"), ("bench_ops", "network"),
    } <= {(command, name) for command, name, *_ in FOUND}  # fmt: skip


def test_a_command_reads_and_writes_in_the_home(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(ROOT / "spaces" / "pyconv_levels.yaml", tmp_path / "space.yaml")
    assert command("space", "check", "~/space.yaml")[0] == 0
    assert command("cost", "resnet-18", "--draw=~/network.svg")[0] == 0
    assert (tmp_path / "network.svg").is_file()
    assert "no such file" in command("cost", "~/none.yaml")[2]


def test_as_a_shell_does_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.chdir(tmp_path)
    assert [expanded(text) for text in ("~", "~/a/~b", "a/~", "/a", "b")] == [
        Path("/somewhere"), Path("/somewhere/a/~b"), Path("a/~"), Path("/a"), Path("b")
    ]  # fmt: skip
    assert expanded("~root/x") == Path("/root/x")
    own = expanded("./~/x")
    assert own == expanded(own) == tmp_path / "~" / "x"
    assert expanded(expanded("~nobody-has-this-name/x")) == tmp_path / "~nobody-has-this-name" / "x"
    assert str(expanded("~/a\0b")).endswith("a\0b")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    with pytest.raises(UserError, match="the home folder is not known; set HOME"):
        expanded("~/x")


def test_in_studies_and_from_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A study in a home, whose space is in that home, too; the folder of a run, its report and its networks."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "s").mkdir()
    shutil.copy(ROOT / "spaces" / "pyconv_levels.yaml", tmp_path / "s" / "space.yaml")
    (tmp_path / "study.yaml").write_text(
        "study: home\nspace: ~/s/space.yaml\ndata: {cifar10: {root: ~/data}}\nrecipe: {epochs: 1}\n"
        "search: {random: {trials: 2}}\n"
    )
    assert ps.load_space("~/s/space.yaml").name == ps.load_study("~/study.yaml").space.name
    assert ps.load_study("~/study.yaml").data.root == str(tmp_path / "data")
    shutil.copytree(ROOT / "reports" / "quickstart", tmp_path / "run")
    assert ps.read("~/run").folder == tmp_path / "run"
    assert ps.write_report("~/run", "~/page.html") == tmp_path / "page.html"
    assert (tmp_path / "page.html").is_file()


@pytest.mark.parametrize("verb", ["load_model", "load_released", "run"])
def test_what_needs_torch_expands_too(verb: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message of a missing file names the place that was looked in."""
    monkeypatch.setenv("HOME", str(tmp_path))
    call: dict[str, Callable[[], object]] = {
        "load_model": lambda: ps.load_model("~/none.safetensors"),
        "load_released": lambda: ps.load_released(ps.build(ps.preset("resnet-18")), "~/none.safetensors"),
        "run": lambda: ps.run(ps.load_study(ROOT / "studies" / "quickstart.yaml"), "~/none.safetensors/run"),
    }
    (tmp_path / "none.safetensors").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        call[verb]()
    assert "cannot be" in str(caught.value)
    assert "No such file" not in str(caught.value)
