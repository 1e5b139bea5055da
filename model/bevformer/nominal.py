"""Input of the real shapes and geometry without a data set: what measurements run on.

The rig is that of the nuScenes cars (data/synth/rig.py), the images are noise, the boxes stand in a ring.
"""

import math
from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np
import torch

from .config import Config
from .data.geometry import rigid_inverse, rigid_of, rotation_matrix
from .data.sizes import padded_hw, scaled_hw
from .data.synth import rig
from .types import Frame, FrameMeta, GroundTruth, Sample

NUSCENES_HW = (rig.CALIBRATED_HEIGHT, rig.CALIBRATED_WIDTH)
SYNTHETIC_HW = (144, 256)  # `synth` at its default scale, which the micro preset was made for
MOVE_M, TURN_DEG = (1.0, 0.2), 2.0  # ego motion between two frames


@dataclass(frozen=True)
class ImageSize:
    """(height, width) of an image on disk, after scaling, and after padding as the backbone sees it."""

    source_hw: Tuple[int, int]
    scaled_hw: Tuple[int, int]
    padded_hw: Tuple[int, int]


def image_size(config: Config, padded: Optional[Tuple[int, int]] = None) -> ImageSize:
    """The size of a configuration's images; `padded`: another one at the backbone, without padding."""
    source = SYNTHETIC_HW if config.backbone.kind == "micro" else NUSCENES_HW
    if padded is not None:
        return ImageSize(source, padded, padded)
    scaled = scaled_hw(source, config.data.scale)
    return ImageSize(source, scaled, padded_hw(scaled, config.data.pad_divisor))


def lidar2img_N44(scaled_hw: Tuple[int, int]) -> np.ndarray:
    """(6, 4, 4) float64 of the rig, in pixels of an image scaled to that size."""
    lidar2ego = rigid_of(rotation_matrix(np.array(rig.yaw_quaternion(rig.LIDAR_YAW))), rig.LIDAR_IN_EGO_M)
    shrink = np.diag([scaled_hw[1] / rig.CALIBRATED_WIDTH, scaled_hw[0] / rig.CALIBRATED_HEIGHT, 1.0, 1.0])
    matrices = []
    for camera in rig.cameras(1.0):
        view = np.eye(4)
        view[:3, :3] = camera.intrinsic_33
        camera2ego = rigid_of(camera.camera2ego_33, np.array(camera.position_ego_m))
        matrices.append(shrink @ view @ rigid_inverse(camera2ego) @ lidar2ego)
    return np.stack(matrices)


def nominal_meta(size: ImageSize, index: int = 1) -> FrameMeta:
    """Frame `index` of a drive; its can_bus holds the motion since the frame before, so 0 has no history."""
    can_bus = np.zeros(18)
    if index:
        can_bus[[0, 1]], can_bus[17] = MOVE_M, TURN_DEG
    matrices = lidar2img_N44(size.scaled_hw)
    return FrameMeta("frame%d" % index, "nominal", 0.5 * index, matrices, can_bus, index > 0, size.padded_hw)


def nominal_frame(size: ImageSize, index: int = 1, seed: int = 0) -> Frame:
    generator = torch.Generator().manual_seed(seed + index)
    images = torch.randn(len(rig.CHANNELS) - 1, 3, *size.padded_hw, generator=generator)
    return Frame(images, nominal_meta(size, index))


def nominal_truth(count: int = 32, classes: int = 10) -> GroundTruth:
    """About as many boxes as a nuScenes frame has, on a ring of 10 to 25 m."""
    angle = torch.arange(count) * (2 * math.pi / max(count, 1))
    radius_m = 10 + 15 * torch.arange(count) / max(count, 1)
    boxes = torch.zeros(count, 9)
    boxes[:, 0], boxes[:, 1], boxes[:, 2] = radius_m * angle.cos(), radius_m * angle.sin(), -1.0
    boxes[:, 3:6] = torch.tensor([1.9, 4.6, 1.7])
    boxes[:, 6] = angle
    return GroundTruth(boxes, torch.arange(count) % classes)


def nominal_sample(config: Config, size: ImageSize, seed: int = 0) -> Sample:
    """A training queue of the configuration's length."""
    frames = tuple(nominal_frame(size, index, seed) for index in range(config.data.queue_length))
    return Sample(frames, nominal_truth(classes=config.head.num_classes))
