"""The table of published networks, and one network drawn."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pyconv_search.arch.cost import cost
from pyconv_search.arch.presets import preset
from pyconv_search.arch.published.networks import Counts, network_rows
from pyconv_search.arch.resnet import resnet
from pyconv_search.cli.catalogue import judged, network_text, networks_dict, networks_text
from pyconv_search.cli.costs import cost_text

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
    assert "3 × bottleneck, stride 2, shortcut max+conv" in lines[first]
    expected = [("9×9", 9, 16, 16, 4, 1), ("7×7", 7, 16, 8, 8, 2), ("5×5", 5, 16, 4, 16, 4), ("3×3", 3, 16, 1, 64, 16)]
    for line, (size, side, width, groups, depth, bar) in zip(lines[first + 1 :], expected, strict=False):
        words = line.split()
        assert (words[0], words[1], int(words[2]), int(words[4])) == (size, "█" * side, width, groups)
        assert words[6:] == ["depth", str(depth), "█" * bar]
    assert len({line.index("depth") + len("depth 64") for line in lines[first + 3 : first + 5]}) == 1
    assert sum(" levels" in line or "×" in line for line in lines) == 1 + 6 + 10
    params = [float(line.split(" M params")[0].split()[-1]) for line in lines if line.startswith(("st", "head"))]
    assert sum(params) == pytest.approx(cost(arch).params / 1e6, abs=0.003)


def test_patterns_and_time_are_told() -> None:
    arch = resnet({"depth": 50, "pattern": [1, 2, 1, 4], "axes": "input"}, (3, 224, 224), 1000)
    assert network_text("n", arch, cost(arch)).count("dilations {1,2,1,4}, axes input") == 4


def test_of_video_kernels_have_three_sides_and_costs_stand_below_each_other() -> None:
    arch = preset("pyconvresnet3d-50")
    lines = network_text("n", arch, cost(arch)).splitlines()
    assert [line.split()[0] for line in lines if "█" in line][:4] == ["7×9×9", "5×7×7", "3×5×5", "3×3×3"]
    assert len({line.index(" GMACs") for line in lines[2:] if " GMACs" in line}) == 1
    table = cost_text("n", arch, cost(arch), 1, "float32")
    assert "level 1  3×3×3, 16, G=1" in table
