"""Operators against slow versions in plain loops, written down from the papers' formulas; both directions.

B batch, C and O channels, K taps, M maps, Q queries, H heads, L levels, P points, D channels per head.
"""

import math
from typing import Callable, List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor

from .ops.deform_attn import deform_attn
from .ops.modulated_conv import modulated_deform_conv
from .selftest_told import Wrong

LOOSE = 2e-4  # float32 sums in another order; a wrong layout is off by 0.1 and more
TIGHT = 1e-9  # float64
Operator = Callable[..., Tensor]


def check_torch() -> str:
    """A convolution and its gradients against sums written out, and what torch says of itself."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 4, 4, generator=generator, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, generator=generator, requires_grad=True)
    ours = torch.stack(
        [
            (x[0, :, row : row + 3, col : col + 3] * weight[o]).sum()
            for o in range(3)
            for row in range(2)
            for col in range(2)
        ]
    ).view(1, 3, 2, 2)
    _agree("conv2d", torch.nn.functional.conv2d(x, weight), ours, (x, weight), LOOSE)
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    return "torch %s, %s, %d threads" % (torch.__version__, device, torch.get_num_threads())


def check_bundled_operators() -> str:
    """Our deformable attention and DCNv2 against plain loops, on the CPU in float64."""
    attention = compare_attention(deform_attn, _attention_in_loops, torch.float64, "cpu", TIGHT)
    conv = compare_conv(modulated_deform_conv, _conv_in_loops, torch.float64, "cpu", TIGHT)
    return "largest difference: deformable attention %.1e, DCNv2 %.1e" % (max(attention), max(conv))


class Apart(NamedTuple):
    """Largest differences, against the largest number there where that is above 1."""

    forward: float
    gradients: float


class AttentionSize(NamedTuple):
    maps: int = 1
    queries: int = 3
    heads: int = 2
    points: int = 2
    depth: int = 4
    shapes: Tuple[Tuple[int, int], ...] = ((4, 5), (2, 3))


class ConvSize(NamedTuple):
    """Of input and output; the taps are 3 x 3."""

    batch: int = 1
    channels: int = 3
    height: int = 5
    width: int = 4
    out: int = 2
    stride: int = 1
    dilation: int = 1


SMALL_ATTENTION, SMALL_CONV = AttentionSize(), ConvSize()


def compare_attention(
    ours: Operator,
    theirs: Operator,
    dtype: torch.dtype,
    device: str,
    limit: float,
    size: AttentionSize = SMALL_ATTENTION,
) -> Apart:
    """Two operators as `ops.deform_attn`, forward and backward.  Raises as `_agree`."""
    M, Q, H, P, D, shapes = size
    L = len(shapes)
    generator = torch.Generator().manual_seed(1)
    value = torch.randn(M, sum(h * w for h, w in shapes), H * D, generator=generator)
    reference = torch.rand(M, Q, 1, 2, generator=generator)
    offsets = 1.5 * torch.randn(M, Q, H, L, P, 2, generator=generator)
    logits = torch.randn(M, Q, H, L, P, generator=generator)
    inputs = [each.to(device, dtype).requires_grad_() for each in (value, reference, offsets, logits)]
    out, right = (run(inputs[0], shapes, *inputs[1:]) for run in (ours, theirs))
    return _agree("deformable attention", out, right, inputs, limit)


def compare_conv(
    ours: Operator,
    theirs: Operator,
    dtype: torch.dtype,
    device: str,
    limit: float,
    size: ConvSize = SMALL_CONV,
) -> Apart:
    """Two operators as `ops.modulated_conv`, forward and backward.  Raises as `_agree`."""
    B, C, H, W, out, stride, dilation = size
    h, w = ((n - 1) // stride + 1 for n in (H, W))
    generator = torch.Generator().manual_seed(2)
    shapes = ((B, C, H, W), (B, 18, h, w), (B, 9, h, w), (out, C, 3, 3))
    x, offset, mask, weight = (torch.randn(shape, generator=generator) for shape in shapes)
    tensors = (x, 1.5 * offset, mask.sigmoid(), weight)
    inputs = [each.to(device, dtype).requires_grad_() for each in tensors]
    found, right = (run(*inputs, stride, dilation, dilation) for run in (ours, theirs))
    return _agree("DCNv2", found, right, inputs, limit)


def _agree(what: str, ours: Tensor, theirs: Tensor, inputs: Sequence[Tensor], limit: float) -> Apart:
    """Of the results and of all gradients.  Wrong above the limit, for NaN, for other inputs' gradients."""
    if ours.shape != theirs.shape:
        raise Wrong("%s gives %s instead of %s" % (what, tuple(ours.shape), tuple(theirs.shape)))
    generator = torch.Generator().manual_seed(3)
    slope = torch.randn(ours.shape, generator=generator).to(ours)
    grads = [torch.autograd.grad(out, list(inputs), slope, allow_unused=True) for out in (ours, theirs)]
    if [each is None for each in grads[0]] != [each is None for each in grads[1]]:
        raise Wrong("%s has gradients for other inputs than it should" % what)
    pairs = [(a, b) for a, b in zip(*grads) if a is not None and b is not None]
    found = Apart(_apart(ours, theirs), max(_apart(a, b) for a, b in pairs))
    if not all(each <= limit for each in found):
        raise Wrong(
            "%s in %s is off by %.3g, its gradients by %.3g: more than %.0e"
            % (what, str(ours.dtype).replace("torch.", ""), found.forward, found.gradients, limit)
        )
    return found


