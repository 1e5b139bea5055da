"""Detections in the lidar frame <-> the nuScenes results format (global frame).

Follows mmdet3d 0.17's `output_to_nusc_box`, `lidar_nusc_box_to_global` and `NuScenesDataset._format_bbox`,
which BEVFormer calls unchanged, on whole arrays instead of box by box.
Shapes: K boxes, 4 numbers of a quaternion (w, x, y, z).
"""

import json
import os
from types import TracebackType
from typing import Any, Dict, List, Mapping, Optional, Tuple, Type

import numpy as np
import torch

from .errors import CheckpointError, DataError
from .types import CLASSES, Detections

# nuScenes detection_cvpr_2019: metres from the ego origin, in x and y; compared with the devkit by a test.
CLASS_RANGE_M = {
    "car": 50,
    "truck": 50,
    "bus": 50,
    "trailer": 50,
    "construction_vehicle": 50,
    "pedestrian": 40,
    "motorcycle": 40,
    "bicycle": 40,
    "traffic_cone": 30,
    "barrier": 30,
}
MAX_BOXES_PER_SAMPLE = 500
MOVING_ABOVE_M_S = 0.2
META = {"use_lidar": False, "use_camera": True, "use_radar": False, "use_map": False, "use_external": True}

_VEHICLES = ("car", "truck", "construction_vehicle", "bus", "trailer")
_CYCLES = ("motorcycle", "bicycle")
_MOVING = dict(
    dict.fromkeys(_VEHICLES, "vehicle.moving"),
    pedestrian="pedestrian.moving",
    **dict.fromkeys(_CYCLES, "cycle.with_rider"),
)
# Upstream: only a bus is `stopped`, every other vehicle at rest is `parked`.
_AT_REST = dict(
    dict.fromkeys(_VEHICLES, "vehicle.parked"),
    bus="vehicle.stopped",
    pedestrian="pedestrian.standing",
    **dict.fromkeys(_CYCLES, "cycle.without_rider"),
)


def attribute_of(name: str, speed_m_s: float) -> str:
    """Upstream's rule; cones and barriers have none."""
    return (_MOVING if speed_m_s > MOVING_ABOVE_M_S else _AT_REST).get(name, "")


def quaternion_product(a_4: np.ndarray, b_K4: np.ndarray) -> np.ndarray:
    """Hamilton product of one quaternion with many."""
    w, x, y, z = a_4
    left = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])
    return b_K4 @ left.T


def rotation_matrix(q_4: np.ndarray) -> np.ndarray:
    """(3, 3) of a unit quaternion."""
    w, x, y, z = q_4
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _unit(q: Any) -> np.ndarray:
    q_4 = np.asarray(q, dtype=np.float64)
    return q_4 / np.linalg.norm(q_4)


def _yaw_quaternions(yaw_K: np.ndarray) -> np.ndarray:
    half_K = yaw_K.astype(np.float64) / 2
    zero_K = np.zeros_like(half_K)
    return np.stack([np.cos(half_K), zero_K, zero_K, np.sin(half_K)], axis=1)


