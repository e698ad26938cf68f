"""The drawings of networks: complete, true to the dilation matrix, inside their frame, the same each time."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from xml.etree import ElementTree

import pytest
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font

from pyconv_search.arch.cost import cost
from pyconv_search.arch.dilation import dilation_matrix
from pyconv_search.arch.network import parts
from pyconv_search.arch.presets import PRESETS, preset
from pyconv_search.arch.resnet import resnet
from pyconv_search.errors import UserError
from pyconv_search.report.drawing.anatomy import kernel_text, used
from pyconv_search.report.drawing.pen import dilation_colour, ink_on, kernel_face, luminance
from pyconv_search.report.drawing.picture import draw, write_drawing
from pyconv_search.units import quantity

FREE = {"stem": {"kernel": 3, "width": 16, "stride": 1, "pool": "none"}, "block": "bottleneck"}
SMALL = {**FREE, "depth": 29}
JOINT = {"levels": [4, 3, 2], "pattern": [[1, 2, 1, 4], [1, 2], [1, 2, 3], [2]], "split": "bottom-heavy", "width": 32}
DEEP = {
    **FREE,
    "block": "basic",
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
    "long pattern": resnet({**SMALL, "width": 64, "pattern": list(range(1, 41))}, (3, 96, 96), 10),
}
POLY_HEAD = {"kind": "pyconvph", "bins": 7, "auxiliary": False, "local_pyramid": {"levels": 2, "pattern": [1, 2]}}
HEADED = (
    *("resnet-50+conv3x3", "resnet-50+aspp", "ps-resnext-50-32x4d+aspp-os16", "resnet-50+ppm-os16"),
    *("pyconvresnet-50+pyconvph", "preact-resnet-50+pyconvph", "resnet-50+ssd", "pyconvresnet-50+pyconvssd"),
    *("ps-resnet-50+fpn", "preact-resnet-50+fpn", "pyconvinception+fpn", "iresnet-101+fpn", "resnet-20-cifar+fpn"),
)
# A depth more of a family draws the same kinds of parts.
KINDS = {
    **{name: preset(name) for name in (*PRESETS, *HEADED) if not re.search(r"-(101|152|32|44|56|110)(-|$)", name)},
    **{name: arch for name, arch in NETWORKS.items() if name not in PRESETS},
    "every field": resnet(
        {
            **SMALL,
            "form": "ires",
            "se": {"reduction": 4, "bias": True},
            "non_local": True,
            "levels": 2,
            "pattern": [1, 3],
        }
        | {"head": {"kind": "fpn", "first": 2, "extra": False}},
        (3, 64, 64),
        10,
    ),
    "video of every field": resnet(
        {"depth": 18, "form": "pre", "se": 8, "non_local": True, "levels": [3, 2, 1, 1], "stem": {"time_stride": 2}},
        (3, 16, 64, 64),
        10,
    ),
    "patterns in a head": resnet({"depth": 18, "pattern": [1, 2], "head": POLY_HEAD}, (3, 224, 224), 20),
}
SVG = "{http://www.w3.org/2000/svg}"


@functools.cache
def font(bold: bool) -> FT2Font:
    found = FT2Font(findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")))
    found.set_size(100, 72)
    return found


def text_width(words: str, size: float, bold: bool) -> float:
    """In DejaVu Sans, the widest of the usual sans-serif fonts."""
    font(bold).set_text(words)
    return font(bold).get_width_height()[0] / 64 * size / 100


class Drawing:
    """What a viewer sees: every text and every shape's corners in the coordinates of the whole drawing."""

    def __init__(self, svg: str) -> None:
        self.svg, self.root = svg, ElementTree.fromstring(svg)
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
        width = text_width(element.text, size, "font-weight" in values)
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
    return {name: Drawing(draw(arch, name)) for name, arch in KINDS.items()}


def traced_convolutions(arch) -> Counter[tuple[str, int, int]]:
    """(kernel, output channels, groups) of every convolution that a drawing shows, from the layers that costs count.

    Of each stage that is its first block. Of shortcuts it shows the layers without widths, of non-local blocks none.
    """
    found: Counter[tuple[str, int, int]] = Counter()
    for part in parts(arch):
        for unit in part.units:
            drawn = unit.names[0].split(".")
            if drawn[0] == "stages" and drawn[2] != "0":
                continue
            for layer in unit.layers:
                if layer.kind == "conv" and not layer.name.startswith("shortcut."):
                    groups = math.prod(layer.kernel) * layer.inputs[0].shape[0] // layer.fan_in
                    found["×".join(map(str, layer.kernel)), layer.output.shape[0], groups] += 1
    return found


