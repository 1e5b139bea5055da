"""The attentions by `grid_sample`: they run everywhere, and every other backend is measured against them.

Letters as in `deform_attn.py`; G = B * Q rows, K = B * N maps, T = 2 queues.
"""

from typing import Callable, Sequence, Tuple

import torch
from torch import Tensor

from .deform_attn import deform_attn
from .visible import Pairs


def temporal_attn(
    value_BTQC: Tensor,
    hw: Tuple[int, int],
    reference_BTQ2: Tensor,
    offsets_BQHTP2: Tensor,
    logits_BQHTP: Tensor,
    attend: Callable[..., Tensor] = deform_attn,
) -> Tensor:
    """The mean over both queues of `deform_attn` around each query's own cell, (B, Q, C).

    value may be one map, (B, 1, Q, C), for both queues.

    Each queue has its own softmax over its points.  attend: any `deform_attn`.
    """
    B, Q, _, T = offsets_BQHTP2.shape[:4]
    value_BTQC, C = value_BTQC.expand(B, T, -1, -1), value_BTQC.shape[-1]
    offsets = offsets_BQHTP2.permute(0, 3, 1, 2, 4, 5).flatten(0, 1).unsqueeze(3)
    logits = logits_BQHTP.permute(0, 3, 1, 2, 4).flatten(0, 1).unsqueeze(3)
    reference = reference_BTQ2.flatten(0, 1).unsqueeze(2)
    out = attend(value_BTQC.flatten(0, 1), [hw], reference, offsets, logits)
    return out.view(B, T, Q, C).mean(1)


def spatial_attn(
    value_KSC: Tensor,
    shapes_L: Sequence[Tuple[int, int]],
    pairs: Pairs,
    offsets_GHLP2: Tensor,
    logits_GHLP: Tensor,
    attend: Callable[..., Tensor] = deform_attn,
) -> Tensor:
    """The mean of `deform_attn` over the cameras that see a row, (G, C); zero for a row that none sees.

    Points are laid out point-major: index = point * Z + height.  attend: any `deform_attn`.
    """
    maps, longest = pairs.query_KR.shape
    rows, count = pairs.query_KR.flatten(), len(offsets_GHLP2)
    offsets = offsets_GHLP2.index_select(0, rows).view(maps, longest, *offsets_GHLP2.shape[1:])
    logits = logits_GHLP.index_select(0, rows).view(maps, longest, *logits_GHLP.shape[1:])
    out = attend(value_KSC, shapes_L, pairs.points_KRZ2, offsets, logits)
    out = out.reshape(maps * longest, -1).to(torch.promote_types(out.dtype, torch.float32))
    slots = out.new_zeros(count + 1, out.shape[-1]).index_add(0, pairs.slot_KR.flatten(), out)
    return slots[:-1] / pairs.counts_G.unsqueeze(-1)
