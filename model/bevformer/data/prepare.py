"""`prepare`: tables and CAN data -> nuscenes_infos_temporal_{train,val}.pkl and its twin."""

import argparse
import os
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Tuple

from bevformer.errors import DataError, DiskError
from bevformer.talk import Talk

from .images import check_images
from .infos import file_name
from .infos_twin import twin_path
from .infos_write import Part, SplitWriter, check_room, work_folder
from .prepare_frames import Plan, frames_of, load, plan_of
from .sample_info import MAX_SWEEPS
from .store import open_store
from .tables import only_version


def main(argv: List[str], talk: Talk) -> int:
    args = _parser().parse_args(argv)
    store = open_store(args.data_root)
    check_out(args.out, args.data_root, args.overlay)
    version = args.version or only_version(store)
    plan = plan_of(store, version, args)
    names = {split: file_name(split) for split in plan.splits}
    paths = {split: os.path.join(args.out, name) for split, name in names.items()}
    tables, can_bus = load(store, plan, talk)
    check_images(tables, store)
    metadata = plan.metadata(can_bus)
    if args.dry_run:
        for _ in frames_of(plan, tables, can_bus, talk):
            pass
    else:
        check_room(make_folder(args.out), list(names.values()))
        write(args.out, plan, frames_of(plan, tables, can_bus, talk), metadata)
    for note in plan.notes(can_bus):
        talk.note(note)
    talk.result(
        verb="prepare",
        files=paths,
        twins={split: twin_path(path) for split, path in paths.items()},
        version=version,
        frames={split: sum(len(scene.positions) for scene in plan.of(split)) for split in plan.splits},
        digest=plan.tables.digest,
        zero_can_scenes=metadata["zero_can_scenes"],
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
    parser.add_argument(
        "--sweeps",
        type=_count,
        default=MAX_SWEEPS,
        metavar="N",
        help="lidar sweeps before each keyframe; upstream writes 10, BEVFormer reads none",
    )
    parser.add_argument("--jobs", type=_jobs, default=None, metavar="N", help="processes; 2 if left out")
    parser.add_argument(
        "--overlay",
        action="append",
        default=[],
        metavar="DIR",
        help="the writable folder of a mount: a data folder in which --out may lie",
    )
    parser.add_argument("--dry-run", action="store_true", help="read and check everything, write nothing")
    parser.add_argument(
        "--no-can-bus",
        action="store_true",
        help="go on without any CAN data (its 9 numbers are zero; changes the result)",
    )
    return parser


def _count(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 1000:
        raise argparse.ArgumentTypeError("%s is not a number from 0 to 1000" % text)
    return number


def _jobs(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 64:
        raise argparse.ArgumentTypeError("%s is not a number from 1 to 64" % text)
    return number


def check_out(out: str, roots: Sequence[str], overlays: Sequence[str] = ()) -> None:
    """DataError when `out` lies within a data folder that is no overlay, made for such files."""
    target = os.path.realpath(out)
    for root in roots:
        folder = os.path.realpath(root)
        if os.path.isdir(root) and folder not in map(os.path.realpath, overlays):
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


def write(out: str, plan: Plan, frames: Iterable[Tuple[str, Part]], metadata: Mapping[str, Any]) -> None:
    """One pickle and one twin per split, all whole before the first gets its name.

    DiskError when there is no room or no right to write; what was there stays then.
    """
    writers: Dict[str, SplitWriter] = {}
    with work_folder(out) as folder:
        try:
            for split in plan.splits:
                writers[split] = SplitWriter(folder, file_name(split), with_boxes=not plan.is_test)
            for split, part in frames:
                writers[split].add(part)
            for writer in writers.values():
                writer.finish(metadata)
        finally:
            for writer in writers.values():
                writer.close()
        for writer in writers.values():
            writer.place(out)