@pytest.mark.parametrize("name", KINDS)
def test_every_part_convolution_and_cost_is_written(drawings, name):
    arch, words = KINDS[name], drawings[name].words
    count = Counter(words)
    for part in cost(arch).parts:
        title = part.name.capitalize().replace("Stage", "Stage ")
        assert count[title] == 1
        assert {quantity(part.params), quantity(part.macs)} <= set(words)
        if title != "Head":
            assert " × ".join(map(str, part.size)) in words
    labels = (re.match(r"(?:\w+: )?(\d+(?:×\d+)+), (\d+)(?:, G=(\d+))?(?:,|$)", w) for w in words)
    assert Counter((m[1], int(m[2]), int(m[3] or 1)) for m in labels if m) == traced_convolutions(arch)
    assert [w for w in words if w.startswith("× ")] == [f"× {s.blocks}" for s in arch.stages if s.blocks > 1]
    for stage, in_width in arch.walk():
        stride = f"{stage.time_stride}×{stage.stride}×{stage.stride}" if arch.dimensions == 3 else stage.stride
        assert f"{stage.block}, stride {stride}" in words or stage.block.startswith("inception")
        assert in_width == stage.out or any("1×1 conv" in w for w in words)
    assert count["non-local block"] == sum(stage.non_local for stage in arch.stages)
    assert sum(w.startswith("SE, r = ") for w in words) == sum(stage.se is not None for stage in arch.stages)
    dilations = [v.pattern for use in used(arch) for v in use.conv.levels if len(v.pattern) == 1 and v.pattern != (1,)]
    assert [w for w in words if w.startswith("dilation ")] == [f"dilation {d}" for (d,) in dilations]


@pytest.mark.parametrize("name", KINDS)
def test_nothing_overlaps_or_leaves_the_frame(drawings, name):
    """Widths are those of DejaVu Sans, the widest of the usual sans-serif fonts."""
    drawing = drawings[name]
    _, _, width, height = drawing.box
    assert width <= 1600
    for words, (x0, y0, x1, y1) in drawing.texts:
        assert x0 >= 0, words
        assert y0 >= 0, words
        assert x1 <= width, words
        assert y1 <= height, words
    assert all(0 <= x <= width and 0 <= y <= height for x, y in drawing.points)
    boxes = sorted(drawing.texts, key=lambda t: t[1][0])
    for i, (one, a) in enumerate(boxes):
        for other, b in boxes[i + 1 :]:
            if b[0] >= a[2]:
                break
            assert a[1] >= b[3] or b[1] >= a[3], (one, other)


@pytest.mark.parametrize("name", KINDS)
def test_no_text_runs_across_the_edge_of_a_box(drawings, name):
    for words, (x0, y0, x1, y1) in drawings[name].texts:
        for a0, b0, a1, b1 in drawings[name].rects:
            if x1 > a0 and x0 < a1 and y1 > b0 and y0 < b1:
                assert a0 <= x0 < x1 <= a1, (words, (a0, b0))
                assert b0 <= y0 < y1 <= b1, (words, (a0, b0))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet-50", ["1×1, 64", "BN, ReLU", "3×3, 64", "BN, ReLU", "1×1, 256", "BN", "ReLU"]),
        ("preact-resnet-50", ["BN, ReLU", "1×1, 64", "BN, ReLU", "3×3, 64", "BN, ReLU", "1×1, 256"]),
        ("iresnet-50", ["1×1, 64", "BN, ReLU", "3×3, 64", "BN, ReLU", "1×1, 256", "BN"]),
        ("se-resnet-50", ["1×1, 64", "BN, ReLU", "3×3, 64", "BN, ReLU", "1×1, 256", "BN", "SE, r = 16", "ReLU"]),
    ],
)
def test_a_block_has_its_form(drawings, name, expected):
    """He et al. 2016a, figure 5; 2016b, figure 4e; Duta et al. 2020 (iResNet), figure 1; Hu et al. 2018, figure 3."""
    texts = dict(reversed(drawings[name].texts))
    left, right = texts["Stage 1"][0], texts["Stage 2"][0]
    across = [(b[1], w) for w, b in drawings[name].texts if left + 38 < b[0] < right - 30]
    inside = sorted((y, w) for y, w in across if 140 < y < texts["parameters"][1])
    assert [w for _, w in inside if re.match(r"BN|ReLU|\d×\d,|SE", w)] == expected


def test_blocks_of_a_stage_that_differ_are_told_apart(drawings):
    """Duta et al. 2020 (Improved residual networks), section 3.1, for bottleneck blocks."""
    boxes = drawings["iresnet-50"].texts
    rows = {}
    for name in ("first block", "second block", "blocks between", "last block"):
        top = next(box[1] for words, box in boxes if words == name)
        rows[name] = [w for w, box in boxes if abs(box[1] - top) < 4 and w != name]
    middle = ["conv", "BN", "ReLU", "conv", "BN", "ReLU", "conv"]
    assert rows == {
        "first block": [*middle, "BN", "+"],
        "second block": ["ReLU", *middle, "+"],
        "blocks between": ["BN", "ReLU", *middle, "+"],
        "last block": ["BN", "ReLU", *middle, "+", "BN", "ReLU"],
    }
    assert not any(
        "Blocks of a stage" in drawings[n].words for n in ("resnet-50", "preact-resnet-50", "pyconvinception")
    )


