"""Frames from an mmdet3d >= 1.1 info file (`metainfo` and `data_list`) in the layout of the prepared files.

What differs, seen in mmdetection3d's `update_infos_to_v2.py` and in its demo keyframe: matrices instead of
quaternions, seconds instead of microseconds, bare file names, one dict per box, and boxes as
(x, y, z, l, w, h, yaw).  z is the gravity centre in both (tests/model/test_infos_v1_1.py shows it with the
lidar points and the boxes projected into the cameras).
The file names no scenes and has no CAN data: scenes are told by recording and gaps, CAN numbers are zero.
"""

from typing import Any, Dict, List, Optional

import numpy as np

from bevformer.boxes import new_to_legacy

from .geometry import quaternion_of, rigid_inverse

Info = Dict[str, Any]
SCENE_GAP_S = 1.0


def is_v1_1(data: Any) -> bool:
    return isinstance(data, dict) and "data_list" in data


def convert(data: Dict[str, Any]) -> List[Info]:
    """All frames in time order.  KeyError, TypeError, ValueError for another form."""
    names = _names_by_label(data)
    frames = sorted(data["data_list"], key=lambda frame: frame["timestamp"])
    infos: List[Info] = []
    for frame in frames:
        infos.append(_info(frame, names, infos[-1] if infos else None))
    return infos


def _names_by_label(data: Dict[str, Any]) -> Dict[int, str]:
    """The file's own order of classes, which is not BEVFormer's."""
    meta = data.get("metainfo") or {}
    if "categories" in meta:
        return {int(label): str(name) for name, label in meta["categories"].items()}
    if "classes" in meta:
        return {label: str(name) for label, name in enumerate(meta["classes"])}
    raise ValueError("metainfo has neither `categories` nor `classes`, so the labels mean nothing")


def _info(frame: Dict[str, Any], names: Dict[int, str], before: Optional[Info]) -> Info:
    ego2global = np.asarray(frame["ego2global"], dtype=np.float64)
    lidar2ego = np.asarray(frame["lidar_points"]["lidar2ego"], dtype=np.float64)
    lidar_path = str(frame["lidar_points"]["lidar_path"])
    timestamp_us = int(round(frame["timestamp"] * 1e6))
    scene, same = _scene_of(frame, lidar_path, timestamp_us, before)
    return dict(
        lidar_path=lidar_path,
        token=frame["token"],
        prev=before["token"] if before and same else "",
        next="",
        can_bus=np.zeros(18),
        frame_idx=before["frame_idx"] + 1 if before and same else 0,
        sweeps=[],
        cams={
            channel: _camera(image, channel)
            for channel, image in frame["images"].items()
            if "cam2img" in image
        },
        scene_token=scene,
        lidar2ego_translation=lidar2ego[:3, 3].tolist(),
        lidar2ego_rotation=quaternion_of(lidar2ego[:3, :3]).tolist(),
        ego2global_translation=ego2global[:3, 3].tolist(),
        ego2global_rotation=quaternion_of(ego2global[:3, :3]).tolist(),
        timestamp=timestamp_us,
        **(_boxes(frame["instances"], names) if "instances" in frame else {}),
    )


def _scene_of(frame: Dict[str, Any], lidar_path: str, timestamp_us: int, before: Optional[Info]) -> Any:
    """(scene token, whether the frame before is of the same scene)."""
    if "scene_token" in frame:
        return frame["scene_token"], bool(before) and before["scene_token"] == frame["scene_token"]
    recording = lidar_path.replace("\\", "/").rsplit("/", 1)[-1].split("__")[0]
    if before is not None:
        gap_s = (timestamp_us - before["timestamp"]) * 1e-6
        if before["scene_token"].startswith(recording + "@") and gap_s <= SCENE_GAP_S:
            return before["scene_token"], True
    return "%s@%d" % (recording, timestamp_us), False


def _camera(image: Dict[str, Any], channel: str) -> Dict[str, Any]:
    cam2ego = np.asarray(image["cam2ego"], dtype=np.float64)
    cam2lidar = rigid_inverse(np.asarray(image["lidar2cam"], dtype=np.float64))
    return dict(
        data_path=str(image["img_path"]),
        type=channel,
        sample_data_token=image.get("sample_data_token", ""),
        sensor2ego_translation=cam2ego[:3, 3].tolist(),
        sensor2ego_rotation=quaternion_of(cam2ego[:3, :3]).tolist(),
        timestamp=int(round(image.get("timestamp", 0) * 1e6)),
        sensor2lidar_rotation=cam2lidar[:3, :3],
        sensor2lidar_translation=cam2lidar[:3, 3],
        cam_intrinsic=np.asarray(image["cam2img"], dtype=np.float64)[:3, :3],
    )


def _boxes(instances: List[Dict[str, Any]], names: Dict[int, str]) -> Dict[str, np.ndarray]:
    new = np.array([one["bbox_3d"][:7] for one in instances], dtype=np.float64).reshape(-1, 7)
    lidar_pts = np.array([one.get("num_lidar_pts", 0) for one in instances], dtype=np.int64)
    radar_pts = np.array([one.get("num_radar_pts", 0) for one in instances], dtype=np.int64)
    valid = [
        bool(one["bbox_3d_isvalid"]) if "bbox_3d_isvalid" in one else bool(points > 0)
        for one, points in zip(instances, lidar_pts + radar_pts)
    ]
    return dict(
        gt_boxes=new_to_legacy(new),
        gt_names=np.array([names.get(int(one["bbox_label_3d"]), "ignore") for one in instances], dtype=str),
        gt_velocity=np.array(
            [one.get("velocity", (np.nan, np.nan)) for one in instances], dtype=np.float64
        ).reshape(-1, 2),
        num_lidar_pts=lidar_pts,
        num_radar_pts=radar_pts,
        valid_flag=np.array(valid, dtype=bool),
    )
