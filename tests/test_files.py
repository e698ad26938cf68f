"""Reading files that a user names, and counting cores."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pyconv_search import cores
from pyconv_search.cores import usable_cores
from pyconv_search.errors import UserError
from pyconv_search.files import read_json, read_plain


def test_a_plain_file_is_read_up_to_its_limit(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    assert read_plain(file, 5, "a test") == b"12345"
    with pytest.raises(UserError, match=r"is larger than 4 bytes, which is more than a test has"):
        read_plain(file, 4, "a test")


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "missing", "loop", "nul"])
def test_what_is_no_plain_file_is_refused_at_once(tmp_path, kind):
    file = tmp_path / "a"
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "loop":
        file.symlink_to(file)
    elif kind == "nul":
        file = tmp_path / "a\0b"
    with pytest.raises(UserError):
        read_plain(file, 100, "a test")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_one_message(tmp_path, content):
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match="is not JSON"):
        read_json(file, 10**6, "a test")


def test_cores_follow_the_affinity():
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " + (
        "from pyconv_search.cores import usable_cores; print(usable_cores())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "1\n"


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "250000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"a/cpu.max": "max 100000", "cpu.max": "300000 100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu.max": "nonsense"}, 8),
        ({}, 8),
    ],
)
def test_cores_follow_the_quota_of_the_container(tmp_path, monkeypatch, files, wanted):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    own = tmp_path / "own"
    own.write_text("0::/a\n")
    monkeypatch.setattr(cores, "_GROUPS", tmp_path)
    monkeypatch.setattr(cores, "_OWN", own)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert usable_cores() == wanted
