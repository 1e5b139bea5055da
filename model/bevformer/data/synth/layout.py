"""Where things stand: random, without overlap, in range of the ego car and in sight through the scene.

The recipe was measured (facts: micro.md): 22 boxes per frame, vehicles 6-22 m away, pedestrians and cycles
to 17 m, cones and barriers to 13 m, the ego at 0.4 of a usual town speed.
"""

from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from bevformer.errors import UserError

from .world import CROSS_HALF_M, LANES_D, PAVEMENT_M, ROAD_D, YARD_M, Boxes, Ego, Road, World

GAP_BELOW_M = 0.03  # the boxes hover a little, so that a lidar return from the ground is in none of them


@dataclass(frozen=True)
class Recipe:
    """How many of a class, how big (l, w, h in m), how far from the ego (m), where, how fast (m/s)."""

    count: int
    size_m: Tuple[float, float, float]
    range_m: Tuple[float, float]
    zones: Tuple[str, ...]
    speed_mps: Tuple[float, float]


RECIPES: Dict[str, Recipe] = {
    "bus": Recipe(1, (9.8, 2.8, 3.3), (6.0, 22.0), ("lane", "bay"), (0.8, 2.4)),
    "trailer": Recipe(2, (8.0, 2.5, 3.4), (6.0, 22.0), ("lane", "bay"), (0.0, 0.0)),
    "truck": Recipe(2, (6.6, 2.4, 2.9), (6.0, 22.0), ("lane", "bay", "cross"), (0.8, 2.4)),
    "construction_vehicle": Recipe(2, (5.6, 2.6, 2.8), (6.0, 22.0), ("bay", "lane"), (0.0, 0.0)),
    "car": Recipe(4, (4.5, 1.9, 1.6), (6.0, 22.0), ("lane", "lane", "bay", "cross"), (1.0, 3.2)),
    "motorcycle": Recipe(2, (2.1, 0.8, 1.5), (4.8, 17.0), ("side", "lane", "walk"), (0.8, 2.4)),
    "bicycle": Recipe(2, (1.7, 0.6, 1.35), (4.8, 17.0), ("side", "walk"), (0.6, 1.6)),
    "pedestrian": Recipe(2, (0.7, 0.7, 1.75), (4.8, 17.0), ("walk", "walk", "side", "over"), (0.4, 1.2)),
    "barrier": Recipe(3, (0.5, 2.4, 1.0), (4.8, 13.0), ("side", "walk"), (0.0, 0.0)),
    "traffic_cone": Recipe(2, (0.4, 0.4, 0.9), (4.8, 13.0), ("side", "walk"), (0.0, 0.0)),
}
BOXES_PER_FRAME = sum(recipe.count for recipe in RECIPES.values())
EGO_SIZE_M = (4.1, 1.8, 1.6)
EGO_CENTRE_M = 1.3  # of the car, ahead of the ego frame's origin
MARGIN_M = 0.35
MIN_VISIBLE = 0.5  # of a box's width, from the roof, at three moments
BINS = 360


def _zone(zone: str, road: Road, rng: np.random.RandomState) -> Optional[Tuple[float, float, float]]:
    """A random (s, d, turn) in a zone; s is relative to where the ego is half-way."""
    s, jitter = rng.uniform(-22.0, 22.0), rng.normal(0.0, 0.04)
    if zone == "lane":
        d = LANES_D[rng.randint(len(LANES_D))]
        return s, d + rng.uniform(-0.3, 0.3), (0.0 if d < 2.0 else np.pi) + jitter
    if zone == "cross":
        side = rng.choice([-1.0, 1.0])
        if road.cross_s is None:
            return None
        return road.cross_s + 1.8 * side, rng.uniform(-21.0, 21.0), side * np.pi / 2 + jitter
    if zone == "bay":
        right = rng.uniform() < 0.55
        d = -rng.uniform(9.5, YARD_M) if right else rng.uniform(13.5, YARD_M)
        return s, d, rng.randint(4) * np.pi / 2 + 2.0 * jitter
    if zone == "walk":
        d = rng.uniform(ROAD_D[0] - PAVEMENT_M, ROAD_D[0] - 0.4)
        d = d if rng.uniform() < 0.5 else rng.uniform(ROAD_D[1] + 0.4, ROAD_D[1] + PAVEMENT_M)
        return s, d, rng.randint(2) * np.pi + 3.0 * jitter
    if zone == "over":  # across the carriageway
        return s, rng.uniform(*ROAD_D), rng.choice([-1.0, 1.0]) * np.pi / 2 + 3.0 * jitter
    return (
        s,
        rng.choice([ROAD_D[0] + 0.7, 1.8, 5.4, ROAD_D[1] - 0.7]) + 2.0 * jitter,
        rng.randint(2) * np.pi + jitter,
    )


