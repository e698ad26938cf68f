"""What a run says while it waits, and where the lines of Ray go meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from ray._private import worker
from rich.console import Console

from pyconv_search.search import noise, waiting


def test_only_what_takes_its_time_is_reported_and_that_again(
    monkeypatch: pytest.MonkeyPatch, wait_for: Callable[..., None]
) -> None:
    said = StringIO()
    console = Console(file=said, width=200)
    with waiting.waiting("starting Ray", console):
        pass
    assert said.getvalue() == ""
    monkeypatch.setattr(waiting, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(waiting, "AGAIN_SECONDS", 0.5)
    with waiting.waiting("starting Ray", console):
        wait_for(lambda: said.getvalue().count("starting Ray …") >= 2)
    lines = len(said.getvalue().splitlines())
    assert "(1 s)" in said.getvalue()
    time.sleep(0.7)
    assert len(said.getvalue().splitlines()) == lines


def test_a_console_whose_reader_is_gone_stays_silent() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w", buffering=1) as stream:
        console = Console(file=waiting.Lasting(stream))  # type: ignore[arg-type]
        os.close(reader)
        waiting.say(console, "nobody reads this")
        waiting.say(console, "nor this")


def test_rays_lines_go_into_the_folder_and_ours_to_the_user(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    console = waiting.console()
    with noise.of_driver(tmp_path):
        os.write(2, b"from the C++ core\n")
        worker.print_to_stdstream({"lines": ["from the raylet"], "pid": "raylet", "is_err": False}, False)
        waiting.say(console, "from us")
    os.write(2, b"from somebody after the run\n")
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "from us\nfrom somebody after the run\n"
    assert (tmp_path / "logs" / "ray.log").read_text() == "from the C++ core\nfrom the raylet\n"


def test_logs_are_bounded_and_several_processes_share_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise, "MOST_BYTES", 10)
    ends = [os.open(os.devnull, os.O_WRONLY) for _ in range(2)]
    path = tmp_path / "logs" / "workers.log"
    first, second = (noise.Drain(path, (end,)) for end in ends)
    for number in range(6):
        os.write(ends[0], f"{number} is more than ten\n".encode())
        first.bound()
    second.bound()
    os.write(ends[1], b"the other\n")
    assert path.read_text() == "the other\n"
    assert sorted(p.name for p in path.parent.iterdir()) == ["workers.log", *(f"workers.log.{n}" for n in (1, 2, 3))]
    assert path.with_name("workers.log.1").read_text().startswith("5 is")
    for end in ends:
        os.close(end)
