"""`convert`: prepared infos between the layouts and conventions of mmdet3d 0.17, 1.0, 1.1 and the twin."""

import argparse
import os
import pickle
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from bevformer.atomic import write_whole
from bevformer.errors import ConfigError, DataError
from bevformer.talk import Talk

from . import infos_v1_1
from .infos import CAR_LONGER_THAN_WIDE, from_object, load_infos, read_object
from .infos_boxes import CONVENTION, to_legacy, to_new
from .infos_columns import Unfit, columns_of
from .infos_form import Info
from .infos_frames import plain_frames
from .infos_to_v1_1 import to_v1_1
from .infos_twin import TwinWriter, is_twin, made_from, open_twin, twin_path
from .infos_write import PROTOCOL, replace_folder, work_folder

LAYOUTS = ("0.17", "1.0", "1.1", "twin")
PART = 200  # frames written at a time
MOST_METADATA = 1_000_000  # values; ours has some hundred
_NO_INFOS = "Make the file with `bevrepro data prepare`."
# What mmdet3d 1.1 adds to its metainfo.
_METAINFO = ("categories", "dataset", "info_version")


@dataclass(frozen=True)
class Source:
    """Frames in the file's order, boxes as mmdet3d 0.17 has them.  layout: what the file was."""

    infos: List[Info]
    metadata: Dict[str, Any]
    layout: str
    notes: Tuple[str, ...] = ()


