"""Rays against boxes: the one piece of geometry that the cameras and the lidar share."""

from typing import Iterator, NamedTuple, Tuple

import numpy as np

Rays = Tuple[np.ndarray, np.ndarray, np.ndarray]


class FaceHit(NamedTuple):
    """A face seen by a bundle of rays.  `t` counts in ray lengths; `across`, `up` are in -1..1 of the box.

    face: 0 front (+x), 1 back, 2 left (+y), 3 right, 4 top, 5 bottom.
    """

    face: int
    t: np.ndarray
    across: np.ndarray
    up: np.ndarray
    hit: np.ndarray


def face_hits(origin_3: np.ndarray, half_3: np.ndarray, rays: Rays) -> Iterator[FaceHit]:
    """The faces of a box (centred, axis-aligned) that an origin outside of it can see, at most three.

    `rays` are the x, y and z of the directions, arrays that broadcast together.  A ray along a face divides
    by zero and misses; callers silence that with `np.errstate` around their loops (inside it is slow).
    """
    origin, half = [float(v) for v in origin_3], [float(v) for v in half_3]  # keep float32 rays float32
    for axis in range(3):
        sign = 1.0 if origin[axis] > 0 else -1.0
        gap = sign * half[axis] - origin[axis]
        if gap * sign >= 0:
            continue
        j, k = [other for other in range(3) if other != axis]
        t = gap / rays[axis]
        across, up = _along(t, rays[j], origin[j], half[j]), _along(t, rays[k], origin[k], half[k])
        hit = np.abs(across) <= 1.0
        hit &= np.abs(up) <= 1.0
        hit &= t > 0
        yield FaceHit(
            2 * axis + (sign < 0),
            t if t.shape == hit.shape else np.broadcast_to(t, hit.shape),
            across,
            up,
            hit,
        )


def _along(t: np.ndarray, ray: np.ndarray, origin: float, half: float) -> np.ndarray:
    """(origin + t * ray) / half, with one temporary array: most of the time goes here."""
    out = t * ray
    out += origin
    out /= half
    return np.asarray(out)


def rotation_z(yaw: float) -> np.ndarray:
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


_SIGNS = np.array([[x, y, z] for x in (1, -1) for y in (1, -1) for z in (1, -1)], np.float64)
EDGES = np.array([(a, b) for a in range(8) for b in range(a) if np.abs(_SIGNS[a] - _SIGNS[b]).sum() == 2])


def corners(pose_N4: np.ndarray, size_N3: np.ndarray) -> np.ndarray:
    """(N, 8, 3) corners of boxes given by centre and yaw."""
    local = _SIGNS[None] * size_N3[:, None] / 2
    cos, sin = np.cos(pose_N4[:, 3])[:, None], np.sin(pose_N4[:, 3])[:, None]
    turned = np.stack(
        [cos * local[..., 0] - sin * local[..., 1], sin * local[..., 0] + cos * local[..., 1], local[..., 2]],
        axis=2,
    )
    return turned + pose_N4[:, None, :3]
