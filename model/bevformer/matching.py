"""One-to-one assignment of queries to true boxes by lowest cost (DETR; Carion et al., 2020).

L decoder layers, B batch, O object queries, K classes, D = 10 box codes, G true boxes of a sample.
"""

from dataclasses import dataclass
from typing import List, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from .codes import at_least_float32, encode_boxes
from .errors import UserError
from .transfer import send
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


@dataclass(frozen=True)
class Match:
    """Of one layer and sample: box `boxes_G[i]` belongs to query `queries_G[i]`, int64 on the host."""

    queries_G: np.ndarray
    boxes_G: np.ndarray


def match_all(
    logits_LBOK: Sequence[Tensor], codes_LBOD: Sequence[Tensor], truths: Sequence[GroundTruth]
) -> List[List[Match]]:
    """For every layer and sample.  All costs come to the host in one copy, the only wait for the device.

    truths: on the device of the outputs.  Raises Diverged when a cost is not finite.
    """
    with torch.no_grad():
        costs = [
            matching_cost(at_least_float32(logits[sample]), at_least_float32(codes[sample]), truth)
            for logits, codes in zip(logits_LBOK, codes_LBOD)
            for sample, truth in enumerate(truths)
        ]
        flat = torch.cat([cost.flatten() for cost in costs]).cpu().numpy()
    if not np.isfinite(flat).all():
        raise Diverged("the outputs of the network hold NaN or infinity")
    ends = np.cumsum([cost.numel() for cost in costs])
    found = [
        Match(*solve(part.reshape(tuple(cost.shape)))) for part, cost in zip(np.split(flat, ends[:-1]), costs)
    ]
    return [found[start : start + len(truths)] for start in range(0, len(found), len(truths))]


def solve(cost_QG: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """(queries, boxes) of the assignment whose costs sum to the least."""
    from scipy.optimize import linear_sum_assignment  # scipy takes 0.2 s to import; inference never needs it

    rows, columns = linear_sum_assignment(cost_QG)
    return rows, columns


def match(logits_QK: Tensor, codes_Q10: Tensor, truth: GroundTruth) -> Tuple[Tensor, Tensor]:
    """`match_all` of one layer and sample: indices (queries, boxes), both (G,) int64, on the device."""
    ((found,),) = match_all([logits_QK[None]], [codes_Q10[None]], [truth])
    both = send(torch.from_numpy(np.stack([found.queries_G, found.boxes_G])), logits_QK.device)
    return both[0], both[1]
