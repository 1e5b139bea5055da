"""One-to-one assignment of queries to true boxes by lowest cost (DETR; Carion et al., 2020)."""

from typing import Tuple

import torch
from torch import Tensor

from .codes import at_least_float32, encode_boxes
from .errors import UserError
from .types import GroundTruth


class Diverged(UserError):
    """Training produced NaN or infinity: a finding about the run, not a fault of the machine."""

    exit_code = 1


def matching_cost(logits_QK: Tensor, codes_Q10: Tensor, truth: GroundTruth) -> Tensor:
    """(Q, G): 2 * focal cost + 0.25 * L1 over the first 8 codes (metres, logs, sin, cos; unweighted).

    Source: facts bevformer.md, Matching; mmdet FocalLossCost, BEVFormer BBox3DL1Cost.
    """
    p = logits_QK.sigmoid()
    positive = -(p + 1e-12).log() * 0.25 * (1 - p).pow(2)
    negative = -(1 - p + 1e-12).log() * 0.75 * p.pow(2)
    cls_cost = 2.0 * (positive - negative)[:, truth.labels_G]
    wanted = encode_boxes(truth.boxes_G9.to(codes_Q10.dtype))[:, :8]
    box_cost = 0.25 * torch.cdist(codes_Q10[:, :8], wanted, p=1)
    return cls_cost + box_cost


def match(logits_QK: Tensor, codes_Q10: Tensor, truth: GroundTruth) -> Tuple[Tensor, Tensor]:
    """Indices (queries, boxes), both (G,) int64.  Raises Diverged when a cost is not finite."""
    from scipy.optimize import linear_sum_assignment  # scipy takes 0.2 s to import; inference never needs it

    with torch.no_grad():
        cost = matching_cost(at_least_float32(logits_QK), at_least_float32(codes_Q10), truth).cpu()
    if not bool(torch.isfinite(cost).all()):
        raise Diverged("the outputs of the network hold NaN or infinity")
    rows, columns = linear_sum_assignment(cost.numpy())
    device = logits_QK.device
    return torch.as_tensor(rows, device=device), torch.as_tensor(columns, device=device)
