"""What `bench loader` reads: frames of six JPEGs of the size, entropy and calibration of nuScenes' images."""

import os
from typing import Any, Dict, List, Tuple

import cv2
import numpy as np

from .data.geometry import rigid_inverse, rigid_of, rotation_matrix
from .data.infos import Infos, from_object
from .data.synth import rig
from .types import CAMERAS

HW = (rig.CALIBRATED_HEIGHT, rig.CALIBRATED_WIDTH)
QUALITY, GRAIN = 90, 3.6  # about 180 KB at 1600x900; of 6 real ones seen: 131 to 165


def write_set(folder: str, frames: int, hw: Tuple[int, int] = HW, seed: int = 0) -> Infos:
    """`frames` frames of one scene under folder/samples, each with one true box."""
    rng = np.random.RandomState(seed)
    infos = [_info(number, hw) for number in range(frames)]
    for info in infos:
        for cam in info["cams"].values():
            path = os.path.join(folder, cam["data_path"])
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(jpeg(picture(hw, rng)))
    return from_object({"infos": infos, "metadata": {"version": "bench"}}, "bench")


def picture(hw: Tuple[int, int], rng: np.random.RandomState) -> np.ndarray:
    """(H, W, 3) uint8: octaves of noise, each 0.66 as strong as the coarser one, and grain."""
    height, width = hw
    out = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 8):
        size = 2**octave
        coarse = rng.rand(size * height // width + 2, size + 2, 3).astype(np.float32)
        out += 0.66**octave * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    out = (out - out.min()) * (255 / (out.max() - out.min()))
    grain = cv2.GaussianBlur(rng.randn(height, width, 1).astype(np.float32), (0, 0), 0.7)
    return np.clip(out + GRAIN * grain[..., None], 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray) -> bytes:
    """4:2:0, as nuScenes' are."""
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes())


def _info(number: int, hw: Tuple[int, int]) -> Dict[str, Any]:
    shrink = np.diag([hw[1] / rig.CALIBRATED_WIDTH, hw[0] / rig.CALIBRATED_HEIGHT, 1.0])
    lidar2ego = rigid_of(rotation_matrix(np.array(rig.yaw_quaternion(rig.LIDAR_YAW))), rig.LIDAR_IN_EGO_M)
    cams = {}
    for channel, camera in zip(CAMERAS, _in_order()):
        camera2ego = rigid_of(camera.camera2ego_33, np.array(camera.position_ego_m))
        camera2lidar = rigid_inverse(lidar2ego) @ camera2ego
        cams[channel] = dict(
            data_path="samples/%s/%06d.jpg" % (channel, number),
            cam_intrinsic=shrink @ camera.intrinsic_33,
            sensor2lidar_rotation=camera2lidar[:3, :3],
            sensor2lidar_translation=camera2lidar[:3, 3],
        )
    return dict(
        token="frame%d" % number,
        scene_token="scene",
        timestamp=1_500_000_000_000_000 + 500_000 * number,
        cams=cams,
        ego2global_translation=[2.0 * number, 0.0, 0.0],
        ego2global_rotation=[1.0, 0.0, 0.0, 0.0],
        can_bus=np.zeros(18),
        gt_boxes=np.array([[8.0, 3.0, -1.0, 1.9, 4.6, 1.7, 0.3]]),
        gt_names=np.array(["car"]),
        gt_velocity=np.zeros((1, 2)),
        valid_flag=np.array([True]),
    )


def _in_order() -> List[Any]:
    by_channel = {camera.channel: camera for camera in rig.cameras(1.0)}
    return [by_channel[channel] for channel in CAMERAS]
