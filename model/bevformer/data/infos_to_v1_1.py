"""Prepared frames in the layout of mmdet3d >= 1.1, as its `update_infos_to_v2.py` lays them out.

That layout has no place for some of what BEVFormer reads (CAN data, scenes) and rounds the rest (matrices for
quaternions, seconds for microseconds).  What would be lost goes into `bevrepro` of every frame, which mmdet3d
does not read and `infos_v1_1` takes back where it agrees with the layout's own fields.
"""

import os
from typing import Any, Dict, List, Mapping, Sequence

import numpy as np

from . import infos_v1_1
from .geometry import rigid, rigid_inverse, rigid_of
from .infos_boxes import to_new
from .infos_form import Info

# mmdet3d's own order (its NuScenesDataset.METAINFO), which is not BEVFormer's.
CLASSES = (
    "car truck trailer bus construction_vehicle bicycle motorcycle pedestrian traffic_cone barrier".split()
)


def to_v1_1(infos: Sequence[Info], metadata: Mapping[str, Any]) -> Dict[str, Any]:
    """Legacy frames in the file's order -> dict(metainfo, data_list)."""
    new, _ = to_new(infos, metadata)
    labels = {name: label for label, name in enumerate(CLASSES)}
    frames = [_frame(info, i, labels) for i, info in enumerate(new)]
    metainfo = dict(metadata, categories=labels, dataset="nuscenes", info_version="1.1")
    content = dict(metainfo=metainfo, data_list=frames)
    plain = infos_v1_1.convert(content, keep_order=True)
    for frame, info, back in zip(frames, infos, plain):
        frame["bevrepro"] = _lost(info, back)
    return content


def _frame(info: Info, number: int, labels: Mapping[str, int]) -> Dict[str, Any]:
    """`info` with boxes in mmdet3d 1.0's convention."""
    frame: Dict[str, Any] = dict(
        sample_idx=number,
        token=info["token"],
        timestamp=info["timestamp"] / 1e6,
        ego2global=_matrix(info, "ego2global"),
        images={channel: _image(cam) for channel, cam in info["cams"].items()},
        lidar_points=dict(
            num_pts_feats=5,
            lidar_path=os.path.basename(info["lidar_path"]),
            lidar2ego=_matrix(info, "lidar2ego"),
        ),
        lidar_sweeps=[_sweep(sweep) for sweep in info["sweeps"]],
        scene_token=info["scene_token"],
    )
    if "gt_boxes" in info:
        frame["instances"] = [_instance(info, i, labels) for i in range(len(info["gt_boxes"]))]
    return frame


def _matrix(pose: Mapping[str, Any], name: str) -> List[List[float]]:
    out: List[List[float]] = rigid(
        np.asarray(pose[name + "_rotation"]), np.asarray(pose[name + "_translation"])
    ).tolist()
    return out


def _to_sensor(entry: Mapping[str, Any]) -> List[List[float]]:
    sensor2lidar = rigid_of(entry["sensor2lidar_rotation"], np.asarray(entry["sensor2lidar_translation"]))
    out: List[List[float]] = rigid_inverse(sensor2lidar).tolist()
    return out


def _image(cam: Mapping[str, Any]) -> Dict[str, Any]:
    return dict(
        img_path=os.path.basename(cam["data_path"]),
        cam2img=np.asarray(cam["cam_intrinsic"]).tolist(),
        cam2ego=_matrix(cam, "sensor2ego"),
        sample_data_token=cam["sample_data_token"],
        timestamp=cam["timestamp"] / 1e6,
        lidar2cam=_to_sensor(cam),
    )


def _sweep(sweep: Mapping[str, Any]) -> Dict[str, Any]:
    return dict(
        timestamp=sweep["timestamp"] / 1e6,
        sample_data_token=sweep["sample_data_token"],
        ego2global=_matrix(sweep, "ego2global"),
        lidar_points=dict(
            lidar_path=sweep["data_path"],
            lidar2ego=_matrix(sweep, "sensor2ego"),
            lidar2sensor=_to_sensor(sweep),
        ),
    )


def _instance(info: Info, box: int, labels: Mapping[str, int]) -> Dict[str, Any]:
    label = labels.get(str(info["gt_names"][box]), -1)
    return dict(
        bbox_label=label,
        bbox_3d=np.asarray(info["gt_boxes"][box], dtype=np.float64).tolist(),
        bbox_3d_isvalid=bool(info["valid_flag"][box]),
        bbox_label_3d=label,
        num_lidar_pts=int(info["num_lidar_pts"][box]),
        num_radar_pts=int(info["num_radar_pts"][box]),
        velocity=np.asarray(info["gt_velocity"][box], dtype=np.float64).tolist(),
    )


def _lost(info: Info, back: Info) -> Dict[str, Any]:
    """What of `info` is not read back bit for bit from the layout's own fields."""
    lost = {key: value for key, value in info.items() if key != "cams" and not _same(value, back.get(key))}
    lost["cams"] = {
        channel: {
            key: value for key, value in cam.items() if not _same(value, back["cams"][channel].get(key))
        }
        for channel, cam in info["cams"].items()
    }
    return lost


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()
    return type(a) is type(b) and not isinstance(a, np.ndarray) and bool(a == b)
