"""Recording a scene: its world, the files of its sensors, and what the tables need to know of them."""

import os
import time
import zlib
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Tuple

import numpy as np

from bevformer.errors import UserError

from .layout import make_world
from .lidar import Sweep, scan
from .maps import place_scene
from .opencv import load_cv2
from .render import SceneRenderer, View
from .rig import LIDAR
from .weather import weathered, weathered_sweep
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
    """A scene as recorded, with the log it belongs to.

    `sweeps` are the files between key frames, each with the number of the sample nearest in time.
    """

    world: World
    logfile: str
    location: str
    keyframes: Tuple[Keyframe, ...]
    weather: str = "clear"
    sweeps: Tuple[Tuple[int, Shot], ...] = ()

    def files(self) -> List[str]:
        """Names of all its files, relative to the data root."""
        shots = [shot for keyframe in self.keyframes for shot in keyframe.shots]
        return [shot.filename for shot in shots + [shot for _, shot in self.sweeps]]


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
    """Drives through scenes and writes samples/ below `root`; `on_frame` is called after each sample.

    `sweeps` files per sensor go to sweeps/ between two key frames.
    """

    root: str
    views: Dict[str, View]
    seed: int
    times_s: np.ndarray
    on_frame: Callable[[], None]
    weather: str = "clear"
    sweeps: int = 0

    def record(self, name: str, number: int) -> Recording:
        """Makes and records the scene with this name and number."""
        world, sweeps = make_scene(name, number, self.times_s, self.seed)
        renderer = SceneRenderer(world, self.views, random_stream(self.seed, name, "paint"))
        day = time.strftime("%Y-%m-%d", time.gmtime(FIRST_DAY_S + number * DAY_S))
        drive = _Drive(self, renderer, "n%03d-%s-12-26-40+0000" % (900 + self.seed % 100, day))
        keyframes = []
        for index, (t, sweep) in enumerate(zip(self.times_s, sweeps)):
            keyframes.append(drive.keyframe(float(t), sweep))
            if index + 1 < len(self.times_s):
                drive.between(index, float(t), float(self.times_s[index + 1]))
            self.on_frame()
        location = place_scene(number)[0]
        return Recording(
            world, drive.logfile, location, tuple(keyframes), self.weather, tuple(drive.sweeps_taken)
        )


@dataclass(frozen=True)
class _Drive:
    """One scene while it is recorded."""

    recorder: Recorder
    renderer: SceneRenderer
    logfile: str
    sweeps_taken: List[Tuple[int, Shot]] = field(default_factory=list)

    @property
    def world(self) -> World:
        return self.renderer.world

    def keyframe(self, t: float, sweep: Sweep) -> Keyframe:
        """Writes the seven files of a sample.  The cameras expose shortly before the lidar's time stamp."""
        things = self.world.num_things
        shots, seen = [], np.zeros((len(self.world.boxes), 2), np.int64)
        for channel in self.recorder.views:
            shot, pixels = self._picture("samples", channel, t)
            shots.append(shot)
            seen += pixels
        shots.append(self._cloud("samples", t, sweep))
        visible = seen[:things, 0] / np.maximum(seen[:things, 1], 1)
        poses_N4 = self.world.box_poses(t)[:things]
        return Keyframe(shots[-1].timestamp_us, tuple(shots), poses_N4, sweep.hits_N[:things], visible)

    def between(self, index: int, start_s: float, end_s: float) -> None:
        """The files between key frame `index` and the next, evenly spaced."""
        count = self.recorder.sweeps
        for step in range(1, count + 1):
            t = start_s + (end_s - start_s) * step / (count + 1)
            nearest = index if 2 * step <= count + 1 else index + 1
            for channel in self.recorder.views:
                self.sweeps_taken.append((nearest, self._picture("sweeps", channel, t)[0]))
            rng = random_stream(self.recorder.seed, self.world.name, "lidar", index, step)
            self.sweeps_taken.append((nearest, self._cloud("sweeps", t, scan(self.world, t, rng))))

    def _picture(self, folder: str, channel: str, t: float) -> Tuple[Shot, np.ndarray]:
        exposed_s = t + self.recorder.views[channel].camera.delay_s
        picture, pixels = self.renderer.render(channel, exposed_s)
        shot = _shot(self.world, self.logfile, folder, channel, exposed_s, "jpg")
        rng = self._weather_stream(channel, shot)
        self._write(shot, _jpeg(weathered(self.recorder.weather, picture, channel, rng)))
        return shot, pixels

    def _cloud(self, folder: str, t: float, sweep: Sweep) -> Shot:
        shot = _shot(self.world, self.logfile, folder, LIDAR, t, "pcd.bin")
        seen = weathered_sweep(self.recorder.weather, sweep, self._weather_stream(LIDAR, shot))
        self._write(shot, seen.points_P5.tobytes())
        return shot

    def _weather_stream(self, channel: str, shot: Shot) -> np.random.RandomState:
        return random_stream(self.recorder.seed, self.world.name, "weather", channel, shot.timestamp_us)

    def _write(self, shot: Shot, content: bytes) -> None:
        with open(os.path.join(self.recorder.root, shot.filename), "wb") as stream:
            stream.write(content)


def _jpeg(picture: np.ndarray) -> bytes:
    cv2 = load_cv2()
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())


def _shot(world: World, logfile: str, folder: str, channel: str, t: float, ending: str) -> Shot:
    timestamp_us = world.start_us + int(round(t * 1e6))
    filename = "%s/%s/%s__%s__%d.%s" % (folder, channel, logfile, channel, timestamp_us, ending)
    return Shot(channel, filename, timestamp_us, world.ego_pose(t))
