"""The drawings of networks: complete, true to the dilation matrix, inside their frame, the same each time."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree

import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from pyconv_search.arch.blocks import main_branch
from pyconv_search.arch.cost import cost
from pyconv_search.arch.dilation import dilation_matrix
from pyconv_search.arch.presets import preset
from pyconv_search.arch.resnet import resnet
from pyconv_search.errors import UserError
from pyconv_search.report.drawing import draw, si, write_drawing
from pyconv_search.report.pen import dilation_colour, ink_on, kernel_face, kernel_text, luminance

SMALL = {"stem": {"kernel": 3, "width": 16, "stride": 1, "pool": "none"}, "block": "bottleneck", "depth": 29}
JOINT = {"levels": [4, 3, 2], "pattern": [[1, 2, 1, 4], [1, 2], [1, 2, 3], [2]], "split": "bottom-heavy", "width": 32}
DEEP = {
    **SMALL,
    "block": "basic",
    "depth": None,
    "blocks": [1, 2, 1, 2, 1],
    "stages": [{}] * 5,
    "levels": [6, 4, 3, 2, 1],
}
NETWORKS = {
    **{
        name: preset(name)
        for name in ("resnet-50", "pyconvresnet-50", "ps-resnet-50", "ps-resnext-50-32x4d", "resnet-20-cifar")
    },
    **{name: preset(name) for name in ("resnext-50-32x4d", "pyconvresnet-18")},
    "joint": resnet({**SMALL, **JOINT, "shortcut": "max+conv"}, (3, 32, 32), 10),
    "depthwise": resnet(
        {**SMALL, "width": 16, "stages": [{"groups": 16 * 2**i} for i in range(3)], "pattern": [1, 9]}, (3, 32, 32), 10
    ),
    "output axis": resnet(
        {**SMALL, "levels": 6, "width": 64, "pattern": [1, 2, 4, 8, 16], "axes": "output"}, (3, 32, 32), 100
    ),
    "five stages": resnet({**DEEP, "width": 64, "shortcut": "max+conv"}, (1, 64, 64), 2),
    "attention and a form": resnet(
        {**SMALL, "form": "pre", "se": 4, "non_local": True, "head": "fpn"}, (3, 32, 32), 10
    ),
    "long pattern": resnet({**SMALL, "width": 64, "pattern": list(range(1, 41))}, (3, 96, 96), 10),
}
SVG = "{http://www.w3.org/2000/svg}"


class Drawing:
    """What a viewer sees: every text and every shape's corners in the coordinates of the whole drawing."""

    def __init__(self, svg: str) -> None:
        self.root = ElementTree.fromstring(svg)
        self.texts: list[tuple[str, tuple[float, float, float, float]]] = []
        self.points: list[tuple[float, float]] = []
        self.rects: list[tuple[float, float, float, float]] = []
        self._walk(self.root, 0.0, 0.0, {})
        self.box = tuple(map(float, self.root.attrib["viewBox"].split()))

    def _walk(self, element, x, y, inherited):
        values = inherited | element.attrib
        moved = re.match(r"translate\(([-\d.]+) ([-\d.]+)\)", element.attrib.get("transform", ""))
        if moved:
            x, y = x + float(moved[1]), y + float(moved[2])
        name = element.tag.removeprefix(SVG)
        if name == "text":
            self.texts.append((element.text, self._text_box(element, values, x, y)))
        numbers = {
            k: float(v) for k, v in element.attrib.items() if k in ("x", "y", "width", "height", "cx", "cy", "r")
        }
        if name == "rect":
            left, top = x + numbers["x"], y + numbers["y"]
            self.rects.append((left, top, left + numbers["width"], top + numbers["height"]))
            self.points += [self.rects[-1][:2], self.rects[-1][2:]]
        elif name == "circle":
            self.points += [
                (x + numbers["cx"] + i * numbers["r"], y + numbers["cy"] + i * numbers["r"]) for i in (-1, 1)
            ]
        elif name in ("polygon", "path"):
            found = re.findall(r"(-?[\d.]+)[ ,](-?[\d.]+)", element.attrib["points" if name == "polygon" else "d"])
            self.points += [(x + float(a), y + float(b)) for a, b in found]
        for child in element:
            self._walk(
                child, x, y, {k: v for k, v in values.items() if k in ("font-size", "text-anchor", "font-weight")}
            )

    def _text_box(self, element, values, x, y):
        size = float(values["font-size"])
        bold = FontProperties(family="DejaVu Sans", weight="bold" if "font-weight" in values else "normal")
        width = TextPath((0, 0), element.text, size=size, prop=bold).get_extents().width
        left = float(element.attrib["x"]) - {"middle": width / 2}.get(values.get("text-anchor"), 0.0)
        base = float(element.attrib["y"])
        if "rotate" in element.attrib.get("transform", ""):
            return x + left - 0.75 * size, y + base - width, x + left, y + base
        return x + left, y + base - 0.75 * size, x + left + width, y + base

    @property
    def words(self) -> list[str]:
        return [words for words, _ in self.texts]


