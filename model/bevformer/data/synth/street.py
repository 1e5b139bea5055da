"""The ground of a scene: asphalt, markings, pavement, yards, grass; and its picture from above."""

from dataclasses import dataclass

import numpy as np

from .world import CROSS_HALF_M, PAVEMENT_M, ROAD_D, YARD_M, Road, World

RESOLUTION_M = 0.125
HALF_M = 56.0  # the picture covers a square of twice this around the middle of the ego's way
GRASS = (96, 118, 72)  # red, green, blue
SHADOW_SOFT_M = 0.5


@dataclass(frozen=True)
class Ground:
    """`bgr` uint8 from above; the centre of pixel (column i, row j) is corner_m + (i, j) * RESOLUTION_M."""

    bgr: np.ndarray
    corner_m: np.ndarray

    @property
    def pixel2global_33(self) -> np.ndarray:
        return np.array(
            [[RESOLUTION_M, 0.0, self.corner_m[0]], [0.0, RESOLUTION_M, self.corner_m[1]], [0.0, 0.0, 1.0]]
        )


def is_road(road: Road, s: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Drivable: the carriageway, the crossing street and the yards."""
    drivable = (d > ROAD_D[0]) & (d < ROAD_D[1])
    yard = ((d < ROAD_D[0] - PAVEMENT_M) | (d > ROAD_D[1] + PAVEMENT_M)) & (np.abs(d) < YARD_M)
    drivable = drivable | yard
    if road.cross_s is not None:
        drivable = drivable | (np.abs(s - road.cross_s) < CROSS_HALF_M)
    return drivable


class _Picture:
    """Colours by region in road coordinates; edges are blended over one pixel."""

    def __init__(self, s: np.ndarray, d: np.ndarray) -> None:
        self.s, self.d = s, d
        self.rgb = np.empty(s.shape + (3,), np.float32)
        self.rgb[:] = GRASS

    def fill(self, where: np.ndarray, colour: tuple) -> None:
        self.rgb[where] = colour

    def line(self, axis: np.ndarray, at: float, width: float, colour: tuple, where: np.ndarray) -> None:
        """A line at `axis` == at, inside `where` (bool)."""
        rows = np.nonzero(where & (np.abs(axis - at) < width / 2 + RESOLUTION_M))
        cover = np.clip((width / 2 - np.abs(axis[rows] - at)) / RESOLUTION_M + 0.5, 0.0, 1.0)[:, None]
        self.rgb[rows] = self.rgb[rows] * (1 - cover) + np.array(colour, np.float32) * cover


def _carriageway(picture: _Picture, open_road: np.ndarray) -> None:
    """Lane lines where no street crosses."""
    s, d, white, yellow = picture.s, picture.d, (222, 222, 216), (214, 176, 60)
    dashes = open_road & (np.mod(s, 6.0) < 3.0)
    for at in (-1.8, 5.35):
        picture.line(d, at, 0.14, white, dashes)
    for at in (1.68, 1.92):
        picture.line(d, at, 0.11, yellow, open_road)
    for at in (ROAD_D[0] + 0.25, ROAD_D[1] - 0.25):
        picture.line(d, at, 0.13, white, open_road)


def _crossing(picture: _Picture, cross_s: float) -> None:
    """The crossing street, its centre line, and a zebra before it."""
    s, d = picture.s - cross_s, picture.d
    road = (d > ROAD_D[0]) & (d < ROAD_D[1])
    picture.fill(np.abs(s) < CROSS_HALF_M, (92, 92, 97))
    picture.line(s, 0.0, 0.13, (222, 222, 216), (np.abs(s) < 1.0) & ~road & (np.mod(d, 5.0) < 2.5))
    zebra = road & (np.mod(d - ROAD_D[0], 1.2) < 0.6)
    picture.line(s, -CROSS_HALF_M - 3.2, 2.6, (226, 226, 220), zebra)


def draw_ground(world: World, rng: np.random.RandomState) -> Ground:
    """The ground around the ego's way, drawn in the global frame."""
    road = world.road
    size = int(2 * HALF_M / RESOLUTION_M)
    corner = np.array(road.place(np.float64(4.0), np.float64(0.0))[:2]) - HALF_M
    steps = np.arange(size) * RESOLUTION_M
    s, d = road.locate(
        (corner[0] + steps)[None].astype(np.float32), (corner[1] + steps)[:, None].astype(np.float32)
    )
    picture = _Picture(s, d)
    carriageway = (d > ROAD_D[0]) & (d < ROAD_D[1])
    pavement = ~carriageway & (d > ROAD_D[0] - PAVEMENT_M) & (d < ROAD_D[1] + PAVEMENT_M)
    yard = ~carriageway & ~pavement & (np.abs(d) < YARD_M)
    picture.fill(yard, (112, 110, 108))
    bays = yard & (np.mod(np.abs(d), 6.5) < 5.0)
    picture.line(np.mod(s, 2.8), 1.4, 0.1, (196, 196, 192), bays)
    picture.fill(pavement, (156, 150, 142))
    tiles = pavement & ((np.mod(s, 1.2) < 0.1) | (np.mod(d, 1.2) < 0.1))
    picture.fill(tiles, (138, 133, 126))
    picture.fill(carriageway, (86, 86, 91))
    open_road = carriageway
    if road.cross_s is not None:
        open_road = carriageway & (np.abs(s - road.cross_s) > CROSS_HALF_M + 1.2)
    _carriageway(picture, open_road)
    for at in (ROAD_D[0] - 0.12, ROAD_D[1] + 0.12):
        picture.line(d, at, 0.24, (182, 178, 172), np.ones_like(carriageway))
    if road.cross_s is not None:
        _crossing(picture, road.cross_s)
    patches = (
        rng.randint(-7, 8, (size // 16, size // 16)).astype(np.float32).repeat(16, axis=0).repeat(16, axis=1)
    )
    patches += rng.randint(-8, 9, (size, size))
    picture.rgb += patches[..., None]
    ground = Ground(np.ascontiguousarray(picture.rgb[..., ::-1]).astype(np.uint8), corner)
    poses_N4 = world.box_poses(0.0)
    for index in np.nonzero((world.boxes.speed_N == 0.0) & (world.boxes.bottom_N < 1.0))[0]:
        _darken(ground, world.shadow(poses_N4[index], world.boxes.size_N3[index]), world.boxes.size_N3[index])
    return ground


def shade(along_m: np.ndarray, across_m: np.ndarray, size_3: np.ndarray) -> np.ndarray:
    """Light on the ground (0.5..1) at a distance from the middle of a shadow as long and wide as `size_3`."""
    outside = np.maximum(np.abs(along_m) - size_3[0] / 2, np.abs(across_m) - size_3[1] / 2)
    return 1.0 - 0.5 * np.clip(1.0 - outside / SHADOW_SOFT_M, 0.0, 1.0)


def _darken(ground: Ground, pose_4: np.ndarray, size_3: np.ndarray) -> None:
    """Draws the shadow of what never moves."""
    reach = np.hypot(size_3[0], size_3[1]) / 2 + SHADOW_SOFT_M
    low = np.maximum((pose_4[:2] - reach - ground.corner_m) / RESOLUTION_M, 0).astype(int)
    high = np.maximum((pose_4[:2] + reach - ground.corner_m) / RESOLUTION_M, 0).astype(int)
    patch = ground.bgr[low[1] : high[1], low[0] : high[0]]
    x = ground.corner_m[0] + (low[0] + np.arange(patch.shape[1])) * RESOLUTION_M - pose_4[0]
    y = ground.corner_m[1] + (low[1] + np.arange(patch.shape[0])) * RESOLUTION_M - pose_4[1]
    cos, sin = np.cos(pose_4[3]), np.sin(pose_4[3])
    light = shade(cos * x[None] + sin * y[:, None], -sin * x[None] + cos * y[:, None], size_3)
    patch[:] = patch * light[..., None]
