"""One keyframe's entry in the prepared file, number for number as upstream's `create_nuscenes_infos`.

Frames: `lidar` is LIDAR_TOP at the keyframe, `global` the map.  Rotations (w, x, y, z); metres; microseconds.
"""

from typing import Any, Dict, List, Sequence

import numpy as np

from bevformer.errors import DataError
from bevformer.types import CAMERAS

from .annotations import Annotations
from .columns import as_text, ends_of
from .geometry import inverse, multiply, rigid, rigid_inverse, tait_bryan_yaw
from .sensor_data import CHANNELS, LIDAR
from .table_set import Tables
from .tables import Row

Info = Dict[str, Any]
MAX_SWEEPS = 10  # of upstream
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


def scene_infos(
    tables: Tables, positions: Sequence[int], can_bus_F18: np.ndarray, most_sweeps: int
) -> List[Info]:
    """The frames of one scene in time order.  DataError names the sample and what it lacks."""
    geometry = _Geometry(tables, positions, most_sweeps)
    return [_info(tables, geometry, i, position, can_bus_F18[i]) for i, position in enumerate(positions)]


class _Geometry:
    """Poses of a scene's frames at once: a hundred small matrices cost NumPy as much as one.

    keys_FK: rows of `tables.data` by place in CHANNELS.  Frame i's cameras and sweeps are
    `rows[ends[i]:ends[i + 1]]`, with sensor2lidar for each.
    """

    def __init__(self, tables: Tables, positions: Sequence[int], most_sweeps: int) -> None:
        self.keys_FK = np.array([_key_rows(tables, position) for position in positions]).reshape(
            -1, len(CHANNELS)
        )
        sweeps = tables.data.lidar_sweeps(self.keys_FK[:, LIDAR], most_sweeps)
        rows = np.concatenate([self.keys_FK[:, 1:], sweeps], axis=1)
        self.ends = ends_of((rows >= 0).sum(axis=1).tolist())
        self.rows = rows[rows >= 0]
        tables.data.check_poses(np.concatenate([self.rows, self.keys_FK[:, LIDAR]]))
        self.lidar2global = _sensor2global(tables, self.keys_FK[:, LIDAR])
        global2lidar = np.repeat(rigid_inverse(self.lidar2global), np.diff(self.ends), axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            self.sensor2lidar = global2lidar @ _sensor2global(tables, self.rows)
        for i, position in enumerate(positions):
            matrices = self.sensor2lidar[self.ends[i] : self.ends[i + 1]]
            _check_finite(tables.scenes.samples[position]["token"], "a pose", self.lidar2global[i], matrices)


def _info(tables: Tables, geometry: _Geometry, frame_idx: int, position: int, can_bus_18: np.ndarray) -> Info:
    sample, keys = tables.scenes.samples[position], geometry.keys_FK[frame_idx]
    own = slice(geometry.ends[frame_idx], geometry.ends[frame_idx + 1])
    rows, matrices = geometry.rows[own], geometry.sensor2lidar[own]
    lidar = _pose(tables, keys[LIDAR])
    kinds = CAMERAS + ("lidar",) * (len(rows) - len(CAMERAS))
    entries = [_sensor_entry(tables, row, kind, matrix) for row, kind, matrix in zip(rows, kinds, matrices)]
    cams = dict(zip(CAMERAS, entries))
    for channel, row in zip(CAMERAS, rows):
        calibrated = tables.scenes.calibrated.rows[tables.data.calibrated[row]]
        cams[channel]["cam_intrinsic"] = np.array(calibrated["camera_intrinsic"], dtype=np.float64)
    info = dict(
        lidar_path=tables.data.filename[keys[LIDAR]],
        token=sample["token"],
        prev=sample["prev"],
        next=sample["next"],
        can_bus=can_bus_18.copy(),
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
    if tables.annotations is not None:
        info.update(_boxes(tables.annotations, position, lidar, geometry.lidar2global[frame_idx]))
        _check_finite(sample["token"], "a box", info["gt_boxes"])
    return info


def _key_rows(tables: Tables, position: int) -> np.ndarray:
    rows: np.ndarray = tables.data.keyframe_SK[position]
    if (rows < 0).any():
        token = tables.scenes.samples[position]["token"]
        raise DataError(
            "sample %s has no %s keyframe" % (token, CHANNELS[int(np.argmax(rows < 0))]),
            "All six cameras and the lidar's pose are needed.",
            "Download the metadata archive again; a set without that sensor cannot be used.",
        )
    return rows


def _check_finite(token: str, what: str, *numbers: np.ndarray) -> None:
    if not all(np.isfinite(one).all() for one in numbers):
        raise DataError(
            "sample %s: %s comes out as a number that is not finite" % (token, what),
            "A rotation of its poses is zero, or a number is far too large.",
            "Download the metadata archive again and compare its checksum.",
        )


def _pose(tables: Tables, row: int) -> Row:
    calibrated = tables.scenes.calibrated.rows[tables.data.calibrated[row]]
    pose = tables.data.pose[row]
    return dict(
        sensor2ego_translation=calibrated["translation"],
        sensor2ego_rotation=calibrated["rotation"],
        ego2global_translation=tables.data.translation_P3[pose].tolist(),
        ego2global_rotation=tables.data.rotation_P4[pose].tolist(),
    )


def _sensor2global(tables: Tables, rows: np.ndarray) -> np.ndarray:
    calibrated, pose = tables.data.calibrated[rows], tables.data.pose[rows]
    known = tables.scenes.calibrated
    with np.errstate(over="ignore", invalid="ignore"):  # the result is checked
        sensor2ego = rigid(known.rotation_C4[calibrated], known.translation_C3[calibrated])
        ego2global = rigid(tables.data.rotation_P4[pose], tables.data.translation_P3[pose])
        return ego2global @ sensor2ego


def _sensor_entry(tables: Tables, row: int, kind: str, sensor2lidar_44: np.ndarray) -> Row:
    return dict(
        data_path=tables.data.filename[row],
        type=kind,
        sample_data_token=as_text(tables.data.token[row]),
        **_pose(tables, row),
        timestamp=int(tables.data.timestamp_us[row]),
        sensor2lidar_rotation=sensor2lidar_44[:3, :3].copy(),
        sensor2lidar_translation=sensor2lidar_44[:3, 3].copy(),
    )


def _boxes(
    all_boxes: Annotations, position: int, lidar: Row, lidar2global: np.ndarray
) -> Dict[str, np.ndarray]:
    """gt_boxes (N, 7) gravity-centred, legacy; gt_velocity (N, 2) m/s; both in the lidar frame."""
    rows = slice(all_boxes.ends[position], all_boxes.ends[position + 1])
    global2lidar_33 = lidar2global[:3, :3].T
    centre = (all_boxes.translation_A3[rows] - lidar2global[:3, 3]) @ global2lidar_33.T
    to_lidar = multiply(
        inverse(np.array(lidar["sensor2ego_rotation"])), inverse(np.array(lidar["ego2global_rotation"]))
    )
    yaw = tait_bryan_yaw(multiply(to_lidar, all_boxes.rotation_A4[rows]))
    velocity = all_boxes.velocity_A3[rows].copy()
    velocity[:, 2] = 0.0  # upstream drops the vertical part before it rotates
    names: List[str] = [all_boxes.names[code] for code in all_boxes.category_A[rows]]
    lidar_pts, radar_pts = all_boxes.lidar_pts_A[rows].copy(), all_boxes.radar_pts_A[rows].copy()
    return dict(
        gt_boxes=np.concatenate([centre, all_boxes.size_A3[rows], (-yaw - np.pi / 2)[:, None]], axis=1),
        gt_names=np.array([DETECTION_NAME.get(name, name) for name in names], dtype=str),
        gt_velocity=(velocity @ global2lidar_33.T)[:, :2],
        num_lidar_pts=lidar_pts,
        num_radar_pts=radar_pts,
        valid_flag=(lidar_pts + radar_pts) > 0,
    )