def _apart(a: Tensor, b: Tensor) -> float:
    a, b = a.detach(), b.detach()
    return float((a - b).abs().max()) / max(1.0, float(b.abs().max()))


def _at(plane_CHW: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Bilinear between the four cells around (x, y), whose centres are whole numbers; outside is zero."""
    total = plane_CHW.new_zeros(plane_CHW.shape[0])
    left, top = math.floor(x.item()), math.floor(y.item())
    for row in (top, top + 1):
        for col in (left, left + 1):
            if 0 <= row < plane_CHW.shape[1] and 0 <= col < plane_CHW.shape[2]:
                share = (1 - (x - col).abs()) * (1 - (y - row).abs())
                total = total + share * plane_CHW[:, row, col]
    return total


def _attention_in_loops(
    value: Tensor, shapes: Sequence[Tuple[int, int]], reference: Tensor, offsets: Tensor, logits: Tensor
) -> Tensor:
    """Deformable DETR, eq. 3, one point after another; a single reference point per query."""
    M, Q, H, L, P, _ = offsets.shape
    rows: List[Tensor] = []
    for m, q, h in ((m, q, h) for m in range(M) for q in range(Q) for h in range(H)):
        weights = logits[m, q, h].flatten().softmax(0).view(L, P)
        parts, start = [], 0
        for level, (height, width) in enumerate(shapes):
            cells = value[m, start : start + height * width].view(height, width, H, -1)[:, :, h]
            start += height * width
            for p in range(P):
                x = reference[m, q, 0, 0] * width + offsets[m, q, h, level, p, 0] - 0.5
                y = reference[m, q, 0, 1] * height + offsets[m, q, h, level, p, 1] - 0.5
                parts.append(weights[level, p] * _at(cells.permute(2, 0, 1), x, y))
        rows.append(torch.stack(parts).sum(0))
    return torch.stack(rows).view(M, Q, -1)


def _conv_in_loops(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, stride: int, padding: int, dilation: int
) -> Tensor:
    """DCNv2, eq. 1, one output pixel after another; batch of one."""
    size, (h, w) = weight.shape[-1], mask.shape[-2:]
    out: List[Tensor] = []
    for row, col in ((row, col) for row in range(h) for col in range(w)):
        total = x.new_zeros(weight.shape[0])
        for tap in range(size * size):
            y = row * stride - padding + tap // size * dilation + offset[0, 2 * tap, row, col]
            z = col * stride - padding + tap % size * dilation + offset[0, 2 * tap + 1, row, col]
            total = total + mask[0, tap, row, col] * (weight[:, :, tap // size, tap % size] @ _at(x[0], z, y))
        out.append(total)
    return torch.stack(out, 1).view(1, -1, h, w)
