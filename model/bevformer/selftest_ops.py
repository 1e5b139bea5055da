"""Operators against slow versions in plain loops, written down from the papers' formulas; both directions.

B batch, C and O channels, K taps, M maps, Q queries, H heads, L levels, P points, D channels per head.
"""

import math
from typing import Callable, List, Sequence, Tuple

import torch
from torch import Tensor

from . import mm
from .ops.deform_attn import deform_attn
from .ops.modulated_conv import modulated_deform_conv
from .selftest import Wrong

LOOSE = 2e-4  # float32 sums in another order; a wrong layout is off by 0.1 and more
TIGHT = 1e-9  # float64
SHAPES = ((4, 5), (2, 3))
KEPT = [0, 2]


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
    attention = _compare_attention(deform_attn, torch.float64, "cpu", TIGHT)
    conv = _compare_conv(modulated_deform_conv, torch.float64, "cpu", TIGHT)
    return "largest difference: deformable attention %.1e, DCNv2 %.1e" % (attention, conv)


def check_mmcv_operators() -> str:
    """mmcv's operators against the bundled ones, on the GPU where torch has one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    attention = mm.ms_deform_attn(device)

    def run(value: Tensor, shapes: Sequence[Tuple[int, int]], *rest: Tensor) -> Tensor:
        reference, offsets, logits = rest
        M, Q, H, L, P, _ = offsets.shape
        sizes = torch.tensor(shapes, device=value.device)
        per_cell = 1 / sizes.flip(1).to(value.dtype)
        locations = reference[:, :, None, None] + offsets * per_cell[None, None, None, :, None]
        weights = logits.flatten(3).softmax(-1).view(M, Q, H, L, P)
        return attention(value.view(M, value.shape[1], H, -1), sizes, locations.contiguous(), weights)

    first = _compare_attention(run, torch.float32, device, LOOSE, bundled=True)
    conv = mm.modulated_deform_conv2d()
    second = _compare_conv(conv, torch.float32, device, LOOSE, bundled=True)
    boxes = torch.tensor([[0.0, 0, 10, 10], [1.0, 0, 10, 10], [20.0, 0, 30, 10]], device=device)
    kept = mm.nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), 0.5).tolist()
    if kept != KEPT:
        raise Wrong("nms keeps %s instead of %s" % (kept, KEPT))
    return "%s: largest difference: deformable attention %.1e, DCNv2 %.1e" % (device, first, second)


def _compare_attention(
    operator: Callable[..., Tensor], dtype: torch.dtype, device: str, limit: float, bundled: bool = False
) -> float:
    M, Q, H, L, P, D = 1, 3, 2, len(SHAPES), 2, 4
    cells = sum(h * w for h, w in SHAPES)
    generator = torch.Generator().manual_seed(1)
    value = torch.randn(M, cells, H * D, generator=generator)
    reference = torch.rand(M, Q, 1, 2, generator=generator)
    offsets = 1.5 * torch.randn(M, Q, H, L, P, 2, generator=generator)
    logits = torch.randn(M, Q, H, L, P, generator=generator)
    inputs = [each.to(device, dtype).requires_grad_() for each in (value, reference, offsets, logits)]
    plain = deform_attn if bundled else _attention_in_loops
    ours, theirs = (run(inputs[0], SHAPES, *inputs[1:]) for run in (operator, plain))
    return _agree("deformable attention", ours, theirs, inputs, limit)


def _compare_conv(
    operator: Callable[..., Tensor], dtype: torch.dtype, device: str, limit: float, bundled: bool = False
) -> float:
    generator = torch.Generator().manual_seed(2)
    shapes = ((1, 3, 5, 4), (1, 18, 5, 4), (1, 9, 5, 4), (2, 3, 3, 3))
    x, offset, mask, weight = (torch.randn(shape, generator=generator) for shape in shapes)
    tensors = (x, 1.5 * offset, mask.sigmoid(), weight)
    inputs = [each.to(device, dtype).requires_grad_() for each in tensors]
    plain = modulated_deform_conv if bundled else _conv_in_loops
    ours, theirs = (run(*inputs, 1, 1, 1) for run in (operator, plain))
    return _agree("DCNv2", ours, theirs, inputs, limit)


def _agree(what: str, ours: Tensor, theirs: Tensor, inputs: Sequence[Tensor], limit: float) -> float:
    """The largest difference of the results and of all gradients; Wrong above the limit or for NaN."""
    generator = torch.Generator().manual_seed(3)
    slope = torch.randn(ours.shape, generator=generator).to(ours)
    pairs = [(ours, theirs)]
    grads = [torch.autograd.grad(out, list(inputs), slope, allow_unused=True) for out in (ours, theirs)]
    pairs += [pair for pair in zip(*grads) if None not in pair]
    worst = max(float((a - b).detach().abs().max()) for a, b in pairs)
    if not worst <= limit:
        raise Wrong("%s is off by %.3g, more than %.0e" % (what, worst, limit))
    return worst


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
