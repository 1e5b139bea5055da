"""A fused attention on the meta device: the shapes, the saved tensors and what a backward pass takes for a
moment, as Triton's kernels do (`triton_autograd`); no numbers.
"""

import functools
from typing import Any, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .backends import Backend
from .visible import Pairs


class _InputsSaved(torch.autograd.Function):
    """The gradients are as large as the inputs; the value's is summed in float32 first, or in int64."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, value: Tensor, offsets: Tensor, logits: Tensor, shape: Sequence[int], sums: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(value, offsets, logits)
        ctx.sums = sums
        return value.new_empty(tuple(shape))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:  # type: ignore[override]
        value, *others = ctx.saved_tensors
        sums = torch.empty(value.shape, dtype=ctx.sums, device=value.device)
        rest = [torch.empty_like(each) for each in others]
        return (sums.to(value.dtype), *rest, None, None)


def _deform_attn(
    value: Tensor, shapes: Any, reference: Tensor, offsets: Tensor, logits: Tensor, sums: torch.dtype
) -> Tensor:
    shape = (*offsets.shape[:2], value.shape[-1])
    out: Tensor = _InputsSaved.apply(value, offsets, logits, shape, sums)
    return out


def _temporal_attn(
    value: Tensor, hw: Any, reference: Tensor, offsets: Tensor, logits: Tensor, sums: torch.dtype
) -> Tensor:
    shape = (*offsets.shape[:2], value.shape[-1])
    out: Tensor = _InputsSaved.apply(value, offsets, logits, shape, sums)
    return out


def _spatial_attn(
    value: Tensor, shapes: Any, pairs: Pairs, offsets: Tensor, logits: Tensor, sums: torch.dtype
) -> Tensor:
    shape = (len(offsets), value.shape[-1])
    out: Tensor = _InputsSaved.apply(value, offsets, logits, shape, sums)
    return out


def _of_sums(sums: torch.dtype) -> Backend:
    three = (functools.partial(each, sums=sums) for each in (_deform_attn, _temporal_attn, _spatial_attn))
    return Backend("shapes only", *three)


SHAPES_ONLY = _of_sums(torch.float32)
DETERMINISTIC = _of_sums(torch.int64)
