"""How much memory there is: of the machine, and of every control group that stands around this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pyconv_search import cores
from pyconv_search.training import memory

CPU, MIB = torch.device("cpu"), 2**20
ALL = memory.total(CPU)


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, ALL),
        ({"memory.max": "max"}, ALL),
        ({"memory.max": f"{64 * MIB}"}, 64 * MIB),
        ({"service/memory.max": f"{32 * MIB}", "memory.max": f"{64 * MIB}"}, 32 * MIB),
        ({"service/memory.max": "max", "memory.max": f"{64 * MIB}"}, 64 * MIB),
        ({"memory/memory.limit_in_bytes": f"{16 * MIB}"}, 16 * MIB),
        ({"memory.max": "nonsense"}, ALL),
    ],
)
def test_a_limit_around_this_process(
    files: dict[str, str], wanted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    (tmp_path / "own").write_text("0::/service\n")
    monkeypatch.setattr(cores, "_GROUPS", tmp_path)
    monkeypatch.setattr(cores, "_OWN", tmp_path / "own")
    assert memory.total(CPU) == min(wanted, ALL)


def test_what_is_left_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files in memory count as free: the kernel gives them back."""
    (tmp_path / "service").mkdir()
    for group, limit, used in (("", 900, 500), ("service", 300, 250)):
        (tmp_path / group / "memory.max").write_text(f"{limit * MIB}\n")
        (tmp_path / group / "memory.current").write_text(f"{used * MIB}\n")
        (tmp_path / group / "memory.stat").write_text(f"anon 5\nfile {40 * MIB}\n")
    (tmp_path / "own").write_text("0::/service\n")
    monkeypatch.setattr(cores, "_GROUPS", tmp_path)
    monkeypatch.setattr(cores, "_OWN", tmp_path / "own")
    assert memory.available(CPU) == (300 - 250 + 40) * MIB
