"""A fused attention on the meta device: the shapes and the saved tensors, no numbers."""

from typing import Any, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .backends import Backend
from .visible import Pairs


class _InputsSaved(torch.autograd.Function):
    """The gradients are as large as the inputs."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, value: Tensor, offsets: Tensor, logits: Tensor, shape: Sequence[int]
    ) -> Tensor:
        ctx.save_for_backward(value, offsets, logits)
        return value.new_empty(tuple(shape))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tuple[Optional[Tensor], ...]:  # type: ignore[override]
        return (*(torch.empty_like(each) for each in ctx.saved_tensors), None)


def _deform_attn(value: Tensor, shapes: Any, reference: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    shape = (*offsets.shape[:2], value.shape[-1])
    out: Tensor = _InputsSaved.apply(value, offsets, logits, shape)
    return out


def _temporal_attn(value: Tensor, hw: Any, reference: Tensor, offsets: Tensor, logits: Tensor) -> Tensor:
    shape = (*offsets.shape[:2], value.shape[-1])
    out: Tensor = _InputsSaved.apply(value, offsets, logits, shape)
    return out


def _spatial_attn(value: Tensor, shapes: Any, pairs: Pairs, offsets: Tensor, logits: Tensor) -> Tensor:
    out: Tensor = _InputsSaved.apply(value, offsets, logits, (len(offsets), value.shape[-1]))
    return out


SHAPES_ONLY = Backend("shapes only", _deform_attn, _temporal_attn, _spatial_attn)
