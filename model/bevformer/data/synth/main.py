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
from dataclasses import dataclass
from typing import Any, Dict, List

import numpy as np

from bevformer.errors import ConfigError, DataError, DiskError
from bevformer.talk import Talk

from .archive import write_archives
from .can import can_messages
from .maps import draw_maps
from .opencv import load_cv2
from .recording import Recorder, Recording
from .render import make_view
from .rig import CHANNELS, Camera, cameras
from .world import World
from .write_tables import Tokens, build_tables

VERSION = "v1.0-mini"
# v1.0-mini's scenes in their order; 0103 and 0916 are mini_val, the others mini_train
SCENES = tuple("scene-%04d" % number for number in (61, 103, 553, 655, 757, 796, 916, 1077, 1094, 1100))
MARKER = "synth.json"
FORMAT = 1  # raised whenever the same options give another set
PERIOD_S = 0.5


@dataclass(frozen=True)
class Options:
    seed: int
    scenes: int
    samples: int
    scale: float

    @property
    def recipe(self) -> Dict[str, Any]:
        return {
            "made_by": "bevformer synth",
            "format": FORMAT,
            "version": VERSION,
            "seed": self.seed,
            "scenes": self.scenes,
            "samples": self.samples,
            "scale": self.scale,
        }


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
    out = os.path.realpath(args.out)
    _check_target(out, args.force)
    load_cv2()
    archives = write_set(out, options, talk)
    talk.result(
        out=out,
        data_root=os.path.join(out, "nuscenes"),
        frames=options.scenes * options.samples,
        archives=[os.path.join(out, "archives", name) for name in archives],
        seed=options.seed,
    )
    return 0


def _check(options: Options) -> None:
    for name, value, low, high in (
        ("--scenes", options.scenes, 2, len(SCENES)),
        ("--samples", options.samples, 2, 40),
        ("--scale", options.scale, 0.05, 1.0),
        ("--seed", options.seed, 0, 2**31 - 1),
    ):
        if not low <= value <= high:
            raise ConfigError(
                "%s %s is out of range" % (name, value), do="Choose %s from %s to %s." % (name, low, high)
            )


def _check_target(out: str, force: bool) -> None:
    """Nothing that this command did not make is ever replaced."""
    if os.path.ismount(out):
        raise DataError(
            "%s is a mount point" % out,
            "The set is moved into place by renaming a folder.",
            "Name a folder inside of it.",
        )
    if not os.path.lexists(out) or (os.path.isdir(out) and not os.listdir(out)):
        return
    if not os.path.isdir(out):
        raise DataError("%s exists and is not a folder" % out, do="Name another folder.")
    foreign = sorted(set(os.listdir(out)) - {MARKER, "nuscenes", "archives"})
    if foreign or not os.path.isfile(os.path.join(out, MARKER)):
        raise DataError(
            "%s is not empty and was not made by this command" % out,
            "It holds: " + ", ".join(foreign or sorted(os.listdir(out)))[:200],
            "Name a new folder; --force replaces only what this command made.",
        )
    if not force:
        raise DataError(
            "%s already holds a synthetic set" % out, do="Name a new folder, or add --force to replace it."
        )


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
    need = options.scenes * options.samples * (1.0e6 + 4.0e6 * options.scale**1.5) + 20e6
    free = shutil.disk_usage(parent).free
    if free < need:
        raise DiskError(
            "%s has %.0f MB free, the set needs about %.0f MB" % (parent, free / 1e6, need / 1e6),
            do="Free some space, name a folder on another disk, or ask for fewer --scenes or --samples.",
        )


def _move_into_place(building: str, out: str) -> None:
    """An old set is moved aside first and removed last, so that one of the two is always there."""
    if not os.path.isdir(out):
        os.replace(building, out)
        return
    aside = tempfile.mkdtemp(prefix=".%s.old-" % os.path.basename(out), dir=os.path.dirname(out))
    os.replace(out, aside)
    os.replace(building, out)
    shutil.rmtree(aside)


def _write_json(path: str, content: Any) -> None:
    """A list gets a line per row; `indent` would leave json's fast encoder."""
    rows = content if isinstance(content, list) else None
    text = json.dumps(content) if rows is None else "[\n%s\n]" % ",\n".join(json.dumps(row) for row in rows)
    _write_bytes(path, (text + "\n").encode())


def _write_bytes(path: str, content: bytes) -> None:
    with open(path, "wb") as stream:
        stream.write(content)


def _write_nuscenes(root: str, options: Options, talk: Talk) -> None:
    rig = cameras(options.scale)
    channels = ["samples/" + channel for channel in CHANNELS]
    for folder in ["maps", "sweeps", "can_bus", VERSION] + channels:
        os.makedirs(os.path.join(root, folder))
    recordings = _record(root, options, rig, talk)
    by_location: Dict[str, List[World]] = {}
    for recording in recordings:
        by_location.setdefault(recording.location, []).append(recording.world)
        _write_can(root, recording.world, options)
    recipe = json.dumps(options.recipe, sort_keys=True)
    map_files = {}
    for location, png in draw_maps(by_location).items():
        map_files[location] = "maps/%s.png" % Tokens(recipe)("map", location)
        _write_bytes(os.path.join(root, map_files[location]), png)
    for table, rows in build_tables(recordings, rig, recipe, map_files).items():
        _write_json(os.path.join(root, VERSION, table + ".json"), rows)


def _record(root: str, options: Options, rig: List[Camera], talk: Talk) -> List[Recording]:
    views = {camera.channel: make_view(camera) for camera in rig}
    total, done = options.scenes * options.samples, [0]

    def count() -> None:
        done[0] += 1
        talk.progress("synth", done[0], total, SCENES[(done[0] - 1) // options.samples])

    talk.progress("synth", 0, total, SCENES[0])
    recorder = Recorder(root, views, options.seed, np.arange(options.samples) * PERIOD_S, count)
    return [recorder.record(name, number) for number, name in enumerate(SCENES[: options.scenes])]


def _write_can(root: str, world: World, options: Options) -> None:
    for message, content in can_messages(world, (options.samples - 1) * PERIOD_S).items():
        _write_json(os.path.join(root, "can_bus", "%s_%s.json" % (world.name, message)), content)
