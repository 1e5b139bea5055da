"""The nuScenes tables as plain dicts by token, read from a store (a folder or the archives themselves).

Source of the meaning: nuscenes-devkit's `NuScenes` (reverse indices, `box_velocity`).
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Tuple

import numpy as np

from bevformer.errors import DataError

from .store import Store

Row = Dict[str, Any]
# What is read here; a row that lacks one of its fields is refused on load.
FIELDS: Dict[str, Tuple[str, ...]] = {
    "scene": ("name",),
    "sample": ("timestamp", "scene_token", "prev", "next"),
    "sample_data": (
        "sample_token",
        "ego_pose_token",
        "calibrated_sensor_token",
        "timestamp",
        "is_key_frame",
        "filename",
        "prev",
    ),
    "sample_annotation": (
        "sample_token",
        "instance_token",
        "translation",
        "rotation",
        "size",
        "num_lidar_pts",
        "num_radar_pts",
        "prev",
        "next",
    ),
    "instance": ("category_token",),
    "category": ("name",),
    "calibrated_sensor": ("sensor_token", "translation", "rotation", "camera_intrinsic"),
    "sensor": ("channel",),
    "ego_pose": ("translation", "rotation"),
}
REQUIRED = tuple(FIELDS)
OPTIONAL = ("attribute", "visibility", "log", "map")
VERSIONS = ("v1.0-mini", "v1.0-trainval", "v1.0-test")
MAX_VELOCITY_GAP_S = 1.5


@dataclass(frozen=True)
class Tables:
    """`rows[table][token]`, in the order of the JSON file.  Indices are built once by `load_tables`."""

    version: str
    rows: Dict[str, Dict[str, Row]]
    digest: str
    _samples_by_scene: Dict[str, List[Row]]
    _data_by_sample: Dict[str, Dict[str, Row]]
    _annotations_by_sample: Dict[str, List[Row]]

    @property
    def scenes(self) -> List[Row]:
        return list(self.rows["scene"].values())

    @property
    def samples(self) -> List[Row]:
        """All samples in the order of the JSON file."""
        return list(self.rows["sample"].values())

    def get(self, table: str, token: str) -> Row:
        """One row.  DataError when the table or the token is not there."""
        if table not in self.rows:
            raise DataError("table %s/%s.json is not loaded" % (self.version, table))
        try:
            return self.rows[table][token]
        except KeyError:
            raise DataError(
                "%s/%s.json has no row %r" % (self.version, table, token),
                "Another table refers to it, so the tables are of different sets or were cut.",
                "Download the metadata archive again and compare its checksum.",
            ) from None

    def samples_of(self, scene: Row) -> List[Row]:
        """The samples of one scene in time order."""
        return self._samples_by_scene.get(scene["token"], [])

    def data_of(self, sample_token: str) -> Dict[str, Row]:
        """channel -> sample_data of the keyframe."""
        return self._data_by_sample.get(sample_token, {})

    def annotations_of(self, sample_token: str) -> List[Row]:
        """In the order of sample_annotation.json, as devkit's `sample["anns"]`."""
        return self._annotations_by_sample.get(sample_token, [])

    def category_of(self, annotation: Row) -> str:
        """Full category name such as vehicle.car."""
        instance = self.get("instance", annotation["instance_token"])
        return str(self.get("category", instance["category_token"])["name"])

    def velocity(self, annotation: Row) -> np.ndarray:
        """(3,) global metres per second from the neighbours; NaN when unknown (devkit `box_velocity`)."""
        first = self.get("sample_annotation", annotation["prev"]) if annotation["prev"] else annotation
        last = self.get("sample_annotation", annotation["next"]) if annotation["next"] else annotation
        if first is last:
            return np.full(3, np.nan)
        gap_s = 1e-6 * (
            self.get("sample", last["sample_token"])["timestamp"]
            - self.get("sample", first["sample_token"])["timestamp"]
        )
        both_sides = bool(annotation["prev"] and annotation["next"])
        if gap_s > MAX_VELOCITY_GAP_S * (2 if both_sides else 1):
            return np.full(3, np.nan)
        return (np.array(last["translation"]) - np.array(first["translation"])) / gap_s


