"""The journal: what is written is read, by any process, whatever happens to the writer."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyconv_search.errors import UserError
from pyconv_search.results import store
from pyconv_search.results.store import Journal, read

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import sys
from pyconv_search.results.row import Row
from pyconv_search.results.store import Journal
journal = Journal(sys.argv[1])
for i in range(10**9):
    journal.append_row(Row(f"t{i}", "a", "n", 0, "complete", "", "x" * 3000, 1, {}, 1, 1, 1, 1))
    print(i, flush=True)
"""


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_is_written_is_read(folder, make_row, make_epoch):
    row, epoch = make_row(), make_epoch()
    with Journal(folder) as journal:
        journal.append_event("start", time="2025-01-01T00:00:00+00:00", git=None)
        journal.append_epoch(epoch)
        journal.append_row(row)
    found = read(folder)
    assert found.rows == (row,)
    assert found.epochs == (epoch,)
    assert found.events == ({"name": "start", "time": "2025-01-01T00:00:00+00:00", "git": None},)
    assert found.study["name"] == "example"


def test_another_process_reads_while_the_writer_is_at_work(folder, make_row):
    code = "import sys; from pyconv_search.results.store import read; print([r.trial for r in read(sys.argv[1]).rows])"
    with Journal(folder) as journal:
        journal.append_row(make_row("a"))
        out, error = python(code, folder).communicate(timeout=600)
    assert (out.strip(), error) == ("['a']", "")


def test_lines_are_canonical_json_in_utf8(folder, make_row):
    with Journal(folder) as journal:
        journal.append_row(make_row(detail="line one\nline two\u2028three", val_loss=math.nan))
    text = (folder / "journal.jsonl").read_bytes().decode("utf-8")
    values = json.loads(text)
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert list(values) == sorted(values)
    assert "größe 大" in text
    assert values["val_loss"] == "nan"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.1 + 0.2, 1e-320, -0.0])
def test_every_float_comes_back(folder, make_row, make_epoch, value):
    with Journal(folder) as journal:
        journal.append_row(make_row(val_loss=value))
        journal.append_epoch(make_epoch(train_loss=value))
    found = read(folder)
    assert repr(found.rows[0].val_loss) == repr(found.epochs[0].train_loss) == repr(value)


def test_half_a_surrogate_pair_does_not_stop_the_run(folder, make_row):
    with Journal(folder) as journal:
        journal.append_row(make_row(detail="file \udcff"))
    assert read(folder).rows[0].detail == "file ?"


def test_the_last_row_of_a_trial_wins_and_the_others_are_kept_apart(folder, make_row, make_epoch):
    with Journal(folder) as journal:
        journal.append_row(make_row("a", status="failed", reason="oom"))
        journal.append_row(make_row("b"))
        for error in (50.0, 40.0):
            journal.append_epoch(make_epoch("a", 1, val_top1_error=error))
        journal.append_row(make_row("a"))
    found = read(folder)
    assert [(row.trial, row.status) for row in found.rows] == [("a", "complete"), ("b", "complete")]
    assert [(row.trial, row.status) for row in found.superseded] == [("a", "failed")]
    assert [(epoch.epoch, epoch.val_top1_error) for epoch in found.epochs] == [(1, 40.0)]


def test_a_second_writer_is_told_who_holds_the_folder(folder):
    with Journal(folder), pytest.raises(UserError, match=rf"{re.escape(str(folder))}: .*process {os.getpid()} on "):
        Journal(folder)
    Journal(folder).close()


def test_a_second_process_is_told_too(folder):
    code = "import sys; from pyconv_search.results.store import Journal; Journal(sys.argv[1])"
    with Journal(folder):
        _, error = python(code, folder).communicate(timeout=600)
    assert f"process {os.getpid()} on" in error.splitlines()[-1]


def test_sigkill_loses_no_row_that_was_reported(folder, make_row):
    writer = python(WRITER, folder)
    assert writer.stdout is not None
    reported = -1
    for line in writer.stdout:
        reported = int(line)
        if reported >= 20:
            break
    writer.send_signal(signal.SIGKILL)
    reported = max([reported, *(int(line) for line in writer.stdout.read().split())])
    writer.communicate()
    found = [row.trial for row in read(folder).rows]
    assert found[: reported + 1] == [f"t{i}" for i in range(reported + 1)]
    with Journal(folder) as journal:
        journal.append_row(make_row("after"))
    assert [row.trial for row in read(folder).rows] == [*found, "after"]


