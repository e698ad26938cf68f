"""The benchmark of the operators: plain implementations that compute what they stand for, tables that can be printed."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from benchmarks import networks, ops
from benchmarks.plain import PlainPyConv2d, made_plain, plain
from pyconv_search.arch.plans.operators import named
from pyconv_search.arch.presets import preset
from pyconv_search.models import build
from pyconv_search.ops import build_conv
from pyconv_search.ops.bench import Place
from pyconv_search.ops.planning import executed_as
from pyconv_search.ops.psconv import PSConv2d
from pyconv_search.ops.pyconv import PyConv2d
from pyconv_search.ops.released import ReleasedPSConv2d
from pyconv_search.training import allocator

SMALL = ["--batch", "1", "--seconds", "0.001", "--threads", "1", "--settings", "float32 channels_last"]


@pytest.fixture(autouse=True)
def kept_settings(monkeypatch: pytest.MonkeyPatch):
    """The variables that would make the process start anew, and PyTorch's settings as they were."""
    for name, value in allocator.VARIABLES.items():
        monkeypatch.setenv(name, value)
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    yield
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = benchmark


def test_plain_pyramids_compute_what_ours_do():
    (operator,) = named(["pyconv4-64"])
    own = operator.operation
    ours, theirs = (make().double() for make in (lambda: build_conv(own.conv, 64, 1), lambda: plain(64, own.conv, 1)))
    theirs.load_state_dict(ours.state_dict())
    assert isinstance(theirs, PlainPyConv2d)
    x = torch.randn(1, 64, 6, 7, dtype=torch.float64)
    with executed_as("merged-1"):
        torch.testing.assert_close(theirs(x), ours(x))


def test_plain_networks_hold_plain_operators_alone():
    with torch.device("meta"):
        for name, found in (("ps-resnext-50-32x4d", ReleasedPSConv2d), ("pyconvresnet-50", PlainPyConv2d)):
            arch = preset(name)
            model = made_plain(build(arch)).to("meta")
            assert not any(isinstance(module, (PSConv2d, PyConv2d)) for module in model.modules())
            assert sum(isinstance(module, found) for module in model.modules()) == 16 - 3 * (name == "pyconvresnet-50")
            assert model(torch.empty(1, *arch.input)).shape == (1, 1000)


def test_a_table_with_targets(capsys: pytest.CaptureFixture[str]):
    assert ops.main(["psconv-512", "pyconv2-256", *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "1 thread; " in lines[0]
    assert f"torch {torch.__version__}" in lines[0]
    cell = r"\d+\.\d\d \(\d+\.\d\d–\d+\.\d\d\)"
    (row,) = (line for line in lines if line.startswith("| psconv-512 | forward | ≤ 0.95 |") and "ms" in line)
    assert re.fullmatch(rf"\| psconv-512 \| forward \| ≤ 0.95 \|( {cell} \|){{3}} \d+\.\d+ ms \|", row)
    (row,) = (line for line in lines if line.startswith("| pyconv2-256 | training |") and "ms" in line)
    assert re.fullmatch(rf"\| pyconv2-256 \| training \|  \| {cell} \|  \| {cell} \| \d+\.\d+ ms \|", row)
    best = lines[lines.index("### best") :]
    assert any(re.fullmatch(r"\| psconv-512 \| training \| ≤ 1.00 \| \d+\.\d\d \| float32 .*\|", line) for line in best)


@pytest.mark.parametrize("training", [False, True])
def test_networks_stand_beside_their_baseline(training: bool):
    place = Place(torch.device("cpu"), torch.bfloat16, batch=2, seconds=0.001)
    (group,) = (one for one in networks.GROUPS if one.baseline == "quick start")
    found = dict(networks.measure(group, place, training))
    assert tuple(found) == group.networks
    for times in found.values():
        assert list(times) == ["baseline", *networks.VARIANTS]
        assert all(one.seconds.lowest > 0 for one in times.values())
        assert times["baseline"].ratio.highest == 1.0


def test_every_network_of_the_groups_has_its_images():
    for group in networks.GROUPS:
        inputs = {networks.architecture(name).input for name in (group.baseline, *group.networks)}
        assert len(inputs) == 1
        assert (max(inputs.pop()) < 224) == group.small


def test_a_picture_of_every_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from benchmarks import picture

    monkeypatch.setattr(picture, "PANELS", (("psconv-512", "pyconv2-256"),) * 4)
    file = tmp_path / "plans.svg"
    assert ops.main(["--picture", str(file), *SMALL]) == 0
    root = ElementTree.fromstring(file.read_text(encoding="utf-8"))
    texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert {"PSConv, chosen", "PyConv, released code", "nn.Conv2d 3×3", "masked-1", "merged-1"} <= set(texts)
    (said,) = (element.text for element in root.iter() if element.tag.endswith("}desc"))
    # Multiply-adds of one image: nominal 9 · 512² · 49, three times for the masks, half more in the released code.
    assert "psconv masked-1 346.8 M" in said
    assert "psconv released code 173.4 M" in said
    assert " nn.Conv2d 3×3 115.6 M" in said
