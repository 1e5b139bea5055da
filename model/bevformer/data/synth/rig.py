"""The car's sensors: six cameras and one lidar, as on the nuScenes cars (real calibrations, rounded).

Frames: ego x forward, y left, z up, origin on the ground below the rear axle; camera z forward, x right,
y down; lidar x right, y forward, z up.  Quaternions are (w, x, y, z).
"""

from dataclasses import dataclass
from typing import List, Tuple

import numpy as np

CALIBRATED_WIDTH, CALIBRATED_HEIGHT = 1600, 900

# channel, yaw (degrees, to the left), focal length and principal point (pixels at 1600x900),
# position in the ego frame (m), exposure relative to the lidar's time stamp (s)
_CAMERAS = (
    ("CAM_FRONT", 0.3, 1266.4, (816.3, 491.5), (1.70, 0.02, 1.51), -0.036),
    ("CAM_FRONT_RIGHT", -56.4, 1260.8, (808.0, 495.3), (1.55, -0.49, 1.50), -0.028),
    ("CAM_FRONT_LEFT", 55.2, 1272.6, (826.6, 479.8), (1.52, 0.49, 1.51), -0.043),
    ("CAM_BACK", 179.9, 809.2, (829.2, 481.8), (0.03, 0.00, 1.58), -0.010),
    ("CAM_BACK_LEFT", 108.6, 1256.7, (792.1, 492.8), (1.04, 0.48, 1.59), -0.001),
    ("CAM_BACK_RIGHT", -110.8, 1259.5, (807.3, 501.2), (1.01, -0.48, 1.56), -0.020),
)
LIDAR = "LIDAR_TOP"
LIDAR_IN_EGO_M = (0.94, 0.0, 1.84)
LIDAR_YAW = -np.pi / 2  # the lidar's x axis points to the car's right
CHANNELS = tuple(row[0] for row in _CAMERAS) + (LIDAR,)


def yaw_quaternion(yaw: float) -> List[float]:
    """Rotation about z as (w, x, y, z)."""
    return [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.  `intrinsic_33` belongs to an image of `width` x `height`."""

    channel: str
    yaw: float
    position_ego_m: Tuple[float, float, float]
    delay_s: float
    intrinsic_33: np.ndarray
    width: int
    height: int

    @property
    def camera2ego_33(self) -> np.ndarray:
        """Columns are the camera's right, down and forward in the ego frame."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        return np.array([[sin, 0.0, cos], [-cos, 0.0, sin], [0.0, -1.0, 0.0]])

    @property
    def quaternion(self) -> List[float]:
        """camera2ego as (w, x, y, z): the optical axes, then the yaw."""
        half = self.yaw / 2
        cos, sin = np.cos(half), np.sin(half)
        w, x, y, z = 0.5, -0.5, 0.5, -0.5  # camera looking along the ego's x axis
        return [
            float(v) for v in (cos * w - sin * z, cos * x - sin * y, cos * y + sin * x, cos * z + sin * w)
        ]


def cameras(scale: float) -> List[Camera]:
    """The rig with images of `scale` times 1600x900 pixels (rounded) and intrinsics to match."""
    width, height = int(round(CALIBRATED_WIDTH * scale)), int(round(CALIBRATED_HEIGHT * scale))
    scale_x, scale_y = width / CALIBRATED_WIDTH, height / CALIBRATED_HEIGHT
    return [
        Camera(
            channel,
            float(np.deg2rad(yaw)),
            position,
            delay_s,
            np.array(
                [
                    [focal * scale_x, 0.0, centre[0] * scale_x],
                    [0.0, focal * scale_y, centre[1] * scale_y],
                    [0.0, 0.0, 1.0],
                ]
            ),
            width,
            height,
        )
        for channel, yaw, focal, centre, position, delay_s in _CAMERAS
    ]