def test_a_journal_cut_at_every_byte_is_read(folder, make_row, make_epoch):
    lines = [store.encode_record(r) for r in (make_row("a"), make_epoch("a"), make_row("b"))]
    whole = b"".join(lines)
    for cut in range(len(whole) + 1):
        (folder / "journal.jsonl").write_bytes(whole[:cut])
        found = read(folder)
        ends = [len(b"".join(lines[: n + 1])) - 1 for n in range(3)]  # A record is whole without its newline.
        assert len(found.rows) + len(found.epochs) == sum(cut >= end for end in ends)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fraction=st.floats(0, 1))
def test_a_journal_cut_at_any_byte_reads_and_goes_on(make_row, make_epoch, fraction):
    lines = [store.encode_record(r) for r in (make_row("a"), make_epoch("a"), make_row("b"), make_row("c"))]
    whole = b"".join(lines)
    cut = round(fraction * len(whole))
    expected = [
        t for t, end in (("a", len(lines[0])), ("b", len(b"".join(lines[:3]))), ("c", len(whole))) if end - 1 <= cut
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "study.json").write_text(json.dumps(STUDY_TEXT))
        (folder / "journal.jsonl").write_bytes(whole[:cut])
        assert [row.trial for row in read(folder).rows] == expected
        with Journal(folder) as journal:
            journal.append_row(make_row("new"))
        assert [row.trial for row in read(folder).rows] == [*expected, "new"]


STUDY_TEXT = {
    "format": 1,
    "name": "",
    "space": {},
    "data": {},
    "recipe": {},
    "search": {},
    "seeds": [],
    "objectives": {},
}


def test_a_tail_longer_than_a_block_is_cut(folder, make_row):
    with Journal(folder) as journal:
        journal.append_row(make_row("a"))
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(b"\0" * 200_000)
    assert [row.trial for row in read(folder).rows] == ["a"]
    Journal(folder).close()
    assert (folder / "journal.jsonl").read_bytes().endswith(b"}\n")