def _separated(
    pose_T4: np.ndarray, size: Sequence[float], poses_NT4: np.ndarray, sizes_N3: np.ndarray
) -> np.ndarray:
    """(N,) bool: the footprint keeps MARGIN_M to each of N others at all T times (separating axes)."""
    offset = poses_NT4[..., :2] - pose_T4[None, :, :2]
    yaw_a, yaw_b = pose_T4[None, :, 3], poses_NT4[..., 3]
    apart = np.zeros(offset.shape[:2], bool)
    for axis in (yaw_a, yaw_a + np.pi / 2, yaw_b, yaw_b + np.pi / 2):
        reach = (
            size[0] * np.abs(np.cos(yaw_a - axis))
            + size[1] * np.abs(np.sin(yaw_a - axis))
            + sizes_N3[:, 0:1] * np.abs(np.cos(yaw_b - axis))
            + sizes_N3[:, 1:2] * np.abs(np.sin(yaw_b - axis))
        ) / 2
        gap = np.abs(offset[..., 0] * np.cos(axis) + offset[..., 1] * np.sin(axis)) - reach
        apart |= gap > MARGIN_M
    return apart.all(axis=1)


def _shadow(pose_T4: np.ndarray, size: Sequence[float], ego_T3: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """What a box hides seen from the roof: (T, BINS) bool azimuth bins, and (T,) its distance."""
    corners = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]]) * np.array(size[:2]) / 2
    cos, sin = np.cos(pose_T4[:, 3])[:, None], np.sin(pose_T4[:, 3])[:, None]
    x = pose_T4[:, 0:1] + cos * corners[:, 0] - sin * corners[:, 1] - ego_T3[:, 0:1]
    y = pose_T4[:, 1:2] + sin * corners[:, 0] + cos * corners[:, 1] - ego_T3[:, 1:2]
    centre = np.arctan2(y.mean(axis=1), x.mean(axis=1))
    spread = np.abs((np.arctan2(y, x) - centre[:, None] + np.pi) % (2 * np.pi) - np.pi).max(axis=1)
    bins = (np.arange(BINS) + 0.5) * (2 * np.pi / BINS)
    away = np.abs((bins[None] - centre[:, None] + np.pi) % (2 * np.pi) - np.pi)
    return away <= np.maximum(spread, np.pi / BINS)[:, None], np.hypot(x, y).mean(axis=1)