def format_sample(detections: Detections, info: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """The results entries of one sample, in the order of the detections.

    `info` gives token, lidar2ego_* and ego2global_* of LIDAR_TOP.  Boxes beyond the range of their class
    (in the ego frame) are left out, as upstream does; of more than 500 the best are kept.
    Raises CheckpointError when a box is not finite.
    """
    boxes_K9, scores_K, labels_K = (
        t.detach().cpu().numpy() for t in (detections.boxes_K9, detections.scores_K, detections.labels_K)
    )
    if not (np.isfinite(boxes_K9).all() and np.isfinite(scores_K).all()):
        raise CheckpointError(
            "the model's boxes for sample %s are not finite numbers" % info["token"],
            "The training has diverged, or the weights are damaged; nuScenes refuses such boxes.",
            "Evaluate an earlier checkpoint, and look where the loss left its curve.",
        )
    lidar2ego, ego2global = _unit(info["lidar2ego_rotation"]), _unit(info["ego2global_rotation"])
    # The subtraction stays in the boxes' own precision (float32), as upstream's.
    q_K4 = quaternion_product(lidar2ego, _yaw_quaternions(-boxes_K9[:, 6] - np.pi / 2))
    q_K4 = quaternion_product(ego2global, q_K4)
    ego_R, global_R = rotation_matrix(lidar2ego), rotation_matrix(ego2global)
    xyz_ego = boxes_K9[:, :3] @ ego_R.T + np.asarray(info["lidar2ego_translation"])
    xyz_global = xyz_ego @ global_R.T + np.asarray(info["ego2global_translation"])
    velocity_K3 = np.concatenate([boxes_K9[:, 7:9], np.zeros((len(boxes_K9), 1))], axis=1)
    velocity_K3 = velocity_K3 @ ego_R.T @ global_R.T
    # In global x and y, as upstream (a slope of the road takes a little off the speed).
    speed_K = np.linalg.norm(velocity_K3[:, :2], axis=1)
    range_K = np.array([CLASS_RANGE_M[CLASSES[label]] for label in labels_K])
    keep = np.flatnonzero(np.linalg.norm(xyz_ego[:, :2], axis=1) <= range_K)
    if len(keep) > MAX_BOXES_PER_SAMPLE:
        keep = np.sort(keep[np.argsort(-scores_K[keep], kind="stable")[:MAX_BOXES_PER_SAMPLE]])
    return [
        {
            "sample_token": info["token"],
            "translation": xyz_global[k].tolist(),
            "size": boxes_K9[k, 3:6].tolist(),
            "rotation": q_K4[k].tolist(),
            "velocity": velocity_K3[k, :2].tolist(),
            "detection_name": CLASSES[labels_K[k]],
            "detection_score": float(scores_K[k]),
            "attribute_name": attribute_of(CLASSES[labels_K[k]], float(speed_K[k])),
        }
        for k in keep
    ]


def to_detections(entries: List[Dict[str, Any]], info: Mapping[str, Any]) -> Detections:
    """The inverse of `format_sample`: boxes of one sample back in its lidar frame (float64 inside)."""
    if not entries:
        return Detections(torch.zeros(0, 9), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    lidar2ego, ego2global = _unit(info["lidar2ego_rotation"]), _unit(info["ego2global_rotation"])
    ego_R, global_R = rotation_matrix(lidar2ego), rotation_matrix(ego2global)
    xyz_ego = (np.array([e["translation"] for e in entries]) - info["ego2global_translation"]) @ global_R
    xyz_lidar = (xyz_ego - info["lidar2ego_translation"]) @ ego_R
    velocity_K3 = np.array([list(e["velocity"]) + [0.0] for e in entries]) @ global_R @ ego_R
    conjugate = np.array([1.0, -1.0, -1.0, -1.0])
    q_K4 = quaternion_product(ego2global * conjugate, np.array([e["rotation"] for e in entries], np.float64))
    q_K4 = quaternion_product(lidar2ego * conjugate, q_K4)
    w, x, y, z = q_K4.T
    heading_K = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    boxes_K9 = np.concatenate(
        [
            xyz_lidar,
            np.array([e["size"] for e in entries]),
            (-heading_K - np.pi / 2)[:, None],
            velocity_K3[:, :2],
        ],
        axis=1,
    )
    return Detections(
        torch.from_numpy(boxes_K9).float(),
        torch.tensor([float(e["detection_score"]) for e in entries]),
        torch.tensor([CLASSES.index(e["detection_name"]) for e in entries]),
    )


class ResultsWriter:
    """Writes a results file sample by sample: bounded memory, and no half file is ever left behind.

    Use as a context manager; the file appears under its name only when the block ends without an error.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.count = 0
        self._tmp = "%s.%d.tmp" % (path, os.getpid())

    def __enter__(self) -> "ResultsWriter":
        self._file = open(self._tmp, "w")
        self._file.write('{"meta": %s, "results": {' % json.dumps(META))
        return self

    def add(self, sample_token: str, entries: List[Dict[str, Any]]) -> None:
        comma = ",\n" if self.count else "\n"
        self._file.write("%s%s: %s" % (comma, json.dumps(sample_token), json.dumps(entries)))
        self.count += 1

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        try:
            if kind is None:
                self._file.write("\n}}\n")
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            if kind is None:
                os.replace(self._tmp, self.path)
        finally:
            if os.path.exists(self._tmp):
                os.remove(self._tmp)


def read_results(path: str) -> Tuple[Dict[str, Any], Dict[str, List[Dict[str, Any]]]]:
    """(meta, results by sample token) of a results file.  Raises DataError for anything else."""
    try:
        with open(path) as file:
            data = json.load(file)
        meta, results = data["meta"], data["results"]
    except FileNotFoundError:
        raise DataError(
            "no results file at %s" % path,
            do="bevrepro eval CONFIG CHECKPOINT --out DIR writes DIR/results_nusc.json.",
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        what = "%s: %s" % (type(error).__name__, error)
        raise DataError(
            "%s is not a nuScenes results file (%s)" % (path, what),
            "It has to be a JSON object with `meta` and `results`.",
        ) from None
    if not isinstance(results, dict):
        raise DataError(
            "%s is not a nuScenes results file" % path, "`results` has to map sample tokens to boxes."
        )
    return meta, results
