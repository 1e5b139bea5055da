"""The detection decoder with iterative box refinement (Deformable DETR, 2021, appendix A.4).

B batch, Q object queries, C channels, S cells of the BEV map.
"""

from typing import List, Tuple

import torch
from torch import Tensor, nn

from .attention import BEVCrossAttention
from .config import DecoderConfig, TransformerConfig
from .layers import FFN
from .recompute import recompute


def logit(x: Tensor, eps: float = 1e-5) -> Tensor:
    """log(max(x, eps) / max(1 - x, eps)) with x clamped to [0, 1]; mmdet's inverse_sigmoid."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


class SelfAttention(nn.Module):
    """Object queries among themselves; position is added to query and key, not to value.  Key `attn`."""

    def __init__(self, dims: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(dims, heads, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query_BQC: Tensor, position_BQC: Tensor) -> Tensor:
        value = query_BQC.transpose(0, 1)
        key = value + position_BQC.transpose(0, 1)
        out = self.attn(key, key, value, need_weights=False)[0]
        return query_BQC + self.dropout(out.transpose(0, 1))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Keys attentions.{0,1}, ffns.0, norms.{0,1,2}, as mmcv's BaseTransformerLayer."""

    def __init__(self, width: TransformerConfig, points: int) -> None:
        super().__init__()
        dims, heads, dropout = width.embed_dims, width.num_heads, width.dropout
        self.attentions = nn.ModuleList(
            [SelfAttention(dims, heads, dropout), BEVCrossAttention(dims, heads, points, dropout)]
        )
        self.ffns = nn.ModuleList([FFN(dims, width.ffn_dims, dropout)])
        self.norms = nn.ModuleList(nn.LayerNorm(dims) for _ in range(3))

    def forward(
        self,
        query_BQC: Tensor,
        position_BQC: Tensor,
        bev_BSC: Tensor,
        reference_BQ2: Tensor,
        bev_hw: Tuple[int, int],
    ) -> Tensor:
        x = self.norms[0](self.attentions[0](query_BQC, position_BQC))
        x = self.norms[1](self.attentions[1](x, position_BQC, bev_BSC, reference_BQ2, bev_hw))
        return self.norms[2](self.ffns[0](x))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """recompute_layers: each layer keeps its inputs only and runs again in the backward pass."""

    def __init__(self, width: TransformerConfig, config: DecoderConfig) -> None:
        super().__init__()
        self.recompute_layers = False
        self.layers = nn.ModuleList(DecoderLayer(width, config.num_points) for _ in range(config.num_layers))

    def forward(
        self,
        query_BQC: Tensor,
        position_BQC: Tensor,
        bev_BSC: Tensor,
        reference_BQ3: Tensor,
        bev_hw: Tuple[int, int],
        reg_branches: nn.ModuleList,
    ) -> Tuple[List[Tensor], List[Tensor]]:
        """Per layer the queries (B, Q, C) and the 10 box codes (B, Q, 10) with cx, cy, cz in [0, 1].

        The centre a layer predicts, detached, is the next layer's reference; so refinement and the
        head's output are one computation.  Only x and y of the reference steer the sampling.
        """
        queries, codes = [], []
        for layer, branch in zip(self.layers, reg_branches):
            args = (query_BQC, position_BQC, bev_BSC, reference_BQ3[..., :2], bev_hw)
            query_BQC = recompute(layer, *args) if self.recompute_layers else layer(*args)
            code, reference = branch(query_BQC), logit(reference_BQ3)
            xy = (code[..., 0:2] + reference[..., 0:2]).sigmoid()
            z = (code[..., 4:5] + reference[..., 2:3]).sigmoid()
            reference_BQ3 = torch.cat([xy, z], -1).detach()
            queries.append(query_BQC)
            codes.append(torch.cat([xy, code[..., 2:4], z, code[..., 5:]], -1))
        return queries, codes
