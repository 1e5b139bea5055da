"""Focal and L1 losses of every decoder layer (facts: bevformer.md, Losses).

B batch, O object queries, K classes, D = 10 box codes.
"""

from typing import Dict, List, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .codes import at_least_float32, encode_boxes
from .config import HeadConfig
from .matching import match
from .types import GroundTruth


def focal_loss(logits: Tensor, targets: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Sum of the sigmoid focal loss (Lin et al., 2017); targets are 0 or 1, of the logits' shape."""
    p = logits.sigmoid()
    miss = (1 - p) * targets + p * (1 - targets)
    weight = (alpha * targets + (1 - alpha) * (1 - targets)) * miss.pow(gamma)
    return (F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * weight).sum()


def layer_losses(
    logits_BOK: Tensor, codes_BOD: Tensor, truths: Sequence[GroundTruth], config: HeadConfig, divisor: float
) -> List[Tensor]:
    """[classification, box] of one decoder layer, both divided by `divisor`."""
    targets = torch.zeros_like(logits_BOK)
    box_loss = codes_BOD.sum() * 0
    weights = codes_BOD.new_tensor(config.code_weights)
    for sample, truth in enumerate(truths):
        queries, boxes = match(logits_BOK[sample], codes_BOD[sample], truth)
        targets[sample, queries, truth.labels_G[boxes]] = 1
        wanted = encode_boxes(truth.boxes_G9[boxes]).to(codes_BOD.dtype)
        # A row with any non-finite number (unknown velocity) loses its whole L1 row, but the box stays
        # matched, supervised in class and counted (kept from upstream).
        finite = torch.isfinite(wanted).all(-1)
        error = (codes_BOD[sample, queries[finite]] - wanted[finite]).abs() * weights
        box_loss = box_loss + error.sum()
    return [
        config.cls_weight * focal_loss(logits_BOK, targets) / divisor,
        config.bbox_weight * box_loss / divisor,
    ]


def detection_losses(
    logits_LBOK: Sequence[Tensor],
    codes_LBOD: Sequence[Tensor],
    truths: Sequence[GroundTruth],
    config: HeadConfig,
    mean_positives: Optional[float] = None,
) -> Dict[str, Tensor]:
    """loss_cls and loss_bbox of the last layer, d0.loss_cls ... of the others; their sum is the loss.

    mean_positives: mean over ranks of the number of true boxes; None is this batch's own.  It is known
    before the forward pass, which is what makes N-rank training exact on one device.
    """
    own = sum(len(truth.labels_G) for truth in truths)
    divisor = max(float(own if mean_positives is None else mean_positives), 1.0)
    losses: Dict[str, Tensor] = {}
    last = len(logits_LBOK) - 1
    for layer, (logits, codes) in enumerate(zip(logits_LBOK, codes_LBOD)):
        prefix = "" if layer == last else "d%d." % layer
        cls_loss, box_loss = layer_losses(
            at_least_float32(logits), at_least_float32(codes), truths, config, divisor
        )
        losses[prefix + "loss_cls"], losses[prefix + "loss_bbox"] = cls_loss, box_loss
    return losses
