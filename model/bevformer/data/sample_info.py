"""One keyframe's entry in the prepared file, number for number as upstream's `create_nuscenes_infos`.

Frames: `lidar` is LIDAR_TOP at the keyframe, `global` the map.  Rotations (w, x, y, z); metres; microseconds.
"""

from typing import Any, Dict, List, Sequence

import numpy as np

from bevformer.errors import DataError
from bevformer.types import CAMERAS

from .geometry import inverse, multiply, rigid, rigid_inverse, tait_bryan_yaw
from .tables import Row, Tables

Info = Dict[str, Any]
MAX_SWEEPS = 10
# nuScenes detection task (devkit `category_to_detection_name`); other categories keep their full name.
DETECTION_NAME = {
    "movable_object.barrier": "barrier",
    "vehicle.bicycle": "bicycle",
    "vehicle.bus.bendy": "bus",
    "vehicle.bus.rigid": "bus",
    "vehicle.car": "car",
    "vehicle.construction": "construction_vehicle",
    "vehicle.motorcycle": "motorcycle",
    "human.pedestrian.adult": "pedestrian",
    "human.pedestrian.child": "pedestrian",
    "human.pedestrian.construction_worker": "pedestrian",
    "human.pedestrian.police_officer": "pedestrian",
    "movable_object.trafficcone": "traffic_cone",
    "vehicle.trailer": "trailer",
    "vehicle.truck": "truck",
}


def sample_info(
    tables: Tables, sample: Row, can_bus_18: np.ndarray, frame_idx: int, with_boxes: bool
) -> Info:
    """`frame_idx` counts within the scene.  DataError names the sample and what it lacks."""
    data = tables.data_of(sample["token"])
    for channel in ("LIDAR_TOP",) + CAMERAS:
        if channel not in data:
            raise DataError(
                "sample %s has no %s keyframe" % (sample["token"], channel),
                "All six cameras and the lidar's pose are needed.",
                "Download the metadata archive again; a set without that sensor cannot be used.",
            )
    lidar = _pose(tables, data["LIDAR_TOP"])
    sensors = [(channel, data[channel]) for channel in CAMERAS]
    sensors += [("lidar", sweep) for sweep in _sweeps(tables, data["LIDAR_TOP"])]
    entries = _sensor_entries(tables, sensors, lidar)
    cams = dict(zip(CAMERAS, entries))
    for channel in CAMERAS:
        calibrated = tables.get("calibrated_sensor", data[channel]["calibrated_sensor_token"])
        cams[channel]["cam_intrinsic"] = np.array(calibrated["camera_intrinsic"])
    info = dict(
        lidar_path=data["LIDAR_TOP"]["filename"],
        token=sample["token"],
        prev=sample["prev"],
        next=sample["next"],
        can_bus=can_bus_18,
        frame_idx=frame_idx,
        sweeps=entries[len(CAMERAS) :],
        cams=cams,
        scene_token=sample["scene_token"],
        lidar2ego_translation=lidar["sensor2ego_translation"],
        lidar2ego_rotation=lidar["sensor2ego_rotation"],
        ego2global_translation=lidar["ego2global_translation"],
        ego2global_rotation=lidar["ego2global_rotation"],
        timestamp=sample["timestamp"],
    )
    if with_boxes:
        info.update(_boxes(tables, tables.annotations_of(sample["token"]), lidar))
    return info


def _pose(tables: Tables, sample_data: Row) -> Row:
    calibrated = tables.get("calibrated_sensor", sample_data["calibrated_sensor_token"])
    ego = tables.get("ego_pose", sample_data["ego_pose_token"])
    return dict(
        sensor2ego_translation=calibrated["translation"],
        sensor2ego_rotation=calibrated["rotation"],
        ego2global_translation=ego["translation"],
        ego2global_rotation=ego["rotation"],
    )


def _sweeps(tables: Tables, lidar_data: Row) -> List[Row]:
    """Up to MAX_SWEEPS lidar records before the keyframe, newest first (earlier keyframes count)."""
    found: List[Row] = []
    while len(found) < MAX_SWEEPS and lidar_data["prev"]:
        lidar_data = tables.get("sample_data", lidar_data["prev"])
        found.append(lidar_data)
    return found


def _sensor2global(poses: Sequence[Row]) -> np.ndarray:
    def column(name: str) -> np.ndarray:
        return np.array([pose[name] for pose in poses], dtype=np.float64)

    sensor2ego = rigid(column("sensor2ego_rotation"), column("sensor2ego_translation"))
    ego2global = rigid(column("ego2global_rotation"), column("ego2global_translation"))
    return ego2global @ sensor2ego


def _sensor_entries(tables: Tables, sensors: Sequence[Any], lidar: Row) -> List[Row]:
    poses = [_pose(tables, row) for _, row in sensors]
    sensor2lidar = rigid_inverse(_sensor2global([lidar])) @ _sensor2global(poses)
    return [
        dict(
            data_path=row["filename"],
            type=kind,
            sample_data_token=row["token"],
            **pose,
            timestamp=row["timestamp"],
            sensor2lidar_rotation=matrix[:3, :3].copy(),
            sensor2lidar_translation=matrix[:3, 3].copy(),
        )
        for (kind, row), pose, matrix in zip(sensors, poses, sensor2lidar)
    ]


def _boxes(tables: Tables, annotations: Sequence[Row], lidar: Row) -> Dict[str, np.ndarray]:
    """gt_boxes (N, 7) gravity-centred, legacy; gt_velocity (N, 2) m/s; both in the lidar frame."""

    def column(name: str, width: int) -> np.ndarray:
        return np.array([row[name] for row in annotations], dtype=np.float64).reshape(-1, width)

    lidar2global = _sensor2global([lidar])[0]
    global2lidar_33 = lidar2global[:3, :3].T
    centre = (column("translation", 3) - lidar2global[:3, 3]) @ global2lidar_33.T
    to_lidar = multiply(
        inverse(np.array(lidar["sensor2ego_rotation"])), inverse(np.array(lidar["ego2global_rotation"]))
    )
    yaw = tait_bryan_yaw(multiply(to_lidar, column("rotation", 4)))
    velocity = np.array([tables.velocity(row) for row in annotations]).reshape(-1, 3)
    velocity[:, 2] = 0.0  # upstream drops the vertical part before it rotates
    names = [tables.category_of(row) for row in annotations]
    lidar_pts = np.array([row["num_lidar_pts"] for row in annotations], dtype=np.int64)
    radar_pts = np.array([row["num_radar_pts"] for row in annotations], dtype=np.int64)
    return dict(
        gt_boxes=np.concatenate([centre, column("size", 3), (-yaw - np.pi / 2)[:, None]], axis=1),
        gt_names=np.array([DETECTION_NAME.get(name, name) for name in names], dtype=str),
        gt_velocity=(velocity @ global2lidar_33.T)[:, :2],
        num_lidar_pts=lidar_pts,
        num_radar_pts=radar_pts,
        valid_flag=(lidar_pts + radar_pts) > 0,
    )
