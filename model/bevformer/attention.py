"""The three deformable attentions of BEVFormer (Li et al., 2022, sections 3.3 and 3.4).

B batch, Q queries, C channels, H heads, L levels, P points, N cameras, S sum of h*w over levels,
Z heights per pillar, T = 2 queues (history, current).
"""

from dataclasses import dataclass
from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from .config import OpsConfig
from .layers import init_projection, init_sampling
from .ops.backends import RESAMPLING, Backend, choose, known
from .ops.visible import Visibility
from .transfer import tensor_on


class Attention(nn.Module):
    """backend: a name that `ops.backends` knows, resolved per device.  resample: grid_sample keeps its inputs
    and samples again in the backward pass; the other backends do so anyway.
    """

    backend = "auto"
    deterministic = False
    resample = False

    def operators(self, device: torch.device) -> Backend:
        found = choose(self.backend, device.type, self.deterministic)
        return RESAMPLING if self.resample and not found.saves_inputs_only else found


def use_operators(model: nn.Module, ops: OpsConfig) -> None:
    """Every attention of the model runs through the backend that the configuration names.  ConfigError."""
    for module in model.modules():
        if isinstance(module, Attention):
            module.backend, module.deterministic = known(ops.attention), ops.deterministic


class BEVCrossAttention(Attention):
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
        B, Q, _ = query_BQC.shape
        moved = query_BQC + position_BQC
        offsets = self.sampling_offsets(moved).view(B, Q, self.heads, 1, self.points, 2)
        logits = self.attention_weights(moved).view(B, Q, self.heads, 1, self.points)
        value, reference = self.value_proj(bev_BSC), reference_BQ2[:, :, None]
        out = self.operators(value.device).deform_attn(value, [bev_hw], reference, offsets, logits)
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


class TemporalSelfAttention(Attention):
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
        """(B, 2, Q, C), or (B, 1, Q, C) when both queues are the current query, for want of a history.

        With history the second queue is the *initial* query, the same in every layer.
        """
        own = query_BQC.unsqueeze(1)
        if history is None or not any(history.exists_B):
            return own
        both = torch.stack([history.bev_BQC, history.initial_BQC], 1)
        if all(history.exists_B):
            return both
        exists = tensor_on(history.exists_B, own.device).view(-1, 1, 1, 1)
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
        offsets = self.sampling_offsets(both).view(B, Q, H, 2, P, 2)
        logits = self.attention_weights(both).view(B, Q, H, 2, P)
        value = self.value_proj(queues)  # one map for both queues where there is no history
        reference = reference_BT_Q2.view(B, 2, Q, 2)
        out = self.operators(value.device).temporal_attn(value, bev_hw, reference, offsets, logits)
        return query_BQC + self.dropout(self.output_proj(out))  # type: ignore[no-any-return]


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


class SpatialCrossAttention(Attention):
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
        H, L, P = inner.heads, inner.levels, inner.points
        # Offsets and weights depend on the query only: once per query, not once per camera.  No position.
        offsets = inner.sampling_offsets(query_BQC).view(B * Q, H, L, P, 2)
        logits = inner.attention_weights(query_BQC).view(B * Q, H, L, P)
        value = inner.value_proj(features_BNSC).flatten(0, 1)
        out = self.operators(value.device).spatial_attn(value, shapes_L, visible.pairs, offsets, logits)
        return query_BQC + self.dropout(self.output_proj(out.view(B, Q, C)))  # type: ignore[no-any-return]
