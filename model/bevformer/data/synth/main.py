"""`bevformer synth OUT`: writes the synthetic set, as folders and as archives.

    OUT/nuscenes/{samples,sweeps,maps,v1.0-mini,can_bus}
    OUT/archives/{v1.0-mini.tgz,v1.0-mini.tar,can_bus.zip}
    OUT/synth.json          what made it; `--force` replaces only a folder that has this file

Everything is written into a folder beside OUT and renamed at the end: OUT is whole or absent.
"""
import argparse
import json
import os
import shutil
import tempfile
import zlib
from dataclasses import dataclass
from typing import Any, Dict, List, Tuple

import numpy as np

from ...errors import ConfigError, DataError, DiskError, UserError
from ...talk import Talk
from .archive import write_archives
from .can import can_messages
from .layout import make_world
from .lidar import Sweep, scan
from .maps import draw_maps, place_scene
from .opencv import load_cv2
from .render import SceneRenderer, View, make_view
from .rig import LIDAR, Camera, cameras
from .world import World
from .write_tables import Keyframe, Recording, Shot, build_tables

VERSION = "v1.0-mini"
SCENES = ("scene-0061", "scene-0103", "scene-0553", "scene-0655", "scene-0757",
          "scene-0796", "scene-0916", "scene-1077", "scene-1094", "scene-1100")  # 0103 and 0916 are mini_val
MARKER = "synth.json"
FORMAT = 1                   # raised whenever the same options give another set
PERIOD_S = 0.5
JPEG_QUALITY = 92
MIN_LIDAR_POINTS = 2
MAX_ATTEMPTS = 100


@dataclass(frozen=True)
class Options:
    seed: int
    scenes: int
    samples: int
    scale: float

    @property
    def recipe(self) -> Dict[str, Any]:
        return {"made_by": "bevformer synth", "format": FORMAT, "version": VERSION, "seed": self.seed,
                "scenes": self.scenes, "samples": self.samples, "scale": self.scale}


def main(argv: List[str], talk: Talk) -> int:
    parser = argparse.ArgumentParser(prog="synth", description="Write a synthetic set in nuScenes format.")
    parser.add_argument("out", metavar="OUT", help="folder to make")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=10, help="2 to 10 (the ten scenes of v1.0-mini)")
    parser.add_argument("--samples", type=int, default=10, help="key frames per scene, 2 to 40, two a second")
    parser.add_argument("--scale", type=float, default=0.16, help="image size, times 1600x900")
    parser.add_argument("--force", action="store_true", help="replace a set that this command made")
    args = parser.parse_args(argv)
    options = Options(args.seed, args.scenes, args.samples, args.scale)
    _check(options)
    out = os.path.abspath(args.out)
    _check_target(out, args.force)
    load_cv2()
    archives = write_set(out, options, talk)
    talk.result(out=out, data_root=os.path.join(out, "nuscenes"), frames=options.scenes * options.samples,
                archives=[os.path.join(out, "archives", name) for name in archives], seed=options.seed)
    return 0


def _check(options: Options) -> None:
    for name, value, low, high in (("--scenes", options.scenes, 2, len(SCENES)), ("--samples", options.samples, 2, 40),
                                   ("--scale", options.scale, 0.05, 1.0), ("--seed", options.seed, 0, 2 ** 31 - 1)):
        if not low <= value <= high:
            raise ConfigError("%s %s is out of range" % (name, value), do="Choose %s from %s to %s." % (name, low, high))


def _check_target(out: str, force: bool) -> None:
    """Nothing that this command did not make is ever replaced."""
    if os.path.ismount(out):
        raise DataError("%s is a mount point" % out, "The set is moved into place by renaming a folder.",
                        "Name a folder inside of it.")
    if not os.path.lexists(out) or (os.path.isdir(out) and not os.listdir(out)):
        return
    if not os.path.isdir(out):
        raise DataError("%s exists and is not a folder" % out, do="Name another folder.")
    foreign = sorted(set(os.listdir(out)) - {MARKER, "nuscenes", "archives"})
    if foreign or not os.path.isfile(os.path.join(out, MARKER)):
        raise DataError("%s is not empty and was not made by this command" % out,
                        "It holds: " + ", ".join(foreign or sorted(os.listdir(out)))[:200],
                        "Name a new folder; --force replaces only what this command made.")
    if not force:
        raise DataError("%s already holds a synthetic set" % out, do="Name a new folder, or add --force to replace it.")


