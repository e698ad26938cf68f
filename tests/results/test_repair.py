"""Damage of every kind that journals meet: reading says what to do, and a repair loses no record that can be read."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pyconv_search.errors import UserError
from pyconv_search.results import files
from pyconv_search.results.lines import encode, encode_record
from pyconv_search.results.repair import ASIDE, repair
from pyconv_search.results.store import Journal, read

GARBAGE = (b"{", b"[]", b"\xff\xfe\xfd", b'{"kind":"row","trial":"x"}', b'{"kind":"event","name":NaN}', b"[" * 50_000)
NOTHING = (b"", b"\r", b" \t", b"\0" * 4096, b"\xef\xbb\xbf")


@pytest.fixture
def good(make_row, make_epoch) -> list[bytes]:
    epochs = [encode_record(make_epoch(t, n, val_loss=1 / n)) for t in "abc" for n in (1, 2, 3)]
    rows = [encode_record(make_row(t, seed=i % 2, detail="größe\n")) for i, t in enumerate("abc")]
    return [encode("event", {"name": "start", "time": "now"}), *epochs, *rows]


def whole(folder: Path):
    found = read(folder)
    return found.rows, found.epochs, found.events


def test_nothing_to_repair_changes_nothing(folder, good):
    path = folder / "journal.jsonl"
    path.write_bytes(b"".join(good))
    before = path.stat()
    found = repair(folder)
    assert (found.kept, found.changed, found.damaged) == (len(good), False, ())
    assert "nothing to repair" in str(found)
    assert path.stat().st_ino == before.st_ino
    assert not (folder / ASIDE).exists()


@pytest.mark.parametrize("line", NOTHING)
@pytest.mark.parametrize("place", [0, 3, 99])
def test_lines_without_content_are_passed_over_and_taken_out(folder, good, line, place):
    path = folder / "journal.jsonl"
    path.write_bytes(b"".join(good))
    expected = whole(folder)
    path.write_bytes(b"".join([*good[:place], line + b"\n", *good[place:]]))
    assert whole(folder) == expected
    found = repair(folder)
    assert (found.blank, found.damaged, found.kept) == (1, (), len(good))
    assert path.read_bytes() == b"".join(good)


def test_what_editors_and_power_cuts_do_to_lines_loses_none(folder, good):
    path = folder / "journal.jsonl"
    path.write_bytes(b"".join(good))
    expected = whole(folder)
    for content in (
        b"\xef\xbb\xbf" + b"".join(good),
        b"".join(good).replace(b"\n", b"\r\n"),
        b"".join(good)[:-1],
        b"".join([*good[:5], b"\0" * 100 + good[5], *good[6:]]),
        b"".join(good) + b"\0" * 100_000,
        b"".join(good) + b"\0" * 100 + b"\n",
    ):
        path.write_bytes(content)
        assert whole(folder) == expected
        Journal(folder).close()
        assert whole(folder) == expected
        repair(folder)
        assert path.read_bytes() == b"".join(good)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_damaged_line_is_set_aside_and_the_rest_is_as_before(folder, good, garbage):
    path = folder / "journal.jsonl"
    path.write_bytes(b"".join(good))
    expected = whole(folder)
    path.write_bytes(b"".join([*good[:4], garbage + b"\n", *good[4:]]))
    with pytest.raises(UserError, match=rf"journal\.jsonl:5: damaged line: .*`pyconv-search repair {folder}`"):
        read(folder)
    found = repair(folder)
    assert [damage.line for damage in found.damaged] == [5]
    assert whole(folder) == expected
    assert garbage in (folder / ASIDE).read_bytes()
    aside = (folder / ASIDE).read_bytes()
    assert not repair(folder).changed
    assert (folder / ASIDE).read_bytes() == aside


def test_what_is_lost_is_said(folder, good, make_row):
    lines = list(good)
    lines[2] = lines[2].replace(b'"lr":0.1', b'"lr":0.')
    lines[11] = lines[11].replace(b'"macs":20', b'"macs":2x')
    lines[12] = lines[12].replace(b'"macs":20', b'"macs":2x')
    (folder / "journal.jsonl").write_bytes(b"".join([*lines, b"?\n", encode_record(make_row("c")), b'{"kind":"ro']))
    said = str(repair(folder))
    assert "line 3: epoch 2 of trial a (" in said
    assert "line 12: a row of trial b, größe 大, seed 1; the next run trains it again (" in said
    assert "line 13: a row of trial c, größe 大, seed 0; another row of it is there (" in said
    assert "line 14: nothing of it can be read (" in said
    assert "line 16: nothing of it can be read (cut short)" in said
    assert [row.trial for row in read(folder).rows] == ["a", "c"]


def test_two_writers_that_interleaved_lose_nothing(folder, good):
    path = folder / "journal.jsonl"
    path.write_bytes(b"".join(good))
    expected = sorted(map(str, whole(folder)[1]))
    for cut in range(1, len(good[2]) - 1, 7):
        head, tail = good[2][:cut], good[2][cut:]
        path.write_bytes(b"".join([*good[:2], head + good[3], tail, *good[4:]]))
        found = repair(folder)
        assert (found.damaged, found.recovered) == ((), 2)
        assert sorted(map(str, whole(folder)[1])) == expected


def test_a_record_behind_half_of_another_is_kept(folder, good):
    half = good[11][: len(good[11]) // 2]
    (folder / "journal.jsonl").write_bytes(b"".join([*good[:11], half + good[12]]))
    (damage,) = repair(folder).damaged
    assert (damage.line, damage.lost) == (12, "a row of an unknown trial; the next run trains it again")
    assert [row.trial for row in read(folder).rows] == ["a", "c"]


def test_random_damage_loses_no_line_that_it_did_not_touch(folder, good):
    draws = random.Random(11)
    path = folder / "journal.jsonl"
    for _ in range(200):
        lines = [bytearray(line) for line in good]
        touched = draws.sample(range(len(lines)), draws.randrange(1, 4))
        for place in touched:
            for _ in range(draws.randrange(1, 5)):
                lines[place][draws.randrange(len(lines[place]))] = draws.randrange(256)
        path.write_bytes(b"".join(lines))
        repair(folder)
        left = path.read_bytes().splitlines(keepends=True)
        # A touched newline makes one line of two, of which the second is found again if the first is not whole.
        glued = {place + 1 for place in touched if lines[place][-1:] != b"\n"}
        assert all(good[i] in left for i in range(len(good)) if i not in touched and i not in glued)
        read(folder)
        assert not repair(folder).changed


def test_a_line_that_does_not_end_is_not_read_whole(folder, good, monkeypatch):
    monkeypatch.setattr("pyconv_search.results.records.MOST_LINE", 1 << 16)
    path = folder / "journal.jsonl"
    path.write_bytes(b"".join([good[0], b"x" * 300_000 + b"\n", b"\0" * 300_000 + good[1], *good[2:]]))
    with pytest.raises(UserError, match=r"journal\.jsonl:2: damaged line"):
        read(folder)
    assert len(repair(folder).damaged) == 1
    assert path.read_bytes() == b"".join(good)
    assert b"x" * 300_000 in (folder / ASIDE).read_bytes()


def test_a_repair_that_is_broken_off_is_done_by_the_next(folder, good, monkeypatch):
    path = folder / "journal.jsonl"
    path.write_bytes(b"".join([*good, b"?\n"]))
    replace = files.replace

    def killed(target: Path, content: bytes) -> Path:
        if target == path:
            raise KeyboardInterrupt
        return replace(target, content)

    monkeypatch.setattr(files, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        repair(folder)
    monkeypatch.undo()
    assert path.read_bytes() == b"".join([*good, b"?\n"])
    repair(folder)
    assert path.read_bytes() == b"".join(good)
    assert (folder / ASIDE).read_bytes().count(b"\n?\n") == 1


def test_what_is_no_run_and_what_is_being_written_is_left_alone(folder, tmp_path_factory, good):
    with pytest.raises(UserError, match=r"holds no journal\.jsonl"):
        repair(tmp_path_factory.mktemp("empty"))
    (folder / "journal.jsonl").write_bytes(b"?\n")
    with Journal(folder), pytest.raises(UserError, match="another run is writing here"):
        repair(folder)
    assert (folder / "journal.jsonl").read_bytes() == b"?\n"


def test_a_damaged_study_is_said(folder, good):
    (folder / "journal.jsonl").write_bytes(b"".join(good))
    (folder / "study.json").write_text('{"format": 1, "na')
    assert "study.json: is not JSON" in str(repair(folder))
    assert "writes it anew" in repair(folder).study


def test_a_row_that_is_there_twice_replaced_nothing(folder, good):
    (folder / "journal.jsonl").write_bytes(b"".join([*good, good[-1]]))
    assert read(folder).superseded == ()


def test_parts_that_killed_writers_left_are_removed_by_the_next(folder):
    code = "import os, signal, sys, pathlib\nfrom pyconv_search.results import files\n"
    code += "os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    code += "files.replace(pathlib.Path(sys.argv[1]) / 'rows.parquet', b'x')"
    assert subprocess.run([sys.executable, "-c", code, folder], check=False).returncode == -signal.SIGKILL
    (dead,) = folder.glob(".rows.parquet.*.part")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    others = [
        folder / f".rows.parquet.{child.pid}.part",  # Its writer runs.
        folder / f".rows.parquet.0000abcd-{gone.pid}.part",  # Of another machine.
        folder / f".epochs.parquet.{gone.pid}.part",  # Of another file.
        folder / f".rows.parquet.{gone.pid}.part.bak",
    ]
    for path in (*others, folder / f".rows.parquet.{gone.pid}.part"):
        path.write_bytes(b"")
    try:
        files.replace(folder / "rows.parquet", b"y")
    finally:
        child.kill()
        child.wait()
    assert not dead.exists()
    assert sorted(folder.glob(".*.part*")) == sorted(others)
    assert (folder / "rows.parquet").read_bytes() == b"y"
