"""mmdet3d's boxes and ours.

Ours are gravity-centred and legacy: x, y, z, w, l, h, yaw, vx, vy with heading -yaw - pi/2 (`types`).
Those of mmdet3d are bottom-centred; below 1.0 legacy too, from 1.0 on x, y, z, l, w, h, heading, vx, vy.
"""

import math
from typing import Any, List, Mapping, Optional, Sequence

import torch
from torch import Tensor

from ..box_convention import LEGACY, NEW, convention_of, of_sizes
from ..errors import ConfigError

__all__ = ["LEGACY", "NEW", "convention_of", "from_mmdet3d", "of_results", "swapped", "to_mmdet3d"]

SURE = 0.3  # score of a box that says something about sizes
_SWAPPED = [0, 1, 2, 4, 3, 5, 6, 7, 8]


def swapped(boxes_K9: Tensor) -> Tensor:
    """Legacy to new or new to legacy; angles in [-pi, pi)."""
    out = boxes_K9[:, _SWAPPED]
    angle = -boxes_K9[:, 6] - math.pi / 2
    out[:, 6] = angle - torch.floor(angle / (2 * math.pi) + 0.5) * (2 * math.pi)
    return out


def to_mmdet3d(boxes_K9: Tensor, box_class: Any, convention: str) -> Any:
    """box_class: LiDARInstance3DBoxes.  convention: `convention_of` the mmdet3d that it is of."""
    boxes = swapped(boxes_K9) if convention == NEW else boxes_K9
    return box_class(boxes, box_dim=9, origin=(0.5, 0.5, 0.5))


def from_mmdet3d(boxes: Any, convention: str) -> Tensor:
    """(K, 9) ours.  Raises ConfigError for boxes without a velocity."""
    if boxes.tensor.shape[-1] != 9:
        raise ConfigError(
            "boxes of %d numbers instead of 9" % boxes.tensor.shape[-1],
            "The head predicts the velocity too; without it no box could be compared.",
            "Leave with_velocity of the data set at True.",
        )
    ours = torch.cat([boxes.gravity_center, boxes.tensor[:, 3:]], 1)
    return swapped(ours) if convention == NEW else ours


def of_results(results: Sequence[Mapping[str, Any]], car: int = 0) -> Optional[str]:
    """The convention of detections as mmdet3d's tools save them; None where their cars do not tell."""
    first: List[float] = []
    second: List[float] = []
    for found in results:
        boxes = found["boxes_3d"].tensor
        cars = boxes[(found["labels_3d"] == car) & (found["scores_3d"] > SURE)]
        first += cars[:, 3].tolist()
        second += cars[:, 4].tolist()
    return of_sizes(first, second)
