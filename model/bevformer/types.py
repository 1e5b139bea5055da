"""What travels between the data set, the model and the evaluation.

Frames: `lidar` is the LIDAR_TOP frame of the sample (x right, y forward, z up, metres).
Boxes here are always *gravity-centred* in the legacy (mmdet3d < 1.0) convention the published weights
were trained with: x, y, z, w, l, h, yaw, vx, vy; metres, radians, metres per second; the heading of a
box in the lidar frame is -yaw - pi/2 (facts: bevformer.md, Data and ego motion).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional, Tuple

import numpy as np

from .data.distortion import Distortion

if TYPE_CHECKING:  # what only reads or writes infos runs without torch, and starts in a fifth of the time
    import torch
    from torch import Tensor

CLASSES = (
    "car",
    "truck",
    "construction_vehicle",
    "bus",
    "trailer",
    "barrier",
    "motorcycle",
    "bicycle",
    "pedestrian",
    "traffic_cone",
)
CAMERAS = ("CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_FRONT_LEFT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")


@dataclass(frozen=True)
class FrameMeta:
    """Geometry and identity of one keyframe.

    lidar2img_N44: (6, 4, 4) float64, lidar metres -> homogeneous pixels of the *scaled* image.
    can_bus_18:    (18,) float64.  From the data set absolute at test time; in a training queue [0:3] and
                   [17] are already the difference to the frame before (see `bevformer.data.dataset`).
    img_shape_hw:  padded (height, width) of the images as the backbone sees them.
    """

    sample_token: str
    scene_token: str
    timestamp_s: float
    lidar2img_N44: np.ndarray
    can_bus_18: np.ndarray
    prev_bev_exists: bool
    img_shape_hw: Tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """One keyframe: images (6, 3, H, W) float32, normalised and padded; cameras in the order of CAMERAS.

    Or uint8: BGR as decoded, which `pixels.finished` makes into that on the device; `distortions` are then
    what was drawn for each camera, if anything.
    """

    images_NCHW: "Tensor"
    meta: FrameMeta
    distortions: Tuple[Distortion, ...] = ()


@dataclass(frozen=True)
class GroundTruth:
    """boxes (G, 9) float32 as in the module's docstring (velocity may be NaN), labels (G,) int64."""

    boxes_G9: "Tensor"
    labels_G: "Tensor"


@dataclass(frozen=True)
class Sample:
    """A training queue, oldest frame first; `truth` belongs to the last one."""

    frames: Tuple[Frame, ...]
    truth: GroundTruth


@dataclass(frozen=True)
class Detections:
    """Decoded boxes of one frame: boxes (K, 9) gravity-centred, scores (K,), labels (K,)."""

    boxes_K9: "Tensor"
    scores_K: "Tensor"
    labels_K: "Tensor"

    def cpu(self) -> "Detections":
        return Detections(self.boxes_K9.cpu(), self.scores_K.cpu(), self.labels_K.cpu())


@dataclass(frozen=True)
class VideoMemory:
    """History at test time: an argument and a return value, never hidden state.

    bev_BQC: (1, bev_h * bev_w, C) of the last evaluated frame; position and yaw are absolute.
    """

    scene_token: str
    bev_BQC: Optional["Tensor"]
    position_m: np.ndarray
    yaw_deg: float


def empty_truth(device: Optional["torch.device"] = None) -> GroundTruth:
    import torch

    return GroundTruth(torch.zeros(0, 9, device=device), torch.zeros(0, dtype=torch.int64, device=device))
