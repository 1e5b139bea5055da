"""Detections in the lidar frame <-> the nuScenes results format (global frame).

Follows mmdet3d 0.17's `output_to_nusc_box`, `lidar_nusc_box_to_global` and `NuScenesDataset._format_bbox`,
which BEVFormer calls unchanged, on whole arrays instead of box by box.
Shapes: K boxes, 4 numbers of a quaternion (w, x, y, z).
"""

import json
import os
import shutil
from types import TracebackType
from typing import Any, Dict, List, Mapping, Optional, Sequence, Type

import numpy as np
import torch

from .data.geometry import apply, heading, inverse, multiply, rigid, rigid_inverse, unit_quaternion
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


def _lidar2ego(info: Mapping[str, Any]) -> np.ndarray:
    return rigid(info["lidar2ego_rotation"], info["lidar2ego_translation"])


def _ego2global(info: Mapping[str, Any]) -> np.ndarray:
    return rigid(info["ego2global_rotation"], info["ego2global_translation"])


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
    _check_finite(boxes_K9, scores_K, info["token"])
    lidar2ego, ego2global = _lidar2ego(info), _ego2global(info)
    # The subtraction stays in the boxes' own precision (float32), as upstream's.
    q_K4 = _yaw_quaternions(-boxes_K9[:, 6] - np.pi / 2)
    for rotation in (info["lidar2ego_rotation"], info["ego2global_rotation"]):
        q_K4 = multiply(unit_quaternion(rotation), q_K4)
    xyz_ego = apply(lidar2ego, boxes_K9[:, :3])
    xyz_global = apply(ego2global, xyz_ego)
    velocity_K3 = np.pad(boxes_K9[:, 7:9].astype(np.float64), ((0, 0), (0, 1)))
    velocity_K3 = velocity_K3 @ (ego2global[:3, :3] @ lidar2ego[:3, :3]).T
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


def _check_finite(boxes_K9: np.ndarray, scores_K: np.ndarray, sample_token: str) -> None:
    if not (np.isfinite(boxes_K9).all() and np.isfinite(scores_K).all()):
        raise CheckpointError(
            "the model's boxes for sample %s are not finite numbers" % sample_token,
            "The training has diverged, or the weights are damaged; nuScenes refuses such boxes.",
            "Evaluate an earlier checkpoint, and look where the loss left its curve.",
        )


def to_detections(entries: Sequence[Mapping[str, Any]], info: Mapping[str, Any]) -> Detections:
    """The inverse of `format_sample`: the boxes of one sample back in its lidar frame.

    Raises DataError for an entry that is not of the results format.
    """
    if not entries:
        return Detections(torch.zeros(0, 9), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    try:
        xyz_global = np.array([e["translation"] for e in entries], dtype=np.float64).reshape(-1, 3)
        size_K3 = np.array([e["size"] for e in entries], dtype=np.float64).reshape(-1, 3)
        q_K4 = np.array([e["rotation"] for e in entries], dtype=np.float64).reshape(-1, 4)
        velocity_K2 = np.array([e["velocity"] for e in entries], dtype=np.float64).reshape(-1, 2)
        scores_K = torch.tensor([float(e["detection_score"]) for e in entries])
        labels_K = torch.tensor([CLASSES.index(e["detection_name"]) for e in entries])
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(
            "an entry of sample %s is no nuScenes detection (%s: %s)"
            % (info["token"], type(error).__name__, error),
            do="Write the results again with `bevrepro eval`.",
        ) from error
    global2ego, ego2lidar = rigid_inverse(_ego2global(info)), rigid_inverse(_lidar2ego(info))
    xyz_lidar = apply(ego2lidar, apply(global2ego, xyz_global))
    velocity_K3 = np.pad(velocity_K2, ((0, 0), (0, 1))) @ (ego2lidar[:3, :3] @ global2ego[:3, :3]).T
    q_K4 = unit_quaternion(q_K4)
    for rotation in (info["ego2global_rotation"], info["lidar2ego_rotation"]):
        q_K4 = multiply(inverse(rotation), q_K4)
    yaw_K1 = (-heading(q_K4) - np.pi / 2)[:, None]
    boxes_K9 = np.concatenate([xyz_lidar, size_K3, yaw_K1, velocity_K3[:, :2]], axis=1)
    return Detections(torch.from_numpy(boxes_K9).float(), scores_K, labels_K)


class RowsWriter:
    """Writes the samples of a results file one by one, without what stands around them: bounded memory, and
    no half file is ever left behind.

    Use as a context manager; the file appears under its name only when the block ends without an error.
    """

    head = tail = ""

    def __init__(self, path: str) -> None:
        self.path = path
        self.count = 0
        self._tmp = "%s.%d.tmp" % (path, os.getpid())

    def __enter__(self) -> "RowsWriter":
        self._file = open(self._tmp, "w")
        self._file.write(self.head)
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
                self._file.write(self.tail)
                self._file.flush()
                os.fsync(self._file.fileno())
            self._file.close()
            if kind is None:
                os.replace(self._tmp, self.path)
        finally:
            if os.path.exists(self._tmp):
                os.remove(self._tmp)


class ResultsWriter(RowsWriter):
    """Writes a whole results file sample by sample."""

    head = '{"meta": %s, "results": {' % json.dumps(META)
    tail = "\n}}\n"


def join_rows(parts: Sequence[str], path: str) -> None:
    """The results file of what several RowsWriters wrote, in their order; byte for byte as if by one."""
    temporary = "%s.%d.tmp" % (path, os.getpid())
    try:
        with open(temporary, "wb") as file:
            file.write(ResultsWriter.head.encode())
            for number, part in enumerate(parts):
                file.write(b"," if number else b"")
                with open(part, "rb") as rows:
                    shutil.copyfileobj(rows, file)
            file.write(ResultsWriter.tail.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
