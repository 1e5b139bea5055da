"""Camera pictures: ground, sky and boxes, with a depth buffer, so that what is nearer hides what is farther.

The ego car stands level, so the horizon is a row of the picture and the ground's depth depends on the row.
A pixel's centre lies at +0.5, as the model's sampling takes it.
"""

from dataclasses import dataclass
from typing import Dict, Iterator, List, Tuple

import numpy as np

from .opencv import load_cv2
from .paint import HEIGHT, TILE_M, WIDTH, textures
from .raycast import EDGES, FaceHit, corners, face_hits, rotation_z
from .rig import Camera
from .street import GRASS, SHADOW_SOFT_M, Ground, draw_ground, shade
from .world import World

Region = Tuple[slice, slice]  # rows, columns

NEAR_M = 0.1
HAZE = np.array((226, 214, 204), np.float32)  # blue, green, red
HAZE_M = 160.0
SKY_PER_DEGREE = 4
SKY_DEGREES = 50


@dataclass(frozen=True)
class View:
    """What of a camera does not change from frame to frame; sizes include the supersampling.

    `x_W`, `y_H` are the directions of columns and rows at depth 1; the ground begins at row `horizon`.
    """

    camera: Camera
    oversample: int
    width: int
    height: int
    intrinsic_33: np.ndarray
    x_W: np.ndarray
    y_H: np.ndarray
    horizon: int
    sky_row: np.ndarray
    sky_column: np.ndarray


def make_view(camera: Camera) -> View:
    """Small pictures are drawn at twice their size and averaged down."""
    oversample = 2 if camera.width <= 800 else 1
    width, height = camera.width * oversample, camera.height * oversample
    intrinsic = np.diag([oversample, oversample, 1.0]) @ camera.intrinsic_33
    x = (np.arange(width) + 0.5 - intrinsic[0, 2]) / intrinsic[0, 0]
    y = (np.arange(height) + 0.5 - intrinsic[1, 2]) / intrinsic[1, 1]
    horizon = int(np.searchsorted(y, 1e-6))
    elevation = np.rad2deg(np.arctan2(-y[:horizon, None], np.hypot(1.0, x)[None]))
    azimuth = np.rad2deg(camera.yaw - np.arctan(x))
    row = np.clip(elevation * SKY_PER_DEGREE, 0, SKY_DEGREES * SKY_PER_DEGREE - 1).astype(np.intp)
    return View(
        camera,
        oversample,
        width,
        height,
        intrinsic,
        x.astype(np.float32),
        y.astype(np.float32),
        horizon,
        row,
        azimuth * SKY_PER_DEGREE,
    )


