"""The encoder's attentions written as upstream writes them, sharing the parameters of ours: what `bench`
compares with.

Queries are gathered and padded per camera, offsets and weights are computed from them once per camera,
every sampling location is materialised, and the samples of all levels are stacked before they are weighted.
Letters as in `attention.py`.
"""

from typing import List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import History, SpatialCrossAttention, TemporalSelfAttention
from .ops.visible import Visibility


def plain_deform_attn(
    value_BSHD: Tensor, shapes_L: Sequence[Tuple[int, int]], locations_BQHLP2: Tensor, weights_BQHLP: Tensor
) -> Tensor:
    """mmcv's `multi_scale_deformable_attn_pytorch`, line by line; (B, Q, H*D)."""
    B, _, H, D = value_BSHD.shape
    _, Q, _, L, P, _ = locations_BQHLP2.shape
    values = value_BSHD.split([h * w for h, w in shapes_L], dim=1)
    grids = 2 * locations_BQHLP2 - 1
    sampled = []
    for level, (h, w) in enumerate(shapes_L):
        value = values[level].flatten(2).transpose(1, 2).reshape(B * H, D, h, w)
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        sampled.append(F.grid_sample(value, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    weights = weights_BQHLP.transpose(1, 2).reshape(B * H, 1, Q, L * P)
    out = (torch.stack(sampled, dim=-2).flatten(-2) * weights).sum(-1).view(B, H * D, Q)
    return out.transpose(1, 2).contiguous()


class PlainSpatialCrossAttention(nn.Module):
    """Upstream's SpatialCrossAttention and MSDeformableAttention3D."""

    def __init__(self, ours: SpatialCrossAttention) -> None:
        super().__init__()
        self.deformable_attention = ours.deformable_attention
        self.output_proj, self.dropout = ours.output_proj, ours.dropout

    def forward(
        self, query_BQC: Tensor, features_BNSC: Tensor, shapes_L: List[Tuple[int, int]], visible: Visibility
    ) -> Tensor:
        B, _, C = query_BQC.shape
        N, Z = visible.points_BNQZ2.shape[1], visible.points_BNQZ2.shape[3]
        longest = max(1, max(len(index) for index in visible.index_K))
        queries = query_BQC.new_zeros(B, N, longest, C)
        points = query_BQC.new_zeros(B, N, longest, Z, 2)
        for pair, index in enumerate(visible.index_K):
            sample, camera = divmod(pair, N)
            queries[sample, camera, : len(index)] = query_BQC[sample, index]
            points[sample, camera, : len(index)] = visible.points_BNQZ2[sample, camera, index].to(points)
        out = self._sample(
            queries.view(B * N, longest, C), features_BNSC.flatten(0, 1), shapes_L, points.flatten(0, 1)
        ).view(B, N, longest, C)
        slots = torch.zeros_like(query_BQC)
        for pair, index in enumerate(visible.index_K):
            sample, camera = divmod(pair, N)
            slots[sample, index] += out[sample, camera, : len(index)]
        slots = slots / visible.counts_BQ[..., None]
        return query_BQC + self.dropout(self.output_proj(slots))  # type: ignore[no-any-return]

    def _sample(
        self, query_BQC: Tensor, value_BSC: Tensor, shapes_L: List[Tuple[int, int]], points_BQZ2: Tensor
    ) -> Tensor:
        """One row per camera: B = batch * cameras, Q = the longest list of visible queries."""
        inner = self.deformable_attention
        B, Q, C = query_BQC.shape
        H, L, P, Z = inner.heads, inner.levels, inner.points, points_BQZ2.shape[2]
        value = inner.value_proj(value_BSC).view(B, -1, H, C // H)
        offsets = inner.sampling_offsets(query_BQC).view(B, Q, H, L, P, 2)
        weights = inner.attention_weights(query_BQC).view(B, Q, H, L * P).softmax(-1).view(B, Q, H, L, P)
        sizes = offsets.new_tensor([[w, h] for h, w in shapes_L])
        shifts = (offsets / sizes[:, None]).view(B, Q, H, L, P // Z, Z, 2)
        locations = (points_BQZ2[:, :, None, None, None] + shifts).view(B, Q, H, L, P, 2)
        return plain_deform_attn(value, shapes_L, locations, weights)


class PlainTemporalSelfAttention(nn.Module):
    """Upstream's TemporalSelfAttention."""

    def __init__(self, ours: TemporalSelfAttention) -> None:
        super().__init__()
        self.heads, self.points = ours.heads, ours.points
        self.sampling_offsets, self.attention_weights = ours.sampling_offsets, ours.attention_weights
        self.value_proj, self.output_proj, self.dropout = ours.value_proj, ours.output_proj, ours.dropout

    def forward(
        self,
        query_BQC: Tensor,
        position_QC: Tensor,
        reference_BT_Q2: Tensor,
        bev_hw: Tuple[int, int],
        history: Optional[History],
    ) -> Tensor:
        B, Q, C = query_BQC.shape
        H, P = self.heads, self.points
        value = torch.stack([query_BQC, query_BQC], 1)
        if history is not None:
            exists = torch.tensor(history.exists_B, device=value.device).view(-1, 1, 1, 1)
            value = torch.where(exists, torch.stack([history.bev_BQC, history.initial_BQC], 1), value)
        query = torch.cat([value[:, 0], query_BQC + position_QC], -1)
        value = self.value_proj(value.flatten(0, 1)).reshape(B * 2, Q, H, C // H)
        offsets = self.sampling_offsets(query).view(B, Q, H, 2, 1, P, 2)
        weights = self.attention_weights(query).view(B, Q, H, 2, P).softmax(-1).view(B, Q, H, 2, 1, P)
        weights = weights.permute(0, 3, 1, 2, 4, 5).reshape(B * 2, Q, H, 1, P).contiguous()
        offsets = offsets.permute(0, 3, 1, 2, 4, 5, 6).reshape(B * 2, Q, H, 1, P, 2)
        sizes = offsets.new_tensor([[bev_hw[1], bev_hw[0]]])
        locations = reference_BT_Q2[:, :, None, None, None] + offsets / sizes[:, None]
        out = plain_deform_attn(value, [bev_hw], locations, weights)
        out = out.permute(1, 2, 0).view(Q, C, B, 2).mean(-1).permute(2, 0, 1)
        return query_BQC + self.dropout(self.output_proj(out))  # type: ignore[no-any-return]


def plain_twin(encoder: nn.Module) -> nn.Module:
    """Replace both attentions of every encoder layer, in place; the parameters stay the same objects."""
    for layer in encoder.layers:  # type: ignore[union-attr]
        temporal, spatial = layer.attentions
        layer.attentions = nn.ModuleList(
            [PlainTemporalSelfAttention(temporal), PlainSpatialCrossAttention(spatial)]
        )
    return encoder
