"""Every command that the README and the pages beside it print runs as it stands there, with little to do."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
PAGES = [page for place in (".", "benchmarks", "reports", "docs") for page in sorted((ROOT / place).glob("*.md"))]
TEXTS = [page.read_text(encoding="utf-8") for page in PAGES]
BLOCK = re.compile(r"^    ((?:pyconv-search|python -m|make|ray) .*?)(?:\s+#.*)?$", re.M)
INLINE = re.compile(r"`((?:pyconv-search|python -m benchmarks)[ .][^`]*)`")

# What a command is given beside what is printed, so that it has little to do. The longest beginning counts.
LITTLE = {
    "python -m benchmarks.costs": "--networks 4 --rows 100 --built 1",
    "python -m benchmarks.fuzz": "--inputs 10",
    "python -m benchmarks.loading": "--images 8 --width 64 --height 48 --side 32 --workers 1 --rounds 1",
    "python -m benchmarks.ops": "psconv-64 --batch 1 --seconds 0.001",
    "python -m benchmarks.ops --threads 1 --networks": "--batch 1 --small-batch 1 --seconds 0.001",
    "python -m benchmarks.overhead": "--trials 2 --repeats 1",
    "python -m benchmarks.plans": "--only psconv-64 --batch 1 --rounds 1",
    "python -m benchmarks.scale": "--n 2 --search random",
    "python -m benchmarks.together": "--data fashion-mnist-small --seconds 0.01 --size 2 --sizes 0.5 --kinds PSConv",
    "python -m benchmarks.training": "--batch 1 --small-batch 4 --seconds 0.001",
    "pyconv-search bench ops": "psconv-64 --batch 1 --seconds 0.001",
    "pyconv-search bench ops --network": "--batch 1 --seconds 0.001",
    "pyconv-search bench train": "--batch 4 --seconds 0.01",
    "pyconv-search data pack imagenet": "--classes 2",
    "pyconv-search plan": "--no-measure",
}
# What stands for a name or a file in print, by the first words of the command that has it.
STANDS_FOR = {
    "pyconv-search bench train": {"NAME": "resnet-50"},
    "pyconv-search data": {"NAME": "fashion-mnist-small", "…": "imagenet"},
    "pyconv-search": {
        "STUDY": "study.yaml",
        "DIR": "run",
        "FILE": "space.yaml",
        "NAME": "quickstart",
        "reports/NAME": "run",
    },
}
# Run on two nodes by tests/cluster.
ELSEWHERE = re.compile(r"^ray |--address")


def published() -> list[str]:
    """The commands of all pages, without what is in brackets, which may be left out."""
    blocks, sentences = (set(map(_plain, way.findall("\n".join(TEXTS)))) for way in (BLOCK, INLINE))
    # A sentence may name a command of which a page prints the whole.
    sentences = {name for name in sentences if not any(c.startswith(f"{name} ") for c in blocks | sentences)}
    return sorted(command for command in blocks | sentences if not ELSEWHERE.search(command))


def _plain(command: str) -> str:
    return " ".join(re.sub(r"\[[^\]]*\]", " ", command).split())


def little(command: str) -> list[str]:
    """The words of a command whose placeholders are filled in, with what keeps it short."""
    kinds = [kind for kind in STANDS_FOR if command.startswith(kind)]
    names = STANDS_FOR[max(kinds, key=len)] if kinds else {}
    more = max((start for start in LITTLE if command.startswith(start)), key=len, default="")
    words = [names.get(word, word) for word in shlex.split(command)] + shlex.split(LITTLE.get(more, ""))
    return [word for word in words if word != "--write"]  # which changes a file of the package


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that placeholders stand for."""
    from benchmarks.loading import write_images

    folder = tmp_path_factory.mktemp("commands")
    shutil.copytree(ROOT / "reports" / "quickstart", folder / "run")
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks")
    shutil.copy(ROOT / "spaces" / "quickstart.yaml", folder / "space.yaml")
    (folder / "study.yaml").write_text(
        "study: two networks\nspace: space.yaml\ndata: fashion-mnist-small\nrecipe: {epochs: 1, batch: 512}\n"
        "search: {random: {trials: 2}}\nobjectives: {top1_error: min, gmacs: min}\n"
    )
    write_images(folder / "imagenet", 8, 64, 48)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in published() if not c.startswith("make ")])
def test_a_published_command_runs(command: str, place: Path, reported: Callable[[str], list[str]]) -> None:
    program, *words = little(command)
    start = [sys.executable, "-m", "pyconv_search"] if program == "pyconv-search" else [sys.executable]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [*start, *words], cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=1800
    )
    if "cuda" in words and not torch.cuda.is_available():
        assert done.returncode == 1
        assert len(reported(done.stderr)) == 1
        return
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert done.stdout.strip()


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("command", [c for c in published() if c.startswith("make ")])
def test_a_published_target_is_there(command: str) -> None:
    subprocess.run([*command.split()[:2], "--dry-run"], cwd=ROOT, capture_output=True, check=True)


def test_every_benchmark_is_published() -> None:
    """A file of benchmarks/ that can be started stands in a page, and so is run by the tests here."""
    programs = {f"benchmarks.{p.stem}" for p in (ROOT / "benchmarks").glob("*.py") if "__main__" in p.read_text()}
    assert programs
    assert {name for name in programs if not any(name in command for command in published())} == set()
