"""Recording a scene: its world, the files of its sensors, and what the tables need to know of them."""

import os
import zlib
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Tuple

import numpy as np

from bevformer.errors import UserError

from .layout import make_world
from .lidar import Sweep, scan
from .maps import place_scene
from .opencv import load_cv2
from .render import SceneRenderer, View
from .rig import LIDAR
from .world import World

JPEG_QUALITY = 92
MIN_LIDAR_POINTS = 2
MAX_ATTEMPTS = 100
FIRST_DAY_S = 1600000000  # 2020-09-13, 12:26:40 UTC; every scene is driven on a day of its own
DAY_S = 86400


@dataclass(frozen=True)
class Shot:
    """One file of one sensor: the time it was taken and where the ego was."""

    channel: str
    filename: str
    timestamp_us: int
    ego_pose: Tuple[float, float, float]


@dataclass(frozen=True)
class Keyframe:
    """A sample: its files, and per annotated box the pose, the lidar points and the visible share."""

    timestamp_us: int
    shots: Tuple[Shot, ...]
    poses_N4: np.ndarray
    lidar_points_N: np.ndarray
    visible_N: np.ndarray


@dataclass(frozen=True)
class Recording:
    """A scene as recorded, with the log it belongs to."""

    world: World
    logfile: str
    location: str
    keyframes: Tuple[Keyframe, ...]


def random_stream(*name: Any) -> np.random.RandomState:
    """A stream of its own for everything that is drawn by chance; the legacy generator never changes."""
    return np.random.RandomState(zlib.crc32("|".join(str(part) for part in name).encode()))


def make_scene(name: str, number: int, times_s: np.ndarray, seed: int) -> Tuple[World, List[Sweep]]:
    """A world in which the lidar meets every thing in every key frame: others are no ground truth."""
    _, origin_m = place_scene(number)
    start_us = 1000000 * (FIRST_DAY_S + number * DAY_S)
    for attempt in range(MAX_ATTEMPTS):
        world = make_world(name, origin_m, start_us, times_s, random_stream(seed, name, "layout", attempt))
        sweeps = []
        for index, t in enumerate(times_s):
            sweeps.append(scan(world, float(t), random_stream(seed, name, "lidar", index)))
            if sweeps[-1].hits_N[: world.num_things].min() < MIN_LIDAR_POINTS:
                break
        else:
            return world, sweeps
    raise UserError(
        "%s: in %d layouts something stayed hidden from the lidar" % (name, MAX_ATTEMPTS),
        do="Try another --seed.",
    )


@dataclass(frozen=True)
class Recorder:
    """Drives through scenes and writes samples/ below `root`; `on_frame` is called after each sample."""

    root: str
    views: Dict[str, View]
    seed: int
    times_s: np.ndarray
    on_frame: Callable[[], None]

    def record(self, name: str, number: int) -> Recording:
        """Makes and records the scene with this name and number."""
        world, sweeps = make_scene(name, number, self.times_s, self.seed)
        renderer = SceneRenderer(world, self.views, random_stream(self.seed, name, "paint"))
        logfile = "n%03d-2020-09-%02d-12-26-40+0000" % (900 + self.seed % 100, 13 + number)
        keyframes = []
        for t, sweep in zip(self.times_s, sweeps):
            keyframes.append(self._keyframe(renderer, logfile, float(t), sweep))
            self.on_frame()
        return Recording(world, logfile, place_scene(number)[0], tuple(keyframes))

    def _keyframe(self, renderer: SceneRenderer, logfile: str, t: float, sweep: Sweep) -> Keyframe:
        """Writes the seven files of a sample.  The cameras expose shortly before the lidar's time stamp."""
        world = renderer.world
        things = world.num_things
        shots, seen = [], np.zeros((len(world.boxes), 2), np.int64)
        for channel, view in self.views.items():
            exposed_s = t + view.camera.delay_s
            picture, pixels = renderer.render(channel, exposed_s)
            seen += pixels
            shots.append(_shot(world, logfile, channel, exposed_s, "jpg"))
            self._write(shots[-1], _jpeg(picture))
        shots.append(_shot(world, logfile, LIDAR, t, "pcd.bin"))
        self._write(shots[-1], sweep.points_P5.tobytes())
        visible = seen[:things, 0] / np.maximum(seen[:things, 1], 1)
        poses_N4 = world.box_poses(t)[:things]
        return Keyframe(shots[-1].timestamp_us, tuple(shots), poses_N4, sweep.hits_N[:things], visible)

    def _write(self, shot: Shot, content: bytes) -> None:
        with open(os.path.join(self.root, shot.filename), "wb") as stream:
            stream.write(content)


def _jpeg(picture: np.ndarray) -> bytes:
    cv2 = load_cv2()
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())


def _shot(world: World, logfile: str, channel: str, t: float, ending: str) -> Shot:
    timestamp_us = world.start_us + int(round(t * 1e6))
    filename = "samples/%s/%s__%s__%d.%s" % (channel, logfile, channel, timestamp_us, ending)
    return Shot(channel, filename, timestamp_us, world.ego_pose(t))
