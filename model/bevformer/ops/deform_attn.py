"""Multi-scale deformable attention (Zhu et al., Deformable DETR, 2021, eq. 3) by `grid_sample`.

M maps (samples, queues or cameras), S sum of h*w over levels, C channels, H heads, D = C / H channels per
head, Q queries, L levels, P points, Z reference points per query.
"""

from typing import Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor


def deform_attn(
    value_MSC: Tensor,
    shapes_L: Sequence[Tuple[int, int]],
    reference_MQZ2: Tensor,
    offsets_MQHLP2: Tensor,
    logits_MQHLP: Tensor,
) -> Tensor:
    """Weighted sum of bilinear samples around each query's reference points, (M, Q, C).

    shapes_L: (height, width) per level, in the order in which S is concatenated.  reference: (x, y) in
    [0, 1] of every level's extent; point p belongs to reference p % Z.  offsets: in cells of their level.
    logits: weights before the softmax over all levels and points of a head.  Cell centres lie at +0.5
    (align_corners=False), outside is zero, channel = head * D + d.
    Source: facts bevformer.md, last line; mmcv multi_scale_deform_attn.py.

    Queries come last inside: softmax, product and sum then run along them, which a CPU does several times
    faster than along the few points of each.
    """
    M, Q, H, L, P, _ = offsets_MQHLP2.shape
    D = value_MSC.shape[-1] // H
    weights = logits_MQHLP.permute(0, 2, 3, 4, 1).reshape(M * H, L * P, Q).softmax(1)
    weights_L = weights.view(M * H, L, 1, P, Q).unbind(1)
    grids_L = _grids(shapes_L, reference_MQZ2, offsets_MQHLP2).unbind(2)
    values_L = value_MSC.transpose(1, 2).split([h * w for h, w in shapes_L], 2)
    out = None
    for (h, w), value, grid, weight in zip(shapes_L, values_L, grids_L, weights_L):
        plane = value.reshape(M * H, D, h, w)
        grid = grid.flatten(0, 1).transpose(2, 3)  # (M * H, P, Q, 2)
        samples = F.grid_sample(plane, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        part = (samples * weight).sum(2)  # (M * H, D, Q)
        out = part if out is None else out + part
    assert out is not None
    return out.view(M, H * D, Q).transpose(1, 2)


def _grids(shapes_L: Sequence[Tuple[int, int]], reference_MQZ2: Tensor, offsets_MQHLP2: Tensor) -> Tensor:
    """(M, H, L, P, 2, Q) locations as grid_sample counts them: -1 and 1 are the edges of the map."""
    M, Q, H, L, P, _ = offsets_MQHLP2.shape
    Z = reference_MQZ2.shape[2]
    offsets = offsets_MQHLP2.permute(0, 2, 3, 4, 5, 1).contiguous().view(M, H, L, P // Z, Z, 2, Q)
    per_cell = offsets.new_tensor([[2 / w, 2 / h] for h, w in shapes_L]).view(L, 1, 1, 2, 1)
    reference_MQZ2 = reference_MQZ2.to(torch.promote_types(reference_MQZ2.dtype, offsets.dtype))
    centre = (2 * reference_MQZ2 - 1).permute(0, 2, 3, 1).contiguous().view(M, 1, 1, 1, Z, 2, Q)
    return (centre + offsets * per_cell).view(M, H, L, P, 2, Q)