def draw_sky(rng: np.random.RandomState) -> np.ndarray:
    """(rows, columns, 3) uint8 BGR: row 0 is the horizon, columns go round to the left."""
    cv2 = load_cv2()
    rows, columns = SKY_DEGREES * SKY_PER_DEGREE, 360 * SKY_PER_DEGREE
    height = np.linspace(0.0, 1.0, rows)[:, None]
    blue = HAZE + (np.array((205, 150, 96)) - HAZE) * np.sqrt(height)[..., None]
    coarse = rng.normal(0.0, 1.0, (rows // 16, columns // 32)).astype(np.float32)
    around = np.concatenate([coarse[:, -3:], coarse, coarse[:, :3]], axis=1)  # so that the ends meet
    smooth = cv2.resize(around, (columns + 6 * 32, rows), interpolation=cv2.INTER_CUBIC)[:, 96:-96]
    cloud = np.clip(smooth, 0, 1.2)[..., None] / 1.6
    sky = blue * (1 - cloud) + np.array((244, 240, 238)) * cloud
    hills = (
        2.0
        + 1.2 * np.sin(np.linspace(0, 6 * np.pi, columns) + rng.uniform(0, 6))
        + rng.uniform(0.0, 2.5, columns // 24).repeat(24)
    )
    far = np.arange(rows)[:, None] < hills[None] * SKY_PER_DEGREE
    sky[far] = 0.72 * HAZE + 0.28 * np.array((110, 104, 92))
    return np.clip(sky, 0, 255).astype(np.uint8)


class SceneRenderer:
    """Draws one scene: holds its ground, sky and textures."""

    def __init__(self, world: World, views: Dict[str, View], rng: np.random.RandomState) -> None:
        self.world, self.views = world, views
        self.ground: Ground = draw_ground(world, rng)
        self.sky = draw_sky(rng)
        self.textures: Dict[str, List[np.ndarray]] = textures(rng)
        self.moving = np.nonzero(world.boxes.speed_N != 0.0)[0]

    def render(self, channel: str, t: float) -> Tuple[np.ndarray, np.ndarray]:
        """The picture at scene time `t` (s).

        Returns (height, width, 3) uint8 BGR and (N, 2) int: how many (sub)pixels of each box are visible,
        and how many would be if it stood alone.
        """
        view = self.views[channel]
        x, y, yaw = self.world.ego_pose(t)
        turn = rotation_z(yaw)
        origin = np.array([x, y, 0.0]) + turn @ np.array(view.camera.position_ego_m)
        camera2global = turn @ view.camera.camera2ego_33
        picture = _Frame(view, origin, camera2global, self._backdrop(view, origin, camera2global, yaw))
        pose_N4 = self.world.box_poses(t)
        regions = _regions(view, origin, camera2global, corners(pose_N4, self.world.boxes.size_N3))
        with np.errstate(divide="ignore", invalid="ignore"):
            for index in self.moving:
                self._cast_shadow(picture, index, pose_N4[index])
            for index, region in regions:
                self._draw_box(picture, index, pose_N4[index], region)
        visible = np.bincount(picture.owner.ravel() + 1, minlength=len(pose_N4) + 1)[1:]
        return picture.finish(), np.stack([visible, picture.alone_N(len(pose_N4))], axis=1)

    def _backdrop(self, view: View, origin: np.ndarray, camera2global: np.ndarray, yaw: float) -> np.ndarray:
        """Sky above the horizon, the ground seen in perspective below it, fading into the haze."""
        cv2 = load_cv2()
        bgr = np.empty((view.height, view.width, 3), np.uint8)
        column = (view.sky_column + np.rad2deg(yaw) * SKY_PER_DEGREE).astype(np.intp) % self.sky.shape[1]
        bgr[: view.horizon] = self.sky[view.sky_row, column[None]]
        plane = np.stack([camera2global[0], camera2global[1], -camera2global.T @ origin], axis=1)
        ground2image = view.intrinsic_33 @ plane @ self.ground.pixel2global_33
        shift = np.array([[1.0, 0.0, -0.5], [0.0, 1.0, -0.5 - view.horizon], [0.0, 0.0, 1.0]])
        below = cv2.warpPerspective(
            self.ground.bgr,
            np.linalg.inv(shift @ ground2image),
            (view.width, view.height - view.horizon),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=tuple(float(v) for v in GRASS[::-1]),
        )
        depth = origin[2] / view.y_H[view.horizon :]
        haze = np.round(256 * (1.0 - np.exp(-depth / HAZE_M))).astype(np.uint16)[:, None, None]
        bgr[view.horizon :] = (below * (256 - haze) + HAZE.astype(np.uint16) * haze) >> 8
        return bgr

    def _cast_shadow(self, picture: "_Frame", index: int, pose_4: np.ndarray) -> None:
        """The shadow of something that moves; the others' are part of the ground."""
        size = self.world.boxes.size_N3[index]
        shadow_4 = self.world.shadow(pose_4, size)
        spread = np.array([size[0] + 2 * SHADOW_SOFT_M, size[1] + 2 * SHADOW_SOFT_M, 0.02])
        around = corners(shadow_4[None], spread[None])
        for _, region in _regions(picture.view, picture.origin, picture.camera2global, around):
            hit = [face for face in picture.box_hits(shadow_4, spread / 2, region) if face.face == 4][0]
            light = shade(hit.across * spread[0] / 2, hit.up * spread[1] / 2, size)
            patch = picture.bgr[region]
            patch[:] = patch * np.where(hit.hit, light, 1.0)[..., None]

    def _draw_box(self, picture: "_Frame", index: int, pose_4: np.ndarray, region: Region) -> None:
        boxes = self.world.boxes
        size = boxes.size_N3[index]
        for hit in picture.box_hits(pose_4, size / 2, region):
            picture.count(index, hit)
            hit.hit[:] &= hit.t < picture.depth[region]
            where = np.flatnonzero(hit.hit)
            if len(where):
                texel = _texels(boxes.kinds[index], hit, where, size)
                gain = self._light(hit.face, pose_4[3]) * boxes.tint_N3[index]
                colours = np.minimum(
                    self.textures[boxes.kinds[index]][hit.face][texel] * gain.astype(np.float32), 255
                )
                picture.put(
                    region, where, hit.t.ravel()[where], colours, index, index >= self.world.num_things
                )

    def _light(self, face: int, yaw: float) -> float:
        """How bright a face is in this scene's sun."""
        cos, sin = np.cos(yaw), np.sin(yaw)
        normal = ((cos, sin, 0), (-cos, -sin, 0), (-sin, cos, 0), (sin, -cos, 0), (0, 0, 1), (0, 0, -1))[face]
        return 0.62 + 0.5 * max(0.0, float(np.dot(normal, self.world.sun_3)))


def _texels(kind: str, hit: FaceHit, where: np.ndarray, size: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the texture for the pixels `where` (flat indices)."""
    across, down = (hit.across.ravel()[where] + 1) / 2, (1 - hit.up.ravel()[where]) / 2
    if kind in TILE_M and hit.face < 4:
        wide, high = TILE_M[kind]
        across = across * round(size[1 if hit.face < 2 else 0] / wide) % 1.0
        down = down * round(size[2] / high) % 1.0
    return (
        np.minimum(down * HEIGHT, HEIGHT - 1).astype(np.intp),
        np.minimum(across * WIDTH, WIDTH - 1).astype(np.intp),
    )


class _Frame:
    """The buffers of one picture while it is drawn."""

    def __init__(self, view: View, origin: np.ndarray, camera2global: np.ndarray, bgr: np.ndarray) -> None:
        self.view, self.origin, self.camera2global, self.bgr = view, origin, camera2global, bgr
        self.depth = np.full((view.height, view.width), np.inf, np.float32)
        self.owner = np.full((view.height, view.width), -1, np.int32)
        self._alone: Dict[int, int] = {}

    def _in_box_frame(self, pose_4: np.ndarray, region: Region) -> Tuple[np.ndarray, List[np.ndarray]]:
        """The camera's centre and the rays of a region, in the frame of a box."""
        to_box = rotation_z(-pose_4[3])
        turn = (to_box @ self.camera2global).astype(np.float32)
        x, y = self.view.x_W[region[1]][None], self.view.y_H[region[0]][:, None]
        return to_box @ (self.origin - pose_4[:3]), [row[0] * x + (row[1] * y + row[2]) for row in turn]

    def box_hits(self, pose_4: np.ndarray, half_3: np.ndarray, region: Region) -> Iterator[FaceHit]:
        origin, (x, y, z) = self._in_box_frame(pose_4, region)
        return face_hits(origin, half_3, (x, y, z))

    def count(self, index: int, hit: FaceHit) -> None:
        self._alone[index] = self._alone.get(index, 0) + int(np.count_nonzero(hit.hit))

    def alone_N(self, num_boxes: int) -> np.ndarray:
        return np.array([self._alone.get(index, 0) for index in range(num_boxes)])

    def put(
        self,
        region: Region,
        where: np.ndarray,
        depth: np.ndarray,
        colours: np.ndarray,
        index: int,
        hazy: bool,
    ) -> None:
        """Writes pixels; `where` are flat indices into the region."""
        if hazy:
            haze = (1.0 - np.exp(depth * np.float32(-1.0 / HAZE_M)))[:, None]
            colours += (HAZE - colours) * haze
        row, column = np.divmod(where, region[1].stop - region[1].start)
        flat = (row + region[0].start) * self.view.width + column + region[1].start
        self.bgr.reshape(-1, 3)[flat] = colours
        self.depth.ravel()[flat] = depth
        self.owner.ravel()[flat] = index

    def finish(self) -> np.ndarray:
        """The picture at its final size."""
        if self.view.oversample == 1:
            return self.bgr
        cv2 = load_cv2()
        size = (self.view.camera.width, self.view.camera.height)
        return np.asarray(cv2.resize(self.bgr, size, interpolation=cv2.INTER_AREA))


def _regions(
    view: View, origin: np.ndarray, camera2global: np.ndarray, corners_N83: np.ndarray
) -> Iterator[Tuple[int, Region]]:
    """(index, region) of the boxes that reach into the picture, near ones first: less is overdrawn."""
    points_N83 = (corners_N83 - origin) @ camera2global
    ahead = np.nonzero((points_N83[..., 2] > NEAR_M).any(axis=1))[0]
    for index in ahead[np.argsort((points_N83[ahead] ** 2).sum(axis=2).min(axis=1), kind="stable")]:
        points = _in_front(points_N83[index]) @ view.intrinsic_33.T
        uv = points[:, :2] / points[:, 2:]
        low = np.clip(np.floor(uv.min(axis=0)), 0, (view.width, view.height)).astype(int)
        high = np.clip(np.ceil(uv.max(axis=0)), 0, (view.width, view.height)).astype(int)
        if (high > low).all():
            yield int(index), (slice(low[1], high[1]), slice(low[0], high[0]))


def _in_front(points_83: np.ndarray) -> np.ndarray:
    """The corners before the near plane, and where edges cross it."""
    front = points_83[:, 2] > NEAR_M
    if front.all():
        return points_83
    crossing = EDGES[front[EDGES[:, 0]] != front[EDGES[:, 1]]]
    a, b = points_83[crossing[:, 0]], points_83[crossing[:, 1]]
    share = (NEAR_M - a[:, 2:]) / (b[:, 2:] - a[:, 2:])
    return np.concatenate([points_83[front], a + share * (b - a)])
