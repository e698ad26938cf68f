"""The command `bench train`, really measuring something small."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable

import pytest
import torch

from pyconv_search.arch.cost import cost
from pyconv_search.arch.presets import preset
from pyconv_search.cli import bench_train as said
from pyconv_search.ops.roofline import Measured as Reached
from pyconv_search.ops.roofline import Roofline
from pyconv_search.ops.timing import Spread, Times
from pyconv_search.study.datasets import get
from pyconv_search.training import allocator
from pyconv_search.training.speed import Case, Speed
from pyconv_search.units import quantity

Said = tuple[int, str, str]
SMALL = ("--batch", 4, "--seconds", 0.001, "--threads", 1)
STEADY = Times(Spread.of([1.0]), 1)
NETWORK = "resnet-20-cifar"


@pytest.fixture(autouse=True)
def kept_settings(monkeypatch: pytest.MonkeyPatch):
    """The variables that would make the process start anew, and PyTorch's settings as they were."""
    for name, value in allocator.VARIABLES.items():
        monkeypatch.setenv(name, value)
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def test_one_json_document_whose_figures_agree(command: Callable[..., Said]) -> None:
    words = ("--recipe", "fast-small-images", "--precision", "fp32", "--plain", "--json")
    status, out, err = command("bench", "train", NETWORK, *SMALL, *words)
    assert (status, err.splitlines()) == (0, ["1/2 forward", "2/2 training"])
    found = json.loads(out)
    assert (found["complete"], found["dtype"], found["threads"]) == (True, "float32", 1)
    assert (found["recipe"]["batch"], found["recipe"]["preset"]) == (4, "fast-small-images")
    assert found["macs"] == cost(preset(NETWORK)).macs
    reached = found["roofline"]["compute"]
    rate = reached["amount"] / reached["times"]["seconds"]["median"]
    rows = {(row["mode"], row["what"]): row for row in found["rows"]}
    assert list(rows) == [(mode, what) for mode in ("forward", "training") for what in ("ours", "plain")]
    # The recipe evaluates mirror images, too.
    for mode, passes in (("forward", 2), ("training", 3)):
        row = rows[mode, "ours"]
        images = 4 / row["seconds"]["median"]
        assert row["images_per_second"] == pytest.approx(images)
        assert row["mfu"] == pytest.approx(2 * passes * found["macs"] * images / (2 * rate))
        assert 0 < row["mfu"] < 2
        assert row["ratio"] is None
        assert rows[mode, "plain"]["ratio"]["median"] > 0
        assert rows[mode, "plain"]["mfu"] is None


def test_a_table(command: Callable[..., Said]) -> None:
    status, out, _ = command("bench", "train", NETWORK, "--data", "fashion-mnist", "--contiguous", *SMALL)
    assert status == 0
    lines = out.splitlines()
    macs = cost(said_network("fashion-mnist")).macs
    assert lines[0].startswith(f"{NETWORK}: 1×28×28, {quantity(macs, 'MACs', 4)}; recipe resnext-cifar: batch 4, ")
    assert ", contiguous, eager" in lines[0]
    (training,) = (line for line in lines if line.startswith("training"))
    assert re.fullmatch(r"training +ours +[\d.,]+ +[\d.]+ m?s +[\d.]+ m?s–[\d.]+ m?s +[\d.]+% +[\d.]+ [MG]B", training)


def said_network(data: str):
    from pyconv_search.cli.options import read_network

    return read_network(NETWORK, get(data))


def test_a_network_in_a_file_must_be_for_the_data(command: Callable[..., Said], tmp_path) -> None:
    file = tmp_path / "one.json"
    file.write_text(command("cost", NETWORK, "--json")[1])
    status, _, err = command("bench", "train", file, "--data", "fashion-mnist", *SMALL)
    assert status == 1
    assert "is a network for 3×32×32 and 10 classes, but fashion-mnist has 1×28×28 and 10 classes" in err
    assert command("bench", "train", file, "--data", "cifar10", *SMALL)[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet-51"], "error: unknown network 'resnet-51'"),
        ([NETWORK, "--recipe", "resnext"], "recipe.preset: must be one of pyconv-imagenet, "),
        ([NETWORK, "--precision", "fp8"], "recipe.precision: must be one of auto, fp32, bf16, fp16, but got 'fp8'"),
        ([NETWORK, "--compile", "fast"], "recipe.compile: must be one of none, default, "),
        ([NETWORK, "--data", "cifar11"], "error: no data set is called 'cifar11'; did you mean cifar10?"),
        (["ps-resnet-50+fpn"], "error: network must be a classifier, which a recipe can train, but has the head fpn"),
        (["resnet-152", "--batch", 65536], "error: a batch of 65536 images needs at least "),
        ([NETWORK, "--device", "cuda"], "error: device cuda: PyTorch finds no CUDA device on this machine"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(
    command: Callable[..., Said], words: list[str], message: str
) -> None:
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    status, out, err = command("bench", "train", *words)
    assert (status, out) == (1, "")
    assert err.splitlines()[0].startswith(message)
    assert "Traceback" not in err


def test_the_recipe_is_that_of_such_images_with_what_fits_a_laptop() -> None:
    for name, recipe, on_cpu, on_gpu in (
        ("ps-resnet-50", "pyconv-imagenet", 16, 256),
        (NETWORK, "resnext-cifar", 128, 128),
        ("resnet3d-50", "pyconv-video", 16, 64),
    ):
        arch = preset(name)
        found = {device: said.recipe_for(arch, None, {"batch": None}, device) for device in ("cpu", "cuda")}
        assert {device: (name, made.batch) for device, (name, made) in found.items()} == {
            "cpu": (recipe, on_cpu),
            "cuda": (recipe, on_gpu),
        }
    assert said.recipe_for(preset(NETWORK), None, {"batch": 512}, "cpu")[1].batch == 512


def test_an_early_end_is_said_and_has_no_utilisation() -> None:
    _, recipe = said.recipe_for(preset(NETWORK), None, {}, "cpu")
    case = Case(preset(NETWORK), recipe, torch.device("cpu"), 1)
    row = Speed("forward", "ours", 128, Spread.of([0.5]), 1)
    reached = Roofline("abacus", 1, "float32", Reached("copy", 10**9, STEADY), Reached("beads", 10**12, STEADY))
    whole = said.Measured(NETWORK, "resnext-cifar", case, (row,), reached)
    assert whole.mfu(row) == pytest.approx(256 * cost(preset(NETWORK)).macs / 1e12)
    cut = dataclasses.replace(whole, roofline=None)
    assert cut.mfu(row) is None
    assert said.train_text(cut).endswith("stopped before the end")
    assert said.train_dict(cut)["complete"] is False
