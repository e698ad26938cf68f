"""The Triton kernels: a plan's steps, forward (or by the input, under a transposed plan), and by the weights.

Images are N×H×W×C in memory. Only :mod:`pyconv_search.ops.kernels.launch` imports this module, which needs Triton.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Sizes of images tell the compiler nothing, and a kernel for each would take seconds.
SIZES = ["rows", "patches_h", "patches_w", "src_h", "src_w", "dst_h", "dst_w", "size"]


@triton.jit
def _rows(start, BLOCK: tl.constexpr, count, patches_h, patches_w):
    """Image and patch of every row of a block, and whether there is one."""
    row = start + tl.arange(0, BLOCK)
    x = row % patches_w
    y = row // patches_w % patches_h
    return row // patches_w // patches_h, y, x, row < count


@triton.jit
def _origin(image, y, x, height, width, channels, WIDE: tl.constexpr):
    """The position in memory of each row's first channel; past 2³¹ in 64 bits."""
    if WIDE:
        image = image.to(tl.int64)
    return ((image * height + y) * width + x) * channels


@triton.jit
def _pixels(
    src, origin, y, x, dy, dx, channel, live, height, width,
    CHANNELS: tl.constexpr, DEPTH: tl.constexpr, RUN: tl.constexpr, STRIDE: tl.constexpr,
    VECTOR: tl.constexpr, WHOLE: tl.constexpr,
    TRANSPOSED: tl.constexpr,
):  # fmt: skip
    """The input's lanes of one step, BLOCK_M × (RUN·DEPTH), or TRANSPOSED."""
    lane = tl.arange(0, RUN * DEPTH)
    own = lane % DEPTH * STRIDE
    run = lane // DEPTH
    channel = channel * VECTOR
    live = live & (y + dy >= 0) & (y + dy < height)
    if RUN == 1:
        mask = (live & (x + dx >= 0) & (x + dx < width))[:, None]
    else:
        at = (x + dx)[:, None] + run[None, :]
        mask = live[:, None] & (at >= 0) & (at < width)
    if not WHOLE:
        mask = mask & (channel + own < CHANNELS)[None, :]
    place = (origin + ((dy * width + dx) * CHANNELS + channel))[:, None] + (run * CHANNELS + own)[None, :]
    if TRANSPOSED:
        place, mask = tl.trans(place), tl.trans(tl.broadcast_to(mask, place.shape))
    # Neighbouring taps read the same pixels again, so they shall stay in the first cache.
    return tl.load(src + place, mask=mask, other=0.0, cache_modifier=".ca")


