"""Frames from an mmdet3d >= 1.1 info file (`metainfo` and `data_list`) in the layout of the prepared files.

What differs, seen in mmdetection3d's `update_infos_to_v2.py` and in its demo keyframe: matrices instead of
quaternions, seconds instead of microseconds, bare file names, one dict per box, and boxes as
(x, y, z, l, w, h, yaw).  z is the gravity centre in both (tests/model/test_infos_v1_1.py shows it with the
lidar points and the boxes projected into the cameras).
The file names no scenes and has no CAN data: scenes are told by recording and gaps, CAN numbers are zero -
unless `infos_to_v1_1` wrote it, which keeps beside each frame what the layout has no place for.
"""

from typing import Any, Dict, List, Optional

import numpy as np

from .geometry import quaternion_of, rigid, rigid_inverse, rigid_of
from .infos_boxes import to_legacy
from .infos_columns import CAM

Info = Dict[str, Any]
SCENE_GAP_S = 1.0


def is_v1_1(data: Any) -> bool:
    return isinstance(data, dict) and "data_list" in data


def convert(data: Dict[str, Any], keep_order: bool = False) -> List[Info]:
    """All frames in time order, or in the file's.  KeyError, TypeError, ValueError for another form."""
    names, listed = _names_by_label(data), data["data_list"]
    order = sorted(range(len(listed)), key=lambda i: listed[i]["timestamp"])
    infos: List[Info] = []
    for i in order:
        infos.append(_info(listed[i], names, infos[-1] if infos else None))
    infos = [_completed(info, listed[i].get("bevrepro")) for i, info in zip(order, infos)]
    if keep_order:
        by_place = dict(zip(order, infos))
        return [by_place[i] for i in range(len(listed))]
    return infos


def _completed(info: Info, kept: Optional[Dict[str, Any]]) -> Info:
    """With what `infos_to_v1_1` kept, as far as the file's own fields still say the same."""
    if not kept:
        return info
    out = dict(info, **_agreeing(info, {key: value for key, value in kept.items() if key != "cams"}))
    out["cams"] = {
        channel: _in_order(dict(cam, **_agreeing(cam, kept.get("cams", {}).get(channel, {}))))
        for channel, cam in info["cams"].items()
    }
    return out


def _in_order(cam: Info) -> Info:
    """Keys as upstream's converter orders them."""
    keys = [column.key for column in CAM if column.key in cam]
    return {key: cam[key] for key in keys + [key for key in cam if key not in keys]}


# The layout has no field for these, so there is nothing to compare them with.
_ONLY_KEPT = ("prev", "next", "can_bus", "frame_idx", "sweeps")


def _agreeing(own: Info, kept: Info) -> Info:
    return {
        key: value
        for key, value in kept.items()
        if key in _ONLY_KEPT or key not in own or _agree(own[key], value, key)
    }


def _agree(own: Any, kept: Any, key: str) -> bool:
    if key in ("data_path", "lidar_path"):
        return str(own).rsplit("/", 1)[-1] == str(kept).rsplit("/", 1)[-1]
    if key == "gt_names":
        return len(own) == len(kept) and all(a in (b, "ignore") for a, b in zip(own, kept))
    if isinstance(own, (str, int)):
        return bool(own == kept)
    a, b = np.asarray(own, dtype=np.float64), np.asarray(kept, dtype=np.float64)
    if a.shape != b.shape:
        return False
    turned = key.endswith("_rotation") and a.shape == (4,) and float(np.dot(a, b)) < 0
    if a.shape == (4,):  # quaternions in the tables are of length 1 but for their last digits
        return bool(np.allclose(-a if turned else a, b, atol=1e-5))
    return bool(np.allclose(a, b, atol=1e-6, rtol=1e-9, equal_nan=True))


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


def with_camera_poses(info: Info) -> Info:
    """With the ego pose at each camera's time, which the layout leaves out; it follows from the others."""
    ego2global = rigid(np.array(info["ego2global_rotation"]), np.array(info["ego2global_translation"]))
    lidar2ego = rigid(np.array(info["lidar2ego_rotation"]), np.array(info["lidar2ego_translation"]))
    cams = {}
    for channel, cam in info["cams"].items():
        cam2lidar = rigid_of(cam["sensor2lidar_rotation"], cam["sensor2lidar_translation"])
        cam2ego = rigid(np.array(cam["sensor2ego_rotation"]), np.array(cam["sensor2ego_translation"]))
        pose = ego2global @ lidar2ego @ cam2lidar @ rigid_inverse(cam2ego)
        known = dict(
            ego2global_translation=pose[:3, 3].tolist(),
            ego2global_rotation=quaternion_of(pose[:3, :3]).tolist(),
        )
        cams[channel] = _in_order(dict(known, **cam))
    return dict(info, cams=cams)


def _legacy(new: np.ndarray) -> np.ndarray:
    return np.asarray(to_legacy([dict(gt_boxes=new)], {})[0][0]["gt_boxes"])


def _boxes(instances: List[Dict[str, Any]], names: Dict[int, str]) -> Dict[str, np.ndarray]:
    new = np.array([one["bbox_3d"][:7] for one in instances], dtype=np.float64).reshape(-1, 7)
    lidar_pts = np.array([one.get("num_lidar_pts", 0) for one in instances], dtype=np.int64)
    radar_pts = np.array([one.get("num_radar_pts", 0) for one in instances], dtype=np.int64)
    valid = [
        bool(one["bbox_3d_isvalid"]) if "bbox_3d_isvalid" in one else bool(points > 0)
        for one, points in zip(instances, lidar_pts + radar_pts)
    ]
    return dict(
        gt_boxes=_legacy(new),
        gt_names=np.array([names.get(int(one["bbox_label_3d"]), "ignore") for one in instances], dtype=str),
        gt_velocity=np.array(
            [one.get("velocity", (np.nan, np.nan)) for one in instances], dtype=np.float64
        ).reshape(-1, 2),
        num_lidar_pts=lidar_pts,
        num_radar_pts=radar_pts,
        valid_flag=np.array(valid, dtype=bool),
    )
