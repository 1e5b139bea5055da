"""Multi-scale deformable attention (Zhu et al., Deformable DETR, 2021, eq. 3) by `grid_sample`.

B batch, S sum of h*w over levels, H heads, D channels per head, Q queries, L levels, P points.
"""

from typing import Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor


def ms_deform_attn(
    value_BSHD: Tensor, shapes_L: Sequence[Tuple[int, int]], locations_BQHLP2: Tensor, weights_BQHLP: Tensor
) -> Tensor:
    """Weighted sum of bilinear samples, (B, Q, H*D); channel = head * D + d.

    shapes_L: (height, width) per level, in the order in which S is concatenated.
    locations: (x, y) in [0, 1] of the level's extent, pixel centres at +0.5 (align_corners=False);
    outside is zero.  Source: facts bevformer.md, last line; mmcv multi_scale_deform_attn.py.
    """
    B, _, H, D = value_BSHD.shape
    _, Q, _, L, P, _ = locations_BQHLP2.shape
    grids = 2 * locations_BQHLP2 - 1
    sampled = []
    for level, value in enumerate(value_BSHD.split([h * w for h, w in shapes_L], dim=1)):
        h, w = shapes_L[level]
        plane = value.flatten(2).transpose(1, 2).reshape(B * H, D, h, w)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        sampled.append(F.grid_sample(plane, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    samples = torch.stack(sampled, dim=-2).flatten(-2)  # (B*H, D, Q, L*P)
    weights = weights_BQHLP.transpose(1, 2).reshape(B * H, 1, Q, L * P)
    return (samples * weights).sum(-1).view(B, H * D, Q).transpose(1, 2)
