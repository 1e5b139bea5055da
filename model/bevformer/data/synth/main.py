"""`bevformer synth OUT`: writes the synthetic set, as folders and as archives.

    OUT/nuscenes/{samples,sweeps,maps,v1.0-mini,can_bus}
    OUT/archives/{v1.0-mini.tgz,v1.0-mini.tar,can_bus.zip}, or named like trainval's or test's
    OUT/synth.json          what made it, and what was broken on purpose; `--force` replaces only a folder
                            that has this file

Everything is written into a folder beside OUT and renamed at the end: OUT is whole or absent.
"""

import json
import os
import shutil
import tempfile
from typing import Any, Dict, List, Tuple

import numpy as np

from bevformer.data.can_bus import WITHOUT_CAN
from bevformer.errors import DataError, DiskError
from bevformer.talk import Talk

from .archive import parcels
from .can import can_messages
from .defects import DEFECTS, Damage
from .maps import draw_maps
from .opencv import load_cv2
from .recording import Recorder, Recording
from .render import make_view
from .rig import CHANNELS, Camera, cameras
from .sets import Options, parse
from .shot_rows import Tokens
from .world import World
from .write_tables import build_tables

MARKER = "synth.json"
PERIOD_S = 0.5


def main(argv: List[str], talk: Talk) -> int:
    args, options = parse(argv, DEFECTS)
    out = os.path.realpath(args.out)
    _check_target(out, args.force)
    load_cv2()
    if args.dry_run:
        options.scene_names()
        talk.result(out=out, frames=options.frames, mb=round(_needs_mb(options)), dry_run=True)
        return 0
    archives, records = write_set(out, options, talk)
    result = dict(
        out=out,
        data_root=os.path.join(out, "nuscenes"),
        frames=options.frames,
        archives=[os.path.join(out, "archives", name) for name in archives],
        seed=options.seed,
    )
    if records:
        result["defects"] = records
    talk.result(**result)
    return 0


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


def write_set(out: str, options: Options, talk: Talk) -> Tuple[List[str], List[Dict[str, Any]]]:
    """Makes the set beside OUT, then moves it there.  Returns the archives' names and the defects."""
    parent, name = os.path.split(out)
    scenes = options.scene_names()
    os.makedirs(parent, exist_ok=True)
    _check_space(parent, options)
    building = tempfile.mkdtemp(prefix=".%s.synth-" % name, dir=parent)
    damage = Damage(options.defects, options.seed)
    try:
        nuscenes, folder = os.path.join(building, "nuscenes"), os.path.join(building, "archives")
        os.makedirs(folder)
        recordings = _write_nuscenes(nuscenes, options, scenes, talk)
        damage.to_set(nuscenes, options.version, scenes)
        wanted = parcels(nuscenes, options, [recording.files() for recording in recordings])
        archives = damage.write_archives(nuscenes, wanted, folder)
        told = {"defects": damage.records} if damage.records else {}
        _write_json(os.path.join(building, MARKER), {**options.recipe, **options.packing, **told})
        os.chmod(building, 0o755)
        _move_into_place(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return archives, damage.records


def _check_space(parent: str, options: Options) -> None:
    """Refuses early where the set cannot fit."""
    free_mb, need_mb = shutil.disk_usage(parent).free / 1e6, _needs_mb(options)
    if free_mb < need_mb:
        raise DiskError(
            "%s has %.0f MB free, the set needs about %.0f MB" % (parent, free_mb, need_mb),
            do="Free some space, name a folder on another disk, or ask for fewer --scenes or --samples.",
        )


def _needs_mb(options: Options) -> float:
    """About 1 MB a frame for lidar, pictures by their size; folders and archives together."""
    frames = options.frames * (1 + options.sweeps) * (1 + len(options.packs)) / 2
    return frames * (1.0 + 4.0 * options.scale**1.5) + 20.0


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


def _write_nuscenes(root: str, options: Options, scenes: List[str], talk: Talk) -> List[Recording]:
    rig = cameras(options.scale)
    channels = ["samples/" + channel for channel in CHANNELS]
    if options.sweeps:
        channels += ["sweeps/" + channel for channel in CHANNELS]
    for folder in ["maps", "sweeps", "can_bus", options.version] + channels:
        os.makedirs(os.path.join(root, folder), exist_ok=True)
    recordings = _record(root, options, rig, scenes, talk)
    by_location: Dict[str, List[World]] = {}
    for recording in recordings:
        by_location.setdefault(recording.location, []).append(recording.world)
        _write_can(root, recording.world, options)
    recipe = json.dumps(options.recipe, sort_keys=True)
    map_files = {}
    for location, png in draw_maps(by_location).items():
        map_files[location] = "maps/%s.png" % Tokens(recipe)("map", location)
        _write_bytes(os.path.join(root, map_files[location]), png)
    tables = build_tables(recordings, rig, recipe, map_files, with_boxes=options.kind != "test")
    for table, rows in tables.items():
        _write_json(os.path.join(root, options.version, table + ".json"), rows)
    return recordings


def _record(root: str, options: Options, rig: List[Camera], scenes: List[str], talk: Talk) -> List[Recording]:
    views = {camera.channel: make_view(camera) for camera in rig}
    total, done = options.frames, [0]

    def count() -> None:
        done[0] += 1
        talk.progress("synth", done[0], total, scenes[(done[0] - 1) // options.samples])

    talk.progress("synth", 0, total, scenes[0])
    times_s = np.arange(options.samples) * PERIOD_S
    recorder = Recorder(root, views, options.seed, times_s, count, options.weather, options.sweeps)
    return [recorder.record(name, number) for number, name in enumerate(scenes)]


def _write_can(root: str, world: World, options: Options) -> None:
    if int(world.name[-4:]) in WITHOUT_CAN:  # as in the official set
        return
    for message, content in can_messages(world, (options.samples - 1) * PERIOD_S).items():
        _write_json(os.path.join(root, "can_bus", "%s_%s.json" % (world.name, message)), content)
