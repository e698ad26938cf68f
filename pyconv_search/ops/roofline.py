"""How fast a machine can be at best: its memory bandwidth and its rate of multiply-adds, measured where this runs.

Williams, Waterman, Patterson: Roofline: an insightful visual performance model for multicore architectures,
Communications of the ACM 52(4), 2009. https://doi.org/10.1145/1498765.1498785

Work that takes M multiply-adds and moves B bytes to or from memory takes at least max(M / rate, B / bandwidth) seconds.
The bandwidth is that of memory, so work that finds its tensors in a cache can be done in less than that.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from pyconv_search.errors import UserError
from pyconv_search.ops.timing import Clock, Times, clock_of, interleaved
from pyconv_search.units import quantity, size_text

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
COPIED = 2**29  # bytes, read once and written once: more than caches hold
LONG_ENOUGH = 2e-3  # seconds of one call, beside which starting it is nothing


@dataclass(frozen=True, slots=True)
class Measured:
    """The seconds that calls of ``what`` took, each of ``amount`` bytes or multiply-adds.

    A fastest call far below the median tells that others used the machine meanwhile: measure again.
    """

    what: str
    amount: int
    times: Times

    @property
    def per_second(self) -> float:
        """The amount over the median time."""
        return self.amount / self.times.seconds.median

    def __str__(self) -> str:
        fastest = self.times.seconds.median / self.times.seconds.lowest
        return f"{self.what}; median of {self.times.rounds}, the fastest {fastest:.2f} times as fast"


@dataclass(frozen=True, slots=True)
class Roofline:
    """What a machine does at best in one dtype.

    ``device`` is the name of the processor, ``threads`` how many PyTorch used (None on a GPU), ``dtype`` the name of
    the dtype without ``torch.``; ``memory`` and ``compute`` say what reached the bandwidth and the rate.
    """

    device: str
    threads: int | None
    dtype: str
    memory: Measured
    compute: Measured

    def __str__(self) -> str:
        threads = "" if self.threads is None else f", {self.threads} thread{'s' * (self.threads != 1)}"
        return (
            f"{self.device}{threads}, {self.dtype}: {quantity(self.bandwidth, 'B/s', 4)} ({self.memory}), "
            f"{quantity(self.rate, 'MACs/s', 4)} ({self.compute})"
        )

    @property
    def bandwidth(self) -> float:
        """Bytes a second between memory and processor, read and written ones alike."""
        return self.memory.per_second

    @property
    def rate(self) -> float:
        """Multiply-adds a second."""
        return self.compute.per_second

    def seconds(self, macs: float, bytes: float) -> float:
        """The least time for a number of multiply-adds and bytes. Raises UserError if either is negative."""
        for name, value in (("macs", macs), ("bytes", bytes)):
            if not value >= 0:
                raise UserError(f"{name} must be 0 or more, but got {value}")
        return max(macs / self.rate, bytes / self.bandwidth)

    def share(self, macs: float, bytes: float, seconds: float) -> float:
        """The least time over the ``seconds`` it took: 1 at the roofline, more where caches took the place of memory.

        Compute-bound shares up to 1.05 were seen on a shared machine, whose rate varies by so much from run to run.

        Raises:
            UserError: if ``seconds`` is not positive, or the work is negative.
        """
        if not seconds > 0:
            raise UserError(f"seconds must be more than 0, but got {seconds}")
        return self.seconds(macs, bytes) / seconds

    def bound(self, macs: float, bytes: float) -> str:
        """``compute`` or ``memory``: which of them takes longer; ``compute`` if neither does."""
        return "compute" if self.seconds(macs, bytes) == macs / self.rate else "memory"


def measure_roofline(
    device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, seconds: float = 3.0
) -> Roofline:
    """Measure the roofline of ``device`` for ``dtype``.

    The bandwidth is that of a copy of 2²⁹ bytes, counting bytes read plus written, as STREAM does (McCalpin 1995).
    The rate is the best that ``torch.mm`` of square matrices or a 3×3 ``nn.Conv2d`` of 256 channels, contiguous or
    channels_last, reaches on random numbers. Convolutions can be faster: on one thread of an AMD EPYC of family 26
    oneDNN's reach 128 GMACs/s in float32 and ``torch.mm`` 55. Each is called at the first doubling of its size that
    lasts 2 ms, and at the size before. Both are medians of repeated calls with warm caches, on CUDA timed by events;
    those for the rate take turns. PyTorch's settings (threads, TF32, cuDNN's benchmarks) are left as they are, and so
    are its random numbers; autocast is off meanwhile. A dtype that the processor lacks is measured as slow as PyTorch
    computes it. The arrays of the copy take 1 GiB.

    Args:
        device: ``cpu`` or a CUDA device.
        dtype: one of DTYPES.
        seconds: for all calls together, a third of it for the bandwidth, and more where three rounds take longer. The
            time to make the arrays and to find the sizes, about a second, comes on top.

    Raises:
        UserError: if the device is unknown or not there, PyTorch cannot compute in the dtype on it, or ``seconds`` is
            not positive.
    """
    where = _checked_device(device)
    if not 0 < seconds < float("inf"):
        raise UserError(f"seconds must be more than 0 and finite, but got {seconds}")
    clock = clock_of(where)
    with torch.no_grad(), torch.autocast(where.type, enabled=False):
        if dtype not in DTYPES or not _computes(where, dtype):
            legal = ", ".join(str(one) for one in DTYPES if _computes(where, one))
            raise UserError(f"dtype must be one that PyTorch computes in on {where} ({legal}), but got {dtype}")
        (memory,) = _measured([_copy(where)], seconds / 6, clock)
        actions = [action for make in _products(where, dtype) for action in _growing(make, clock)]
        compute = max(_measured(actions, seconds / 3, clock), key=lambda one: one.per_second)
    threads = None if where.type == "cuda" else torch.get_num_threads()
    return Roofline(processor(where), threads, str(dtype).removeprefix("torch."), memory, compute)


@dataclass(frozen=True, slots=True)
class _Action:
    """A call that does ``amount`` bytes or multiply-adds."""

    name: str
    amount: int
    call: Callable[[], object]


def _measured(actions: list[_Action], seconds: float, clock: Clock) -> list[Measured]:
    """Time calls that take turns, each right behind an untimed one of its own, for ``seconds`` without these."""

    def warm_clock(call: Callable[[], object]) -> Callable[[], float]:
        call()  # else it would find the caches full of what the action before it has read
        return clock(call)

    calls = {action.name: action.call for action in actions}
    times = interleaved(calls, seconds=seconds, clock=warm_clock)
    return [Measured(action.name, action.amount, times[action.name]) for action in actions]


def _growing(make: Callable[[int], _Action], clock: Clock) -> list[_Action]:
    """``make`` of the first power of 2 with which a call is long enough, and of the one before if there is one."""
    actions: list[_Action] = []
    size = 1
    while True:
        actions = [*actions[-1:], make(size)]
        call = actions[-1].call
        call()
        # The shortest of three, lest one interruption pass for a long call.
        if min(clock(call)() for _ in range(3)) >= LONG_ENOUGH:
            return actions
        size *= 2


def _copy(device: torch.device) -> _Action:
    block = _random((COPIED // 64 // 4,), device, torch.float32)
    source = block.repeat(64)
    target = torch.empty_like(source)
    return _Action(f"copy of {size_text(COPIED)}", 2 * COPIED, lambda: target.copy_(source))


def _products(device: torch.device, dtype: torch.dtype) -> list[Callable[[int], _Action]]:
    """Makers of what may reach the highest rate, each for a size from 1 on."""

    def mm(size: int) -> _Action:
        n = 256 * size
        a, b = _random((n, n), device, dtype), _random((n, n), device, dtype)
        out = torch.empty_like(a)
        return _Action(f"torch.mm of {n}×{n}", n**3, lambda: torch.mm(a, b, out=out))

    def conv(layout: torch.memory_format) -> Callable[[int], _Action]:
        def make(size: int) -> _Action:
            channels, side = 256, 14
            x = _random((size, channels, side, side), device, dtype).contiguous(memory_format=layout)
            weight = _random((channels, channels, 3, 3), device, dtype).contiguous(memory_format=layout)
            name = f"nn.Conv2d 3×3 on {size}×{channels}×{side}×{side}, {str(layout).removeprefix('torch.')}"
            return _Action(name, 9 * channels * x.numel(), lambda: F.conv2d(x, weight, padding=1))

        return make

    return [mm, conv(torch.contiguous_format), conv(torch.channels_last)]


def _random(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Normally distributed numbers: products of zeros take less power, and so less time on some processors."""
    return torch.randn(shape, device=device, dtype=dtype, generator=torch.Generator(device).manual_seed(0))


def _checked_device(device: torch.device | str) -> torch.device:
    try:
        where = torch.device(device)
    except RuntimeError:
        raise UserError(f"device must be cpu or cuda, but got {device!r}") from None
    if where.type not in ("cpu", "cuda"):
        raise UserError(f"device must be cpu or cuda, but got {device!r}")
    if where.type == "cuda":
        count = torch.cuda.device_count()
        if not count:
            raise UserError(f"device must be cpu, since PyTorch finds no CUDA device here, but got {device!r}")
        if (where.index or 0) >= count:
            legal = ", ".join(f"cuda:{i}" for i in range(count))
            raise UserError(f"device must be cpu or one of {legal}, but got {device!r}")
    return where


def _computes(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether PyTorch multiplies matrices and convolves in ``dtype`` there, fast or not."""
    try:
        x = torch.ones(16, 16, device=device, dtype=dtype)
        torch.mm(x, x)
        F.conv2d(x[None, None], x[None, None, :3, :3])
    except RuntimeError:
        return False
    return True


def processor(device: torch.device) -> str:
    """The name of the processor, as far as it can be found out."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")  # Linux; platform.processor() is often empty there
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
