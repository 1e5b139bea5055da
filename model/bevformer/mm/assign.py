"""Upstream's coder, assigner and cost, for heads that build them by name; the bundled head has its own.

Boxes are plain tensors here, as upstream passes them: gravity-centred and legacy (`types`).
O object queries, G true boxes.
"""

import dataclasses
from typing import Any, Dict, List, Optional, Sequence

import torch
from mmdet.core.bbox import BaseBBoxCoder
from mmdet.core.bbox.assigners import AssignResult, BaseAssigner
from mmdet.core.bbox.match_costs import build_match_cost
from torch import Tensor

from ..codes import encode_boxes
from ..config import HeadConfig
from ..errors import ConfigError
from ..head import decode_detections
from ..matching import Diverged, solve

MATCHED = 8  # of the ten box codes: all but the velocity


class BBox3DL1Cost:
    """Plain L1 distance of box codes, in metres, logs, sine and cosine."""

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def __call__(self, codes_OD: Tensor, wanted_GD: Tensor) -> Tensor:
        return self.weight * torch.cdist(codes_OD, wanted_GD, p=1)


class HungarianAssigner3D(BaseAssigner):  # type: ignore[misc]
    """One-to-one, by the least sum of class and box cost."""

    def __init__(
        self,
        cls_cost: Any = None,
        reg_cost: Any = None,
        iou_cost: Any = None,
        pc_range: Optional[Sequence[float]] = None,
    ) -> None:
        """Costs are configurations.  Raises ConfigError for an iou_cost with a weight."""
        if iou_cost and iou_cost.get("weight", 1.0):
            raise ConfigError(
                "HungarianAssigner3D: iou_cost.weight = %r cannot be honoured" % iou_cost.get("weight", 1.0),
                "Upstream computes no IoU in three dimensions.",
                "Write weight=0.0.",
            )
        self.cls_cost = build_match_cost(cls_cost or dict(type="FocalLossCost", weight=1.0))
        self.reg_cost = build_match_cost(reg_cost or dict(type="BBox3DL1Cost", weight=1.0))
        self.pc_range = pc_range

    def assign(
        self,
        bbox_pred: Tensor,
        cls_pred: Tensor,
        gt_bboxes: Tensor,
        gt_labels: Tensor,
        gt_bboxes_ignore: Any = None,
        eps: float = 1e-7,
    ) -> Any:
        """bbox_pred: (O, 10) codes in metres, cls_pred: (O, K) logits, gt_bboxes: (G, 9)."""
        if gt_bboxes_ignore is not None:
            raise ConfigError("HungarianAssigner3D with boxes to ignore", "Upstream's has no such case.")
        count = len(gt_bboxes)
        places = bbox_pred.new_zeros(len(bbox_pred), dtype=torch.long)  # 0: background, k: box k - 1
        labels = torch.full_like(places, -1)
        if count and len(bbox_pred):
            wanted = encode_boxes(gt_bboxes.to(bbox_pred.dtype))[:, :MATCHED]
            cost = self.cls_cost(cls_pred, gt_labels) + self.reg_cost(bbox_pred[:, :MATCHED], wanted)
            if not bool(torch.isfinite(cost).all()):
                raise Diverged("the outputs of the network hold NaN or infinity")
            queries, boxes = (torch.from_numpy(each) for each in solve(cost.detach().cpu().numpy()))
            places[queries] = boxes.to(places.device) + 1
            labels[queries] = gt_labels[boxes.to(gt_labels.device)]
        return AssignResult(count, places, None, labels=labels)


class NMSFreeCoder(BaseBBoxCoder):  # type: ignore[misc]
    """The best `max_num` of all (query, class) pairs; no suppression."""

    def __init__(
        self,
        pc_range: Sequence[float],
        voxel_size: Any = None,
        post_center_range: Optional[Sequence[float]] = None,
        max_num: int = 100,
        score_threshold: Optional[float] = None,
        num_classes: int = 10,
    ) -> None:
        if post_center_range is None:
            raise ConfigError(
                "NMSFreeCoder without post_center_range", "Upstream's coder does not decode without one."
            )
        if score_threshold is not None:
            raise ConfigError(
                "NMSFreeCoder: score_threshold = %r cannot be honoured" % score_threshold,
                "BEVFormer keeps every one of the best; nuScenes' score looks at all of them.",
                "Leave it out, and filter the results.",
            )
        self.pc_range, self.post_center_range = pc_range, tuple(map(float, post_center_range))
        self.max_num, self.num_classes = max_num, num_classes
        self._head = dataclasses.replace(
            HeadConfig(),
            post_center_range_m=self.post_center_range,
            max_per_img=max_num,
            num_classes=num_classes,
        )

    def encode(self, boxes_G9: Tensor) -> Tensor:
        """(G, 9) to the (G, 10) codes that are regressed."""
        return encode_boxes(boxes_G9)

    def decode_single(self, cls_scores: Tensor, bbox_preds: Tensor) -> Dict[str, Tensor]:
        """Of (O, K) logits and (O, 10) codes with centres in metres; boxes (n, 9) gravity-centred."""
        found = decode_detections(cls_scores, bbox_preds, self._head)
        return {"bboxes": found.boxes_K9, "scores": found.scores_K, "labels": found.labels_K}

    def decode(self, preds_dicts: Dict[str, Tensor]) -> List[Dict[str, Tensor]]:
        """Of the last decoder layer, one entry for each sample of the batch."""
        last = zip(preds_dicts["all_cls_scores"][-1], preds_dicts["all_bbox_preds"][-1])
        return [self.decode_single(logits, codes) for logits, codes in last]
