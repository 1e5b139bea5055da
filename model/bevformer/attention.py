"""The three deformable attentions of BEVFormer (Li et al., 2022, sections 3.3 and 3.4).

B batch, Q queries, C channels, H heads, L levels, P points, N cameras, S sum of h*w over levels,
Z heights per pillar, T = 2 queues (history, current).
"""

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from .layers import init_projection, init_sampling
from .ops.deform_attn import ms_deform_attn


def _size_tensor(shapes: Sequence[Tuple[int, int]], like: Tensor) -> Tensor:
    return like.new_tensor([[w, h] for h, w in shapes])  # (L, 2): offsets are in cells of their level


class BEVCrossAttention(nn.Module):
    """The decoder's: queries look at one map, around their reference point."""

    def __init__(self, dims: int, heads: int, points: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.points = heads, points
        self.sampling_offsets = nn.Linear(dims, heads * points * 2)
        self.attention_weights = nn.Linear(dims, heads * points)
        self.value_proj = nn.Linear(dims, dims)
        self.output_proj = nn.Linear(dims, dims)
        self.dropout = nn.Dropout(dropout)

    def init_weights(self) -> None:
        init_sampling(self.sampling_offsets, self.attention_weights, self.heads, self.points)
        init_projection(self.value_proj, self.output_proj)

    def forward(
        self,
        query_BQC: Tensor,
        position_BQC: Tensor,
        bev_BSC: Tensor,
        reference_BQ2: Tensor,
        bev_hw: Tuple[int, int],
    ) -> Tensor:
        B, Q, C = query_BQC.shape
        moved = query_BQC + position_BQC
        offsets = self.sampling_offsets(moved).view(B, Q, self.heads, 1, self.points, 2)
        weights = self.attention_weights(moved).view(B, Q, self.heads, 1, self.points).softmax(-1)
        value = self.value_proj(bev_BSC).view(B, -1, self.heads, C // self.heads)
        locations = reference_BQ2[:, :, None, None, None] + offsets / _size_tensor([bev_hw], offsets)
        out = ms_deform_attn(value, [bev_hw], locations, weights)
        return query_BQC + self.dropout(self.output_proj(out))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class History:
    """The last BEV map, turned to the current heading, and the initial BEV query of the current frame.

    exists_B: samples without history (first frame of a scene) use their own current query instead.
    """

    bev_BQC: Tensor
    initial_BQC: Tensor
    exists_B: Tuple[bool, ...]
    shift_B2: Tensor


class TemporalSelfAttention(nn.Module):
    """Each BEV query looks at the history map and at the current one; the mean of both is taken."""

    def __init__(self, dims: int, heads: int, points: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.points = heads, points
        self.sampling_offsets = nn.Linear(2 * dims, heads * 2 * points * 2)
        self.attention_weights = nn.Linear(2 * dims, heads * 2 * points)
        self.value_proj = nn.Linear(dims, dims)
        self.output_proj = nn.Linear(dims, dims)
        self.dropout = nn.Dropout(dropout)

    def init_weights(self) -> None:
        init_sampling(self.sampling_offsets, self.attention_weights, self.heads, self.points)
        init_projection(self.value_proj, self.output_proj)

    def _queues(self, query_BQC: Tensor, history: Optional[History]) -> Tensor:
        """(B, 2, Q, C).  With history the second queue is the *initial* query, the same in every layer."""
        own = torch.stack([query_BQC, query_BQC], 1)
        if history is None or not any(history.exists_B):
            return own
        both = torch.stack([history.bev_BQC, history.initial_BQC], 1)
        if all(history.exists_B):
            return both
        exists = torch.tensor(history.exists_B, device=own.device).view(-1, 1, 1, 1)
        return torch.where(exists, both, own)

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
        queues = self._queues(query_BQC, history)
        # The reference takes value[:batch] of an interleaved stack, other samples' rows when batch > 1;
        # here each sample looks at its own history.  Equal for batch 1.
        both = torch.cat([queues[:, 0], query_BQC + position_QC], -1)
        offsets = self.sampling_offsets(both).view(B, Q, H, 2, 1, P, 2)
        weights = self.attention_weights(both).view(B, Q, H, 2, P).softmax(-1)
        offsets = offsets.permute(0, 3, 1, 2, 4, 5, 6).flatten(0, 1)  # (B*2, Q, H, 1, P, 2)
        weights = weights.permute(0, 3, 1, 2, 4).flatten(0, 1).unsqueeze(3)
        value = self.value_proj(queues).view(B * 2, -1, H, C // H)
        locations = reference_BT_Q2[:, :, None, None, None] + offsets / _size_tensor([bev_hw], offsets)
        out = ms_deform_attn(value, [bev_hw], locations, weights).view(B, 2, Q, C).mean(1)
        return query_BQC + self.dropout(self.output_proj(out))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Visibility:
    """Which BEV queries each camera sees, and where.

    points_BNQZ2: projected pillar points in [0, 1] of the padded image; seen_BNQ: any height visible;
    index: per (sample, camera) the visible queries, in the order b * N + n.
    """

    points_BNQZ2: Tensor
    seen_BNQ: Tensor
    index: Tuple[Tensor, ...]
    counts_BQ: Tensor

    def to(self, device: torch.device) -> "Visibility":
        index = tuple(queries.to(device) for queries in self.index)
        return Visibility(
            self.points_BNQZ2.to(device), self.seen_BNQ.to(device), index, self.counts_BQ.to(device)
        )


class DeformableAttention3D(nn.Module):
    """Parameters of the sampling in the cameras; the output projection belongs to the caller."""

    def __init__(self, dims: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(dims, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dims, heads * levels * points)
        self.value_proj = nn.Linear(dims, dims)

    def init_weights(self) -> None:
        init_sampling(self.sampling_offsets, self.attention_weights, self.heads, self.points)
        init_projection(self.value_proj)


class SpatialCrossAttention(nn.Module):
    """Each BEV query looks at the cameras that see its pillar and averages over them."""

    def __init__(self, dims: int, heads: int, levels: int, points: int, dropout: float) -> None:
        super().__init__()
        self.deformable_attention = DeformableAttention3D(dims, heads, levels, points)
        self.output_proj = nn.Linear(dims, dims)
        self.dropout = nn.Dropout(dropout)

    def init_weights(self) -> None:
        self.deformable_attention.init_weights()
        init_projection(self.output_proj)

    def forward(
        self, query_BQC: Tensor, features_BNSC: Tensor, shapes_L: List[Tuple[int, int]], visible: Visibility
    ) -> Tensor:
        inner = self.deformable_attention
        B, Q, C = query_BQC.shape
        N, S = features_BNSC.shape[1:3]
        H, L, P = inner.heads, inner.levels, inner.points
        Z = visible.points_BNQZ2.shape[3]
        # Offsets and weights depend on the query only: once per query, not once per camera.  No position.
        offsets = inner.sampling_offsets(query_BQC).view(B * Q, H, L, P, 2)
        weights = inner.attention_weights(query_BQC).view(B * Q, H, L * P).softmax(-1).view(B * Q, H, L, P)
        value = inner.value_proj(features_BNSC).view(B * N, S, H, C // H)
        longest = max(1, max(len(index) for index in visible.index))
        rows = torch.zeros(B * N, longest, dtype=torch.int64, device=query_BQC.device)
        for pair, index in enumerate(visible.index):
            rows[pair, : len(index)] = index
        flat = rows + (torch.arange(B * N, device=rows.device) // N * Q).unsqueeze(1)
        points = visible.points_BNQZ2.flatten(0, 1).gather(
            1, rows.view(B * N, longest, 1, 1).expand(-1, -1, Z, 2)
        )
        # Points are laid out point-major: index = point * Z + height.
        shifts = (offsets[flat] / _size_tensor(shapes_L, offsets)[:, None]).view(
            B * N, longest, H, L, P // Z, Z, 2
        )
        locations = (points[:, :, None, None, None] + shifts).flatten(4, 5)
        out = ms_deform_attn(value, shapes_L, locations, weights[flat])
        kept = [
            (out[pair, : len(index)], flat[pair, : len(index)]) for pair, index in enumerate(visible.index)
        ]
        slots = query_BQC.new_zeros(B * Q, C).index_add(
            0,
            torch.cat([where for _, where in kept]),
            torch.cat([part for part, _ in kept]).to(query_BQC.dtype),
        )
        slots = slots.view(B, Q, C) / visible.counts_BQ.unsqueeze(-1)
        return query_BQC + self.dropout(self.output_proj(slots))  # type: ignore[no-any-return]
