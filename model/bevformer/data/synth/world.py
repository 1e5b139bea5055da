"""One scene's world as a function of time: a road, the ego car on it, and boxes that stand or move.

Everything lives in road coordinates (s along the ego's lane, d to its left, metres) on a road of constant
curvature; `poses` turns them into the global frame (z up, metres, radians).
"""

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

LANES_D = (-3.6, 0.0, 3.6, 7.1)  # centres; the ego drives at 0, traffic keeps to the right
ROAD_D = (-5.4, 8.9)  # kerbs
PAVEMENT_M = 3.5
YARD_M = 20.0  # parking areas reach this far from the ego's lane
CROSS_HALF_M = 3.6  # half width of the crossing street


@dataclass(frozen=True)
class Road:
    """`origin_m` and `heading` at s = 0; `cross_s` is where another street crosses (None: nowhere)."""

    origin_m: Tuple[float, float]
    heading: float
    curvature: float
    cross_s: Optional[float]

    def place(self, s: np.ndarray, d: np.ndarray) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Road coordinates -> global x, y and the heading of the road there."""
        theta = self.curvature * s
        radius = 1.0 / self.curvature - d
        x, y = radius * np.sin(theta), 1.0 / self.curvature - radius * np.cos(theta)
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        return (
            self.origin_m[0] + cos * x - sin * y,
            self.origin_m[1] + sin * x + cos * y,
            self.heading + theta,
        )

    def locate(self, x: np.ndarray, y: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """Global x, y -> s, d: the inverse of `place`."""
        dx, dy = x - self.origin_m[0], y - self.origin_m[1]
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        along, across = cos * dx + sin * dy, -sin * dx + cos * dy - 1.0 / self.curvature
        side = np.sign(self.curvature)
        theta = np.arctan2(along * side, -across * side)
        return theta / self.curvature, 1.0 / self.curvature - side * np.hypot(along, across)


@dataclass(frozen=True)
class Ego:
    """The ego car follows d = 0 with constant acceleration."""

    speed_mps: float
    accel_mps2: float

    def travel_m(self, t: float) -> float:
        return self.speed_mps * t + 0.5 * self.accel_mps2 * t * t

    def speed_at(self, t: float) -> float:
        return self.speed_mps + self.accel_mps2 * t


@dataclass(frozen=True)
class Boxes:
    """N boxes, one row each: `kind`, size (length, width, height), place at t = 0 and motion.

    `turn_N` is the heading relative to the road, `bottom_N` the height of the lower face; a box moves
    along its own heading with `speed_N`.  `tint_N3` multiplies the colour (blue, green, red).
    """

    kinds: Tuple[str, ...]
    size_N3: np.ndarray
    s_N: np.ndarray
    d_N: np.ndarray
    bottom_N: np.ndarray
    turn_N: np.ndarray
    speed_N: np.ndarray
    tint_N3: np.ndarray

    def __len__(self) -> int:
        return len(self.kinds)

    def join(self, other: "Boxes") -> "Boxes":
        names = ("size_N3", "s_N", "d_N", "bottom_N", "turn_N", "speed_N", "tint_N3")
        return Boxes(
            self.kinds + other.kinds, *[np.concatenate([getattr(self, n), getattr(other, n)]) for n in names]
        )

    def poses(self, road: Road, t: float) -> np.ndarray:
        """(N, 4) float64: x, y, z of the centre and yaw, global, at `t` seconds."""
        s = self.s_N + self.speed_N * t * np.cos(self.turn_N)
        d = self.d_N + self.speed_N * t * np.sin(self.turn_N)
        x, y, heading = road.place(s, d)
        return np.stack([x, y, self.bottom_N + self.size_N3[:, 2] / 2, heading + self.turn_N], axis=1)


@dataclass(frozen=True)
class World:
    """A scene.  The first `num_things` boxes are annotated; the rest is scenery (houses, trees)."""

    name: str
    road: Road
    ego: Ego
    boxes: Boxes
    num_things: int
    sun_azimuth: float
    start_us: int

    def ego_pose(self, t: float) -> Tuple[float, float, float]:
        """x, y, yaw of the ego frame, global; z is 0 everywhere (the ground is flat)."""
        x, y, yaw = self.road.place(np.float64(self.ego.travel_m(t)), np.float64(0.0))
        return float(x), float(y), float(yaw)

    def box_poses(self, t: float) -> np.ndarray:
        return self.boxes.poses(self.road, t)

    @property
    def sun_3(self) -> np.ndarray:
        """The direction to the sun."""
        return np.array([0.7 * np.cos(self.sun_azimuth), 0.7 * np.sin(self.sun_azimuth), 0.71])

    def shadow(self, pose_4: np.ndarray, size_3: np.ndarray) -> np.ndarray:
        """The pose of a box's shadow: on the ground, a little away from the sun."""
        away = self.sun_3[:2] * min(float(size_3[2]), 2.0) * 0.35
        return np.array([pose_4[0] - away[0], pose_4[1] - away[1], 0.0, pose_4[3]])
