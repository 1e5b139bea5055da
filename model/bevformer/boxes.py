"""3D boxes in NumPy: the two conventions in use, the two centres, corners, points inside.

Legacy (mmdet3d < 1.0; the published weights, the prepared files, `types.Detections`):
    x, y, z, w, l, h, yaw with heading = -yaw - pi/2
New (mmdet3d >= 1.0):
    x, y, z, l, w, h, yaw with heading = yaw
heading is the angle from the x axis of the frame to the direction the object faces, counter-clockwise.
Further columns (vx, vy) pass through.  In either, z is the gravity centre or the bottom centre; names say so.
Functions take anything `np.asarray` accepts (a CPU tensor too) and return new float arrays.
"""

from typing import Any, Tuple

import numpy as np

# Pairs of `corners` that an edge joins: front face, back face, the four between.
BOX_EDGES: Tuple[Tuple[int, int], ...] = (
    (0, 1),
    (1, 2),
    (2, 3),
    (3, 0),
    (4, 5),
    (5, 6),
    (6, 7),
    (7, 4),
    (0, 4),
    (1, 5),
    (2, 6),
    (3, 7),
)


def _float(boxes: Any) -> np.ndarray:
    out = np.array(boxes)
    return out if np.issubdtype(out.dtype, np.floating) else out.astype(np.float64)


def swap_convention(boxes: Any) -> np.ndarray:
    """Legacy -> new or new -> legacy (the map is its own inverse): swap w and l, yaw -> -yaw - pi/2."""
    boxes = _float(boxes)
    out = boxes.copy()
    out[..., 3], out[..., 4] = boxes[..., 4], boxes[..., 3]
    out[..., 6] = wrap_angle(-boxes[..., 6] - np.pi / 2)
    return out


def legacy_to_new(boxes: Any) -> np.ndarray:
    return swap_convention(boxes)


def new_to_legacy(boxes: Any) -> np.ndarray:
    return swap_convention(boxes)


def gravity_to_bottom(boxes: Any) -> np.ndarray:
    """z of the centre of mass -> z of the centre of the lower face."""
    out = _float(boxes)
    out[..., 2] -= 0.5 * out[..., 5]
    return out


def bottom_to_gravity(boxes: Any) -> np.ndarray:
    out = _float(boxes)
    out[..., 2] += 0.5 * out[..., 5]
    return out


def wrap_angle(angle: Any) -> np.ndarray:
    """Into [-pi, pi), as mmdet3d's `limit_period(offset=0.5, period=2 pi)`."""
    angle = _float(angle)
    return angle - np.floor(angle / (2 * np.pi) + 0.5) * (2 * np.pi)


def heading_of(boxes_legacy: Any) -> np.ndarray:
    """Radians in [-pi, pi) in the frame of the boxes."""
    return wrap_angle(-_float(boxes_legacy)[..., 6] - np.pi / 2)


def corners(boxes_legacy: Any) -> np.ndarray:
    """(N, 7+) gravity-centred legacy boxes -> (N, 8, 3) in the same frame.

    Order as the devkit's `Box.corners`: four of the front face, four of the back, each left-top,
    right-top, right-bottom, left-bottom.
    """
    boxes = _float(boxes_legacy).reshape(-1, np.shape(boxes_legacy)[-1])
    width, length, height = boxes[:, 3:4], boxes[:, 4:5], boxes[:, 5:6]
    along = length / 2 * np.array([1, 1, 1, 1, -1, -1, -1, -1])
    left = width / 2 * np.array([1, -1, -1, 1, 1, -1, -1, 1])
    up = height / 2 * np.array([1, 1, -1, -1, 1, 1, -1, -1])
    angle = heading_of(boxes)[:, None]
    x = np.cos(angle) * along - np.sin(angle) * left
    y = np.sin(angle) * along + np.cos(angle) * left
    return np.stack([x, y, up], axis=-1) + boxes[:, None, :3]


def points_inside(points_P3: Any, boxes_legacy: Any) -> np.ndarray:
    """(P, 3) points and (N, 7+) gravity-centred legacy boxes of one frame -> (N, P) bool."""
    boxes = _float(boxes_legacy)
    offset = _float(points_P3)[None, :, :3] - boxes[:, None, :3]
    angle = heading_of(boxes)[:, None]
    along = np.cos(angle) * offset[..., 0] + np.sin(angle) * offset[..., 1]
    left = -np.sin(angle) * offset[..., 0] + np.cos(angle) * offset[..., 1]
    size = boxes[:, None, 3:6] / 2
    return (
        (np.abs(along) <= size[..., 1])
        & (np.abs(left) <= size[..., 0])
        & (np.abs(offset[..., 2]) <= size[..., 2])
    )