def write_set(out: str, options: Options, talk: Talk) -> List[str]:
    """Makes the set beside OUT, then moves it there.  Returns the archives' names."""
    parent, name = os.path.split(out)
    os.makedirs(parent, exist_ok=True)
    _check_space(parent, options)
    building = tempfile.mkdtemp(prefix=".%s.synth-" % name, dir=parent)
    try:
        nuscenes, folder = os.path.join(building, "nuscenes"), os.path.join(building, "archives")
        os.makedirs(folder)
        _write_nuscenes(nuscenes, options, talk)
        archives = write_archives(nuscenes, VERSION, folder)
        _write_json(os.path.join(building, MARKER), options.recipe)
        os.chmod(building, 0o755)
        _move_into_place(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return archives


def _check_space(parent: str, options: Options) -> None:
    """Refuses early where the set cannot fit: about 1 MB a frame for lidar, pictures by their size."""
    need = options.scenes * options.samples * (1.0e6 + 4.0e6 * options.scale ** 1.5) + 20e6
    free = shutil.disk_usage(parent).free
    if free < need:
        raise DiskError("%s has %.0f MB free, the set needs about %.0f MB" % (parent, free / 1e6, need / 1e6),
                        do="Free some space, name a folder on another disk, or ask for fewer --scenes or --samples.")


def _move_into_place(building: str, out: str) -> None:
    """An old set is moved aside first and removed last, so that one of the two is always there."""
    if not os.path.isdir(out):
        os.replace(building, out)
        return
    aside = tempfile.mkdtemp(prefix=".%s.old-" % os.path.basename(out), dir=os.path.dirname(out))
    os.replace(out, aside)
    os.replace(building, out)
    shutil.rmtree(aside)


def _random(*name: Any) -> np.random.RandomState:
    """A stream of its own for everything that is drawn by chance; the legacy generator never changes."""
    return np.random.RandomState(zlib.crc32("|".join(str(part) for part in name).encode()))


def _write_json(path: str, content: Any) -> None:
    """A list gets a line per row; `indent` would leave json's fast encoder."""
    rows = content if isinstance(content, list) else None
    text = json.dumps(content) if rows is None else "[\n%s\n]" % ",\n".join(json.dumps(row) for row in rows)
    _write_bytes(path, (text + "\n").encode())


def _write_nuscenes(root: str, options: Options, talk: Talk) -> None:
    rig = cameras(options.scale)
    for folder in ["maps", "sweeps", "can_bus", VERSION] + ["samples/" + c.channel for c in rig] + ["samples/" + LIDAR]:
        os.makedirs(os.path.join(root, folder))
    views = {camera.channel: make_view(camera) for camera in rig}
    times_s = np.arange(options.samples) * PERIOD_S
    total = options.scenes * options.samples
    recordings: List[Recording] = []
    by_location: Dict[str, List[World]] = {}
    for index, name in enumerate(SCENES[:options.scenes]):
        location, origin_m = place_scene(index)
        start_us = 1600000000000000 + index * 86400000000 + 17 * index
        world, sweeps = _make_scene(name, origin_m, start_us, times_s, options.seed)
        by_location.setdefault(location, []).append(world)
        recordings.append(_record_scene(root, world, sweeps, location, views, times_s, options, talk))
        for message, content in can_messages(world, float(times_s[-1])).items():
            _write_json(os.path.join(root, "can_bus", "%s_%s.json" % (name, message)), content)
        talk.progress("synth", (index + 1) * options.samples, total, name)
    recipe = json.dumps(options.recipe, sort_keys=True)
    map_files = {}
    for location, png in draw_maps(by_location).items():
        map_files[location] = "maps/%08x%s.png" % (zlib.crc32(recipe.encode()), location.replace("-", ""))
        _write_bytes(os.path.join(root, map_files[location]), png)
    for table, rows in build_tables(recordings, rig, recipe, map_files).items():
        _write_json(os.path.join(root, VERSION, table + ".json"), rows)


def _write_bytes(path: str, content: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(content)


def _make_scene(name: str, origin_m: Tuple[float, float], start_us: int, times_s: np.ndarray,
                seed: int) -> Tuple[World, List[Sweep]]:
    """A world in which the lidar meets every thing in every key frame: others are no ground truth."""
    for attempt in range(MAX_ATTEMPTS):
        world = make_world(name, origin_m, start_us, times_s, _random(seed, name, "layout", attempt))
        sweeps = []
        for index, t in enumerate(times_s):
            sweeps.append(scan(world, float(t), _random(seed, name, "lidar", index)))
            if sweeps[-1].hits_N[:world.num_things].min() < MIN_LIDAR_POINTS:
                break
        else:
            return world, sweeps
    raise UserError("%s: in %d layouts something stayed hidden from the lidar" % (name, MAX_ATTEMPTS),
                    do="Try another --seed.")


def _record_scene(root: str, world: World, sweeps: List[Sweep], location: str, views: Dict[str, View],
                  times_s: np.ndarray, options: Options, talk: Talk) -> Recording:
    renderer = SceneRenderer(world, views, _random(options.seed, world.name, "paint"))
    day = world.start_us // 86400000000 - 1600000000000000 // 86400000000 + 1
    logfile = "n%03d-2020-09-%02d-12-26-40+0000" % (900 + options.seed % 100, 12 + day)
    keyframes = []
    for index, t in enumerate(times_s):
        talk.progress("synth", SCENES.index(world.name) * len(times_s) + index, options.scenes * len(times_s), world.name)
        keyframes.append(_record_keyframe(root, world, renderer, logfile, float(t), sweeps[index]))
    return Recording(world, logfile, location, tuple(keyframes))


def _record_keyframe(root: str, world: World, renderer: SceneRenderer, logfile: str, t: float,
                     sweep: Sweep) -> Keyframe:
    """Writes the seven files of a sample.  The cameras expose shortly before the lidar's time stamp."""
    cv2 = load_cv2()
    things = world.num_things
    shots, seen = [], np.zeros((len(world.boxes), 2), np.int64)
    for channel, view in renderer.views.items():
        camera: Camera = view.camera
        picture, pixels = renderer.render(channel, t + camera.delay_s)
        seen += pixels
        shots.append(_shot(world, logfile, channel, t + camera.delay_s, "jpg"))
        _write_bytes(os.path.join(root, shots[-1].filename),
                     cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())
    shots.append(_shot(world, logfile, LIDAR, t, "pcd.bin"))
    _write_bytes(os.path.join(root, shots[-1].filename), sweep.points_P5.tobytes())
    return Keyframe(shots[-1].timestamp_us, tuple(shots), world.box_poses(t)[:things], sweep.hits_N[:things],
                    seen[:things, 0] / np.maximum(seen[:things, 1], 1))


def _shot(world: World, logfile: str, channel: str, t: float, ending: str) -> Shot:
    timestamp_us = world.start_us + int(round(t * 1e6))
    filename = "samples/%s/%s__%s__%d.%s" % (channel, logfile, channel, timestamp_us, ending)
    return Shot(channel, filename, timestamp_us, world.ego_pose(t))
