"""`prepare`: tables and CAN data -> nuscenes_infos_temporal_{train,val}.pkl in a folder of the user's."""

import argparse
import os
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from bevformer import __version__
from bevformer.errors import DataError, DiskError
from bevformer.talk import Talk
from bevformer.types import CAMERAS

from .can_bus import can_bus_at, pose_messages
from .infos import file_name, save_infos
from .sample_info import Info, sample_info
from .splits import scene_names
from .store import Store, open_store
from .tables import Row, Tables, load_tables, only_version


@dataclass(frozen=True)
class Prepared:
    """Frames by split (train and val, or test), and what is worth telling."""

    splits: Dict[str, List[Info]]
    metadata: Dict[str, Any]
    notes: Tuple[str, ...]


def main(argv: List[str], talk: Talk) -> int:
    args = _parser().parse_args(argv)
    store = open_store(args.data_root)
    check_out(args.out, args.data_root)
    version = args.version or only_version(store)
    prepared = prepare(store, version, talk, allow_no_can=args.no_can_bus)
    paths = {split: os.path.join(args.out, file_name(split)) for split in prepared.splits}
    if not args.dry_run:
        paths = save_infos(make_folder(args.out), prepared.splits, prepared.metadata)
    for note in prepared.notes:
        talk.note(note)
    talk.result(
        verb="prepare",
        files=paths,
        version=version,
        frames={split: len(infos) for split, infos in prepared.splits.items()},
        digest=prepared.metadata["bevrepro_tables_digest"],
        zero_can_scenes=prepared.metadata["zero_can_scenes"],
        dry_run=args.dry_run,
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bevformer prepare", description=__doc__)
    parser.add_argument(
        "--data-root",
        action="append",
        required=True,
        metavar="DIR|ARCHIVE",
        help="folder or archive; give it again to lay others over it",
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="where the files go; never inside the data"
    )
    parser.add_argument(
        "--version", help="v1.0-mini, v1.0-trainval or v1.0-test; the only one present if left out"
    )
    parser.add_argument("--dry-run", action="store_true", help="read and check everything, write nothing")
    parser.add_argument(
        "--no-can-bus",
        action="store_true",
        help="go on without any CAN data (its 9 numbers are zero; changes the result)",
    )
    return parser


def check_out(out: str, roots: Sequence[str]) -> None:
    """DataError when `out` lies within a data folder."""
    target = os.path.realpath(out)
    for root in roots:
        if os.path.isdir(root):
            folder = os.path.realpath(root)
            if os.path.commonpath([target, folder]) == folder:
                raise DataError(
                    "%s lies inside the data %s" % (out, root),
                    "Nothing is written into the data.",
                    "Name a folder elsewhere with --out.",
                )


def make_folder(out: str) -> str:
    """Created with its parents.  DiskError when that is not possible."""
    try:
        os.makedirs(out, exist_ok=True)
    except OSError as error:
        raise DiskError(
            "cannot make the folder %s: %s" % (out, error.strerror), do="Name another folder with --out."
        ) from error
    return out


def prepare(store: Store, version: str, talk: Talk, allow_no_can: bool = False) -> Prepared:
    """Read everything and build the frames; writes nothing.  DataError as the parts say."""
    tables = load_tables(store, version)
    check_images(tables, store)
    messages, zero_scenes = _can_of_scenes(tables, store, allow_no_can)
    train_names, val_names = scene_names(version)
    test = version == "v1.0-test"
    splits: Dict[str, List[Info]] = {"test": []} if test else {"train": [], "val": []}
    scenes = [scene for scene in tables.scenes if tables.samples_of(scene)]
    total, done = len(tables.samples), 0
    for scene in scenes:
        # Quirk of upstream: whatever is not in the train list validates.
        split = "test" if test else "train" if scene["name"] in train_names else "val"
        for frame_idx, sample in enumerate(tables.samples_of(scene)):
            can_bus = can_bus_at(messages[scene["name"]], sample["timestamp"])
            splits[split].append(sample_info(tables, sample, can_bus, frame_idx, with_boxes=not test))
            done += 1
            talk.progress("prepare", done, total, scene["name"])
    metadata = dict(
        version=version,
        bevrepro_tables_digest=tables.digest,
        tool="bevformer " + __version__,
        zero_can_scenes=zero_scenes,
    )
    unknown = [scene["name"] for scene in scenes if scene["name"] not in train_names | val_names]
    return Prepared(splits, metadata, tuple(_notes(zero_scenes, len(scenes), unknown, test)))


def _notes(zero_scenes: List[str], scenes: int, unknown: List[str], test: bool) -> List[str]:
    notes = []
    if zero_scenes:
        notes.append(
            "%d of %d scenes have no CAN data; acceleration, rotation rate and velocity are zero there: %s"
            % (len(zero_scenes), scenes, _few(zero_scenes))
        )
    if unknown:
        notes.append(
            "%d scenes are in no official list and went to %s: %s"
            % (len(unknown), "test" if test else "val", _few(unknown))
        )
    return notes


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:21]) + (", ..." if len(names) > 21 else "")


def _can_of_scenes(tables: Tables, store: Store, allow_none: bool) -> Tuple[Dict[str, Any], List[str]]:
    """scene name -> messages or None, and the names without.  DataError when no scene has any."""
    messages: Dict[str, Optional[List[Row]]] = {
        scene["name"]: pose_messages(store, scene["name"]) for scene in tables.scenes
    }
    zero = sorted(name for name, found in messages.items() if found is None)
    if len(zero) == len(messages) and not allow_none:
        raise DataError(
            "no CAN data in the data: all %d scenes would be zero" % len(zero),
            "BEVFormer reads acceleration, rotation rate and velocity from can_bus/<scene>_pose.json; "
            "without them the published numbers are out of reach.",
            "Add can_bus.zip, or a folder with can_bus/ in it, as another --data-root, or say --no-can-bus.",
        )
    return messages, zero


def check_images(tables: Tables, store: Store) -> None:
    """DataError that counts the camera images of keyframes that the store does not have."""
    names = [
        row["filename"]
        for sample in tables.samples
        for channel, row in tables.data_of(sample["token"]).items()
        if channel in CAMERAS
    ]
    missing = [name for name in names if not store.exists(name)]
    if missing:
        raise DataError(
            "%d of %d keyframe images are missing, such as %s" % (len(missing), len(names), missing[0]),
            "Every frame needs its six images.",
            "Add the archive or folder that has them as another --data-root.",
        )
