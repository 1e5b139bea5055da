"""Spatial cross-attention as a whole as Triton kernels: every row walks through the cameras that see it.

G rows, K maps, V visible pairs of a row and a camera (`visible.Pairs`), H heads, D channels per head,
C = H * D, P points, Z heights.  LEVELS: (height, width, first cell) per level.
"""

import triton
import triton.language as tl

from .triton_backward import gradients, store_gradients
from .triton_sample import softmax_tile, sum_of_samples


@triton.jit
def spatial_forward(
    value, starts, cameras, points, offsets, logits, out, G, map_stride,
    LEVELS: tl.constexpr, H: tl.constexpr, P: tl.constexpr, Z: tl.constexpr,
    D: tl.constexpr, WIDTH: tl.constexpr, BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """out (G, C): the mean over a row's cameras, zero where there is none.  Programs: (blocks of rows, H)."""
    C: tl.constexpr = H * D
    COUNT: tl.constexpr = len(LEVELS) * P
    row = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    head = tl.program_id(1)
    start = tl.load(starts + row, mask=row < G, other=0)
    count = tl.load(starts + row + 1, mask=row < G, other=0) - start
    most = tl.max(count, 0)
    total = tl.zeros([BLOCK_Q, D], tl.float32)
    if most > 0:
        first = (row.to(tl.int64) * H + head) * COUNT
        _, top, scale = softmax_tile(logits + first, count > 0, COUNT, WIDTH)
        for turn in range(most):
            seen = turn < count
            pair = (start + turn).to(tl.int64)
            camera = tl.load(cameras + pair, mask=seen, other=0).to(tl.int64)
            origin = value + camera * map_stride + head * D
            total = sum_of_samples(
                total, origin, points + pair * (2 * Z), offsets + 2 * first, logits + first, top, scale, seen,
                LEVELS, P, Z, C, D,
            )  # fmt: skip
        total = total / tl.maximum(count, 1).to(tl.float32)[:, None]
    at = out + (row.to(tl.int64) * C + head * D)[:, None] + tl.arange(0, D)[None, :]
    tl.store(at, total, mask=(row < G)[:, None])


@triton.jit
def spatial_backward(
    grad_out, value, starts, cameras, points, offsets, logits, sums, grad_offsets, grad_logits, unit_1,
    G, map_stride, sums_map_stride,
    LEVELS: tl.constexpr, H: tl.constexpr, P: tl.constexpr, Z: tl.constexpr,
    D: tl.constexpr, WIDTH: tl.constexpr, BLOCK_Q: tl.constexpr, FIXED: tl.constexpr,
):  # fmt: skip
    """Gradients of `spatial_forward`; those of value are added to `sums` (see `triton_deterministic`)."""
    C: tl.constexpr = H * D
    COUNT: tl.constexpr = len(LEVELS) * P
    unit = tl.load(unit_1) if FIXED else 1.0
    row = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    head = tl.program_id(1)
    start = tl.load(starts + row, mask=row < G, other=0)
    count = tl.load(starts + row + 1, mask=row < G, other=0) - start
    most = tl.max(count, 0)
    first = (row.to(tl.int64) * H + head) * COUNT
    weights = tl.zeros([BLOCK_Q, WIDTH], tl.float32)
    by_weight = tl.zeros([BLOCK_Q, WIDTH], tl.float32)
    by_x = tl.zeros([BLOCK_Q, WIDTH], tl.float32)
    by_y = tl.zeros([BLOCK_Q, WIDTH], tl.float32)
    if most > 0:
        at = grad_out + (row.to(tl.int64) * C + head * D)[:, None] + tl.arange(0, D)[None, :]
        grad = tl.load(at, mask=(count > 0)[:, None], other=0.0).to(tl.float32)
        grad = grad / tl.maximum(count, 1).to(tl.float32)[:, None]
        weights, top, scale = softmax_tile(logits + first, count > 0, COUNT, WIDTH)
        for turn in range(most):
            seen = turn < count
            pair = (start + turn).to(tl.int64)
            camera = tl.load(cameras + pair, mask=seen, other=0).to(tl.int64)
            by_weight, by_x, by_y = gradients(
                by_weight, by_x, by_y, grad,
                value + camera * map_stride + head * D, sums + camera * sums_map_stride + head * D,
                points + pair * (2 * Z), offsets + 2 * first, logits + first,
                top, scale, seen, unit, LEVELS, P, Z, C, D, WIDTH, FIXED,
            )  # fmt: skip
    store_gradients(
        by_weight, by_x, by_y, weights, grad_offsets + 2 * first, grad_logits + first, row < G, COUNT, WIDTH
    )