def main(argv: List[str], talk: Talk) -> int:
    args = _parser().parse_args(argv)
    out = _target(args)
    try:
        source = read(args.input, getattr(args, "from"))
        for note in source.notes:
            talk.note(note)
        if not args.dry_run:
            write(source, args.to, out, args.input)
    except RecursionError as error:
        raise DataError("%s holds lists within lists without end" % args.input, do=_NO_INFOS) from error
    talk.result(
        verb="convert",
        input=args.input,
        layout=source.layout,
        output=out,
        to=args.to,
        frames=len(source.infos),
        dry_run=args.dry_run,
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bevformer convert", description=__doc__)
    parser.add_argument("input", metavar="IN", help="a .pkl of prepared infos, or a twin (.bev)")
    parser.add_argument("output", metavar="OUT", help="a new .pkl, or a new folder .bev for the twin")
    parser.add_argument("--to", required=True, choices=LAYOUTS)
    parser.add_argument(
        "--from", choices=("0.17", "1.0"), help="the convention of boxes where the file does not show it"
    )
    parser.add_argument("--force", action="store_true", help="replace OUT")
    parser.add_argument("--dry-run", action="store_true", help="read and check, write nothing")
    return parser


def _target(args: argparse.Namespace) -> str:
    """DataError or ConfigError where OUT cannot be what is asked for."""
    out = str(args.output)
    if args.to == "twin" and not out.rstrip("/").endswith(".bev"):
        raise ConfigError("%s does not end in .bev" % out, do="The twin is a folder: name it x.bev.")
    if args.to != "twin" and not out.endswith(".pkl"):
        raise ConfigError("%s does not end in .pkl" % out, do="mmdet3d %s reads a pickle: x.pkl." % args.to)
    if os.path.realpath(out) == os.path.realpath(args.input):
        raise ConfigError("%s is the input" % out, do="Name another file.")
    if os.path.lexists(out):
        ours = is_twin(out) if args.to == "twin" else os.path.isfile(out)
        if not ours:
            raise DataError("%s is there and is something else" % out, do="Name another file.")
        if not args.force:
            raise DataError(
                "%s is there" % out, "It is not replaced unasked.", "Name another, or say --force."
            )
    return out.rstrip("/")


def read(path: str, said: Optional[str] = None) -> Source:
    """DataError for what is no file of prepared frames, or does not show the convention of its boxes."""
    if is_twin(path):
        load_infos(path)  # says what is wrong with it
        twin = open_twin(path)
        return Source(plain_frames(twin), dict(twin.index["metadata"]), "twin")
    data = read_object(path)
    from_object(data, path)  # refuses what is not whole
    for key in ("metadata", "metainfo"):
        _check_metadata(data.get(key), path)
    if infos_v1_1.is_v1_1(data):
        return _read_v1_1(data)
    infos, metadata = list(data["infos"]), dict(data.get("metadata") or {})
    layout = said or metadata.get(CONVENTION) or _shown(infos, metadata, path)
    if layout == "1.0":
        infos, metadata = to_legacy(infos, metadata)
    return Source(infos, metadata, layout)


def _check_metadata(metadata: Any, path: str) -> None:
    """A pickle can name one list a million times; written out as JSON it would fill memory and disk."""
    left, count = [metadata], 0
    while left:
        one = left.pop()
        count += 1
        if count > MOST_METADATA:
            raise DataError("the metadata of %s would fill the memory" % path, do=_NO_INFOS)
        if isinstance(one, dict):
            left += one.values()
        elif isinstance(one, (list, tuple, set, frozenset)):
            left += one


def _read_v1_1(data: Dict[str, Any]) -> Source:
    metadata = {key: value for key, value in (data.get("metainfo") or {}).items() if key not in _METAINFO}
    left = sorted({key for frame in data["data_list"] for key in frame if key in _LEFT_OUT})
    notes = ("left out, as no other layout has them: %s" % ", ".join(left),) if left else ()
    ours = all("bevrepro" in frame for frame in data["data_list"])
    if not ours:
        metadata.setdefault(CONVENTION, "0.17")
        notes += ("the file has no CAN data and names no scenes: zeros, and scenes told by gaps in time",)
    infos = infos_v1_1.convert(data, keep_order=True)
    if not ours:
        infos = [infos_v1_1.with_camera_poses(info) for info in infos]
    return Source(infos, metadata, "1.1", notes)


_LEFT_OUT = ("cam_instances", "pts_semantic_mask_path", "radar_points", "image_sweeps")


def _shown(infos: List[Info], metadata: Mapping[str, Any], path: str) -> str:
    """The convention that the metadata or the cars' sizes show: l > w."""
    if "bevrepro_tables_digest" in metadata or not any("gt_boxes" in info for info in infos):
        return "0.17"
    cars = [
        np.asarray(info["gt_boxes"], dtype=np.float64).reshape(-1, 7)[:, 3:5][
            np.asarray(info["gt_names"], dtype=str) == "car"
        ]
        for info in infos
        if "gt_boxes" in info
    ]
    sizes = np.concatenate(cars)
    ratio = float(np.median(sizes[:, 0] / sizes[:, 1])) if len(sizes) else 1.0
    if ratio >= CAR_LONGER_THAN_WIDE:
        return "1.0"
    if ratio <= 1 / CAR_LONGER_THAN_WIDE:
        return "0.17"
    raise DataError(
        "%s does not show the convention of its boxes" % path,
        "It has no cars to tell it by, or they are as wide as long.",
        "Say --from 0.17 or --from 1.0.",
    )


def write(source: Source, to: str, out: str, source_path: str) -> None:
    """DataError for frames that the twin has no columns for; DiskError where `out` cannot be written."""
    if to == "twin":
        _write_twin(source, out, source_path)
        return
    content: Dict[str, Any] = dict(infos=source.infos, metadata=source.metadata)
    if to == "1.0":
        infos, metadata = to_new(source.infos, source.metadata)
        content = dict(infos=infos, metadata=metadata)
    elif to == "1.1":
        content = to_v1_1(source.infos, source.metadata)
    write_whole(out, lambda stream: pickle.dump(content, stream, protocol=PROTOCOL))


def _write_twin(source: Source, out: str, source_path: str) -> None:
    folder = os.path.dirname(os.path.abspath(out))
    with work_folder(folder) as work:
        path = os.path.join(work, os.path.basename(out))
        with_boxes = any("gt_boxes" in info for info in source.infos)
        writer = TwinWriter(path, with_boxes)
        try:
            for start in range(0, len(source.infos), PART):
                writer.add(columns_of(source.infos[start : start + PART], with_boxes))
            beside = os.path.realpath(twin_path(source_path)) == os.path.realpath(out)
            writer.finish(source.metadata, dict(made_from=made_from(source_path)) if beside else {})
        except Unfit as error:
            raise DataError(
                "%s has frames that the twin has no columns for: %s" % (source_path, error),
                "Nothing is left out silently, so no twin was written.",
                "Go on with the pickle, or make the infos with `bevrepro data prepare`.",
            ) from error
        except (TypeError, ValueError) as error:
            raise DataError("%s: its metadata is no JSON: %s" % (source_path, error)) from error
        finally:
            writer.close()
        replace_folder(path, out, work)