@pytest.fixture(scope="module")
def drawings():
    return {name: Drawing(draw(arch, name)) for name, arch in NETWORKS.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_stage_level_group_and_cost_is_written(drawings, name):
    arch, words = NETWORKS[name], drawings[name].words
    count = Counter(words)
    for part in cost(arch).parts:
        title = part.name.capitalize().replace("Stage", "Stage ")
        assert count[title] == 1
        assert {si(part.params), si(part.macs)} <= set(words)
        if title != "Head":
            assert "{} × {} × {}".format(*part.size) in words
    expected = Counter()
    for stage, in_width in arch.walk():
        for use in main_branch(stage, in_width, first=True):
            for v in use.conv.levels:
                plain = len(use.conv.levels) == 1 and v.groups == 1
                expected[f"{v.kernel}×{v.kernel}, {v.width}" + ("" if plain else f", G={v.groups}")] += 1
        assert f"{stage.block}, stride {stage.stride}" in words
    expected[f"{arch.stem.kernel}×{arch.stem.kernel}, {arch.stem.width}"] += 1
    assert {label: count[label] for label in expected} == expected
    assert [w for w in words if w.startswith("× ")] == [f"× {s.blocks}" for s in arch.stages if s.blocks > 1]


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_overlaps_or_leaves_the_frame(drawings, name):
    """Widths are those of DejaVu Sans, the widest of the usual sans-serif fonts."""
    drawing = drawings[name]
    _, _, width, height = drawing.box
    for words, (x0, y0, x1, y1) in drawing.texts:
        assert x0 >= 0, words
        assert y0 >= 0, words
        assert x1 <= width, words
        assert y1 <= height, words
    assert all(0 <= x <= width and 0 <= y <= height for x, y in drawing.points)
    boxes = sorted(drawing.texts, key=lambda t: t[1][0])
    for i, (one, a) in enumerate(boxes):
        for other, b in boxes[i + 1 :]:
            assert not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]), (one, other)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_text_runs_across_the_edge_of_a_box(drawings, name):
    for words, (x0, y0, x1, y1) in drawings[name].texts:
        for a0, b0, a1, b1 in drawings[name].rects:
            apart = x1 <= a0 or x0 >= a1 or y1 <= b0 or y0 >= b1
            inside = a0 <= x0 and x1 <= a1 and b0 <= y0 and y1 <= b1
            assert apart or inside, (words, (a0, b0))


def lattices(drawing: Drawing) -> dict[str, list[list[str]]]:
    """The colours of each lattice's cells, row by row, as they lie on the page."""
    found = {}
    for group in drawing.root.iter(f"{SVG}g"):
        if "data-lattice" in group.attrib:
            rows: dict[float, list[tuple[float, str]]] = {}
            for cell in group.find(f"{SVG}g").findall(f"{SVG}rect"):
                rows.setdefault(float(cell.attrib["y"]), []).append((float(cell.attrib["x"]), cell.attrib["fill"]))
            found[group.attrib["data-lattice"]] = [[fill for _, fill in sorted(rows[y])] for y in sorted(rows)]
    return found


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"pattern": [1, 2, 1, 4]}, (8, 8, 1)),
        ({"pattern": [1, 2, 1, 4], "axes": "input"}, (8, 8, 1)),
        ({"pattern": [1, 2, 4], "axes": "output"}, (6, 6, 1)),
        ({"pattern": [1, 2, 1, 4], "groups": 4}, (8, 8, 2)),
        ({"pattern": [1, 2, 1, 4], "groups": 8}, (4, 4, 2)),
        ({"pattern": [1, 2, 1, 4], "groups": 16}, (8, 8, 8)),
        ({"pattern": [1, 3], "groups": 16}, (4, 4, 4)),
    ],
)
def test_the_cells_are_those_of_the_dilation_matrix(settings, shown):
    """One stage of width 16, so that the expected corner (outputs, inputs, groups) can be counted by hand."""
    arch = resnet({**SMALL, "depth": None, "blocks": [2], "stages": [{}], "width": 16, **settings}, (3, 8, 8), 10)
    outputs, inputs, groups = shown
    matrix = dilation_matrix(
        inputs, outputs, arch.stages[0].conv.levels[0].pattern, settings.get("axes", "both"), groups
    )
    assert lattices(Drawing(draw(arch))) == {"A": [[dilation_colour(rate) for rate in row] for row in matrix]}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_rate_is_in_the_legend_and_equal_lattices_are_drawn_once(drawings, name):
    arch, drawing = NETWORKS[name], drawings[name]
    rates: set[int] = set()
    patterned = 0
    for stage, in_width in arch.walk():
        for use in main_branch(stage, in_width, first=True):
            for v in use.conv.levels:
                matrix = dilation_matrix(use.in_width, v.width, v.pattern, v.axes, v.groups)
                rates |= set().union(*matrix) if v.pattern != (1,) else set()
                patterned += len(v.pattern) > 1
    assert [w for w in drawing.words if w.startswith("d = ")] == [f"d = {rate}" for rate in sorted(rates)]
    found = lattices(drawing)
    assert {fill for rows in found.values() for row in rows for fill in row} <= {dilation_colour(r) for r in rates}
    assert len(set(map(str, found.values()))) == len(found)
    uses = Counter(word for word in drawing.words if word in found)
    assert sum(uses.values()) == patterned + len(found)
    assert all(n > 1 for n in uses.values())
    if name.startswith("ps-"):
        assert list(found) == ["A"]
        assert "3×3 in stages 1–4" in drawing.words


