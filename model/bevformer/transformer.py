"""The perception transformer: camera features and history in, BEV map and object queries out.

B batch, Q BEV queries, O object queries, C channels, N cameras, S sum of h*w over levels.
"""

from typing import List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor, nn

from . import geometry
from .attention import BEVCrossAttention, History, SpatialCrossAttention, TemporalSelfAttention
from .codes import at_least_float32
from .config import Config
from .decoder import Decoder
from .encoder import Encoder
from .layers import can_bus_mlp
from .transfer import tensor_on
from .types import FrameMeta


class PerceptionTransformer(nn.Module):
    """Keys level_embeds, cams_embeds, encoder, decoder, reference_points, can_bus_mlp."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width = config.transformer
        self.config = config
        self.level_embeds = nn.Parameter(torch.empty(width.num_level_embeds, width.embed_dims))
        self.cams_embeds = nn.Parameter(torch.empty(width.num_cams, width.embed_dims))
        self.encoder = Encoder(width, config.encoder, config.neck.num_outs)
        self.decoder = Decoder(width, config.decoder)
        self.reference_points = nn.Linear(width.embed_dims, 3)
        self.can_bus_mlp = can_bus_mlp(width.embed_dims)
        self._init_weights()

    def _init_weights(self) -> None:
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, (BEVCrossAttention, TemporalSelfAttention, SpatialCrossAttention)):
                module.init_weights()
        nn.init.normal_(self.level_embeds)
        nn.init.normal_(self.cams_embeds)
        nn.init.zeros_(self.reference_points.bias)

    def flatten_features(self, levels: Sequence[Tensor]) -> Tuple[Tensor, List[Tuple[int, int]]]:
        """Levels (B, N, C, h, w), finest first -> (B, N, S, C) with both embeddings added, and (h, w)s."""
        flat, shapes = [], []
        for level, feature in enumerate(levels):
            tokens = feature.flatten(3).transpose(2, 3)
            flat.append(
                tokens
                + self.cams_embeds[None, :, None].to(tokens.dtype)
                + self.level_embeds[None, None, level : level + 1].to(tokens.dtype)
            )
            shapes.append((int(feature.shape[-2]), int(feature.shape[-1])))
        return torch.cat(flat, 2), shapes

    def bev_features(
        self,
        levels: Sequence[Tensor],
        metas: Sequence[FrameMeta],
        bev_query_QC: Tensor,
        position_QC: Tensor,
        prev_bev_BQC: Optional[Tensor],
    ) -> Tensor:
        """The BEV map (B, Q, C).  `metas` carry can_bus as *differences* to the frame of prev_bev."""
        grid, pc_range = self.config.encoder, self.config.head.pc_range_m
        features, shapes = self.flatten_features(levels)
        can_bus = tensor_on(
            np.stack([meta.can_bus_18 for meta in metas]), bev_query_QC.device, bev_query_QC.dtype
        )
        query = bev_query_QC + self.can_bus_mlp(can_bus)[:, None]
        # The number of visible queries decides shapes: the CPU counts, so that it need not wait for a device.
        host = torch.device("cpu")
        points = geometry.pillar_points(
            grid.bev_h,
            grid.bev_w,
            grid.num_points_in_pillar,
            pc_range,
            host,
            at_least_float32(bev_query_QC).dtype,
        )
        reference = geometry.reference_2d(grid.bev_h, grid.bev_w, query.device, query.dtype)
        visible = geometry.visibility(points, metas).to(query.device)
        history = self._history(prev_bev_BQC, query, metas)
        bev: Tensor = self.encoder(query, position_QC, reference, history, features, shapes, visible)
        return bev

    def _history(
        self, prev_bev_BQC: Optional[Tensor], query_BQC: Tensor, metas: Sequence[FrameMeta]
    ) -> Optional[History]:
        exists = tuple(meta.prev_bev_exists for meta in metas)
        if prev_bev_BQC is None or not any(exists):
            return None
        grid = self.config.encoder
        turned = torch.stack(
            [
                geometry.rotate_bev(
                    bev, float(meta.can_bus_18[17]), grid.bev_h, grid.bev_w, grid.rotate_center
                )
                for bev, meta in zip(prev_bev_BQC, metas)
            ]
        )
        shift = geometry.bev_shift(metas, grid.bev_h, grid.bev_w, self.config.head.pc_range_m)
        return History(turned, query_BQC, exists, tensor_on(shift, query_BQC.device, query_BQC.dtype))

    def decode(
        self, bev_BQC: Tensor, query_embedding_O2C: Tensor, reg_branches: nn.ModuleList
    ) -> Tuple[List[Tensor], List[Tensor]]:
        """Queries and box codes per decoder layer; the embedding is [position, content]."""
        position, content = query_embedding_O2C.expand(len(bev_BQC), -1, -1).chunk(2, -1)
        reference = self.reference_points(position).sigmoid()
        grid = self.config.encoder
        out: Tuple[List[Tensor], List[Tensor]] = self.decoder(
            content, position, bev_BQC, reference, (grid.bev_h, grid.bev_w), reg_branches
        )
        return out