class _Crowd:
    """The things placed so far, and whether one more fits."""

    def __init__(self, road: Road, ego: Ego, times_s: np.ndarray) -> None:
        self.road, self.times_s = road, times_s
        x, y, yaw = road.place(np.array([ego.travel_m(t) for t in times_s]), np.zeros(len(times_s)))
        self.ego_T3 = np.stack([x, y, yaw], axis=1)
        car = np.stack([x + EGO_CENTRE_M * np.cos(yaw), y + EGO_CENTRE_M * np.sin(yaw), 0 * x, yaw], axis=1)
        self.poses: List[np.ndarray] = [car]
        self.sizes: List[Tuple[float, ...]] = [EGO_SIZE_M]
        self.rows: List[Tuple[str, Tuple[float, ...], float, float, float, float]] = []
        self.hidden: List[np.ndarray] = []
        self.distance: List[np.ndarray] = []
        self.moments = sorted({0, len(times_s) // 2, len(times_s) - 1})

    def _trace(self, s: float, d: float, turn: float, speed: float) -> np.ndarray:
        along = speed * self.times_s
        x, y, heading = self.road.place(s + along * np.cos(turn), d + along * np.sin(turn))
        return np.stack([x, y, 0 * x, heading + turn], axis=1)

    def add(
        self, kind: str, size: Tuple[float, ...], place: Tuple[float, float, float], speed: float
    ) -> bool:
        """Places the box and returns True, or leaves everything as it was."""
        pose_T4 = self._trace(*place, speed)
        range_m = np.hypot(pose_T4[:, 0] - self.ego_T3[:, 0], pose_T4[:, 1] - self.ego_T3[:, 1])
        low, high = RECIPES[kind].range_m
        if range_m.min() < low or range_m.max() > high:
            return False
        if not _separated(pose_T4, size, np.stack(self.poses), np.array(self.sizes)).all():
            return False
        hidden, distance = _shadow(pose_T4[self.moments], size, self.ego_T3[self.moments])
        if not self._in_sight(self.hidden + [hidden], self.distance + [distance], self.sizes[1:] + [size]):
            return False
        self.poses.append(pose_T4)
        self.sizes.append(size)
        self.hidden.append(hidden)
        self.distance.append(distance)
        self.rows.append((kind, size, *place, speed))
        return True

    @staticmethod
    def _in_sight(
        hidden: List[np.ndarray], distance: List[np.ndarray], sizes: Sequence[Tuple[float, ...]]
    ) -> bool:
        """Every box keeps MIN_VISIBLE of its bins free of nearer boxes that are tall enough to hide it."""
        bins_NTB, distance_NT, height_N = (
            np.stack(hidden),
            np.stack(distance),
            np.array([s[2] for s in sizes]),
        )
        nearer = (distance_NT[None] < distance_NT[:, None]) & (height_N[None] > 0.6 * height_N[:, None])[
            ..., None
        ]
        covered = np.einsum("ijt,jtb->itb", nearer.astype(np.float32), bins_NTB.astype(np.float32)) > 0
        free = (bins_NTB & ~covered).sum(axis=2) / bins_NTB.sum(axis=2)
        return bool((free >= MIN_VISIBLE).all())


def _things(road: Road, ego: Ego, times_s: np.ndarray, rng: np.random.RandomState) -> Boxes:
    """The annotated boxes; starts afresh when the last ones find no place."""
    slow = min(1.0, 4.5 / max(float(times_s[-1]), 0.5))  # in a longer scene everything moves more slowly
    middle = ego.travel_m(float(times_s[-1])) / 2
    for _ in range(60):
        crowd = _Crowd(road, ego, times_s)
        if all(
            _place_one(crowd, kind, middle, slow, rng)
            for kind, recipe in RECIPES.items()
            for _ in range(recipe.count)
        ):
            break
    else:
        raise UserError(
            "no room was found for %d boxes on a street" % BOXES_PER_FRAME, do="Try another --seed."
        )
    kinds, sizes, s, d, turn, speed = zip(*crowd.rows)
    tint = rng.uniform(0.9, 1.1, (len(kinds), 1)) * rng.uniform(0.96, 1.04, (len(kinds), 3))
    return Boxes(
        tuple(kinds),
        np.array(sizes),
        np.array(s),
        np.array(d),
        np.full(len(kinds), GAP_BELOW_M),
        np.array(turn),
        np.array(speed),
        tint,
    )


def _place_one(crowd: _Crowd, kind: str, middle: float, slow: float, rng: np.random.RandomState) -> bool:
    recipe = RECIPES[kind]
    for _attempt in range(250):
        size = tuple(float(v) for v in np.array(recipe.size_m) * rng.uniform(0.93, 1.07, 3))
        zone = recipe.zones[rng.randint(len(recipe.zones))]
        place = _zone(zone, crowd.road, rng)
        moves = recipe.speed_mps[1] > 0 and zone != "bay" and rng.uniform() < 0.65
        speed = slow * rng.uniform(*recipe.speed_mps) if moves else 0.0
        if place is None:
            continue
        if zone != "cross":
            place = (place[0] + middle, place[1], place[2])
        if crowd.add(kind, size, place, speed):
            return True
    return False


def _scenery(road: Road, rng: np.random.RandomState) -> Boxes:
    """Houses on both sides and trees along the yards: never annotated, farther away than any thing."""
    rows: List[Tuple[str, Tuple[float, float, float], float, float, float, float]] = []
    for side in (-1.0, 1.0):
        s = -48.0 + rng.uniform(0.0, 6.0)
        while s < 52.0:
            length, depth, height = rng.uniform(9.0, 16.0), rng.uniform(8.0, 12.0), rng.uniform(7.0, 16.0)
            if road.cross_s is None or abs(s + length / 2 - road.cross_s) > length / 2 + CROSS_HALF_M + 2.5:
                rows.append(
                    (
                        "house",
                        (length, depth, height),
                        s + length / 2,
                        side * (YARD_M + 7.0 + depth / 2 + rng.uniform(0, 3)),
                        0.0,
                        0.0,
                    )
                )
            s += length + rng.uniform(1.5, 5.0)
        for s in np.arange(-40.0, 45.0, 11.0) + rng.uniform(-2.5, 2.5, 8):
            if road.cross_s is None or abs(s - road.cross_s) > CROSS_HALF_M + 3.0:
                d, crown = side * (YARD_M + 4.2), rng.uniform(2.4, 3.4)
                rows.append(("trunk", (0.35, 0.35, 2.4), s, d, 0.0, 0.0))
                rows.append(("crown", (crown, crown, rng.uniform(2.4, 3.6)), s, d, 2.3, rng.uniform(0, 1.5)))
    kinds, sizes, s_N, d_N, bottom, turn = zip(*rows)
    tint = rng.uniform(0.75, 1.1, (len(kinds), 1)) * rng.uniform(0.9, 1.1, (len(kinds), 3))
    return Boxes(
        tuple(kinds),
        np.array(sizes),
        np.array(s_N),
        np.array(d_N),
        np.array(bottom),
        np.array(turn),
        np.zeros(len(kinds)),
        tint,
    )


def make_world(
    name: str, origin_m: Tuple[float, float], start_us: int, times_s: np.ndarray, rng: np.random.RandomState
) -> World:
    """A random scene; `times_s` are the key frames' times after `start_us`."""
    slow = 0.4 * min(1.0, 4.5 / max(float(times_s[-1]), 0.5))
    curvature = rng.choice([-1.0, 1.0]) * rng.uniform(0.0005, 0.014)
    cross_s = float(rng.uniform(10.0, 20.0)) if rng.uniform() < 0.6 else None
    road = Road(origin_m, float(rng.uniform(-np.pi, np.pi)), float(curvature), cross_s)
    speed = slow * rng.uniform(2.5, 6.0)
    ego = Ego(speed, float(rng.uniform(-0.4, 0.4)) * speed / max(float(times_s[-1]), 0.5))
    things = _things(road, ego, times_s, rng)
    return World(
        name,
        road,
        ego,
        things.join(_scenery(road, rng)),
        len(things),
        float(rng.uniform(-np.pi, np.pi)),
        start_us,
    )