def test_the_colours_go_from_light_to_dark_and_carry_their_digits():
    colours = [dilation_colour(rate) for rate in range(1, 17)]
    light = [luminance(colour) for colour in colours]
    assert light == sorted(light, reverse=True)
    assert len(set(colours)) == 16
    for colour in colours:
        pair = sorted((luminance(colour), luminance(ink_on(colour))))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("inception-resnet-v2", {"3 branches, concatenated": 1, "2 branches, concatenated": 2, "Final": 1, "1×1, 1536": 1, "3×3 max pool": 2}),
        ("pyconvinception", {"3×3 max pool": 2, "global average pool": 1}),
        ("se-resnet-50", {"squeeze-excite, 1/16": 4, "Final": 0}),
        ("nl-resnet-50", {"non-local block, once": 4}),
        ("preact-resnet-50", {"norm, ReLU": 1}),
        ("resnet-50+ssd", {"ssd": 1, "global average pool": 0}),
        ("ps-resnet-50+pyconvph", {"pyconvph": 1, "global average pool": 0}),
    ],
)  # fmt: skip
def test_what_is_no_plain_residual_classifier_is_shown(name, words):
    shown = Counter(Drawing(draw(preset(name))).words)
    assert {word: shown[word] for word in words} == words


def test_it_is_the_same_each_time_and_has_no_ids_to_clash():
    for arch in NETWORKS.values():
        svg = draw(arch, '<&\x00">')
        assert draw(arch, '<&\x00">') == svg
        found = list(ElementTree.fromstring(svg).iter())
        assert not [e for e in found if {"id", "style", "class"} & set(e.attrib) or e.tag.endswith(("style", "script"))]
        assert found[1].tag == f"{SVG}title"
        assert found[2].tag == f"{SVG}desc"
        assert len(found[2].text) > 100


def test_a_kernel_in_time_has_its_label():
    assert kernel_text(3) == "3×3"
    assert kernel_text(3, 3) == "3×3×3"
    words = Drawing(draw(preset("pyconvresnet3d-50"))).words
    assert {"3×3×3, 16, G=1", "7×9×9, 16, G=16", "1×1×1, 256", "5×7×7, 64"} <= set(words)
    assert not [word for word in words if word.startswith(("1×1,", "3×3,"))]
    assert kernel_text((1, 7, 5)) == "1×7×5"
    assert kernel_face((1, 7, 5)) == (7, 5)


def test_it_is_written_whole_and_only_as_svg(tmp_path):
    path = write_drawing(preset("resnet-50"), tmp_path / "a.svg", "A")
    assert path.read_text(encoding="utf-8") == draw(preset("resnet-50"), "A")
    with pytest.raises(UserError, match=r"a\.png: must end in \.svg"):
        write_drawing(preset("resnet-50"), tmp_path / "a.png")
    with pytest.raises(UserError, match="cannot be written"):
        write_drawing(preset("resnet-50"), tmp_path / "none" / "a.svg")
    assert [p.name for p in tmp_path.iterdir()] == ["a.svg"]
