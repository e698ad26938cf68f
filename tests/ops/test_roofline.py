"""The roofline: its arithmetic, what it measures on machines whose speed is known, and what this one does."""

from __future__ import annotations

import re
from dataclasses import asdict
from json import dumps

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from pyconv_search.errors import UserError
from pyconv_search.ops import roofline
from pyconv_search.ops.roofline import Measured, Roofline, measure_roofline
from pyconv_search.ops.timing import Spread, Times

# 1000 bytes in 2 s and 600 multiply-adds in 3 s: 500 bytes/s, 200 MACs/s.
KNOWN = Roofline(
    "abacus",
    2,
    "float32",
    Measured("copy of 500 B", 1000, Times(Spread(1.0, 1.5, 2.0, 2.5, 9.0), 5)),
    Measured("beads", 600, Times(Spread(1.5, 2.0, 3.0, 3.0, 3.0), 7)),
)


@pytest.fixture
def one_thread():
    """A second thread waits for whoever else uses its core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_copy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(roofline, "COPIED", 2**27)


@pytest.mark.parametrize(
    ("macs", "bytes", "seconds", "bound"),
    [
        (1000, 100, 5.0, "compute"),
        (100, 5000, 10.0, "memory"),
        (200, 500, 1.0, "compute"),
        (200, 501, 1.002, "memory"),
        (0, 50, 0.1, "memory"),
        (50, 0, 0.25, "compute"),
        (0, 0, 0.0, "compute"),
    ],
)
def test_the_floor_is_the_longer_of_two_times(macs: int, bytes: int, seconds: float, bound: str):
    assert KNOWN.seconds(macs, bytes) == pytest.approx(seconds, rel=1e-12)
    assert KNOWN.bound(macs, bytes) == bound
    assert KNOWN.share(macs, bytes, 4.0) == pytest.approx(seconds / 4, rel=1e-12)


def test_rates_are_amounts_over_median_times():
    assert (KNOWN.bandwidth, KNOWN.rate) == (500.0, 200.0)
    assert KNOWN.share(KNOWN.compute.amount, 0, KNOWN.compute.times.seconds.lowest) == 2.0


def test_a_roofline_is_told_in_a_line_and_in_json():
    assert str(KNOWN) == (
        "abacus, 2 threads, float32: 500 B/s (copy of 500 B; median of 5, the fastest 2.00 times as fast), "
        "200 MACs/s (beads; median of 7, the fastest 2.00 times as fast)"
    )
    assert '"threads": 2' in dumps(asdict(KNOWN))


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("seconds", (-1, 5), "macs must be 0 or more, but got -1"),
        ("seconds", (1, float("nan")), "bytes must be 0 or more, but got nan"),
        ("bound", (1, -5), "bytes must be 0 or more, but got -5"),
        ("share", (1, 5, 0.0), "seconds must be more than 0, but got 0.0"),
        ("share", (1, -5, 1.0), "bytes must be 0 or more, but got -5"),
    ],
)
def test_wrong_amounts_are_told(method: str, arguments: tuple, message: str):
    with pytest.raises(UserError, match=re.escape(message)):
        getattr(KNOWN, method)(*arguments)


def known_machine(monkeypatch: pytest.MonkeyPatch, copy: float, **rates: float) -> list[str]:
    """A machine that does so many multiply-adds a second, by PyTorch's own count, and whose copy lasts so long."""
    timed: list[str] = []

    def clock(action):
        with FlopCounterMode(display=False) as counter:
            action()
        flops = counter.get_flop_counts().get("Global", {})
        counts = {str(op).split(".")[-1]: count // 2 for op, count in flops.items()}
        timed.extend(counts or ["copy"])
        seconds = sum(macs / rates[op] for op, macs in counts.items()) or copy
        return lambda: seconds

    monkeypatch.setattr(roofline, "clock_of", lambda device: clock)
    return timed


@pytest.mark.usefixtures("small_copy")
@pytest.mark.parametrize(
    ("mm", "convolution", "what"),
    [
        (3e10, 2e10, r"torch\.mm of (256×256|512×512)"),
        (2e10, 3e10, r"nn\.Conv2d 3×3 on [12]×256×14×14, (contiguous_format|channels_last)"),
    ],
)
def test_the_faster_of_product_and_convolution_is_the_rate(
    monkeypatch: pytest.MonkeyPatch, mm: float, convolution: float, what: str
):
    timed = known_machine(monkeypatch, 0.25, mm=mm, convolution=convolution)
    found = measure_roofline("cpu", torch.float32, 0.01)
    assert found.rate == pytest.approx(3e10, rel=1e-9)
    assert re.fullmatch(what, found.compute.what)
    assert found.bandwidth == pytest.approx(2 * 2**27 / 0.25, rel=1e-9)
    assert found.memory.what == "copy of 134 MB"
    assert set(timed) == {"copy", "mm", "convolution"}


@pytest.mark.usefixtures("small_copy")
def test_sizes_grow_until_a_call_is_long_enough(monkeypatch: pytest.MonkeyPatch):
    """At 20 GMACs/s 512×512 takes 6.7 ms; a machine ten times as fast needs the next size, a slow one the first."""
    sizes = []
    for rate in (1e9, 2e10, 2e11):
        known_machine(monkeypatch, 0.25, mm=rate, convolution=rate / 2)
        sizes.append(measure_roofline("cpu", torch.float32, 0.01).compute.amount)
    # Equal rates: the first of the two sizes that are measured, of which the larger is the one that is long enough.
    assert sizes == [256**3, 256**3, 512**3]


@pytest.mark.usefixtures("small_copy")
def test_the_seconds_are_spent_on_calls_that_find_their_arrays_in_the_caches(monkeypatch: pytest.MonkeyPatch):
    log: list[object] = []

    def clock(action):
        log.append("time")
        action()
        return lambda: 0.25

    def logged(owner: object, name: str) -> None:
        genuine = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda x, *a, **named: (log.append((name, x.stride())), genuine(x, *a, **named))[1]
        )

    logged(torch, "mm")
    logged(torch.nn.functional, "conv2d")
    monkeypatch.setattr(roofline, "clock_of", lambda device: clock)
    found = measure_roofline("cpu", torch.float32, 9.0)
    # A sixth and a third of 9 s are timed, in rounds of one copy and three products; the other half warms the caches.
    assert (found.memory.times.rounds, found.compute.times.rounds) == (6, 4)
    products = log[2 + found.memory.times.rounds :]  # behind the two of the check of the dtype and the copies
    timed = [i for i, entry in enumerate(products) if entry == "time"]
    assert len(timed) == 3 * (3 + found.compute.times.rounds)
    assert [products[i - 1] for i in timed] == [products[i + 1] for i in timed]


