"""Quaternions and rigid transforms in NumPy, vectorised over leading dimensions.

Quaternions are (w, x, y, z) as in the nuScenes tables and need not be normalised; `a2b` is a 4x4 that maps
homogeneous points of frame a to frame b.  All float64.
"""

import numpy as np


def unit_quaternion(q_wxyz: np.ndarray) -> np.ndarray:
    """(..., 4) scaled to length 1; a zero quaternion gives NaN, which the callers refuse by name."""
    q = np.asarray(q_wxyz, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return q / np.linalg.norm(q, axis=-1, keepdims=True)


def multiply(a_wxyz: np.ndarray, b_wxyz: np.ndarray) -> np.ndarray:
    """Hamilton product: first rotate by b, then by a."""
    aw, ax, ay, az = np.moveaxis(np.asarray(a_wxyz, dtype=np.float64), -1, 0)
    bw, bx, by, bz = np.moveaxis(np.asarray(b_wxyz, dtype=np.float64), -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def inverse(q_wxyz: np.ndarray) -> np.ndarray:
    """The opposite rotation, of unit length."""
    return unit_quaternion(q_wxyz) * np.array([1.0, -1.0, -1.0, -1.0])


def rotation_matrix(q_wxyz: np.ndarray) -> np.ndarray:
    """(..., 4) -> (..., 3, 3)."""
    w, x, y, z = np.moveaxis(unit_quaternion(q_wxyz), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_of(matrix_33: np.ndarray) -> np.ndarray:
    """(3, 3) rotation -> unit (w, x, y, z) with w >= 0 (Bar-Itzhack: takes rounded matrices)."""
    m = np.asarray(matrix_33, dtype=np.float64)
    k = (
        np.array(
            [
                [m[0, 0] - m[1, 1] - m[2, 2], 0.0, 0.0, 0.0],
                [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], 0.0, 0.0],
                [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], 0.0],
                [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]],
            ]
        )
        / 3.0
    )
    x, y, z, w = np.linalg.eigh(k, UPLO="L")[1][:, -1]
    q = np.array([w, x, y, z])
    return q if w >= 0 else -q


def heading(q_wxyz: np.ndarray) -> np.ndarray:
    """Angle in the x/y plane of the rotated x axis, (-pi, pi] (devkit's `quaternion_yaw`)."""
    m = rotation_matrix(q_wxyz)
    return np.arctan2(m[..., 1, 0], m[..., 0, 0])


def tait_bryan_yaw(q_wxyz: np.ndarray) -> np.ndarray:
    """pyquaternion's `yaw_pitch_roll[0]`: atan2(-R01, R00).

    Upstream's converter takes the yaw of a box from it; it differs from `heading` as soon as the box is
    tilted (a quirk of the prepared files, kept).
    """
    m = rotation_matrix(q_wxyz)
    return np.arctan2(-m[..., 0, 1], m[..., 0, 0])


def rigid(rotation_wxyz: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """(..., 4), (..., 3) -> (..., 4, 4)."""
    return rigid_of(rotation_matrix(rotation_wxyz), translation)


def rigid_of(rotation_33: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """(..., 3, 3), (..., 3) -> (..., 4, 4)."""
    rotation_33 = np.asarray(rotation_33, dtype=np.float64)
    out = np.zeros(rotation_33.shape[:-2] + (4, 4))
    out[..., :3, :3] = rotation_33
    out[..., :3, 3] = translation
    out[..., 3, 3] = 1.0
    return out


def rigid_inverse(a2b_44: np.ndarray) -> np.ndarray:
    """b2a of a rotation and translation (the transpose is used, not a general inverse)."""
    back_33 = np.swapaxes(a2b_44[..., :3, :3], -1, -2)
    return rigid_of(back_33, -np.einsum("...ij,...j->...i", back_33, a2b_44[..., :3, 3]))


def apply(a2b_44: np.ndarray, points_P3: np.ndarray) -> np.ndarray:
    """Points (P, 3) of frame a in frame b."""
    return np.asarray(points_P3) @ a2b_44[:3, :3].T + a2b_44[:3, 3]