@pytest.mark.parametrize(
    ("name", "taps", "told"),
    [
        ("resnet-50", [], ["1,000 classes"]),
        ("pyconvresnet-50+pyconvph", ["→ head, in training", "→ head"], ["150 × 473 × 473", "average to 9×9"]),
        ("resnet-50+ppm-os16", ["→ head, in training", "→ head"], ["average to 2×2", "average to 6×6"]),
        ("resnet-50+aspp", ["→ head, in training", "→ head"], ["3×3, 256, dilation 36", "reads stage 3"]),
        (
            "resnet-50+ssd",
            ["→ head"],
            ["8,732 boxes, 81 classes", "512 × 19 × 19", "256 × 1 × 1", "6 boxes a position"],
        ),
        ("ps-resnet-50+fpn", ["→ head"] * 4, ["256 × 200 × 336", "256 × 25 × 42", "256 × 13 × 21"]),
        ("pyconvinception+fpn", ["→ head"] * 3, ["FPN, reads stages 1–3"]),
        ("patterns in a head", ["→ head"], ["3×3 in stages 1–4, head"]),
        ("video of every field", [], ["stride 2×2×2", "1×3×3 max pool, /1×2×2", "10 classes"]),
    ],
)
def test_a_head_and_what_it_reads_are_shown(drawings, name, taps, told):
    """The sizes are those of Liu et al. 2016, figure 2, and those of the images divided by 4, 8, 16, 32 and 64."""
    words = drawings[name].words
    assert [w for w in words if w.startswith("→ head")] == taps
    assert set(told) <= set(words)


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
    arch = resnet({**FREE, "blocks": [2], "stages": [{}], "width": 16, **settings}, (3, 8, 8), 10)
    outputs, inputs, groups = shown
    matrix = dilation_matrix(
        inputs, outputs, arch.stages[0].conv.levels[0].pattern, settings.get("axes", "both"), groups
    )
    assert lattices(Drawing(draw(arch))) == {"A": [[dilation_colour(rate) for rate in row] for row in matrix]}


@pytest.mark.parametrize("name", KINDS)
def test_every_rate_is_in_the_legend_and_equal_lattices_are_drawn_once(drawings, name):
    arch, drawing = KINDS[name], drawings[name]
    rates: set[int] = set()
    patterned = 0
    for use in used(arch):
        for v in use.conv.levels:
            if v.pattern != (1,):
                rates.update(*dilation_matrix(use.in_width, v.width, v.pattern, v.axes, v.groups))
            patterned += len(v.pattern) > 1
    assert [w for w in drawing.words if w.startswith("d = ")] == [f"d = {rate}" for rate in sorted(rates)]
    found = lattices(drawing)
    assert {fill for rows in found.values() for row in rows for fill in row} <= {dilation_colour(r) for r in rates}
    assert len(set(map(str, found.values()))) == len(found)
    uses = Counter(word for word in drawing.words if word in found)
    assert sum(uses.values()) == patterned + len(found)
    assert all(n > 1 for n in uses.values())
    if name.startswith("ps-") and "aspp" not in name:
        assert list(found) == ["A"]
        assert f"3×3 in stages 1–{len(arch.stages)}" in drawing.words


def test_the_colours_go_from_light_to_dark_and_carry_their_digits():
    colours = [dilation_colour(rate) for rate in range(1, 17)]
    light = [luminance(colour) for colour in colours]
    assert light == sorted(light, reverse=True)
    assert len(set(colours)) == 16
    for colour in colours:
        pair = sorted((luminance(colour), luminance(ink_on(colour))))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5


@pytest.mark.parametrize("name", KINDS)
def test_it_is_the_same_each_time_and_has_no_ids_to_clash(drawings, name):
    assert draw(KINDS[name], name) == drawings[name].svg
    found = list(drawings[name].root.iter())
    assert not [e for e in found if {"id", "style", "class"} & set(e.attrib) or e.tag.endswith(("style", "script"))]
    assert [e.tag for e in found[1:3]] == [f"{SVG}title", f"{SVG}desc"]
    assert len(found[2].text) > 100


def test_a_name_of_any_characters_is_escaped():
    assert ElementTree.fromstring(draw(KINDS["resnet-18"], '<&\x00">'))[0].text.startswith("<&")


def test_a_kernel_in_time_has_its_label():
    assert kernel_text(3) == "3×3"
    assert kernel_text(3, 3) == "3×3×3"
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