def load_tables(store: Store, version: str) -> Tables:
    """All tables of one version.  DataError names a missing or broken table and what is there."""
    check_version(store, version)
    names = REQUIRED + tuple(name for name in OPTIONAL if store.exists(_name(version, name)))
    rows = {name: _by_token(read_table(store, version, name), version, name) for name in names}
    samples_by_scene: Dict[str, List[Row]] = {}
    for sample in sorted(rows["sample"].values(), key=lambda row: row["timestamp"]):
        samples_by_scene.setdefault(sample["scene_token"], []).append(sample)
    annotations: Dict[str, List[Row]] = {}
    for row in rows["sample_annotation"].values():
        annotations.setdefault(row["sample_token"], []).append(row)
    tables = Tables(version, rows, tokens_digest(rows["sample"]), samples_by_scene, {}, annotations)
    _index_keyframes(tables)
    return tables


def _index_keyframes(tables: Tables) -> None:
    channel_of = {
        token: tables.get("sensor", row["sensor_token"])["channel"]
        for token, row in tables.rows["calibrated_sensor"].items()
    }
    for row in tables.rows["sample_data"].values():
        if row["is_key_frame"]:
            if row["calibrated_sensor_token"] not in channel_of:
                tables.get("calibrated_sensor", row["calibrated_sensor_token"])  # raises with the advice
            channel = channel_of[row["calibrated_sensor_token"]]
            tables._data_by_sample.setdefault(row["sample_token"], {})[channel] = row


def tokens_digest(tokens: Iterable[str]) -> str:
    """sha256 over the sorted sample tokens, one a line: which set (or part of it) this is."""
    return hashlib.sha256("\n".join(sorted(tokens)).encode()).hexdigest()


def versions_in(store: Store) -> List[str]:
    """The known versions whose tables are in the store."""
    return [version for version in VERSIONS if store.exists(_name(version, "sample"))]


def check_version(store: Store, version: str) -> None:
    """DataError when the store has no tables of this version; it names those that are there."""
    if any(store.exists(_name(version, table)) for table in REQUIRED):
        return
    there = versions_in(store)
    if not there:
        raise _no_tables(store)
    raise DataError(
        "no tables of %s in the data" % version,
        "There is %s." % " and ".join(there),
        "Say --version %s, or add the metadata archive of %s as another --data-root." % (there[0], version),
    )


def only_version(store: Store) -> str:
    """The one version that is there.  DataError for none or several."""
    there = versions_in(store)
    if not there:
        raise _no_tables(store)
    if len(there) > 1:
        raise DataError("the data holds %s" % " and ".join(there), do="Say which one with --version.")
    return there[0]


def _no_tables(store: Store) -> DataError:
    if store.exists("sample.json"):
        return DataError(
            "the data root is the folder of the tables itself",
            do="Name its parent as --data-root: the folder that contains samples/ and v1.0-....",
        )
    return DataError(
        "no nuScenes tables in the data",
        "None of %s is there." % ", ".join(VERSIONS),
        "--data-root has to be the folder that contains samples/ and v1.0-..., or the metadata archive.",
    )


def read_table(store: Store, version: str, name: str) -> List[Row]:
    """One table as a list of rows.  DataError when it is missing or not JSON."""
    path = _name(version, name)
    if not store.exists(path):
        raise DataError(
            "missing table: %s" % path,
            "The set is not complete without it.",
            "Add the archive that holds it (the metadata of %s) as another --data-root." % version,
        )
    rows = read_json(store, path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError("%s is not a list of rows" % path, do="Download the metadata archive again.")
    return rows


def read_json(store: Store, path: str) -> Any:
    """DataError that names the file and the place when it is not JSON."""
    try:
        return json.loads(store.read(path))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise DataError(
            "%s is not valid JSON: %s" % (path, error),
            "It was probably cut while it was copied.",
            "Fetch it again and compare its checksum.",
        ) from error


def _name(version: str, table: str) -> str:
    return "%s/%s.json" % (version, table)


def _by_token(rows: List[Row], version: str, name: str) -> Dict[str, Row]:
    for field in ("token",) + FIELDS.get(name, ()):
        for row in rows:
            if field not in row:
                raise DataError(
                    "%s: row %s has no %s" % (_name(version, name), row.get("token", "?"), field),
                    do="Download the metadata archive again and compare its checksum.",
                )
    return {row["token"]: row for row in rows}
