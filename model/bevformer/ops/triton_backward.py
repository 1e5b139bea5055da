"""Device function behind both backward kernels: the gradients of one map's samples for q rows of one head.

Letters as in `triton_sample.py`; tiles of a row's samples are q x WIDTH, column n = level * P + point.
"""

import triton
import triton.language as tl

from .triton_deterministic import add
from .triton_sample import corner, level_of, place, values


@triton.jit
def add_share(sums_q, d, cell_q, inside_q, share_q, grad_qD, unit, C: tl.constexpr, FIXED: tl.constexpr):
    """A cell's share of the gradient to its sums."""
    at, mask = corner(sums_q, d, cell_q, inside_q, C)
    add(at, share_q[:, None] * grad_qD, mask & (d >= 0)[None, :], unit, FIXED)


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
            # All four loads come before the first sum and the first atomic, across which none is moved: one
            # wait instead of four.
            value_a = values(origin_q, d, cell, upper & left, C)
            value_b = values(origin_q, d, cell + 1, upper & right, C)
            value_c = values(origin_q, d, cell + width, lower & left, C)
            value_e = values(origin_q, d, cell + width + 1, lower & right, C)
            a = tl.sum(value_a * grad_qD, 1)
            b = tl.sum(value_b * grad_qD, 1)
            c = tl.sum(value_c * grad_qD, 1)
            e = tl.sum(value_e * grad_qD, 1)
            to_right_above = b - a
            to_right_below = e - c
            above = a + fx * to_right_above
            down = c + fx * to_right_below - above
            here = column == n
            by_weight += tl.where(here, (above + fy * down)[:, None], 0.0)
            by_x += tl.where(here, (to_right_above + fy * (to_right_below - to_right_above))[:, None], 0.0)
            by_y += tl.where(here, down[:, None], 0.0)
            gx = 1.0 - fx
            share_above = weight * (1.0 - fy)
            share_below = weight * fy
            add_share(sums_q, d, cell, upper & left, share_above * gx, grad_qD, unit, C, FIXED)
            add_share(sums_q, d, cell + 1, upper & right, share_above * fx, grad_qD, unit, C, FIXED)
            add_share(sums_q, d, cell + width, lower & left, share_below * gx, grad_qD, unit, C, FIXED)
            add_share(sums_q, d, cell + width + 1, lower & right, share_below * fx, grad_qD, unit, C, FIXED)
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
    both = tl.interleave(weights * by_x, weights * by_y)
    tl.store(grad_offsets_q[:, None] + xy, both, mask=seen_q[:, None] & (xy < 2 * COUNT))
