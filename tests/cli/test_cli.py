"""The command line: exit statuses, one clear line for every mistake, JSON that parses."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import pyconv_search

ROOT = Path(__file__).parents[2]
Said = tuple[int, str, str]


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "networks",
        "networks ps-resnet-50",
        "cost pyconvresnet-50+pyconvssd",
        "cost resnet3d-50 --json",
        "recipes",
        "recipes pyconv-imagenet --json",
    ],
)
def test_what_looks_at_networks_needs_neither_torch_nor_ray(words: str) -> None:
    code = (
        "import sys; from pyconv_search import cli\n"
        f"sys.argv = ['pyconv-search', *{words.split()!r}]\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print(sorted({'torch', 'ray', 'optuna', 'pandas', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_names_every_command(command: Callable[..., Said]) -> None:
    status, said, _ = command("--help")
    assert status == 0
    for name in ("space", "cost", "networks", "recipes", "plan", "run", "status", "report", "data", "bench"):
        assert f"  {name} " in said


def test_networks(command: Callable[..., Said]) -> None:
    status, said, _ = command("networks")
    assert (status, said.splitlines()[-1]) == (
        0,
        "64 of 66 printed rows match to every digit; 1 differs; 1 ours; 14 not printed",
    )
    assert "174 classes" in said
    counts = json.loads(command("networks", "--json")[1])
    assert (counts["match"], counts["rows"]) == (64, 80)
    assert "dilations {1,2,1,4}" in command("networks", "PS-ResNet-50")[1]
    assert command("networks", "resnet-50", "--json")[0] == 1


def test_cost_draws_and_tells_the_memory(command: Callable[..., Said], tmp_path: Path) -> None:
    file = tmp_path / "network.svg"
    status, said, drawn = command("cost", "resnet-50", "--draw", file, "--batch", 2, "--dtype", "bfloat16")
    assert (status, drawn.strip()) == (0, str(file))
    assert file.read_text().startswith("<svg")
    assert "bfloat16, batch 2: weights 51.1 MB" in said
    memory = json.loads(command("cost", "resnet-50", "--json", "--batch", 2)[1])["memory"]
    assert memory["weights"] == 4 * 25_557_032
    assert command("cost", "resnet-50", "--draw", tmp_path / "network.png")[0] == 1


def test_a_network_in_a_json_file(command: Callable[..., Said], tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    file.write_text(command("space", "sample", "spaces/pyconv_levels.yaml")[1])
    sampled = json.loads(file.read_text())["arch_id"]
    described = json.loads(command("cost", file, "--json")[1])
    assert described["arch_id"] == sampled
    file.write_text(json.dumps(described))
    assert sampled[:16] in command("networks", file)[1]
    file.write_text('{"stem": 1}')
    status, _, told = command("cost", file)
    assert (status, told.splitlines()[0]) == (1, "stem: must be a mapping, but got an integer (1)")
    file.write_text("stem: 1")
    assert "must hold one JSON object" in command("cost", file)[2]


def test_version(command: Callable[..., Said]) -> None:
    assert command("--version") == (0, f"pyconv-search {pyconv_search.__version__}\n", "")


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyconv_search", "space", "check", "spaces/pyconv_levels.yaml"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert "ok: pyconv-levels, 4 parameters, 832 assignments" in done.stdout


@pytest.mark.parametrize("file", sorted(p.name for p in ROOT.glob("spaces/*.yaml")))
def test_shipped_spaces(command: Callable[..., Said], file: str) -> None:
    status, out, err = command("space", "describe", f"spaces/{file}")
    assert (status, err) == (0, "")
    assert "assignments, exactly" in out
    status, out, _ = command("space", "describe", f"spaces/{file}", "--json")
    described = json.loads(out)
    assert described["networks"] > 0
    assert set(described["costs"]) == {"params", "macs", "gmacs", "activations", "receptive_field"}
    status, out, _ = command("space", "sample", f"spaces/{file}", "-n", 2, "--seed", 1)
    keys = {"arch_id", "parameters", "architecture"} | ({"recipe"} if described["recipe"] else set())
    assert [set(json.loads(line)) for line in out.splitlines()] == [keys] * 2


def test_cost_of_a_preset_and_of_a_space_of_one(command: Callable[..., Said], tmp_path: Path) -> None:
    assert "25.56 M parameters, 4.089 GMACs" in command("cost", "resnet-50")[1]
    (tmp_path / "one.yaml").write_text("space: one\nnetwork: {depth: 50}\n")
    found = json.loads(command("cost", tmp_path / "one.yaml", "--json")[1])
    assert (found["params"], found["macs"]) == (25_557_032, 4_089_184_256)


def test_plan(command: Callable[..., Said]) -> None:
    status, out, _ = command("plan", "studies/quickstart.yaml", "--json")
    assert status == 0
    assert json.loads(out)["trials"] == 10


def test_data(command: Callable[..., Said], tmp_path: Path) -> None:
    status, out, _ = command("data", "list")
    assert status == 0
    assert "fashion-mnist-small" in out
    assert "10,000" in out
    names = [row["name"] for row in json.loads(command("data", "list", "--json")[1])]
    assert names == [
        "fashion-mnist-small",
        "fashion-mnist",
        "cifar10",
        "cifar100",
        "imagenet",
        "imagenet-shapes",
        "kinetics-400",
        "kinetics-shapes",
    ]
    status, out, _ = command("data", "check", "fashion-mnist-small")
    assert status == 0
    assert "fashion-mnist-small: ok" in out


def test_data_in_files(command: Callable[..., Said], tmp_path: Path) -> None:
    for split, images in (("train", 3), ("val", 2)):
        for folder in ("n01440764", "n02102040"):
            (tmp_path / "mine" / split / folder).mkdir(parents=True)
            for i in range(images):
                file = tmp_path / "mine" / split / folder / f"{folder}_{i}.JPEG"
                Image.new("RGB", (40, 30), (i, 50, 100)).save(file)
    place = ("imagenet", "--root", str(tmp_path / "mine"))
    assert command("data", "check", *place)[2].startswith(f"error: {tmp_path}/mine/train: has 2 classes, but imagenet")
    status, out, _ = command("data", "pack", *place, "--classes", "2", "--side", "20", "--workers", "1")
    assert (status, out) == (0, f"{tmp_path}/mine.pack\n")
    status, out, _ = command("data", "check", *place, "--classes", "2", "--json")
    found = json.loads(out)
    assert (status, found["found_at"], found["classes"]) == (0, f"{tmp_path}/mine.pack", 2)
    assert [split["images"] for split in found["splits"]] == [4, 2, 4]


def broken_archive(folder: Path) -> Path:
    archive = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(__file__, "cifar-10-batches-bin/data_batch_1.bin")
    archive.write_bytes(archive.read_bytes()[:200])
    return archive


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        ("space check nowhere.yaml", 1, "error: nowhere.yaml: no such file"),
        ("space describe {dir}", 1, "cannot be read"),
        ("space check {dir}/empty.yaml", 1, "is empty"),
        (
            "space check {dir}/hostile.yaml",
            1,
            "hostile.yaml:1:8 space: the tag tag:yaml.org,2002:python/object/apply:os.system",
        ),
        ("space sample spaces/pyconv_levels.yaml -n 5000", 1, "different networks and none in the next"),
        ("space sample spaces/pyconv_levels.yaml --seed abc", 2, "--seed"),
        ("space sample spaces/pyconv_levels.yaml --seed -1", 2, "--seed"),
        ("space sample spaces/pyconv_levels.yaml -n 0", 2, "-n"),
        ("cost spaces/pyconv_levels.yaml", 1, "holds 832 assignments, not one"),
        ("cost resnet51", 1, "unknown network 'resnet51'; did you mean resnet-50?"),
        (
            "recipes pyconv-imagnet",
            1,
            "no recipe is called 'pyconv-imagnet'; did you mean pyconv-imagenet?; there are: ",
        ),
        ("plan nowhere.yaml", 1, "no such file"),
        ("run {dir}/empty.yaml", 1, "is empty"),
        ("run studies/quickstart.yaml --out {dir}", 1, "is not empty and not the folder of a run"),
        ("run studies/quickstart.yaml --out {dir}/empty.yaml/x", 1, "cannot be written"),
        ("run {dir}/missing.yaml --out {dir}/r", 1, "cifar10"),
        ("run studies/quickstart.yaml --alone", 1, "--alone: says how failed trials are run once more; it goes with"),
        ("run studies/quickstart.yaml --accumulate 4", 1, "--accumulate 4: says how failed trials are run once more"),
        ("run studies/quickstart.yaml --retry-failed --accumulate 7", 1, "--accumulate 7: must divide the "),
        ("run studies/quickstart.yaml --retry-failed --accumulate 1", 2, "--accumulate"),
        ("report {dir}", 1, "not the folder of a run"),
        ("status {dir}/nothing", 1, "no such folder"),
        ("data check cifar11", 1, "did you mean"),
        ("data check cifar10 --root {dir}/nothing", 1, "nothing"),
        ("data check cifar10 --root {dir}/cifar-10-binary.tar.gz", 1, "cifar-10-binary.tar.gz"),
        ("data check imagenet --root {dir} --classes 1", 1, "classes is 1, but must be between 2 and 1,000"),
        ("data check imagenet-shapes --root {dir}", 1, "imagenet-shapes: is made in memory, but root is"),
        ("data check kinetics-400 --root {dir}", 1, "has none of train/ and val/"),
        ("data pack cifar10", 1, "cifar10: is kept in memory, where nothing needs to be packed"),
        ("data pack imagenet --root {dir}", 1, "has none of train/ and val/"),
        ("data pack imagenet --side 2", 2, "--side"),
        ("frobnicate", 2, "No such command"),
        ("run", 2, "Missing argument"),
    ],
)
def test_mistakes_are_one_line_and_the_right_status(
    command: Callable[..., Said], tmp_path: Path, words: str, status: int, expected: str
) -> None:
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "hostile.yaml").write_text("space: !!python/object/apply:os.system ['touch /tmp/pwned']\n")
    (tmp_path / "missing.yaml").write_text(
        f"study: m\nspace: {ROOT}/spaces/psconv_patterns_cifar.yaml\nrecipe: {{epochs: 1}}\nsearch: grid\n"
        f"data: {{cifar10: {{root: {tmp_path}/nowhere}}}}\n"
    )
    broken_archive(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    found, out, err = command(*(word.format(dir=tmp_path) for word in words.split()))
    assert found == status
    assert expected in err
    assert "Traceback" not in err + out
    assert status == 2 or len(err.strip().splitlines()) == 1
    left = [p for p in sorted(tmp_path.rglob("*")) if p not in before]
    assert left == []


def test_an_unexpected_end_of_the_reader_is_no_traceback() -> None:
    done = subprocess.run(
        f"{sys.executable} -m pyconv_search space sample spaces/psconv_patterns.yaml -n 400 | head -1",
        shell=True, capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert len(done.stdout.splitlines()) == 1
