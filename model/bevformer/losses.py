"""Focal and L1 losses of every decoder layer (facts: bevformer.md, Losses).

B batch, O object queries, K classes, D = 10 box codes.
"""

from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .codes import at_least_float32, encode_boxes
from .config import HeadConfig
from .matching import Match, match_all
from .transfer import send, tensor_on
from .types import GroundTruth


def focal_loss(logits: Tensor, targets: Tensor, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Sum of the sigmoid focal loss (Lin et al., 2017); targets are 0 or 1, of the logits' shape."""
    p = logits.sigmoid()
    miss = (1 - p) * targets + p * (1 - targets)
    weight = (alpha * targets + (1 - alpha) * (1 - targets)) * miss.pow(gamma)
    return (F.binary_cross_entropy_with_logits(logits, targets, reduction="none") * weight).sum()


@dataclass(frozen=True)
class Target:
    """What one layer is to say of one sample.  queries, labels (G,): which query is which class.
    rows (F,), wanted (F, D): the queries whose box is compared, and with what.
    """

    queries_G: Tensor
    labels_G: Tensor
    rows_F: Tensor
    wanted_FD: Tensor


def targets_of(
    matches_LB: Sequence[Sequence[Match]], truths: Sequence[GroundTruth], codes: Tensor
) -> List[List[Target]]:
    """Per layer and sample, on the device of `codes` and in its kind of number.  truths: best on the host."""
    truths = [GroundTruth(truth.boxes_G9.cpu(), truth.labels_G.cpu()) for truth in truths]
    kinds_B = [torch.promote_types(truth.boxes_G9.dtype, codes.dtype) for truth in truths]
    wanted_B = [encode_boxes(truth.boxes_G9.to(kind)) for truth, kind in zip(truths, kinds_B)]
    # A row with any non-finite number (unknown velocity) loses its whole L1 row, but the box stays
    # matched, supervised in class and counted (kept from upstream).
    finite_B = [torch.isfinite(wanted).all(-1).numpy() for wanted in wanted_B]
    parts: List[np.ndarray] = []
    for matches in matches_LB:
        for match, truth, finite in zip(matches, truths, finite_B):
            kept = finite[match.boxes_G]
            labels = truth.labels_G.numpy()[match.boxes_G]
            parts += [match.queries_G, labels, match.queries_G[kept], match.boxes_G[kept]]
    indices = send(torch.from_numpy(np.concatenate(parts)), codes.device).split([len(part) for part in parts])
    sent_B = [send(wanted, codes.device) for wanted in wanted_B]
    found = []
    for place, four in enumerate(zip(*[iter(indices)] * 4)):
        queries, labels, rows, boxes = four
        found.append(Target(queries, labels, rows, sent_B[place % len(truths)][boxes].to(codes.dtype)))
    return [found[start : start + len(truths)] for start in range(0, len(found), len(truths))]


def layer_losses(
    logits_BOK: Tensor,
    codes_BOD: Tensor,
    targets_B: Sequence[Target],
    weights_D: Tensor,
    config: HeadConfig,
    divisor: float,
) -> List[Tensor]:
    """[classification, box] of one decoder layer, both divided by `divisor`."""
    classes = torch.zeros_like(logits_BOK)
    box_loss = codes_BOD.sum() * 0
    for sample, target in enumerate(targets_B):
        classes[sample, target.queries_G, target.labels_G] = 1
        error = (codes_BOD[sample, target.rows_F] - target.wanted_FD).abs() * weights_D
        box_loss = box_loss + error.sum()
    return [
        config.cls_weight * focal_loss(logits_BOK, classes) / divisor,
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

    truths: best on the host.  It then waits for the device once, for all costs of the matching (`match_all`).
    """
    own = sum(len(truth.labels_G) for truth in truths)
    divisor = max(float(own if mean_positives is None else mean_positives), 1.0)
    logits_LBOK = [at_least_float32(logits) for logits in logits_LBOK]
    codes_LBOD = [at_least_float32(codes) for codes in codes_LBOD]
    device = codes_LBOD[-1].device
    there = [GroundTruth(send(truth.boxes_G9, device), send(truth.labels_G, device)) for truth in truths]
    targets_LB = targets_of(match_all(logits_LBOK, codes_LBOD, there), truths, codes_LBOD[-1])
    weights = tensor_on(config.code_weights, device, codes_LBOD[-1].dtype)
    losses: Dict[str, Tensor] = {}
    last = len(logits_LBOK) - 1
    for layer, (logits, codes) in enumerate(zip(logits_LBOK, codes_LBOD)):
        prefix = "" if layer == last else "d%d." % layer
        losses[prefix + "loss_cls"], losses[prefix + "loss_bbox"] = layer_losses(
            logits, codes, targets_LB[layer], weights, config, divisor
        )
    return losses
