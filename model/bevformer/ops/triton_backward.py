"""Device function behind both backward kernels: the gradients of one map's samples for q rows of one head.

Letters as in `triton_sample.py`; tiles of a row's samples are q x WIDTH, column n = level * P + point.
"""

import triton
import triton.language as tl

from .triton_deterministic import add
from .triton_sample import corner, level_of, place


@triton.jit
def visit(
    origin_q, sums_q, d, cell_q, inside_q, share_q, grad_qD, unit, C: tl.constexpr, FIXED: tl.constexpr
):
    """Adds a cell's share of the gradient to its sums; returns the cell's values times the gradient, (q,)."""
    at, mask = corner(origin_q, d, cell_q, inside_q, C)
    into, _ = corner(sums_q, d, cell_q, inside_q, C)
    value_qD = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    add(into, share_q[:, None] * grad_qD, mask & (d >= 0)[None, :], unit, FIXED)
    return tl.sum(value_qD * grad_qD, 1)


@triton.jit
def gradients(
    by_weight, by_x, by_y, grad_qD, origin_q, sums_q, points_q, offsets_q, logits_q,
    top_q, scale_q, seen_q, unit,
    LEVELS: tl.constexpr, P: tl.constexpr, Z: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
    WIDTH: tl.constexpr, FIXED: tl.constexpr,
):  # fmt: skip
    """The tiles by_weight, by_x and by_y and what this map adds to them; its cells' share goes to sums.

    grad: of the output.  The tiles stay in registers, in the layout of grad where WIDTH = D: one store per
    row at the end, no atomics.
    """
    d = tl.arange(0, D)
    column = tl.arange(0, WIDTH)[None, :]
    for level in range(len(LEVELS)):
        height, width, first = level_of(level, LEVELS)
        for p in tl.static_range(P):
            n = level * P + p
            weight, cell, fx, fy, left, right, upper, lower = place(
                points_q, offsets_q, logits_q, top_q, scale_q, n, p % Z, height, width, first, seen_q
            )
            gx = 1.0 - fx
            gy = 1.0 - fy
            a = visit(origin_q, sums_q, d, cell, upper & left, weight * gy * gx, grad_qD, unit, C, FIXED)
            b = visit(origin_q, sums_q, d, cell + 1, upper & right, weight * gy * fx, grad_qD, unit, C, FIXED)
            c = visit(
                origin_q, sums_q, d, cell + width, lower & left, weight * fy * gx, grad_qD, unit, C, FIXED
            )
            e = visit(
                origin_q,
                sums_q,
                d,
                cell + width + 1,
                lower & right,
                weight * fy * fx,
                grad_qD,
                unit,
                C,
                FIXED,
            )
            here = column == n
            by_weight += tl.where(here, (gy * (gx * a + fx * b) + fy * (gx * c + fx * e))[:, None], 0.0)
            by_x += tl.where(here, (weight * (gy * (b - a) + fy * (e - c)))[:, None], 0.0)
            by_y += tl.where(here, (weight * (gx * (c - a) + fx * (e - b)))[:, None], 0.0)
    return by_weight, by_x, by_y


@triton.jit
def store_gradients(
    by_weight, by_x, by_y, weights, grad_offsets_q, grad_logits_q, seen_q,
    COUNT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Through the softmax to the logits; x and y side by side to the offsets."""
    n = tl.arange(0, WIDTH)[None, :]
    by_logit = weights * (by_weight - tl.sum(weights * by_weight, 1)[:, None])
    tl.store(grad_logits_q[:, None] + n, by_logit, mask=seen_q[:, None] & (n < COUNT))
    xy = tl.arange(0, 2 * WIDTH)[None, :]
    both = tl.interleave(by_x, by_y)
    tl.store(grad_offsets_q[:, None] + xy, both, mask=seen_q[:, None] & (xy < 2 * COUNT))
