"""The page: whole in itself, inert to what labels hold, and complete."""

from __future__ import annotations

import base64
import csv
import errno
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pyconv_search.errors import UserError
from pyconv_search.report.digest import digest
from pyconv_search.report.page import render, write_report
from pyconv_search.results.store import read

VOID = {"meta", "link", "br", "input", "img"}


class Page(HTMLParser):
    """Elements with their attributes, the visible text, the tables by id, and whether every element was closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.words: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.table = ""
        self.feed(html)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "table":
            self.table = dict(attrs).get("id") or f"table {len(self.tables)}"
            self.tables[self.table] = []
        if tag == "tr":
            self.tables[self.table].append([])
        if tag in ("td", "th"):
            self.tables[self.table][-1].append("")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] not in ("style", "script"):
            self.words.append(data)
            if self.stack[-1] in ("td", "th"):
                self.tables[self.table][-1][-1] += data.strip()


def page(folder: Path) -> Page:
    found = Page(render(read(folder)))
    assert not found.stack
    return found


def test_the_verdict_is_the_digest(whole):
    d, found = digest(read(whole)), page(whole)
    s, t = d.selected.summary, d.selected.test_summary
    assert f"{s.mean:.2f} ± {s.half_width:.2f} % (mean ± 95 % t interval, 3 seeds)".replace("  ", " ") in re.sub(
        r" \(", " (", found.text
    )
    assert f"{t.mean:.2f} ± {t.half_width:.2f} %" in found.text
    assert "levels 5,4,3,2 has the lowest mean validation top-1 error of the 3 architectures" in found.text
    assert "74.0 MMACs per image and 306 k parameters" in found.text
    assert "15 of 15 trials finished: 13 complete, 1 stopped, 1 failed, 0 remaining." in found.text
    assert "winner’s curse" in found.text


def test_every_trial_of_the_journal_is_there(whole):
    found = page(whole)
    trials = {row.trial for row in read(whole).rows}
    assert {line[0] for line in found.tables["trials"][1:]} == trials
    assert {line[0] for line in found.tables["architectures"][1:]} == {row.name for row in read(whole).rows}
    failures = next(lines for name, lines in found.tables.items() if name.startswith("table"))
    assert {(line[0], line[3]) for line in failures[1:]} == {("0001-1", "failed"), ("0002-2", "stopped")}
    assert "out of memory" in found.text
    assert "CUDA out of memory" in found.text


def test_nothing_is_asked_of_any_other_place(whole):
    found = page(whole)
    references = [
        (tag, key, value)
        for tag, attributes in found.elements
        for key, value in attributes.items()
        if key in ("src", "href", "xlink:href", "action", "data", "poster", "srcset", "ping", "formaction")
    ]
    assert all(str(value).startswith(("#", "data:")) for _, _, value in references)
    style = "".join((Path(write_report.__code__.co_filename).parent / "templates/report.css").read_text().split())
    assert "url(" not in style
    assert "@import" not in style
    anchors = {value[1:] for tag, key, value in references if tag == "a" and value.startswith("#")}
    assert anchors <= {attributes.get("id") for _, attributes in found.elements}


def test_ids_are_unique(whole):
    ids = [a["id"] for _, a in page(whole).elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_the_policy_names_the_very_script_and_style(whole):
    html = render(read(whole))
    policy = next(a["content"] for t, a in Page(html).elements if a.get("http-equiv") == "Content-Security-Policy")
    expected = {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'", "img-src": "data:"}
    for tag in ("script", "style"):
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
        assert len(bodies) == 1
        digest_ = base64.b64encode(hashlib.sha256(bodies[0].encode()).digest()).decode()
        expected[f"{tag}-src"] = f"'sha256-{digest_}'"
    assert dict(part.split(" ", 1) for part in policy.split("; ")) == expected
    assert not any(key.startswith("on") or key == "style" for _, a in Page(html).elements for key in a)


def test_hostile_labels_are_inert(examples, tmp_path):
    h = examples.HOSTILE
    rows = [
        examples.row(a, s, name=h, trial=f"{h}{a}{s}", device=h, parameters={h: h}) for a in range(2) for s in range(2)
    ]
    rows.append(examples.failed(1, 2, detail=h + "\n" + h, name=h, trial=h, host=h))
    source = {"study": h, "space": h, "study_file": h, "space_file": h}
    space = {"name": h, "about": h, "parameters": {h: h}}
    data = {"name": h, "root": h, "validation": None, "about": h, "fingerprint": h}
    folder = examples.write(
        tmp_path / "run",
        rows,
        name=h,
        about=h,
        source=source,
        space=space,
        data=data,
        command=h,
        published=h,
        recipe={h: h},
    )
    html = render(read(folder))
    found = page(folder)
    assert [tag for tag, _ in found.elements].count("script") == 1
    assert not [a for tag, a in found.elements if tag == "img" or "onerror" in a]
    assert html.count("</script>") == 1
    assert h in "".join(found.words)


def test_each_network_is_drawn_once_and_its_row_leads_to_it(examples, tmp_path):
    found = page(examples.drawn(tmp_path / "run", [8, 16, 24]))
    assert "Every architecture of the table is drawn." in found.text
    anchors = [a["id"] for tag, a in found.elements if a.get("class") == "drawing"]
    links = [a["href"] for tag, a in found.elements if tag == "a" and a["href"].startswith("#network-")]
    assert len(set(anchors)) == 3
    assert sorted(links) == sorted(f"#{anchor}" for anchor in anchors)
    opened = [a for tag, a in found.elements if a.get("class") == "network"]
    assert ["open" in a for a in opened] == [True, False, False]
    for width in (8, 16, 24):
        assert f"5×5, {width // 2}, G=4" in found.text


def test_of_many_networks_the_page_draws_some_and_says_which(examples, tmp_path):
    folder = examples.drawn(tmp_path / "run", [8 * n for n in range(1, 21)])
    html, d = render(read(folder)), digest(read(folder))
    assert html.count('class="drawing"') == 12
    assert "Drawn are 12 of 20 architectures, 12 at most: the selected one, the baseline, the front" in html
    for c in (d.selected, d.baseline, *(c for c in d.candidates if c.arch_id in d.front)):
        assert f'id="network-{c.arch_id[:16]}"' in html
    assert len(html) < 1_000_000


def test_a_network_that_the_space_does_not_make_is_not_drawn(examples, tmp_path):
    other = examples.drawn(tmp_path / "a", [8, 16], source={"space": examples.SPACE.replace("kernel: 3", "kernel: 5")})
    assert 'class="drawing"' not in render(read(other))
    for i, source in enumerate(({}, {"space": "space: ["}, {"space": 7})):
        text = page(examples.drawn(tmp_path / f"b{i}", [8], source=source)).text
        assert "None is drawn: the folder of the run does not hold the space that makes these networks." in text


def test_a_run_that_is_going_on(examples, tmp_path):
    found = page(examples.write(tmp_path / "run", [examples.row(0, 0), examples.row(1, 0)]))
    assert "2 of 15 trials finished so far: 2 complete, 0 stopped, 0 failed, 13 remaining." in found.text
    assert "No architecture has all 3 seeds complete" in found.text
    assert "1 seed, no interval" in found.text
    assert "not resolved at n = 1" in found.text


def test_a_study_that_says_the_least(examples, tmp_path):
    folder = examples.write(tmp_path / "run", [examples.row(0, 0)], events=())
    least = {"format": 1, "name": "least", "seeds": [0], "objectives": {"loss": "min"}}
    least |= {key: {} for key in ("space", "data", "recipe", "search")}
    (folder / "study.json").write_text(json.dumps(least), encoding="utf-8")
    found = page(folder)
    assert "1 trial finished so far" in found.text
    assert "its validation loss is" in found.text
    assert "No start was recorded." in found.text


def test_an_interrupted_run(examples, tmp_path):
    found = page(examples.write(tmp_path / "run", [examples.row(0, 0)], events=("start", "interrupted")))
    assert "1 of 15 trials finished when the run was interrupted" in found.text
    assert "is the only architecture; its validation top-1 error is" in found.text


def test_before_any_trial_is_complete(examples, tmp_path):
    assert "No trial is complete yet" in page(examples.write(tmp_path / "a", [])).text
    found = page(examples.write(tmp_path / "b", [examples.failed(0, 0), examples.stopped(1, 0)]))
    assert "No trial is complete yet" in found.text
    assert "No complete trial to draw" in found.text
    assert len(found.tables["trials"]) == 3


def test_two_seeds_are_told_honestly(examples, tmp_path):
    rows = [
        examples.row(a, s, val_top1_error=v)
        for a, values in enumerate([(10.0, 11.0), (9.0, 10.9)])
        for s, v in enumerate(values)
    ]
    found = page(examples.write(tmp_path / "run", rows, seeds=[0, 1], planned=None, search={"kind": "tpe"}))
    assert "not resolved at n = 2" in found.text
    assert "4 trials finished so far: 4 complete" in found.text
    assert "None: no trial failed or was stopped." in found.text


def test_when_gmacs_is_no_objective(examples, tmp_path):
    rows = [examples.row(a, 0) for a in range(3)]
    found = page(examples.write(tmp_path / "run", rows, objectives={"top1_error": "min"}))
    assert "Pareto front" not in [w.strip() for w in found.words[: found.words.index("Accuracy against MACs")]]
    assert "MMACs per image (multiply-adds)" in found.text


def test_an_attempt_that_was_tried_again_is_not_lost(examples, tmp_path):
    rows = [examples.failed(0, 0, reason="lost", detail="node gone"), examples.row(0, 0)]
    found = page(examples.write(tmp_path / "run", rows))
    assert "1 row replaced when the trial was run again" in found.text
    assert "the worker process died" in found.text
    assert "1 of 15 trials finished so far: 1 complete, 0 stopped, 0 failed" in found.text


def test_the_csv_holds_every_row(whole):
    link = next(a["href"] for tag, a in page(whole).elements if a.get("download") == "rows.csv")
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(link.split(",")[1]).decode("utf-8"))))
    expected = read(whole).rows
    assert [row["trial"] for row in rows] == [row.trial for row in expected]
    assert [row["val_top1_error"] and float(row["val_top1_error"]) for row in rows] == [
        "" if row.val_top1_error is None else row.val_top1_error for row in expected
    ]


def test_no_cell_of_the_csv_is_computed_by_a_spreadsheet(examples, tmp_path):
    names = ["=1+1", "+cmd", "-x", "@SUM(A1)", "\tx", "levels 1", "-1.5"]
    rows = [examples.row(i, 0, name=name, val_loss=-0.25) for i, name in enumerate(names)]
    link = next(
        a["href"] for tag, a in page(examples.write(tmp_path / "run", rows)).elements if a.get("download") == "rows.csv"
    )
    found = list(csv.DictReader(io.StringIO(base64.b64decode(link.split(",")[1]).decode("utf-8"))))
    assert [row["name"] for row in found] == ["'=1+1", "'+cmd", "'-x", "'@SUM(A1)", "'\tx", "levels 1", "-1.5"]
    assert {row["val_loss"] for row in found} == {"-0.25"}


def test_reproduction_is_told(whole):
    found = page(whole)
    for text in (
        "study: PyConv levels, small",
        "space: pyramid",
        "2.59.1",
        "with uncommitted changes",
        "sha256:0f343b",
    ):
        assert text in found.text
    assert "0123456789abcdef0123456789abcdef01234567" in found.text
    assert "pyconv-search run studies/levels.yaml --out run" in found.text


def test_two_thousand_rows(examples, tmp_path):
    found = page(examples.large(tmp_path / "run"))
    assert len(found.tables["architectures"]) == len(found.tables["trials"]) == 2001


def test_the_page_is_the_same_each_time_and_from_a_copy(whole, tmp_path):
    first = write_report(whole).read_bytes()
    assert write_report(whole, tmp_path / "other.html").read_bytes() == first
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("study.json", "journal.jsonl"):
        (copy / name).write_bytes((whole / name).read_bytes())
    assert write_report(copy) == copy / "report.html"
    assert (copy / "report.html").read_bytes() == first


def test_what_cannot_be_written_is_told_and_the_old_page_stays(whole, tmp_path, monkeypatch):
    old = write_report(whole).read_bytes()
    with pytest.raises(UserError, match="not a plain file"):
        write_report(whole, tmp_path)
    with pytest.raises(UserError, match="cannot be written"):
        write_report(whole, tmp_path / "nowhere" / "report.html")
    with pytest.raises(UserError, match="not a plain file"):
        write_report(whole, "/dev/full")

    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(UserError, match=r"report\.html: cannot be written: No space left on device"):
        write_report(whole)
    assert (whole / "report.html").read_bytes() == old
    assert not list(whole.glob(".*.part"))


def test_a_link_is_followed(whole, tmp_path):
    target, link = tmp_path / "target.html", tmp_path / "link.html"
    link.symlink_to(target)
    write_report(whole, link)
    assert link.is_symlink()
    assert target.stat().st_size > 1000


def test_neither_torch_nor_ray_is_imported(whole):
    code = (
        "import sys; from pyconv_search.report.page import write_report; write_report(sys.argv[1]);"
        "print(sorted({'torch', 'ray', 'optuna', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run([sys.executable, "-c", code, whole], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "folder", sorted(p.parent for p in Path(__file__).parents[2].glob("reports/*/study.json")), ids=lambda p: p.name
)
def test_the_shipped_reports_can_be_made_again(folder, tmp_path):
    page = write_report(folder, tmp_path / "again.html").read_text()
    for row in read(folder).rows:
        assert row.arch_id[:8] in page
