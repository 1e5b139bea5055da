"""The detection head: BEV queries, object queries, class and box branches, decoding.

B batch, Q BEV queries, O object queries, K classes, D = 10 box codes, L decoder layers.
"""

import math
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from .codes import at_least_float32, decode_boxes, scale_centres
from .config import Config, HeadConfig
from .layers import LearnedPositionalEncoding
from .transfer import tensor_on
from .transformer import PerceptionTransformer
from .types import Detections, FrameMeta


@dataclass(frozen=True)
class HeadOutputs:
    """bev (B, Q, C); per decoder layer the class logits (B, O, K) and codes (B, O, D), centres in metres."""

    bev_BQC: Tensor
    logits_LBOK: Tuple[Tensor, ...]
    codes_LBOD: Tuple[Tensor, ...]


class BEVFormerHead(nn.Module):
    """Keys as upstream's pts_bbox_head; `code_weights` is a frozen parameter and the first key."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        dims, head = config.transformer.embed_dims, config.head
        self.config = head
        self.code_weights = nn.Parameter(torch.tensor(head.code_weights), requires_grad=False)
        self.positional_encoding = LearnedPositionalEncoding(config.encoder.bev_h, config.encoder.bev_w, dims)
        self.transformer = PerceptionTransformer(config)
        layers = range(config.decoder.num_layers)
        self.cls_branches = nn.ModuleList(_cls_branch(dims, head.num_classes) for _ in layers)
        self.reg_branches = nn.ModuleList(_reg_branch(dims) for _ in layers)
        self.bev_embedding = nn.Embedding(config.encoder.bev_h * config.encoder.bev_w, dims)
        self.query_embedding = nn.Embedding(head.num_query, dims * 2)

    def bev(
        self, levels: Sequence[Tensor], metas: Sequence[FrameMeta], prev_bev_BQC: Optional[Tensor]
    ) -> Tensor:
        """The BEV map (B, Q, C) from camera features (levels of (B, N, C, h, w)) and history."""
        return self.transformer.bev_features(
            levels, metas, self.bev_embedding.weight, self.positional_encoding(), prev_bev_BQC
        )

    def forward(
        self, levels: Sequence[Tensor], metas: Sequence[FrameMeta], prev_bev_BQC: Optional[Tensor]
    ) -> HeadOutputs:
        return self.outputs(self.bev(levels, metas, prev_bev_BQC))

    def outputs(self, bev_BQC: Tensor) -> HeadOutputs:
        """Classes and boxes from a BEV map, of every decoder layer."""
        queries, codes = self.transformer.decode(bev_BQC, self.query_embedding.weight, self.reg_branches)
        logits = tuple(branch(query) for branch, query in zip(self.cls_branches, queries))
        centred = tuple(scale_centres(code, self.config.pc_range_m) for code in codes)
        return HeadOutputs(bev_BQC, logits, centred)

    def decode(self, outputs: HeadOutputs) -> List[Detections]:
        return [
            decode_detections(logits, codes, self.config)
            for logits, codes in zip(outputs.logits_LBOK[-1], outputs.codes_LBOD[-1])
        ]


def decode_detections(logits_OK: Tensor, codes_OD: Tensor, config: HeadConfig) -> Detections:
    """The best `max_per_img` of all (query, class) pairs whose centre lies in the post range.

    No NMS, no score threshold; a query may appear with several classes (facts: bevformer.md, Decode).
    """
    scores, flat = (
        at_least_float32(logits_OK).sigmoid().flatten().topk(min(config.max_per_img, logits_OK.numel()))
    )
    labels = flat % config.num_classes
    query = torch.div(flat, config.num_classes, rounding_mode="floor")
    boxes = decode_boxes(at_least_float32(codes_OD)[query])
    low, high = tensor_on(config.post_center_range_m, boxes.device, boxes.dtype).view(2, 3)
    kept = ((boxes[:, :3] >= low) & (boxes[:, :3] <= high)).all(-1)
    return Detections(boxes[kept], scores[kept], labels[kept])


def _cls_branch(dims: int, classes: int) -> nn.Sequential:
    branch = nn.Sequential(
        nn.Linear(dims, dims),
        nn.LayerNorm(dims),
        nn.ReLU(),
        nn.Linear(dims, dims),
        nn.LayerNorm(dims),
        nn.ReLU(),
        nn.Linear(dims, classes),
    )
    nn.init.constant_(branch[6].bias, -math.log(99))  # a prior of 1 % per class, as in focal loss
    return branch


def _reg_branch(dims: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(dims, dims), nn.ReLU(), nn.Linear(dims, dims), nn.ReLU(), nn.Linear(dims, 10)
    )