@triton.jit
def _patch_lanes(
    y, x, block, live, height, width,
    CHANNELS: tl.constexpr, COLUMNS: tl.constexpr, PATCH_H: tl.constexpr, PATCH_W: tl.constexpr,
    SPACING_H: tl.constexpr, SPACING_W: tl.constexpr, STRIDE: tl.constexpr, VECTOR: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """The output's lanes of one block: offsets in memory from the rows' origins, and which exist."""
    lane = tl.arange(0, PATCH_H * PATCH_W * COLUMNS)
    channel = tl.load(block + 2) * VECTOR
    own = lane % COLUMNS
    down = tl.load(block + 4) + lane // COLUMNS // PATCH_W * SPACING_H
    right = tl.load(block + 5) + lane // COLUMNS % PATCH_W * SPACING_W
    mask = live[:, None] & (y[:, None] + down[None, :] < height) & (x[:, None] + right[None, :] < width)
    # A mask of this kind would keep neighbouring channels from being moved together.
    if not EVEN:
        mask = mask & (own < tl.load(block + 3))[None, :]
    return (down * width + right) * CHANNELS + channel + own * STRIDE, mask


@triton.jit
def _dot(a, b, acc, PRECISION: tl.constexpr, UPCAST: tl.constexpr):
    if UPCAST:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit(do_not_specialize=SIZES)
def convolve(
    src, packed, bias, dst, blocks, steps, rows, patches_h, patches_w, src_h, src_w, dst_h, dst_w, size,
    chip: tl.constexpr,
    SRC_CHANNELS: tl.constexpr, DST_CHANNELS: tl.constexpr, SOURCE_H: tl.constexpr, SOURCE_W: tl.constexpr,
    TARGET_H: tl.constexpr, TARGET_W: tl.constexpr, SPACING_H: tl.constexpr, SPACING_W: tl.constexpr,
    PATCH_H: tl.constexpr, PATCH_W: tl.constexpr, COLUMNS: tl.constexpr, RUN: tl.constexpr, DEPTH: tl.constexpr,
    COLUMN_STRIDE: tl.constexpr, DEPTH_STRIDE: tl.constexpr, SRC_VECTOR: tl.constexpr, DST_VECTOR: tl.constexpr,
    WHOLE: tl.constexpr, EVEN: tl.constexpr,
    HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr, SWAP: tl.constexpr,
):  # fmt: skip
    """One block's columns of BLOCK_M rows: the sum over its steps, and the bias.

    SWAP multiplies the transposes: pixels are then read from shared memory once for 64 columns and not once for all,
    weights once for up to 256 rows and not once for 64.
    """
    # Programs that read the same pixels follow one another.
    count = tl.num_programs(0) // tl.cdiv(rows, BLOCK_M)
    block = blocks + tl.program_id(0) % count * 6
    image, y, x, live = _rows(tl.program_id(0) // count * BLOCK_M, BLOCK_M, rows, patches_h, patches_w)
    src_y, src_x = y * SOURCE_H, x * SOURCE_W
    origin = _origin(image, src_y, src_x, src_h, src_w, SRC_CHANNELS, WIDE)
    K: tl.constexpr = RUN * DEPTH
    N: tl.constexpr = PATCH_H * PATCH_W * COLUMNS
    acc = tl.zeros((N, BLOCK_M) if SWAP else (BLOCK_M, N), tl.float32)
    first, many = tl.load(block), tl.load(block + 1)
    within = tl.arange(0, K)[:, None] * N + tl.arange(0, N)[None, :]
    # A step's numbers are fetched one step ahead, so that its loads need not wait for them.
    step = steps + first * 4
    dy, dx, channel = tl.load(step), tl.load(step + 1), tl.load(step + 2)
    for at in range(first, first + many):
        step = steps + at * 4 + 4
        next_dy, next_dx, next_channel = tl.load(step), tl.load(step + 1), tl.load(step + 2)
        a = _pixels(
            src, origin, src_y, src_x, dy, dx, channel, live, src_h, src_w,
            SRC_CHANNELS, DEPTH, RUN, DEPTH_STRIDE, SRC_VECTOR, WHOLE, False,
        )  # fmt: skip
        b = tl.load(packed + at * (K * N) + within)
        if SWAP:  # noqa: SIM108 - the compiler wants one branch gone
            acc = _dot(tl.trans(b), tl.trans(a), acc, PRECISION, UPCAST)
        else:
            acc = _dot(a, b, acc, PRECISION, UPCAST)
        dy, dx, channel = next_dy, next_dx, next_channel
    if SWAP:
        acc = tl.trans(acc)
    dst_y, dst_x = y * TARGET_H, x * TARGET_W
    lanes, mask = _patch_lanes(
        dst_y, dst_x, block, live, dst_h, dst_w,
        DST_CHANNELS, COLUMNS, PATCH_H, PATCH_W, SPACING_H, SPACING_W, COLUMN_STRIDE, DST_VECTOR, EVEN,
    )  # fmt: skip
    if HAS_BIAS:
        lane = tl.arange(0, N) % COLUMNS
        channel = tl.load(block + 2) * DST_VECTOR + lane * COLUMN_STRIDE
        acc += tl.load(bias + channel, mask=lane < tl.load(block + 3), other=0.0).to(tl.float32)[None, :]
    place = _origin(image, dst_y, dst_x, dst_h, dst_w, DST_CHANNELS, WIDE)[:, None] + lanes[None, :]
    tl.store(dst + place, acc.to(dst.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=[*SIZES, "share"])
def correlate(
    src, grad, partial, blocks, steps, rows, patches_h, patches_w, src_h, src_w, dst_h, dst_w, size, share,
    chip: tl.constexpr,
    SRC_CHANNELS: tl.constexpr, DST_CHANNELS: tl.constexpr, SOURCE_H: tl.constexpr, SOURCE_W: tl.constexpr,
    TARGET_H: tl.constexpr, TARGET_W: tl.constexpr, SPACING_H: tl.constexpr, SPACING_W: tl.constexpr,
    PATCH_H: tl.constexpr, PATCH_W: tl.constexpr, COLUMNS: tl.constexpr, RUN: tl.constexpr, DEPTH: tl.constexpr,
    COLUMN_STRIDE: tl.constexpr, DEPTH_STRIDE: tl.constexpr, SRC_VECTOR: tl.constexpr, DST_VECTOR: tl.constexpr,
    WHOLE: tl.constexpr, EVEN: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr, WIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
):  # fmt: skip
    """The gradient by one step's weights, over ``share`` rows."""
    at, part = tl.program_id(0), tl.program_id(1)
    step = steps + at * 4
    dy, dx, channel = tl.load(step), tl.load(step + 1), tl.load(step + 2)
    block = blocks + tl.load(step + 3) * 6
    K: tl.constexpr = RUN * DEPTH
    N: tl.constexpr = PATCH_H * PATCH_W * COLUMNS
    acc = tl.zeros((K, N), tl.float32)
    for start in range(part * share, min(part * share + share, rows), BLOCK_M):
        image, y, x, live = _rows(start, BLOCK_M, rows, patches_h, patches_w)
        src_y, src_x = y * SOURCE_H, x * SOURCE_W
        a = _pixels(
            src, _origin(image, src_y, src_x, src_h, src_w, SRC_CHANNELS, WIDE), src_y, src_x, dy, dx, channel, live,
            src_h, src_w, SRC_CHANNELS, DEPTH, RUN, DEPTH_STRIDE, SRC_VECTOR, WHOLE, True,
        )  # fmt: skip
        dst_y, dst_x = y * TARGET_H, x * TARGET_W
        lanes, mask = _patch_lanes(
            dst_y, dst_x, block, live, dst_h, dst_w,
            DST_CHANNELS, COLUMNS, PATCH_H, PATCH_W, SPACING_H, SPACING_W, COLUMN_STRIDE, DST_VECTOR, EVEN,
        )  # fmt: skip
        place = _origin(image, dst_y, dst_x, dst_h, dst_w, DST_CHANNELS, WIDE)[:, None] + lanes[None, :]
        g = tl.load(grad + place, mask=mask, other=0.0)
        acc = _dot(a, g, acc, PRECISION, UPCAST)
    within = tl.arange(0, K)[:, None] * N + tl.arange(0, N)[None, :]
    offset = (part.to(tl.int64) * tl.num_programs(0) + at) * (K * N)
    tl.store(partial + offset + within, acc)
