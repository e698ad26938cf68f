"""The table of published networks, and one network drawn."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pyconv_search.arch.cost import cost
from pyconv_search.arch.presets import preset
from pyconv_search.arch.published.networks import Counts, network_rows
from pyconv_search.arch.resnet import resnet
from pyconv_search.cli.catalogue import judged, networks_dict, networks_text
from pyconv_search.cli.layers import network_text

PYCONV = {"depth": 50, "levels": [4, 3, 2, 1], "stem": {"pool": "none"}, "shortcut": "max+conv"}


def as_printed(name: str, size: tuple[int, ...] | None) -> Counts:
    """A cost that is what the papers print under each convention, but for one network."""
    rows = [row for row in network_rows() if (row.network, row.input) == (name, size)]
    finest = min((row.params for row in rows if row.params), key=lambda n: n.as_tuple().exponent, default=5)
    by = {row.convention: int(row.gflops * 10**9) for row in rows if row.gflops}
    more = 460_000 if name == "pyconvresnet3d-50" else 0
    return SimpleNamespace(params=int(finest * 10**6) + more, macs=by.get("macs", 0), thop=by.get("thop-2019", 0))


@pytest.fixture(scope="module")
def found() -> list:
    return judged(network_rows(), as_printed)


def test_the_last_line_counts(found: list) -> None:
    lines = networks_text(found).splitlines()
    differing = [(row.row, str(said.params)) for row, said in found if said.word == "differs"]
    assert differing == [("PyConvResNet3D-50", "45.37")]
    assert lines[-1] == "64 of 66 printed rows match to every digit; 1 differs; 1 ours; 14 not printed"


def test_every_row_and_note_is_in_the_text(found: list) -> None:
    text = networks_text(found)
    for row, said in found:
        assert any(
            line.strip().startswith(row.row) and row.network in line and said.word in line for line in text.splitlines()
        )
        assert row.note in text
    assert text.count("(GFLOPs: macs)") == 3
    line = next(line for line in text.splitlines() if "pyconvresnet3d-50" in line)
    assert line.split()[2:7] == ["44.91", "45.37", "91.81", "91.81", "differs"]
    assert "at 3×320×320" in text


def test_the_same_as_plain_values(found: list) -> None:
    values = networks_dict(found)
    assert (values["rows"], values["printed"], values["not_printed"], values["ours"]) == (80, 66, 14, 1)
    first = values["networks"][0]
    assert first["params_millions"] == {"printed": "25.56", "computed": "25.56"}
    assert values["networks"][-1]["gflops"] == {"printed": None, "computed": "0.000"}
    assert sum(values[key] for key in ("match", "differs", "ours", "not_printed")) == 80


def test_each_network_is_counted_once() -> None:
    asked = []
    judged(network_rows(), lambda *place: asked.append(place) or as_printed(*place))
    assert len(asked) == len(set(asked)) == len({(row.network, row.input) for row in network_rows()})


def test_a_network_is_drawn_to_scale() -> None:
    arch = resnet(PYCONV, (3, 224, 224), 1000)
    text = network_text("pyconvresnet-50", arch, cost(arch))
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("stage1"))
    assert "3 × bottleneck, stride 2, shortcut max pool, 1×1 conv" in lines[first]
    expected = [("9×9", 9, 16, 16, 4, 1), ("7×7", 7, 16, 8, 8, 2), ("5×5", 5, 16, 4, 16, 4), ("3×3", 3, 16, 1, 64, 16)]
    for line, (size, side, width, groups, depth, bar) in zip(lines[first + 1 :], expected, strict=False):
        words = line.split()
        assert (words[0], words[1], int(words[2]), int(words[4])) == (size, "█" * side, width, groups)
        assert words[6:] == ["depth", str(depth), "█" * bar]
    assert len({line.index("depth") + len("depth 64") for line in lines[first + 3 : first + 5]}) == 1
    assert sum(" levels" in line or "×" in line for line in lines) == 1 + 6 + 10
    told = [line.split(" params ")[0].split()[-2:] for line in lines if line.startswith(("st", "head"))]
    params = [float(amount) * {"k": 1e3, "M": 1e6}[prefix] for amount, prefix in told]
    assert sum(params) == pytest.approx(cost(arch).params, rel=0.0005)


def test_patterns_and_time_are_told() -> None:
    arch = resnet({"depth": 50, "pattern": [1, 2, 1, 4], "axes": "input"}, (3, 224, 224), 1000)
    assert network_text("n", arch, cost(arch)).count("dilations {1,2,1,4}, axes input") == 4


@pytest.mark.parametrize(
    ("name", "told", "levels"),
    [
        ("preact-resnet-50", ["pre-activation", "final    2048×7×7      BN, ReLU"], 4),
        ("iresnet-50", ["improved residual blocks"], 4),
        ("nl-resnet-50", ["stride 1, shortcut 1×1 conv, then non-local"], 4),
        ("ps-se-resnet-50", ["shortcut 1×1 conv, SE, r = 16, biased", "dilations {1,2,1,4}, axes both"], 4),
        ("drn-a-50", ["dilation 2\n", "dilation 4\n"], 4),
        ("pyconvresnet3d-50", ["stride 2×2×2", "  7×9×9  █████████  ", "  3×3×3     ███     512"], 10),
        ("resnet3d-50", ["5×7×7 convolution, stride 1×2×2, then 1×3×3 max pooling"], 4),
        ("inception-resnet-v2", ["10 × inception-a ", "1×1, 48 → 5×5, 64;", "1×7, 160 → 7×1, 192; concatenated"], 0),
        (
            "pyconvinception",
            ["20 × bottleneck ", "transition: 3×3, 384, /2 V;", "final    1536×8×8      1×1, 1536 "],
            8,
        ),
        ("resnet-50+aspp", ["ASPP, reads stage 4, in training stage 3 too", "3×3 of dilation 12, 24, 36;"], 4),
        ("resnet-50+ppm-os16", ["averages to 1×1, 2×2, 3×3, 6×6, each 1×1 to 512"], 4),
        (
            "pyconvresnet-50+pyconvph",
            ["stride 1, shortcut max pool, 1×1 conv", "local: 1×1 to 512", "averages to 9×9", "on stage 3: 3×3"],
            18,
        ),
        ("pyconvresnet-50+pyconvssd", ["38×38 features: 4 boxes", "stride 2 to 512×19×19: 6 boxes", "8732 boxes"], 20),
        ("ps-resnet-50+fpn", ["FPN, reads stages 1–4", "puts out 256×200×336, 256×100×168, "], 4),
    ],
)
def test_every_part_is_told(name: str, told: list[str], levels: int) -> None:
    arch = preset(name)
    text = network_text(name, arch, cost(arch))
    assert [words for words in told if words not in text] == []
    assert text.count(" depth ") == levels
    assert not set(text) & set("{[") - ({"{"} if name.startswith("ps-") else set())
    costs = [line for line in text.splitlines()[2:] if line.endswith("MACs")]
    assert len({len(line) for line in costs}) == 1
    assert len(costs) == len(cost(arch).parts)
