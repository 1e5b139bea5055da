"""The Triton attentions as functions of autograd: launches, and what waits for the backward pass: inputs.

Letters as in `triton_deform.py` and `triton_spatial.py`; S cells of all levels.
"""

import contextlib
import functools
from typing import Any, ContextManager, Optional, Sequence, Tuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from .triton_blocks import Block, block
from .triton_deform import deform_backward, deform_forward
from .triton_deterministic import sums_like
from .triton_spatial import spatial_backward, spatial_forward
from .visible import Pairs

Shapes = Sequence[Tuple[int, int]]


def levels_of(shapes_L: Shapes) -> Tuple[Tuple[int, int, int], ...]:
    """(height, width, first cell) per level, as the kernels count them."""
    firsts = [sum(h * w for h, w in shapes_L[:level]) for level in range(len(shapes_L))]
    return tuple((int(h), int(w), int(first)) for (h, w), first in zip(shapes_L, firsts))


@functools.lru_cache(maxsize=None)
def _sm_of(device: torch.device) -> int:
    """Compute capability times ten."""
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def _sm(device: torch.device) -> int:
    """What kernels are made for: the device; without one, Triton's target; or the interpreter."""
    if device.type == "cuda":
        return _sm_of(device)
    if isinstance(deform_forward, triton.JITFunction):
        return int(triton.runtime.driver.active.get_current_target().arch)
    return 90


