"""The figures: their data is the rows', their text is text, and the same run gives the same bytes."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from pyconv_search.report.digest import digest
from pyconv_search.report.figures import curves, learning, points, tradeoff
from pyconv_search.results.store import read

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return ["".join(t.itertext()) for t in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_points_are_the_rows(whole):
    d = digest(read(whole))
    for point in points(d):
        own = [r for r in d.store.rows if r.name == point.name and r.status == "complete"]
        assert sorted(point.seeds) == sorted(r.val_top1_error for r in own)
        assert point.mean == pytest.approx(statistics.fmean(point.seeds))
        assert point.x == pytest.approx(own[0].macs / 1e6)
    assert [p.kind for p in points(d)].count("selected") == 1
    assert {p.name for p in points(d) if p.kind == "short"} == {"levels 2,2,2,1", "levels 3,3,2,1"}


def scale(ticks: list[float], labels: list[str], values: list[float]) -> np.ndarray:
    """Where ``values`` belong, from the ticks' places and their labels."""
    slope, offset = np.polyfit([float(label) for label in labels], ticks, 1)
    return slope * np.array(values) + offset


def test_marks_stand_where_their_values_are(whole):
    """The picture is read back: against the axes' own ticks and labels, each mean and each seed has a mark."""
    d = digest(read(whole))
    svg = ElementTree.fromstring(tradeoff(d))
    marks = [(float(u.get("x")), float(u.get("y"))) for u in svg.iter(f"{SVG}use")]
    left, bottom = min(x for x, _ in marks), max(y for _, y in marks)
    numbers = [t for t in svg.iter(f"{SVG}text") if re.fullmatch(r"[\d.]+", t.text)]
    below = [t.text for t in numbers if t.get("text-anchor") == "middle"]
    beside = [t.text for t in numbers if t.get("text-anchor") == "end"]
    shown = points(d)
    xs = scale([x for x, y in marks if y == bottom], below, [p.x for p in shown])
    for point, x in zip(shown, xs, strict=True):
        for y in scale([y for x_, y in marks if x_ == left], beside, [point.mean, *point.seeds]):
            assert any(abs(x - mx) < 0.01 and abs(y - my) < 0.01 for mx, my in marks), point


def test_curves_are_the_epochs(whole):
    d = digest(read(whole))
    found = curves(d)
    assert [curve.seed for curve in found] == [0, 1, 2]
    for curve in found:
        trial = next(r.trial for r in d.selected.rows if r.seed == curve.seed)
        own = [e for e in d.store.epochs if e.trial == trial]
        assert curve.epochs == tuple(range(1, 13))
        assert curve.val == tuple(e.val_top1_error for e in own)
        assert curve.train == tuple(e.train_top1_error for e in own)


@pytest.mark.parametrize("draw", [tradeoff, learning])
def test_the_same_run_gives_the_same_bytes_in_another_process(whole, draw):
    code = (
        "import sys; from pyconv_search.results.store import read; from pyconv_search.report.digest import digest;"
        f"from pyconv_search.report.figures import {draw.__name__} as draw;"
        "sys.stdout.reconfigure(encoding='utf-8'); sys.stdout.write(draw(digest(read(sys.argv[1]))))"
    )
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run([sys.executable, "-c", code, whole], cwd=root, capture_output=True, check=True, timeout=600)
    assert out.stdout.decode("utf-8") == draw(digest(read(whole)))


@pytest.mark.parametrize("draw", [tradeoff, learning])
def test_a_figure_is_accessible_and_obeys_a_strict_policy(whole, draw):
    svg = draw(digest(read(whole)))
    root = ElementTree.fromstring(svg)
    named = {e.get("id"): e for e in root.iter() if e.get("id")}
    title, description = (named[i] for i in root.get("aria-labelledby").split())
    assert root.get("role") == "img"
    assert title.text
    assert description.text
    assert not re.search(r"\sstyle=|<style|<script|\son\w+=", svg)
    assert all(i == root.get("id") or i.startswith(f"{root.get('id')}-") for i in named)
    used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)
    assert {a or b for a, b in used} <= named.keys()


def test_the_cost_axis_says_macs(examples, tmp_path, whole):
    assert "MMACs per image (multiply-adds)" in texts(tradeoff(digest(read(whole))))
    rows = [examples.row(a, 0, activations=[7, 990, 2][a]) for a in range(3)]
    for key, said in (
        ("macs", "MMACs per image (multiply-adds)"),
        ("params", "Parameters (thousands)"),
        ("activations", "Activations"),
        ("receptive_field", "Receptive field (pixels)"),
    ):
        folder = examples.write(tmp_path / key, rows, objectives={"top1_error": "min", key: "min"})
        found = digest(read(folder))
        assert said in texts(tradeoff(found))
        shown = {point.name: point.x for point in points(found)}
        factor = {"macs": 1e6, "params": 1e3}.get(key, 1)
        assert shown == {c.name: pytest.approx(getattr(c.first, key) / factor) for c in found.candidates}


def test_a_wide_range_of_costs_gets_a_log_axis(examples, tmp_path):
    rows = [examples.row(a, 0, macs=10 ** (8 + a)) for a in range(4)]
    labels = texts(tradeoff(digest(read(examples.write(tmp_path / "run", rows)))))
    assert {"0.1", "1", "10", "100"} <= set(labels)
    assert not any("$" in label for label in labels)


def test_labels_name_the_points_as_text(whole):
    labels = texts(tradeoff(digest(read(whole))))
    assert {"levels 5,4,3,2", "levels 4,3,2,1", "levels 1,1,1,1"} <= set(labels)


@pytest.mark.parametrize("name", ["$\\frac$", "</text><script>", "大きさ", "a\x00b\x1b", "x" * 500, " ", "\ud800"])
def test_any_name_can_be_drawn(examples, tmp_path, name):
    rows = [examples.row(a, seed, name=name) for a in range(2) for seed in range(2)]
    d = digest(read(examples.write(tmp_path / "run", rows)))
    for svg in (tradeoff(d), learning(d)):
        ElementTree.fromstring(svg)
        assert "<script" not in svg


def test_one_point_and_one_epoch(examples, tmp_path):
    folder = examples.write(tmp_path / "run", [examples.row(0, 0, epochs=1)])
    d = digest(read(folder))
    assert "1 seed" in learning(d)
    assert "levels 1,1,1,1" in texts(tradeoff(d))


def test_an_epoch_whose_loss_went_to_nan_leaves_a_gap(examples, tmp_path):
    folder = examples.write(tmp_path / "run", [examples.row(0, 0)])
    text = (folder / "journal.jsonl").read_text(encoding="utf-8")
    text = re.sub(r'"val_top1_error":[\d.]+', '"val_top1_error":"inf"', text, count=1)
    (folder / "journal.jsonl").write_text(text, encoding="utf-8")
    assert "nan" not in learning(digest(read(folder))).lower().replace("dominan", "")