def test_a_full_disk_leaves_whole_lines_and_says_what_to_do(folder, make_row, monkeypatch):
    write, room = os.write, [100]

    def full(handle: int, data: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = bytes(data)[: room[0]]
        room[0] -= len(part)
        return write(handle, part)

    with Journal(folder) as journal:
        journal.append_row(make_row("a"))
        before = (folder / "journal.jsonl").read_bytes()
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(UserError, match="No space left on device; free space and run the same command") as error:
            journal.append_row(make_row("b"))
        assert str(folder / "journal.jsonl") in str(error.value)
        assert "\n" not in str(error.value)
        assert (folder / "journal.jsonl").read_bytes() == before
        monkeypatch.undo()
        journal.append_row(make_row("c"))
    assert [row.trial for row in read(folder).rows] == ["a", "c"]


def test_a_broken_disk_is_not_called_a_full_one(folder, make_row, monkeypatch):
    def broken(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Journal(folder) as journal:
        monkeypatch.setattr(os, "fsync", broken)
        with pytest.raises(UserError, match="Input/output error; put this right and run the same command again"):
            journal.append_row(make_row("a"))
        monkeypatch.undo()
    assert read(folder).rows == ()
    with pytest.raises(ValueError, match="closed"):
        journal.append_row(make_row("a"))


def test_ctrl_c_in_the_middle_of_a_line_leaves_whole_lines(folder, make_row, monkeypatch):
    def interrupted(handle: int) -> None:
        raise KeyboardInterrupt

    with Journal(folder) as journal:
        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.append_row(make_row("a"))
        monkeypatch.undo()
        journal.append_row(make_row("b"))
    assert [row.trial for row in read(folder).rows] == ["b"]


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b'{"kind":"other"}',
        b'{"kind":"row","trial":"a"}',
        b'{"kind":"epoch","trial":7}',
        b'{"kind":"event"}',
        b"\xff\xfe",
        b'{"kind":"event","name":"planned"}',
        b'{"kind":"event","name":"proposed","network":{}}',
        b'{"kind":"event","name":"start","git":7}',
        b'{"kind":"event","name":"x","v":NaN}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_line_is_told_by_file_and_line(folder, make_row, line):
    good = store.encode_record(make_row())
    (folder / "journal.jsonl").write_bytes(good + line + b"\n" + good)
    with pytest.raises(UserError, match=r"journal\.jsonl:2: damaged line: "):
        read(folder)


def test_a_wrong_status_or_type_is_damage(folder, make_row):
    good = store.encode_record(make_row())
    for old, new in ((b'"complete"', b'"done"'), (b'"seed":0', b'"seed":true'), (b'"seed":0', b'"seed":"0"')):
        (folder / "journal.jsonl").write_bytes(good.replace(old, new))
        with pytest.raises(UserError, match=r"journal\.jsonl:1: damaged line: (status|seed) must be"):
            read(folder)


def test_columns_of_a_newer_version_are_passed_over(folder, make_row):
    line = store.encode_record(make_row("a")).replace(b'{"', b'{"added_later":1,"', 1)
    (folder / "journal.jsonl").write_bytes(line)
    assert read(folder).rows == (make_row("a"),)


def test_rows_of_an_older_version_are_known_by_their_architecture(folder, make_row):
    row = make_row("a")
    line = store.encode_record(row)
    for column in (b'"config":"' + row.arch_id.encode() + b'",', b'"recipe":{},'):
        assert column in line
        line = line.replace(column, b"")
    (folder / "journal.jsonl").write_bytes(line + store.encode_record(make_row("b", config="c", recipe={"lr": 0.2})))
    old, new = read(folder).rows
    assert (old, old.config, old.recipe) == (row, row.arch_id, {})
    assert (new.arch_id, new.config, new.recipe) == (row.arch_id, "c", {"lr": 0.2})


def test_what_is_not_the_folder_of_a_run_is_told(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no such folder"):
        Journal(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"not the folder of a run: it holds no study\.json"):
        read(tmp_path)
    for content, told in (("{", "not JSON"), ('{"format": 2}', "format must be 1"), ('{"format": 1}', "it lacks name")):
        (tmp_path / "study.json").write_text(content)
        with pytest.raises(UserError, match=told):
            read(tmp_path)


def test_a_run_that_has_just_begun_is_empty(folder):
    found = read(folder)
    assert (found.rows, found.epochs, found.events) == ((), (), ())


@pytest.mark.parametrize(
    ("place", "value"),
    [("seeds", ["0"]), ("seeds", [True]), ("networks", 7), ("networks", [{"config": "a"}]), ("networks", [["a"]])]
    + [(".".join(place), value) for place in store.OPTIONAL for value in ("x", True)],
)
def test_a_study_that_holds_something_else_is_told(folder, place, value):
    study = json.loads((folder / "study.json").read_text())
    *sections, key = place.split(".")
    section = study
    for name in sections:
        section = section.setdefault(name, {})
    section[key] = value
    (folder / "study.json").write_text(json.dumps(study))
    with pytest.raises(UserError, match=rf"study\.json: not a resolved study: it lacks {re.escape(place)}, or holds"):
        read(folder)


def test_rows_stand_in_the_studys_order_and_by_its_names(folder, make_row, make_epoch):
    networks = [
        {"config": "b", "name": "two", "parameters": {"split": "equal", "levels": [2]}, "trials": ["b0", "b1"]},
        {"config": "a", "parameters": {"split": "equal", "levels": [1]}, "trials": ["a0", "a1"]},
    ]
    study = json.loads((folder / "study.json").read_text()) | {"networks": networks, "seeds": [1, 0]}
    networks[0]["trials"].reverse()
    networks[1]["trials"].reverse()
    (folder / "study.json").write_text(json.dumps(study))
    rows = [make_row(f"{config}{seed}", config=config, seed=seed) for config in "acb" for seed in (0, 1)]
    with Journal(folder) as journal:
        for row in rows:
            journal.append_epoch(make_epoch(row.trial))
            journal.append_row(row)
        journal.append_epoch(make_epoch("elsewhere"))
    found = read(folder)
    assert [row.trial for row in found.rows] == ["b1", "b0", "a1", "a0", "c1", "c0"]
    assert [row.name for row in found.rows][::2] == ["two", "levels [1], split equal", "größe 大"]
    assert list(found.rows[0].parameters) == ["levels", "split"]  # The space's order.
    assert list(found.curves) == ["b1", "b0", "a1", "a0", "c1", "c0", "elsewhere"]
    assert list(found.current().curves) == ["b1", "b0", "a1", "a0"]
    assert found.left_out == {"of networks that the study no longer holds": 2}
    assert found.listing.trial("b0") == ("two", 0)
    assert found.listing.trial("c0") is None
