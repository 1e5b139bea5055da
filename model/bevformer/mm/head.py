"""The bundled head as mmdet's: for a detector of somebody's own that builds it by name.

B batch, Q BEV queries, C channels, L decoder layers.
"""

from typing import Any, Dict, List, Mapping, Optional, Sequence

import mmdet3d
import torch
from mmdet.core import reduce_mean
from torch import Tensor

from .. import head
from ..losses import detection_losses
from ..types import GroundTruth
from .boxes import convention_of, from_mmdet3d, to_mmdet3d
from .config import read_model
from .frames import meta_of

BOXES = convention_of(mmdet3d.__version__)


class BEVFormerHead(head.BEVFormerHead):
    """The methods of upstream's head; its section of a configuration is read as a whole.

    `section` and `read` are that section and our configuration of it.
    """

    def __init__(self, train_cfg: Any = None, test_cfg: Any = None, **section: Any) -> None:
        """Raises ConfigError naming what cannot be honoured."""
        sections: Dict[str, Any] = {"type": "BEVFormer", "pts_bbox_head": dict(section, type="BEVFormerHead")}
        levels = _levels(section)
        if levels is not None:
            sections["img_neck"] = {"num_outs": levels}
        if train_cfg is not None:
            sections["train_cfg"] = {"pts": train_cfg}
        config = read_model(sections)[0]
        super().__init__(config)
        self.section: Dict[str, Any] = sections["pts_bbox_head"]
        self.read = config

    def init_weights(self) -> None:
        """Nothing: all was drawn when it was built.  Heads that derive from this one call it."""

    def forward(  # type: ignore[override]
        self,
        mlvl_feats: Sequence[Tensor],
        img_metas: Sequence[Mapping[str, Any]],
        prev_bev: Optional[Tensor] = None,
        only_bev: bool = False,
    ) -> Any:
        """Levels of (B, N, C, h, w); prev_bev (B, Q, C) or (Q, B, C), as upstream hands either back.

        {bev_embed (Q, B, C), all_cls_scores (L, B, O, K), all_bbox_preds (L, B, O, 10), ...}, or with
        only_bev the map (B, Q, C).
        """
        if prev_bev is not None and prev_bev.shape[0] == len(self.bev_embedding.weight):
            prev_bev = prev_bev.transpose(0, 1)
        bev = self.bev(mlvl_feats, [meta_of(meta) for meta in img_metas], prev_bev)
        if only_bev:
            return bev
        outs = self.outputs(bev)
        return {
            "bev_embed": outs.bev_BQC.transpose(0, 1),
            "all_cls_scores": torch.stack(list(outs.logits_LBOK)),
            "all_bbox_preds": torch.stack(list(outs.codes_LBOD)),
            "enc_cls_scores": None,
            "enc_bbox_preds": None,
        }

    def loss(
        self,
        gt_bboxes_list: Sequence[Any],
        gt_labels_list: Sequence[Tensor],
        preds_dicts: Mapping[str, Any],
        gt_bboxes_ignore: Any = None,
        img_metas: Any = None,
    ) -> Dict[str, Tensor]:
        """Losses under upstream's names."""
        logits, codes = (list(preds_dicts["all_" + name]) for name in ("cls_scores", "bbox_preds"))
        truths = [
            GroundTruth(from_mmdet3d(boxes, BOXES).to(labels.device), labels.long())
            for boxes, labels in zip(gt_bboxes_list, gt_labels_list)
        ]
        count = torch.tensor([float(sum(len(labels) for labels in gt_labels_list))], device=logits[0].device)
        return detection_losses(logits, codes, truths, self.config, float(reduce_mean(count)))

    def get_bboxes(
        self, preds_dicts: Mapping[str, Any], img_metas: Sequence[Mapping[str, Any]], rescale: bool = False
    ) -> List[List[Any]]:
        """[boxes of mmdet3d, scores, labels] of each sample."""
        last = zip(img_metas, preds_dicts["all_cls_scores"][-1], preds_dicts["all_bbox_preds"][-1])
        out = []
        for meta, logits, codes in last:
            found = head.decode_detections(logits, codes, self.config)
            boxes = to_mmdet3d(found.boxes_K9, meta["box_type_3d"], BOXES)
            out.append([boxes, found.scores_K, found.labels_K])
        return out


def _levels(section: Mapping[str, Any]) -> Optional[int]:
    """How many levels its cross-attention reads; the neck says it in a whole model."""
    value: Any = section
    for key in ("transformer", "encoder", "transformerlayers", "attn_cfgs"):
        value = value.get(key) or {}
    found = [each for each in value if isinstance(each, Mapping) and "deformable_attention" in each]
    levels = found[0]["deformable_attention"].get("num_levels") if found else None
    return None if levels is None else int(levels)
