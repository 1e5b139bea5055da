"""The BEV encoder: temporal self-attention, spatial cross-attention, FFN (Li et al., 2022, figure 2).

B batch, Q BEV queries, C channels, N cameras, S sum of h*w over levels.
"""

from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from .attention import History, SpatialCrossAttention, TemporalSelfAttention
from .config import EncoderConfig, TransformerConfig
from .layers import FFN
from .ops.visible import Visibility
from .recompute import recompute
from .transfer import tensor_on


class EncoderLayer(nn.Module):
    """Keys attentions.{0,1}, ffns.0, norms.{0,1,2}, as mmcv's BaseTransformerLayer."""

    def __init__(self, width: TransformerConfig, config: EncoderConfig, levels: int) -> None:
        super().__init__()
        dims, heads, dropout = width.embed_dims, width.num_heads, width.dropout
        self.attentions = nn.ModuleList(
            [
                TemporalSelfAttention(dims, heads, config.tsa_points, dropout),
                SpatialCrossAttention(dims, heads, levels, config.sca_points, dropout),
            ]
        )
        self.ffns = nn.ModuleList([FFN(dims, width.ffn_dims, dropout)])
        self.norms = nn.ModuleList(nn.LayerNorm(dims) for _ in range(3))

    def forward(
        self,
        query_BQC: Tensor,
        position_QC: Tensor,
        reference_BT_Q2: Tensor,
        bev_hw: Tuple[int, int],
        history: Optional[History],
        features_BNSC: Tensor,
        shapes_L: List[Tuple[int, int]],
        visible: Visibility,
    ) -> Tensor:
        x = self.attentions[0](query_BQC, position_QC, reference_BT_Q2, bev_hw, history)
        x = self.norms[0](x)
        x = self.norms[1](self.attentions[1](x, features_BNSC, shapes_L, visible))
        return self.norms[2](self.ffns[0](x))  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """recompute_layers: each layer keeps its inputs only and runs again in the backward pass."""

    def __init__(self, width: TransformerConfig, config: EncoderConfig, levels: int) -> None:
        super().__init__()
        self.config, self.recompute_layers = config, False
        self.layers = nn.ModuleList(EncoderLayer(width, config, levels) for _ in range(config.num_layers))

    def forward(
        self,
        bev_BQC: Tensor,
        position_QC: Tensor,
        reference_Q2: Tensor,
        history: Optional[History],
        features_BNSC: Tensor,
        shapes_L: List[Tuple[int, int]],
        visible: Visibility,
    ) -> Tensor:
        """The BEV map after the last layer, (B, Q, C)."""
        references = self._references(reference_Q2, len(bev_BQC), history)
        hw = (self.config.bev_h, self.config.bev_w)
        for layer in self.layers:
            args = (bev_BQC, position_QC, references, hw, history, features_BNSC, shapes_L, visible)
            bev_BQC = recompute(layer, *args) if self.recompute_layers else layer(*args)
        return bev_BQC

    def _references(self, reference_Q2: Tensor, batch: int, history: Optional[History]) -> Tensor:
        """(B*2, Q, 2): queue 0 (history) moves with the ego vehicle, queue 1 stands still."""
        moved = reference_Q2.expand(batch, -1, -1)
        still = moved
        if history is not None:
            exists = tensor_on(history.exists_B, moved.device).view(-1, 1, 1)
            moved = torch.where(exists, moved + history.shift_B2[:, None], moved)
            # The weights published in 2022 were trained with both moved (66b65f3 changed it).
            still = moved if self.config.shift_current_reference else still
        return torch.stack([moved, still], 1).flatten(0, 1)
