"""Running a plan on tensors: tables on the device, weights packed and unpacked, kernels launched and tuned."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor
from triton.runtime import JITFunction

from pyconv_search.ops.kernels import gemm
from pyconv_search.ops.kernels.choice import bucket, choose
from pyconv_search.ops.kernels.plan import Pair, Plan, Problem, make_plan

INTERPRETED = not isinstance(gemm.convolve, JITFunction)
# Rows of a gradient's share, a multiple of every BLOCK_M.
SHARE = 256
# Numbers that a 32-bit position reaches.
NARROW = 1 << 31
# Bytes that the partial sums of one gradient may take.
PARTIAL_BYTES = 1 << 28


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
    blocks: Tensor
    steps: Tensor
    index: Tensor
    places: Tensor


@functools.lru_cache(maxsize=512)
def _tables(plan: Plan, device: torch.device) -> _Tables:
    """The tables of ``plan`` on ``device``; ``index`` has the number of weights where there is none."""
    index = plan.index.ravel()
    weights = int(index.max()) + 1
    order = np.argsort(index, kind="stable")[np.count_nonzero(index < 0) :]
    arrays = plan.blocks, plan.steps, np.where(index < 0, weights, index), order.reshape(weights, -1).astype(np.int32)
    return _Tables(*(torch.from_numpy(array).to(device) for array in arrays))


def convolve(x: Tensor, weights: Tensor, bias: Tensor | None, problem: Problem, size: Pair) -> Tensor:
    """The convolution of ``problem``, or its gradient by the input where ``transposed``.

    Args:
        x: N×C×H×W, channels last; ``weights`` of its dtype, all levels' in one vector.
        size: height and width of the result.
    """
    plan = _plan(problem, False, x.shape[2:] if problem.transposed else size)
    width = problem.in_channels if problem.transposed else sum(level.width for level in problem.levels)
    shape = (x.shape[0], width, *size)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    rows = _row_count(plan, out)
    if not rows:
        return out
    tables = _tables(plan, x.device)
    packed = torch.cat([weights, weights.new_zeros(1)]).index_select(0, tables.index)
    with _on(x):
        tuned("convolve")[lambda meta: (triton.cdiv(rows, meta["BLOCK_M"]) * len(plan.blocks),)](
            x, packed, weights if bias is None else bias, out, tables.blocks, tables.steps, rows,
            *_patches(plan, out), *x.shape[2:], *size, rows.bit_length(),
            **geometry(plan, x, out), HAS_BIAS=bias is not None,
        )  # fmt: skip
    return out


def correlate(x: Tensor, grad: Tensor, problem: Problem) -> Tensor:
    """The gradient of the convolution of ``x`` by all weights, given that by its output; both channels last."""
    plan = _plan(problem, True, grad.shape[2:])
    rows, tables = _row_count(plan, grad), _tables(plan, x.device)
    if not rows:
        return x.new_zeros(len(tables.places))
    shares = -(-rows // (SHARE * _splits(plan, x, rows))) * SHARE
    partial = x.new_empty((-(-rows // shares), *plan.index.shape), dtype=torch.float32)
    with _on(x):
        tuned("correlate")[(len(plan.index), len(partial))](
            x, grad, partial, tables.blocks, tables.steps, rows,
            *_patches(plan, grad), *x.shape[2:], *grad.shape[2:], rows.bit_length(), shares,
            **geometry(plan, x, grad),
        )  # fmt: skip
    # Summed in one order whatever the machine does, so that results can be reproduced to the bit.
    return partial.sum(0).view(-1)[tables.places].sum(1).to(x.dtype)


def _plan(problem: Problem, gradient: bool, size: Any) -> Plan:
    return make_plan(problem, choose(problem, gradient, bucket((int(size[0]), int(size[1])))))


def _patches(plan: Plan, out: Tensor) -> Pair:
    return -(-out.shape[2] // plan.target[0]), -(-out.shape[3] // plan.target[1])


def _row_count(plan: Plan, out: Tensor) -> int:
    down, right = _patches(plan, out)
    return out.shape[0] * down * right


def _splits(plan: Plan, x: Tensor, rows: int) -> int:
    """Into how many parts the rows are split, so that the device is filled and the partial sums stay small."""
    processors = torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 2
    fitting = max(1, PARTIAL_BYTES // (4 * plan.index.size))
    return max(1, min(-(-4 * processors // len(plan.index)), fitting, -(-rows // SHARE)))


def geometry(plan: Plan, src: Tensor, dst: Tensor) -> dict[str, Any]:
    """What a kernel is compiled for, of those arguments that both have."""
    tile = plan.tile
    return {
        "chip": _chip(src.device),
        "SRC_CHANNELS": src.shape[1],
        "DST_CHANNELS": dst.shape[1],
        "SOURCE_H": plan.source[0],
        "SOURCE_W": plan.source[1],
        "TARGET_H": plan.target[0],
        "TARGET_W": plan.target[1],
        "SPACING_H": plan.spacing[0],
        "SPACING_W": plan.spacing[1],
        "PATCH_H": tile.patch[0],
        "PATCH_W": tile.patch[1],
        "COLUMNS": tile.columns,
        "RUN": tile.run,
        "DEPTH": tile.depth,
        "COLUMN_STRIDE": plan.strides[1],
        "DEPTH_STRIDE": plan.strides[0],
        "SRC_VECTOR": plan.vectors[0],
        "DST_VECTOR": plan.vectors[1],
        "WHOLE": plan.whole,
        "EVEN": plan.even,
        "PRECISION": "tf32" if src.dtype == torch.float32 and tf32_allowed() else "ieee",
        # The interpreter's dot takes the bits of a bfloat16 for an integer's.
        "UPCAST": INTERPRETED,
        "WIDE": max(src.numel(), dst.numel()) >= NARROW,
    }


def tf32_allowed() -> bool:
    """Whether torch lets convolutions of float32 be computed in TF32."""
    precision = getattr(getattr(torch.backends.cudnn, "conv", None), "fp32_precision", None)
    return torch.backends.cudnn.allow_tf32 if precision is None else precision == "tf32"


@functools.cache
def _chip(device: torch.device) -> str:
    """What tuning holds for: two GPUs of one architecture differ in speed."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _on(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def config(rows: int, warps: int, stages: int, **swap: bool) -> triton.Config:
    """A config of ``rows`` rows a program."""
    return triton.Config({"BLOCK_M": rows, **swap}, num_warps=warps, num_stages=stages)


