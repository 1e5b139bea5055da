"""The lidar: 32 rings against boxes and ground.  Returns from a box lie 2 cm inside of it."""

from dataclasses import dataclass
from typing import Tuple

import numpy as np

from .raycast import corners, face_hits
from .rig import LIDAR_IN_EGO_M, LIDAR_YAW
from .world import World

RINGS = 32
COLUMNS = 600  # the real one has 1084; the smallest boxes still get several
ELEVATION = np.deg2rad(np.linspace(-30.67, 10.67, RINGS))
MAX_RANGE_M = 70.0
INSIDE_M = 0.02
GRID_M = 1.0 / 256  # coordinates are multiples of this: archives shrink
_AZIMUTH = np.arange(COLUMNS) * (2 * np.pi / COLUMNS) - np.pi


@dataclass(frozen=True)
class Sweep:
    """`points_P5` float32 x, y, z (lidar frame, m), intensity, ring; `hits_N` the points in each box."""

    points_P5: np.ndarray
    hits_N: np.ndarray


def scan(world: World, t: float, rng: np.random.RandomState) -> Sweep:
    """A sweep at scene time `t` (s), taken in an instant."""
    x, y, yaw = world.ego_pose(t)
    cos, sin = np.cos(yaw), np.sin(yaw)
    origin = np.array([x + cos * LIDAR_IN_EGO_M[0], y + sin * LIDAR_IN_EGO_M[0], LIDAR_IN_EGO_M[2]])
    pose_N4 = world.box_poses(t)
    with np.errstate(divide="ignore", invalid="ignore"):
        range_RC, owner_RC = _cast(world, origin, yaw, pose_N4)
    column, ring = np.nonzero(range_RC.T < MAX_RANGE_M)
    distance, owner = range_RC[ring, column], owner_RC[ring, column]
    heading = _AZIMUTH[column] + yaw
    flat = np.cos(ELEVATION)[ring] * distance
    points = origin + np.stack(
        [flat * np.cos(heading), flat * np.sin(heading), np.sin(ELEVATION)[ring] * distance], axis=1
    )
    points[owner < 0] += rng.normal(0.0, 0.008, ((owner < 0).sum(), 3))
    on_box = np.nonzero(owner >= 0)[0]
    points[on_box] = _push_inside(points[on_box], pose_N4[owner[on_box]], world.boxes.size_N3[owner[on_box]])
    local = _to_lidar(points - origin, yaw)
    shine = rng.uniform(12.0, 60.0, len(pose_N4))
    intensity = np.where(owner >= 0, shine[owner], 8.0) * rng.uniform(0.7, 1.3, len(owner))
    cloud = np.column_stack([np.round(local / GRID_M) * GRID_M, np.floor(intensity), ring])
    return Sweep(cloud.astype(np.float32), np.bincount(owner[on_box], minlength=len(pose_N4)))


def _cast(world: World, origin: np.ndarray, yaw: float, pose_N4: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """(RINGS, COLUMNS) range in metres (infinite: nothing) and index of the box hit (-1: the ground)."""
    down = np.sin(ELEVATION)[:, None]
    ground = np.where(down < -1e-3, -origin[2] / np.minimum(down, -1e-3), np.inf)
    range_RC = np.repeat(ground, COLUMNS, axis=1).astype(np.float32)
    owner_RC = np.full((RINGS, COLUMNS), -1, np.int32)
    offset = corners(pose_N4, world.boxes.size_N3) - origin
    azimuth_N8 = np.arctan2(offset[..., 1], offset[..., 0]) - yaw
    middle_N = np.arctan2(offset[..., 1].mean(axis=1), offset[..., 0].mean(axis=1)) - yaw
    spread_N = np.abs((azimuth_N8 - middle_N[:, None] + np.pi) % (2 * np.pi) - np.pi).max(axis=1)
    flat, steep = np.cos(ELEVATION)[:, None].astype(np.float32), down.astype(np.float32)
    for index in range(len(pose_N4)):
        step = 2 * np.pi / COLUMNS
        first = int(np.floor((middle_N[index] - spread_N[index] + np.pi) / step))
        last = int(np.ceil((middle_N[index] + spread_N[index] + np.pi) / step))
        columns = np.arange(first, last + 1) % COLUMNS
        heading = _AZIMUTH[columns] + yaw - pose_N4[index, 3]
        cos, sin = np.cos(-pose_N4[index, 3]), np.sin(-pose_N4[index, 3])
        away = origin - pose_N4[index, :3]
        local = np.array([cos * away[0] - sin * away[1], sin * away[0] + cos * away[1], away[2]], np.float32)
        rays = (flat * np.cos(heading).astype(np.float32), flat * np.sin(heading).astype(np.float32), steep)
        for hit in face_hits(local, (world.boxes.size_N3[index] / 2).astype(np.float32), rays):
            nearer = hit.hit & (hit.t < range_RC[:, columns])
            rows, which = np.nonzero(nearer)
            range_RC[rows, columns[which]] = hit.t[rows, which]
            owner_RC[rows, columns[which]] = index
    return range_RC, owner_RC


def _push_inside(points: np.ndarray, pose: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Moves global points into the box they came from, INSIDE_M below its faces."""
    cos, sin = np.cos(pose[:, 3]), np.sin(pose[:, 3])
    away = points - pose[:, :3]
    local = np.stack(
        [cos * away[:, 0] + sin * away[:, 1], -sin * away[:, 0] + cos * away[:, 1], away[:, 2]], axis=1
    )
    room = size / 2 - INSIDE_M
    local = np.clip(local, -room, room)
    return pose[:, :3] + np.stack(
        [cos * local[:, 0] - sin * local[:, 1], sin * local[:, 0] + cos * local[:, 1], local[:, 2]], axis=1
    )


def _to_lidar(offset: np.ndarray, yaw: float) -> np.ndarray:
    """Global directions -> the lidar's frame."""
    cos, sin = np.cos(yaw + LIDAR_YAW), np.sin(yaw + LIDAR_YAW)
    return np.stack(
        [cos * offset[:, 0] + sin * offset[:, 1], -sin * offset[:, 0] + cos * offset[:, 1], offset[:, 2]],
        axis=1,
    )