def _block(which: str, value: Tensor, logits: Tensor, H: int, fixed: bool = False) -> Block:
    L, P = logits.shape[-2:]
    return block(which, value.element_size(), value.shape[-1] // H, L * P, _sm(value.device), fixed)


def _on(device: torch.device) -> ContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _whole_rows(value: Tensor) -> Tensor:
    """Maps may lie anywhere, or several times at one place (expand); a map's cells must lie side by side."""
    return value if value.stride()[-2:] == (value.shape[-1], 1) else value.contiguous()


def _queue_stride(maps_BTSC: Tensor) -> int:
    """0 where all queues look at one map."""
    return 0 if maps_BTSC.shape[1] == 1 else maps_BTSC.stride(1)


class DeformAttn(torch.autograd.Function):
    """value (B, 1 or T, S, C), points (B, T, Q, Z, 2), offsets (B, Q, H, T, L, P, 2), logits -> (B, Q, C)."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, value: Tensor, points: Tensor, offsets: Tensor, logits: Tensor, shapes: Shapes, fixed: bool
    ) -> Tensor:
        ctx.save_for_backward(value, points, offsets, logits)
        ctx.shapes, ctx.fixed = shapes, fixed
        B, Q, H, T, _, P = logits.shape
        C, Z = value.shape[-1], points.shape[3]
        out = value.new_empty(B, Q, C)
        value, size = _whole_rows(value), _block("forward", value, logits, H)
        if out.numel():
            with _on(value.device):
                deform_forward[(-(-Q // size.rows), H, B)](
                    value, points.contiguous(), offsets.contiguous(), logits.contiguous(), out,
                    Q, value.stride(0), _queue_stride(value), LEVELS=levels_of(shapes), T=T, H=H, P=P, Z=Z,
                    D=C // H, **size.launch,
                )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> Tuple[Optional[Tensor], ...]:  # type: ignore[override]
        value, points, offsets, logits = ctx.saved_tensors
        B, Q, H, T, _, P = logits.shape
        C, Z = value.shape[-1], points.shape[3]
        sums = sums_like(value.shape, grad_out, Q, ctx.fixed)
        # What the points' gradient is summed from is not rounded to 16 bits first.
        dtype = torch.float32 if ctx.needs_input_grad[1] else offsets.dtype
        grad_offsets, grad_logits = _empty_rows(offsets, dtype), _empty_rows(logits)
        maps, size = _whole_rows(value), _block("backward", value, logits, H, ctx.fixed)
        if grad_out.numel():
            with _on(value.device):
                deform_backward[(-(-Q // size.rows), H, B)](
                    grad_out.contiguous(), maps, points.contiguous(), offsets.contiguous(),
                    logits.contiguous(), sums.into, grad_offsets, grad_logits, sums.unit_1,
                    Q, maps.stride(0), _queue_stride(maps), sums.into.stride(0), _queue_stride(sums.into),
                    LEVELS=levels_of(ctx.shapes), T=T, H=H, P=P, Z=Z, D=C // H,
                    FIXED=ctx.fixed, **size.launch,
                )  # fmt: skip
        grad_points = _of_points(grad_offsets, points, ctx.shapes) if ctx.needs_input_grad[1] else None
        of_offsets = grad_offsets.to(offsets.dtype)
        return sums.result(value.dtype), grad_points, of_offsets, grad_logits, None, None


class SpatialAttn(torch.autograd.Function):
    """(value (K, S, C), pairs, points (V, Z, 2), offsets (G, H, L, P, 2), logits (G, H, L, P)) -> (G, C)."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        value: Tensor,
        pairs: Pairs,
        points: Tensor,
        offsets: Tensor,
        logits: Tensor,
        shapes: Shapes,
        fixed: bool,
    ) -> Tensor:
        ctx.save_for_backward(value, points, offsets, logits)
        ctx.pairs, ctx.shapes, ctx.fixed = pairs, shapes, fixed
        G, H, _, P = logits.shape
        C, Z = value.shape[-1], points.shape[1]
        out = value.new_empty(G, C)
        value, size = _whole_rows(value), _block("forward", value, logits, H)
        if out.numel():
            with _on(value.device):
                spatial_forward[(-(-G // size.rows), H)](
                    value, pairs.starts_G1, pairs.camera_V, points.contiguous(), offsets.contiguous(),
                    logits.contiguous(), out, G, value.stride(0), LEVELS=levels_of(shapes), H=H, P=P, Z=Z,
                    D=C // H, **size.launch,
                )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> Tuple[Optional[Tensor], ...]:  # type: ignore[override]
        value, points, offsets, logits = ctx.saved_tensors
        pairs: Pairs = ctx.pairs
        G, H, _, P = logits.shape
        C, Z = value.shape[-1], points.shape[1]
        sums = sums_like(value.shape, grad_out, G, ctx.fixed)
        grad_offsets, grad_logits = _empty_rows(offsets), _empty_rows(logits)
        maps, size = _whole_rows(value), _block("backward", value, logits, H, ctx.fixed)
        if grad_out.numel():
            with _on(value.device):
                spatial_backward[(-(-G // size.rows), H)](
                    grad_out.contiguous(), maps, pairs.starts_G1, pairs.camera_V, points.contiguous(),
                    offsets.contiguous(), logits.contiguous(), sums.into, grad_offsets, grad_logits,
                    sums.unit_1, G, maps.stride(0), sums.into.stride(0), LEVELS=levels_of(ctx.shapes),
                    H=H, P=P, Z=Z, D=C // H,  FIXED=ctx.fixed,
 **size.launch,
                )  # fmt: skip
        return sums.result(value.dtype), None, None, grad_offsets, grad_logits, None, None


def _empty_rows(like: Tensor, dtype: Optional[torch.dtype] = None) -> Tensor:
    return torch.empty_like(like, dtype=dtype, memory_format=torch.contiguous_format)


def _of_points(grad_offsets: Tensor, points: Tensor, shapes: Shapes) -> Tensor:
    """Gradient of points (B, T, Q, Z, 2): an offset moves a sample by a cell, a point by all of a level's."""
    B, T, Q, Z, _ = points.shape
    total = torch.zeros(points.shape, dtype=torch.float32, device=points.device)
    for level, (h, w) in zip(grad_offsets.float().unbind(4), shapes):  # (B, Q, H, T, P, 2)
        by_point = level.reshape(B, Q, -1, T, level.shape[4] // Z, Z, 2).sum((2, 4)).transpose(1, 2)
        total += torch.stack((by_point[..., 0] * w, by_point[..., 1] * h), -1)
    return total.to(points.dtype)