def configs(kernel: str) -> list[triton.Config]:
    """What a kernel is tuned over; one small one in the interpreter."""
    if kernel == "correlate":
        sizes = (
            [(64, 4, 1)] if INTERPRETED else [(32, 4, 4), (32, 8, 4), (64, 4, 3), (64, 4, 5), (64, 8, 3), (128, 8, 3)]
        )
        return [config(*size) for size in sizes]
    if INTERPRETED:
        return [config(64, 4, 1, SWAP=False)]
    straight = [(64, 4, 4), (128, 4, 3), (128, 4, 5), (128, 8, 3), (128, 8, 5), (256, 8, 3)]
    swapped = [(128, 4, 4), (128, 8, 5), (256, 8, 4)]
    return [config(*size, SWAP=False) for size in straight] + [config(*size, SWAP=True) for size in swapped]


def fitting(given: list[triton.Config], named: dict[str, Any], **meta: Any) -> list[triton.Config]:
    """The configs whose stages fit into shared memory and whose sums fit into registers; the smallest if none does."""
    warpgroups = torch.cuda.get_device_capability()[0] in (9, 10)
    return fitting_sizes(given, meta, named["src"].element_size(), shared_limit(), warpgroups)


def fitting_sizes(
    given: list[triton.Config], meta: dict[str, Any], itemsize: int, limit: int, warpgroups: bool
) -> list[triton.Config]:
    """As :func:`fitting`, for numbers of ``itemsize`` bytes, ``limit`` bytes of shared memory and, or not, wgmma."""
    depth, columns = meta["RUN"] * meta["DEPTH"], meta["PATCH_H"] * meta["PATCH_W"] * meta["COLUMNS"]
    forward = "HAS_BIAS" in meta

    def shared(config: triton.Config) -> int:
        rows = config.kwargs["BLOCK_M"]
        return config.num_stages * (rows * depth + (depth if forward else rows) * columns) * itemsize

    def fits(config: triton.Config) -> bool:
        sums = (config.kwargs["BLOCK_M"] if forward else depth) * columns
        # Only wgmma takes transposed factors from shared memory, of 16-bit numbers and 64 columns at least.
        swappable = warpgroups and itemsize == 2 and columns >= 64
        held = sums / (32 * config.num_warps)
        # Factors of float32 are multiplied from registers, which leaves less room and, by the weights, few rows.
        room, few = (128, True) if itemsize == 2 else (8 * config.num_warps, forward or config.kwargs["BLOCK_M"] <= 32)
        return shared(config) <= limit and held <= room and few and (swappable or not config.kwargs.get("SWAP"))

    return [one for one in given if fits(one)] or [min(given, key=shared)]


def shared_limit() -> int:
    """Bytes of shared memory that a program may have on the current device."""
    utils = triton.runtime.driver.active.utils
    return utils.get_device_properties(torch.cuda.current_device())["max_shared_mem"]


@functools.cache
def tuned(kernel: str) -> Any:
    """The kernel with its tuner; what was found is kept on disk, for each GPU by its name."""
    key = ["chip", "size", "SRC_CHANNELS", "DST_CHANNELS", "SOURCE_H", "SOURCE_W", "TARGET_H", "TARGET_W"]
    key += ["PATCH_H", "PATCH_W", "COLUMNS", "RUN", "DEPTH", "COLUMN_STRIDE", "DEPTH_STRIDE", "PRECISION"]
    prune = None if INTERPRETED else {"early_config_prune": fitting}
    tuner = triton.autotune(configs(kernel), key, prune_configs_by=prune, cache_results=not INTERPRETED)
    return tuner(getattr(gemm, kernel))
