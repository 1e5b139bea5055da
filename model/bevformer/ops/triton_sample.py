"""Device functions that the Triton attentions share: bilinear samples of one head, and what they add up to.

A program looks after q rows (queries) of one head and holds their D channels: tiles are q x D.  Cells are
counted as in `deform_attn`: centres at +0.5, outside is zero.  LEVELS: (height, width, first cell) per level.
Everything is computed in float32, whatever the inputs are.
"""

import triton
import triton.language as tl


@triton.jit
def softmax_tile(logits_q, seen_q, COUNT: tl.constexpr, WIDTH: tl.constexpr):
    """Weights q x WIDTH of the COUNT logits at each pointer, then zeros; their maximum; 1 / their sum."""
    n = tl.arange(0, WIDTH)[None, :]
    logits = tl.load(logits_q[:, None] + n, mask=seen_q[:, None] & (n < COUNT), other=0.0).to(tl.float32)
    logits = tl.where(n < COUNT, logits, float("-inf"))
    top_q = tl.max(logits, 1)
    weights = tl.exp(logits - top_q[:, None])
    scale_q = 1.0 / tl.sum(weights, 1)
    return weights * scale_q[:, None], top_q, scale_q


@triton.jit
def level_of(index, LEVELS: tl.constexpr):
    """(height, width, first cell) of a level: a loop over levels instead of a copy of the code for each.

    In Triton 3.0 to 3.2 a constexpr has a length, but no subscripts: list() takes what is in it.
    """
    height = index * 0
    width = index * 0
    first = index * 0
    for i in tl.static_range(len(LEVELS)):
        height = tl.where(index == i, list(LEVELS)[i][0], height)
        width = tl.where(index == i, list(LEVELS)[i][1], width)
        first = tl.where(index == i, list(LEVELS)[i][2], first)
    return height, width, first


@triton.jit
def cell_below(reference_q, offset_q, size):
    """The cell whose centre lies at or before a location, and how far beyond, in [0, 1).

    However far outside a location is, it stays outside and its cell is an int32; NaN stays NaN.
    """
    at = reference_q * size + (offset_q - 0.5)  # rounded once: on a wide map that is the largest error
    at = tl.maximum(at, -2.0, propagate_nan=tl.PropagateNan.ALL)
    at = tl.minimum(at, size + 1.0, propagate_nan=tl.PropagateNan.ALL)
    below = tl.floor(at)
    return below.to(tl.int32), at - below


@triton.jit
def locate(reference_q, offset_q, size, seen_q):
    """`cell_below`, and whether that cell and the next one lie inside."""
    cell_q, beyond_q = cell_below(reference_q.to(tl.float32), offset_q.to(tl.float32), size.to(tl.float32))
    inside_q = seen_q & (cell_q >= 0) & (cell_q < size)
    next_inside_q = seen_q & (cell_q >= -1) & (cell_q < size - 1)
    return cell_q, beyond_q, inside_q, next_inside_q


@triton.jit
def place(points_q, offsets_q, logits_q, top_q, scale_q, n, z, height, width, first, seen_q):
    """Everything about sample n: its weight, its upper left cell, how far right and below of that cell's
    centre it lies, and whether the left and right columns, upper and lower rows of its four cells exist."""
    x, fx, left, right = locate(
        tl.load(points_q + 2 * z, mask=seen_q, other=0.0),
        tl.load(offsets_q + 2 * n, mask=seen_q, other=0.0), width, seen_q,
    )  # fmt: skip
    y, fy, upper, lower = locate(
        tl.load(points_q + 2 * z + 1, mask=seen_q, other=0.0),
        tl.load(offsets_q + 2 * n + 1, mask=seen_q, other=0.0), height, seen_q,
    )  # fmt: skip
    weight = tl.exp(tl.load(logits_q + n, mask=seen_q, other=0.0).to(tl.float32) - top_q) * scale_q
    return weight, first + y * width + x, fx, fy, left, right, upper, lower


@triton.jit
def corner(origin_q, d, cell_q, inside_q, C: tl.constexpr):
    """Pointers q x D to one cell's channels, and the mask of those that exist."""
    return origin_q[:, None] + (cell_q * C)[:, None] + d[None, :], inside_q[:, None]


@triton.jit
def values(origin_q, d, cell_q, inside_q, C: tl.constexpr):
    """A cell's channels in float32, zero outside."""
    at, mask = corner(origin_q, d, cell_q, inside_q, C)
    return tl.load(at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def sum_of_samples(
    sum_qD, origin_q, points_q, offsets_q, logits_q, top_q, scale_q, seen_q,
    LEVELS: tl.constexpr, P: tl.constexpr, Z: tl.constexpr, C: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """sum_qD and the weighted samples of one map.

    Pointers per row: origin to the head's first channel in the map's first cell; points to Z (x, y);
    offsets, logits to the row's and head's first.
    """
    d = tl.arange(0, D)
    for level in range(len(LEVELS)):
        height, width, first = level_of(level, LEVELS)
        for p in tl.static_range(P):
            weight, cell, fx, fy, left, right, upper, lower = place(
                points_q, offsets_q, logits_q, top_q, scale_q, level * P + p, p % Z,
                height, width, first, seen_q,
            )  # fmt: skip
            # All four loads before the first use: one wait instead of four, if ptxas has registers for it.
            value_a = values(origin_q, d, cell, upper & left, C)
            value_b = values(origin_q, d, cell + 1, upper & right, C)
            value_c = values(origin_q, d, cell + width, lower & left, C)
            value_e = values(origin_q, d, cell + width + 1, lower & right, C)
            above = weight * (1.0 - fy)
            below = weight * fy
            sum_qD += (above * (1.0 - fx))[:, None] * value_a
            sum_qD += (above * fx)[:, None] * value_b
            sum_qD += (below * (1.0 - fx))[:, None] * value_c
            sum_qD += (below * fx)[:, None] * value_e
    return sum_qD
