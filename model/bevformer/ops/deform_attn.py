"""Multi-scale deformable attention (Zhu et al., Deformable DETR, 2021, eq. 3) by `grid_sample`.

M maps (samples, queues or cameras), S sum of h*w over levels, C channels, H heads, D = C / H channels per
head, Q queries, L levels, P points, Z reference points per query.
"""

from typing import Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..recompute import recompute
from ..transfer import tensor_on


def deform_attn(
    value_MSC: Tensor,
    shapes_L: Sequence[Tuple[int, int]],
    reference_MQZ2: Tensor,
    offsets_MQHLP2: Tensor,
    logits_MQHLP: Tensor,
    again: bool = False,
) -> Tensor:
    """Weighted sum of bilinear samples around each query's reference points, (M, Q, C).

    shapes_L: (height, width) per level, in the order in which S is concatenated.  reference: (x, y) in
    [0, 1] of every level's extent; point p belongs to reference p % Z.  offsets: in cells of their level.
    logits: weights before the softmax over all levels and points of a head.  Cell centres lie at +0.5
    (align_corners=False), outside is zero, channel = head * D + d.
    Source: facts bevformer.md, last line; mmcv multi_scale_deform_attn.py.

    Queries come last inside: softmax, product and sum then run along them, which a CPU does several times
    faster than along the few points of each.

    again: the samples are dropped and taken again in the backward pass, one map and level at a time.
    """
    M, Q, H, L, P, _ = offsets_MQHLP2.shape
    weights = logits_MQHLP.permute(0, 2, 3, 4, 1).reshape(M * H, L * P, Q).softmax(1)
    weights_L = weights.view(M * H, L, 1, P, Q).unbind(1)
    grids_L = _grids(shapes_L, reference_MQZ2, offsets_MQHLP2).unbind(2)
    values_L = value_MSC.transpose(1, 2).split([h * w for h, w in shapes_L], 2)
    out = None
    for hw, value, grid, weight in zip(shapes_L, values_L, grids_L, weights_L):
        part = (_level_by_map if again else _level)(value, hw, grid, weight)
        out = part if out is None else out + part
    assert out is not None
    return out.view(M, -1, Q).transpose(1, 2)


def _level(value_MCs: Tensor, hw: Tuple[int, int], grid_MHP2Q: Tensor, weight_mh1PQ: Tensor) -> Tensor:
    """Weighted sums of the samples of one level, (M * H, D, Q); mh = M * H, s = h * w."""
    M, H = grid_MHP2Q.shape[:2]
    plane = value_MCs.reshape(M * H, -1, *hw)
    grid = grid_MHP2Q.flatten(0, 1).transpose(2, 3)  # (M * H, P, Q, 2)
    samples = F.grid_sample(plane, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (samples * weight_mh1PQ).sum(2)


def _level_by_map(value_MCs: Tensor, hw: Tuple[int, int], grid_MHP2Q: Tensor, weight_mh1PQ: Tensor) -> Tensor:
    maps = zip(value_MCs.split(1), grid_MHP2Q.split(1), weight_mh1PQ.split(grid_MHP2Q.shape[1]))
    return torch.cat([recompute(_level, value, hw, *rest, draws=False) for value, *rest in maps])


def _grids(shapes_L: Sequence[Tuple[int, int]], reference_MQZ2: Tensor, offsets_MQHLP2: Tensor) -> Tensor:
    """(M, H, L, P, 2, Q) locations as grid_sample counts them: -1 and 1 are the edges of the map."""
    M, Q, H, L, P, _ = offsets_MQHLP2.shape
    Z = reference_MQZ2.shape[2]
    offsets = offsets_MQHLP2.permute(0, 2, 3, 4, 5, 1).contiguous().view(M, H, L, P // Z, Z, 2, Q)
    per_cell = tensor_on([[2 / w, 2 / h] for h, w in shapes_L], offsets.device, offsets.dtype).view(
        L, 1, 1, 2, 1
    )
    reference_MQZ2 = reference_MQZ2.to(torch.promote_types(reference_MQZ2.dtype, offsets.dtype))
    centre = (2 * reference_MQZ2 - 1).permute(0, 2, 3, 1).contiguous().view(M, 1, 1, 1, Z, 2, Q)
    return (centre + offsets * per_cell).view(M, H, L, P, 2, Q)
