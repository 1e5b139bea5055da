"""The prepared files `nuscenes_infos_temporal_{train,val}.pkl`: read, check, write.

Layout of upstream's converter (a dict with `infos` and `metadata`), plus the digest of the sample tokens in
the metadata.  Paths inside are relative to the data root ("samples/CAM_FRONT/...").
"""

import dataclasses
import os
from dataclasses import dataclass
from typing import Any, List, Mapping, Sequence, Set, Tuple

import numpy as np

from bevformer import boxes as box_math
from bevformer.errors import DataError
from bevformer.types import CAMERAS

from . import infos_v1_1, safe_pickle
from .infos_boxes import CONVENTION, to_legacy
from .infos_form import PREPARE, Info, check_form, relative_path
from .infos_frames import Frames
from .infos_twin import Twin, is_fresh, is_twin, open_twin, twin_path
from .store import Store
from .tables import check_version, read_table, tokens_digest, versions_in

SPLITS = ("train", "val", "test")
CAR_LONGER_THAN_WIDE = 1.3  # nuScenes' cars: 4.6 m by 1.95 m


@dataclass(frozen=True)
class Infos:
    """Frames sorted by timestamp, in the layout of upstream's converter.

    digest:   sha256 over the sorted sample tokens of the whole data set it was made from; "" when the file
              does not say.  source: the file.  notes: sentences about what was converted or is missing.
    """

    infos: Sequence[Info]
    version: str
    digest: str
    source: str = ""
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: Tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.infos)

    def texts(self, key: str) -> List[str]:
        """One of every frame."""
        if isinstance(self.infos, Frames):
            return list(self.infos.column("frame." + key))
        return [info[key] for info in self.infos]

    def numbers(self, key: str) -> np.ndarray:
        """(F, ...) float64 of every frame."""
        if isinstance(self.infos, Frames):
            return np.asarray(self.infos.column("frame." + key), dtype=np.float64)
        return np.array([info[key] for info in self.infos], dtype=np.float64)

    def cam_numbers(self, key: str) -> np.ndarray:
        """(F, 6, ...) float64 of every camera, in the order of CAMERAS."""
        if isinstance(self.infos, Frames):
            return np.asarray(self.infos.column("cam." + key), dtype=np.float64)
        cams = [[info["cams"][channel][key] for channel in CAMERAS] for info in self.infos]
        return np.array(cams, dtype=np.float64)


def infos_path(path: str, split: str) -> str:
    """A file or twin stays; a folder becomes its nuscenes_infos_temporal_<split>.pkl, or its twin where there
    is only that.  DataError if not there.
    """
    if is_twin(path):
        return path
    if os.path.isdir(path):
        found = os.path.join(path, file_name(split))
        if not os.path.isfile(found):
            if is_twin(twin_path(found)):
                return twin_path(found)
            there = sorted(name for name in os.listdir(path) if name.endswith(".pkl"))
            raise DataError(
                "no %s in %s" % (file_name(split), path),
                "There is %s." % (", ".join(there) or "no .pkl file in it"),
                "Make it with `bevrepro data prepare`, or name a file.",
            )
        return found
    if not os.path.isfile(path):
        raise DataError("no such infos file: %s" % path, do="Make it with `bevrepro data prepare`.")
    return path


def file_name(split: str) -> str:
    return "nuscenes_infos_temporal_%s.pkl" % split


def load_infos(path: str) -> Infos:
    """Read a prepared file or its twin, or an mmdet3d >= 1.1 file.

    Where a file has a twin beside it that was made from it as it is now, the twin is read: the same frames,
    much faster.  Raises DataError for a missing or cut file, one that holds more than plain data, or frames
    without what the data set needs.
    """
    if is_twin(path):
        return from_twin(open_twin(path), path)
    twin, notes = twin_path(path), ()  # type: str, Tuple[str, ...]
    if is_twin(twin):
        try:
            if is_fresh(twin, path):
                return from_twin(open_twin(twin), path)
            notes = ("%s was not made from %s as it is now, so it was not used" % (twin, path),)
        except DataError as error:
            notes = ("%s; %s was read instead" % (error.seen, path),)
    infos = from_object(read_object(path), path)
    return dataclasses.replace(infos, notes=infos.notes + notes)


def read_object(path: str) -> Any:
    """What the pickle holds, if it is plain data.  DataError else."""
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except OSError as error:
        raise DataError(
            "cannot read %s: %s" % (path, error.strerror), do="Make it with `bevrepro data prepare`."
        ) from error
    return safe_pickle.loads(raw, path)


def from_twin(twin: Twin, path: str) -> Infos:
    """The frames of an opened twin; `path` is for the messages."""
    if not twin.frames:
        raise DataError("%s holds no frames" % path, do=PREPARE)
    metadata = twin.index["metadata"]
    without = int((~np.any(twin.numbers["frame.can_bus"], axis=1)).sum())
    return Infos(
        Frames(twin),
        str(metadata.get("version", "")),
        str(metadata.get("bevrepro_tables_digest", "")),
        path,
        metadata,
        _can_notes(without, twin.frames),
    )


def _can_notes(without: int, frames: int) -> Tuple[str, ...]:
    if not without:
        return ()
    said = "%d of %d frames have no CAN data: acceleration, rotation rate and velocity are zero"
    return (said % (without, frames),)