class Work(TorchDispatchMode):
    """Counts the multiply-adds of products and convolutions, and the bytes that copies read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        name = function.overloadpacket.__name__
        if name == "mm":
            self.macs += args[0].shape[0] * args[0].shape[1] * args[1].shape[1]
        elif name in ("convolution", "mkldnn_convolution", "_convolution"):
            self.macs += out.numel() * args[1][0].numel()
        elif name == "copy_":
            self.bytes += 2 * out.numel() * out.element_size()
        return out


@pytest.mark.usefixtures("one_thread", "small_copy")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rates_are_those_of_the_work_that_is_done(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype):
    """On a clock that goes on by what is counted, 3e9 multiply-adds and 5e9 bytes a second, these are the rates."""

    def clock(action):
        with Work() as work:
            action()
        return lambda: work.macs / 3e9 + work.bytes / 5e9

    monkeypatch.setattr(roofline, "clock_of", lambda device: clock)
    found = measure_roofline("cpu", dtype, 0.3)
    assert (found.rate, found.bandwidth) == (pytest.approx(3e9, rel=1e-9), pytest.approx(5e9, rel=1e-9))
    assert (found.threads, found.dtype) == (1, str(dtype).split(".")[1])
    assert found.device


@pytest.mark.usefixtures("small_copy")
def test_the_caller_keeps_random_numbers_and_autocast(monkeypatch: pytest.MonkeyPatch):
    known_machine(monkeypatch, 0.25, mm=1e9, convolution=1e9)
    dtypes = []
    genuine = torch.mm
    monkeypatch.setattr(torch, "mm", lambda *a, **named: dtypes.append((out := genuine(*a, **named)).dtype) or out)
    state = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16):
        measure_roofline("cpu", torch.float32, 0.01)
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert set(dtypes) == {torch.float32}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "gpu"}, "device must be cpu or cuda, but got 'gpu'"),
        ({"device": torch.device("meta")}, "device must be cpu or cuda, but got device(type='meta')"),
        ({"seconds": 0.0}, "seconds must be more than 0 and finite, but got 0.0"),
        ({"seconds": float("nan")}, "seconds must be more than 0 and finite, but got nan"),
        (
            {"dtype": torch.int64},
            "dtype must be one that PyTorch computes in on cpu (torch.float64, torch.float32, torch.bfloat16, torch.float16), but got torch.int64",
        ),
        ({"dtype": "float32"}, "torch.float16), but got float32"),
    ],
)
def test_wrong_arguments_are_told(arguments: dict, message: str):
    with pytest.raises(UserError, match=re.escape(message)):
        measure_roofline(**arguments)


def test_a_dtype_that_pytorch_cannot_compute_in_is_told_with_those_it_can(monkeypatch: pytest.MonkeyPatch):
    genuine = torch.mm

    def without_half(a, b, **named):
        if a.dtype == torch.float16:
            raise RuntimeError("\"addmm_impl_cpu_\" not implemented for 'Half'")
        return genuine(a, b, **named)

    monkeypatch.setattr(torch, "mm", without_half)
    message = "on cpu (torch.float64, torch.float32, torch.bfloat16), but got torch.float16"
    with pytest.raises(UserError, match=re.escape(message)):
        measure_roofline("cpu", torch.float16)


@pytest.mark.parametrize(
    ("count", "device", "message"),
    [
        (0, "cuda", "device must be cpu, since PyTorch finds no CUDA device here, but got 'cuda'"),
        (2, "cuda:2", "device must be cpu or one of cuda:0, cuda:1, but got 'cuda:2'"),
    ],
)
def test_a_gpu_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, count: int, device: str, message: str):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(UserError, match=re.escape(message)):
        measure_roofline(device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_has_a_roofline():
    found = measure_roofline("cuda", torch.bfloat16, 1.0)
    assert found.rate > 0
    assert found.bandwidth > 0
    assert found.threads is None
    assert found.device == torch.cuda.get_device_name()
