"""Multi-scale deformable attention as Triton kernels: `deform_attn`, and with T queues `temporal_attn`.

B maps or samples, T queues (1 for `deform_attn`), Q queries, H heads, D channels per head, C = H * D,
P points, Z reference points.  A row's offsets and logits lie together: (B, Q, H, T, L, P[, 2]).
LEVELS: (height, width, first cell) per level.
"""

import triton
import triton.language as tl

from .triton_backward import gradients, store_gradients
from .triton_sample import softmax_tile, sum_of_samples


@triton.jit
def deform_forward(
    value, points, offsets, logits, out, Q, sample_stride, queue_stride,
    LEVELS: tl.constexpr, T: tl.constexpr, H: tl.constexpr, P: tl.constexpr, Z: tl.constexpr,
    D: tl.constexpr, WIDTH: tl.constexpr, BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """out (B, Q, C): the mean over T queues of the weighted samples.  Programs: (blocks of queries, H, B)."""
    C: tl.constexpr = H * D
    COUNT: tl.constexpr = len(LEVELS) * P
    query = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    head, sample = tl.program_id(1), tl.program_id(2).to(tl.int64)
    seen = query < Q
    row = sample * Q + query
    total = tl.zeros([BLOCK_Q, D], tl.float32)
    for t in tl.static_range(T):
        first = ((row * H + head) * T + t) * COUNT
        _, top, scale = softmax_tile(logits + first, seen, COUNT, WIDTH)
        origin = value + (sample * sample_stride + t * queue_stride + head * D) + tl.zeros_like(row)
        around = points + ((sample * T + t) * Q + query) * (2 * Z)
        total = sum_of_samples(
            total, origin, around, offsets + 2 * first, logits + first, top, scale, seen, LEVELS, P, Z, C, D
        )
    at = out + (row * C + head * D)[:, None] + tl.arange(0, D)[None, :]
    tl.store(at, total / T, mask=seen[:, None])


@triton.jit
def deform_backward(
    grad_out, value, points, offsets, logits, sums, grad_offsets, grad_logits, unit_1,
    Q, sample_stride, queue_stride, sums_sample_stride, sums_queue_stride,
    LEVELS: tl.constexpr, T: tl.constexpr, H: tl.constexpr, P: tl.constexpr, Z: tl.constexpr,
    D: tl.constexpr, WIDTH: tl.constexpr, BLOCK_Q: tl.constexpr, FIXED: tl.constexpr,
):  # fmt: skip
    """Gradients of `deform_forward`; those of value are added to `sums` (see `triton_deterministic`)."""
    C: tl.constexpr = H * D
    COUNT: tl.constexpr = len(LEVELS) * P
    unit = tl.load(unit_1) if FIXED else 1.0
    query = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    head, sample = tl.program_id(1), tl.program_id(2).to(tl.int64)
    seen = query < Q
    row = sample * Q + query
    at = grad_out + (row * C + head * D)[:, None] + tl.arange(0, D)[None, :]
    grad = tl.load(at, mask=seen[:, None], other=0.0).to(tl.float32) / T
    for t in tl.static_range(T):
        first = ((row * H + head) * T + t) * COUNT
        weights, top, scale = softmax_tile(logits + first, seen, COUNT, WIDTH)
        none = tl.zeros([BLOCK_Q, WIDTH], tl.float32)
        by_weight, by_x, by_y = gradients(
            none, none, none, grad,
            value + (sample * sample_stride + t * queue_stride + head * D) + tl.zeros_like(row),
            sums + (sample * sums_sample_stride + t * sums_queue_stride + head * D) + tl.zeros_like(row),
            points + ((sample * T + t) * Q + query) * (2 * Z), offsets + 2 * first, logits + first,
            top, scale, seen, unit, LEVELS, P, Z, C, D, WIDTH, FIXED,
        )  # fmt: skip
        store_gradients(
            by_weight, by_x, by_y, weights, grad_offsets + 2 * first, grad_logits + first, seen, COUNT, WIDTH
        )