def from_object(data: Any, path: str) -> Infos:
    """`load_infos` without the file."""
    notes: List[str] = []
    try:
        if infos_v1_1.is_v1_1(data):
            infos, metadata = infos_v1_1.convert(data), dict(data.get("metainfo") or {})
            notes.append("boxes were converted from the convention of mmdet3d >= 1.1")
        else:
            infos, metadata = list(data["infos"]), dict(data.get("metadata") or {})
            infos = [_normal_form(info) for info in infos]
            if metadata.get(CONVENTION) == "1.0":
                infos = to_legacy(infos, metadata)[0]
            elif CONVENTION not in metadata and "bevrepro_tables_digest" not in metadata:
                infos = _legacy_boxes(infos, notes)
        infos.sort(key=lambda info: info["timestamp"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, np.linalg.LinAlgError) as error:
        raise DataError(
            "%s is no file of prepared frames: %s %s" % (path, type(error).__name__, error),
            "It has neither the layout of BEVFormer's converter nor that of mmdet3d 1.1.",
            PREPARE,
        ) from error
    if not infos:
        raise DataError("%s holds no frames" % path, do=PREPARE)
    check_form(infos, path)
    without = sum(1 for info in infos if not np.any(info["can_bus"]))
    notes.extend(_can_notes(without, len(infos)))
    return Infos(
        infos,
        str(metadata.get("version", "")),
        str(metadata.get("bevrepro_tables_digest", "")),
        path,
        metadata,
        tuple(notes),
    )


def _normal_form(info: Info) -> Info:
    """A copy with relative paths and a CAN row; the arrays are shared."""
    out = dict(info)
    out["lidar_path"] = relative_path(str(info.get("lidar_path", "")))
    out["cams"] = {
        channel: dict(cam, data_path=relative_path(str(cam["data_path"])))
        for channel, cam in info["cams"].items()
    }
    out["sweeps"] = [
        dict(sweep, data_path=relative_path(str(sweep["data_path"]))) for sweep in info.get("sweeps") or []
    ]
    out["can_bus"] = np.array(info.get("can_bus", np.zeros(18)), dtype=np.float64)
    return out


def _legacy_boxes(infos: List[Info], notes: List[str]) -> List[Info]:
    """mmdet3d 1.0 wrote this layout with (l, w, h, yaw).  The file does not say so; its cars do: l > w."""
    cars = [
        np.asarray(info["gt_boxes"]).reshape(-1, 7)[np.asarray(info["gt_names"], dtype=str) == "car", 3:5]
        for info in infos
        if "gt_boxes" in info
    ]
    sizes = np.concatenate(cars) if cars else np.zeros((0, 2))
    if not len(sizes) or np.median(sizes[:, 0] / sizes[:, 1]) < CAR_LONGER_THAN_WIDE:
        return infos
    notes.append(
        "boxes were converted from the convention of mmdet3d 1.0: along the fourth column the cars in the "
        "file are longer than along the fifth"
    )
    return [
        dict(info, gt_boxes=box_math.new_to_legacy(info["gt_boxes"])) if "gt_boxes" in info else info
        for info in infos
    ]


def image_name(cam: Info, channel: str, store: Store) -> str:
    """The image's name in the store; mmdet3d 1.1 files keep only its last part."""
    name = str(cam["data_path"])
    if "/" not in name and not store.exists(name):
        return "samples/%s/%s" % (channel, name)
    return name


def check_infos(infos: Infos, store: Store, probes: int = 4) -> None:
    """DataError when the frames were made from other data than the store holds.

    Compares tokens and, where the file has one, the digest; then looks for the images of a few frames.
    A store without tables (a folder of images) is only looked into for the images.
    """
    there = versions_in(store)
    if there:
        version = infos.version or there[0]
        check_version(store, version)
        _compare_tokens(
            infos, {row.get("token", "") for row in read_table(store, version, "sample")}, version
        )
    picks = np.unique(np.linspace(0, len(infos.infos) - 1, probes).astype(int))
    for info in (infos.infos[i] for i in picks):
        for channel in CAMERAS:
            name = image_name(info["cams"][channel], channel, store)
            if not store.exists(name):
                raise DataError(
                    "no %s in the data (sample %s, %s of %s)" % (name, info["token"], channel, infos.source),
                    "The infos were made from other data, or an archive with images is missing.",
                    "Add the archive or folder that has it as another --data-root, or prepare again.",
                )


def _compare_tokens(infos: Infos, tokens: Set[str], version: str) -> None:
    unknown = [info["token"] for info in infos.infos if info["token"] not in tokens]
    do = "Prepare again from this data, or name the data the file was made from."
    if unknown:
        raise DataError(
            "%s was made from other data: %d of its %d frames are not in %s of this data, such as sample %s"
            % (infos.source, len(unknown), len(infos.infos), version, unknown[0]),
            "Boxes and images would not belong together.",
            do,
        )
    if infos.digest and infos.digest != tokens_digest(tokens):
        raise DataError(
            "%s was made from another set of frames than %s of this data" % (infos.source, version),
            "The digest over all sample tokens differs (%s... and %s...)."
            % (infos.digest[:12], tokens_digest(tokens)[:12]),
            do,
        )
