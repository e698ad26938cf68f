"""Mutated inputs for every reader: python -m benchmarks.fuzz [--inputs N] [--reader NAME] [--seed S].

Each reader runs in a process of its own on N inputs, made of small valid ones (:mod:`benchmarks.fuzz_readers`): bytes
flipped, cut, repeated, spliced, tokens put in; values of JSON and YAML trees replaced by others, renamed, left out. A
reader may accept an input or raise the package's own error. Printed are the other exceptions (none is wanted), the
slowest input in seconds of CPU (at most 1), and the most memory that one input took (at most 500 MB).

An input is a function of the seed, the reader and its number: ``--reader NAME --seed S --only I --save FILE`` writes it
into a file, and those of all failures are named at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.fuzz_readers import READERS, Reader
from pyconv_search.cli.columns import table

MOST_SECONDS, MOST_BYTES = 1.0, 500_000_000
MOST_MESSAGE = 50_000  # characters: fifty mistakes, each with its value cut
MOST_INPUT = 100_000  # bytes of one input
WAIT = 60  # seconds of wall time after which an input counts as one that hangs
TOKENS = (
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b"'",
    b":",
    b",",
    b"\n",
    b"\0",
    b"\xff",
    b"null",
    b"NaN",
    b"-1",
    b"1e999",
    b"&a ",
)
TOKENS += (
    b"*a",
    b"!!",
    b"9" * 5000,
    b"[" * 2000,
    b"\x00\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xe2\x80\xae",
    b"$x",
    b"**",
)
VALUES: tuple[Any, ...] = (None, True, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, 1e308, float("nan"), float("inf"), "", "x")
VALUES += ("x" * 3000, "$x", "\0", "‮", [], {}, [1], [[]], {"x": 1}, {"": None}, [1] * 300, "1 == 1", 65536, 65537)


@dataclass(slots=True)
class Found:
    """What became of the inputs of one reader. ``failures``: numbers of inputs with what went wrong."""

    reader: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    memory: int = 0
    failures: dict[int, str] = field(default_factory=dict)


def mutated(reader: Reader, seeds: list[bytes], seed: int, number: int) -> bytes:
    """Input ``number`` of a reader; the first ones are valid."""
    if number < len(seeds):
        return seeds[number]
    draws = random.Random(f"{seed}/{reader.name}/{number}")
    data = draws.choice(seeds)
    if reader.tree is not None and draws.random() < 0.6:
        with contextlib.suppress(ValueError, TypeError, yaml.YAMLError, RecursionError):
            read, write = reader.tree
            tree = read(data)
            for _ in range(draws.choice((1, 1, 1, 2, 3))):
                tree = _changed(tree, draws)
            return write(tree)
    for _ in range(draws.choice((1, 1, 2, 3, 5))):
        data = draws.choice(BYTES)(data, draws, seeds)[:MOST_INPUT]
    return data


def _flip(data: bytes, draws: random.Random, seeds: list[bytes]) -> bytes:
    if not data:
        return data
    at = draws.randrange(len(data))
    return data[:at] + bytes([draws.choice((0, 255, 127, 128, draws.randrange(256)))]) + data[at + 1 :]


def _cut(data: bytes, draws: random.Random, seeds: list[bytes]) -> bytes:
    first, last = sorted(draws.randrange(len(data) + 1) for _ in range(2))
    return data[:first] + data[last:] if draws.random() < 0.5 else data[:last]


def _splice(data: bytes, draws: random.Random, seeds: list[bytes]) -> bytes:
    other = draws.choice(seeds)
    return data[: draws.randrange(len(data) + 1)] + other[draws.randrange(len(other) + 1) :]


def _put(data: bytes, draws: random.Random, seeds: list[bytes]) -> bytes:
    at = draws.randrange(len(data) + 1)
    return data[:at] + draws.choice(TOKENS) + data[at:]


def _repeat(data: bytes, draws: random.Random, seeds: list[bytes]) -> bytes:
    first = draws.randrange(len(data) + 1)
    last = min(first + draws.choice((1, 8, 64, 512)), len(data))
    return data[:last] + data[first:last] * draws.choice((1, 2, 16, 1000)) + data[last:]


BYTES: tuple[Callable[[bytes, random.Random, list[bytes]], bytes], ...] = (_flip, _flip, _cut, _splice, _put, _repeat)


def _changed(tree: Any, draws: random.Random) -> Any:
    """The tree with one value replaced, left out, wrapped, repeated, or under another key."""
    places = list(_places(tree))
    if not places:
        return draws.choice(VALUES)
    holder, key = draws.choice(places)
    what = draws.randrange(6)
    if what == 0:
        del holder[key]
    elif what == 1:
        holder[key] = {"x": holder[key]} if draws.random() < 0.5 else [holder[key]] * draws.choice((1, 2, 70))
    elif what == 2 and isinstance(holder, dict):
        holder[draws.choice(("x", "", str(key)[:-1], f"{key}_", "\0", "k" * 3000))] = holder.pop(key)
    elif what == 3:
        other_holder, other = draws.choice(places)
        # A copy: a tree that holds itself cannot be written.
        holder[key] = json.loads(json.dumps(other_holder[other], default=str))
    else:
        holder[key] = draws.choice(VALUES)
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


class _Hangs(BaseException):
    pass


def _stop(*_: object) -> None:
    raise _Hangs


def examine(reader: Reader, folder: Path, seed: int, numbers: range) -> Found:
    """Read these inputs in this process."""
    signal.signal(signal.SIGALRM, _stop)
    reader.prepare(folder)
    seeds, found = reader.seeds(folder), Found(reader.name)
    for data in seeds:  # imports and caches are no cost of an input
        with contextlib.suppress(reader.refuses):
            reader.read(data, folder)
    for number in numbers:
        data = mutated(reader, seeds, seed, number)
        before = _memory("VmRSS", reset=True)
        started = time.process_time()
        signal.alarm(WAIT)
        try:
            reader.read(data, folder)
            found.accepted += 1
        except reader.refuses as error:
            found.refused += 1
            if len(str(error)) > MOST_MESSAGE:
                found.failures[number] = f"a message of {len(str(error)):,} characters"
        except _Hangs:
            found.failures[number] = f"hangs for {WAIT} s: {traceback.format_exc().splitlines()[-4:]}"
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            found.failures[number] = f"{type(error).__name__}: {str(error)[:100]!r} at {place.filename}:{place.lineno}"
        finally:
            signal.alarm(0)
        seconds, memory = time.process_time() - started, (_memory("VmHWM") - before) * 1024
        if seconds > MOST_SECONDS:
            found.failures.setdefault(number, f"takes {seconds:.2f} s")
        if memory > MOST_BYTES:
            found.failures.setdefault(number, f"takes {memory / 1e6:.0f} MB")
        found.inputs += 1
        found.seconds += seconds
        found.slowest, found.memory = max(found.slowest, seconds), max(found.memory, memory)
    return found


def _memory(name: str, reset: bool = False) -> int:
    """Kilobytes of this process: VmRSS now, VmHWM the most since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def run(reader: Reader, seed: int, inputs: int) -> Found:
    """Read so many inputs in a process of its own; one that ends without a word is a failure, too."""
    words = [sys.executable, "-m", "benchmarks.fuzz", "--worker", reader.name, "--seed", str(seed)]
    done = subprocess.run([*words, "--inputs", str(inputs)], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return Found(reader.name, failures={-1: f"its process ended with status {done.returncode}"})
    values = json.loads(done.stdout.splitlines()[-1])
    return Found(**{**values, "failures": {int(number): text for number, text in values["failures"].items()}})


def report(found: list[Found]) -> str:
    """A line a reader."""
    cells: list[tuple[object, ...]] = [
        ("reader", "inputs", "accepted", "refused", "failures", "a second", "slowest", "MB")
    ]
    for one in found:
        rate = one.inputs / one.seconds if one.seconds else 0
        counts = (one.inputs, one.accepted, one.refused, len(one.failures))
        cells.append(
            (one.reader, *(f"{n:,}" for n in counts), f"{rate:,.0f}", f"{one.slowest:.2f} s", one.memory // 10**6)
        )
    return table(cells, tuple(range(1, 8)))


def _tell(found: Found, seed: int) -> None:
    """How to get each input that failed, on standard error, as soon as its reader is done."""
    print(f"{found.reader}: {len(found.failures)} of {found.inputs:,} inputs failed", file=sys.stderr, flush=True)
    for number, text in list(found.failures.items())[:20]:
        print(f"  --reader {found.reader} --seed {seed} --only {number}: {text}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Run the command; 0 where nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=2000, help="of each reader")
    parser.add_argument("--reader", choices=[*READERS], help="this one alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="I", help="read input I alone, with its traceback")
    parser.add_argument("--save", type=Path, metavar="FILE", help="where to write that input")
    parser.add_argument("--worker", choices=[*READERS], help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.worker or given.only is not None:
        reader = READERS[given.worker or given.reader]
        with tempfile.TemporaryDirectory() as folder:
            if given.only is not None:
                reader.prepare(Path(folder))
                data = mutated(reader, reader.seeds(Path(folder)), given.seed, given.only)
                if given.save:
                    given.save.write_bytes(data)
                reader.read(data, Path(folder))
            else:
                said = io.StringIO()
                with contextlib.redirect_stdout(said):
                    found = examine(reader, Path(folder), given.seed, range(given.inputs))
                print(json.dumps(asdict(found)))
        return 0
    results = []
    for name, reader in READERS.items():
        if given.reader in (None, name):
            results.append(run(reader, given.seed, given.inputs))
            _tell(results[-1], given.seed)
    print(report(results))
    return int(any(one.failures for one in results))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    sys.exit(main(sys.argv[1:]))
