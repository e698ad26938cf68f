"""Every reader on mutated inputs: it accepts them, or raises the package's own error, soon and in little memory."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks import fuzz
from benchmarks.fuzz_readers import READERS, Reader


@pytest.mark.parametrize("name", READERS)
def test_readers_raise_the_package_s_own_error_and_nothing_else(name: str, tmp_path: Path) -> None:
    found = fuzz.examine(READERS[name], tmp_path, 1, range(150))
    assert found.failures == {}
    assert (found.inputs, found.accepted + found.refused) == (150, 150)
    # Valid inputs are read, and mutated ones are not all alike.
    assert found.accepted
    assert found.refused


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_two_thousand_inputs(name: str) -> None:
    found = fuzz.run(READERS[name], 2, 2000)
    assert (found.inputs, found.failures) == (2000, {})


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    """A reader with every fault that is looked for, each at inputs of its own."""

    def read(data: bytes, folder: Path) -> object:
        kind = data[0] % 5
        if kind == 0:
            raise KeyError(data)
        if kind == 1:
            start = time.process_time()
            while time.process_time() < start + 1.1:
                pass
        if kind == 2:
            return len(b"a" * 600_000_000)
        if kind == 3:
            raise fuzz.READERS["image"].refuses("x" * 60_000)
        return None

    seeds = [bytes([n]) for n in (4, 0, 1, 2, 3)]
    reader = Reader("faulty", read, lambda folder: seeds)
    with pytest.raises(KeyError):  # valid inputs have to be read
        fuzz.examine(reader, tmp_path, 0, range(5))
    reader = Reader("faulty", lambda data, folder: data in seeds[:1] or read(data, folder), lambda folder: seeds[:1])
    inputs = dict(enumerate(seeds))
    original, fuzz.mutated = fuzz.mutated, lambda reader, seeds, seed, number: inputs[number]
    try:
        found = fuzz.examine(reader, tmp_path, 0, range(5))
    finally:
        fuzz.mutated = original
    assert (found.inputs, found.accepted) == (5, 3)
    words = [found.failures.get(n, "") for n in range(5)]
    assert words[0] == ""
    for text, start in zip(words[1:], ("KeyError", "takes", "takes 6", "a message of 60,000"), strict=True):
        assert text.startswith(start)


def test_inputs_are_a_function_of_seed_reader_and_number(tmp_path: Path) -> None:
    reader = READERS["space"]
    seeds = reader.seeds(tmp_path)
    inputs = [fuzz.mutated(reader, seeds, 5, number) for number in range(60)]
    assert inputs == [fuzz.mutated(reader, list(seeds), 5, number) for number in range(60)]
    assert inputs[: len(seeds)] == seeds
    assert len(set(inputs)) > 50
    assert inputs[10:] != [fuzz.mutated(reader, seeds, 6, number) for number in range(10, 60)]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--reader", "idx", "--inputs", "30"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["idx", "30"]
    kept = tmp_path / "input"
    assert fuzz.main(["--reader", "cifar-binary", "--only", "0", "--save", str(kept)]) == 0
    assert kept.read_bytes() == bytes(2 * 3073)
