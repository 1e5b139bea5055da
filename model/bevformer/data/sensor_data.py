"""Keyframes of cameras and lidar, the lidar's sweeps, and where the car was: sample_data and ego_pose.

Of 2.6 million rows in v1.0-trainval the prepared files draw on 600 thousand; only those become columns.
"""

from dataclasses import dataclass, replace
from typing import Callable, Dict, List, Sequence, Set, Tuple

import numpy as np

from bevformer.errors import DataError
from bevformer.types import CAMERAS

from .columns import INTEGERS, TOKENS, Growing, Strings, TokenIndex, as_text, numbers, token_column
from .json_rows import FLAG, INT, NUMBERS, Field, Raw, columns, row_batches
from .store import Store
from .tables import DO, Row, missing_row, rows_by_token, table_path

CHANNELS = ("LIDAR_TOP",) + CAMERAS
LIDAR = 0  # its place in CHANNELS
DATA_FIELDS = (
    Field("token"),
    Field("sample_token"),
    Field("ego_pose_token"),
    Field("calibrated_sensor_token"),
    Field("timestamp", INT),
    Field("is_key_frame", FLAG),
    Field("filename"),
    Field("prev"),
)
POSE_FIELDS = (Field("token"), Field("rotation", NUMBERS, 4), Field("translation", NUMBERS, 3))
Told = Callable[[int], None]  # how many rows were read


@dataclass(frozen=True)
class Calibrations:
    """calibrated_sensor: rows as dicts, the same as arrays, and the place of each in CHANNELS (-1: none)."""

    rows: List[Row]
    position: Dict[str, int]
    channel: List[int]
    rotation_C4: np.ndarray
    translation_C3: np.ndarray


@dataclass(frozen=True)
class SensorData:
    """The N rows kept of sample_data, in the order of the file.

    keyframe_SK: by sample and place in CHANNELS the row, -1 where there is none.  previous: the row that
    `prev` names, -1 where it names none, -2 where there is none of that token.  pose: row of rotation_P4 and
    translation_P3 (ego to global), -1 where ego_pose has none.
    """

    version: str
    token: np.ndarray
    calibrated: np.ndarray
    timestamp_us: np.ndarray
    filename: Strings
    previous: np.ndarray
    keyframe_SK: np.ndarray
    pose_token: np.ndarray
    pose: np.ndarray
    rotation_P4: np.ndarray
    translation_P3: np.ndarray

    def check_poses(self, rows: np.ndarray) -> None:
        """DataError that names an ego pose that is missing."""
        absent = rows[self.pose[rows] < 0]
        if len(absent):
            raise missing_row(self.version, "ego_pose", as_text(self.pose_token[absent[0]]))

    def lidar_sweeps(self, key_rows: np.ndarray, most: int) -> np.ndarray:
        """(S, most) rows before each lidar keyframe, newest first (earlier keyframes count); -1 from its end.

        DataError for a chain that leads into nothing or does not go back in time, as a ring would not.
        """
        found = np.full((len(key_rows), most), -1, dtype=np.int64)
        now = key_rows
        for k in range(most):
            before = np.where(now >= 0, self.previous[now], -1)
            if (before == -2).any():
                token = as_text(self.token[now[np.argmax(before == -2)]])
                raise DataError(
                    "%s: what row %s names as prev is no row of the lidar"
                    % (table_path(self.version, "sample_data"), token),
                    "The tables are of different sets or were cut.",
                    DO,
                )
            late = (before >= 0) & (self.timestamp_us[before] >= self.timestamp_us[now])
            if late.any():
                raise DataError(
                    "%s: row %s names as prev one that is not before it"
                    % (table_path(self.version, "sample_data"), as_text(self.token[now[np.argmax(late)]])),
                    "Its sweeps would go round in a ring or forward in time.",
                    DO,
                )
            found[:, k] = now = before
        return found


def load_calibrations(store: Store, version: str) -> Calibrations:
    """DataError names a row without sensor, or with other numbers than a pose and a camera matrix have."""
    rows = list(rows_by_token(store, version, "calibrated_sensor").values())
    sensors = rows_by_token(store, version, "sensor")
    path, channel = table_path(version, "calibrated_sensor"), []
    for row in rows:
        if row["sensor_token"] not in sensors:
            raise missing_row(version, "sensor", row["sensor_token"])
        name = sensors[row["sensor_token"]]["channel"]
        channel.append(CHANNELS.index(name) if name in CHANNELS else -1)
        if name in CAMERAS:
            _numbers(path, row, "camera_intrinsic", (3, 3))
    return Calibrations(
        rows,
        {row["token"]: i for i, row in enumerate(rows)},
        channel,
        np.array([_numbers(path, row, "rotation", (4,)) for row in rows]).reshape(-1, 4),
        np.array([_numbers(path, row, "translation", (3,)) for row in rows]).reshape(-1, 3),
    )


def _numbers(path: str, row: Row, field: str, shape: Tuple[int, ...]) -> np.ndarray:
    try:
        found = np.array(row[field], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        found = np.zeros(0)
    if found.shape != shape or not np.isfinite(found).all():
        wanted = " x ".join(map(str, shape))
        raise DataError(
            "%s: row %s: %s is %.60r, not %s finite numbers"
            % (path, row["token"], field, row[field], wanted),
            "The table was changed or damaged.",
            DO,
        )
    return found


def load_sensor_data(
    store: Store, version: str, samples: Dict[str, int], calibrated: Calibrations, sweeps: bool, told: Told
) -> SensorData:
    """`samples`: token -> place.  `sweeps`: with the lidar's other rows.  DataError for broken rows."""
    path = table_path(version, "sample_data")
    kept = _Kept(path, samples, calibrated)
    read = 0
    for batch in row_batches(store, path, DATA_FIELDS):
        kept.add(_needed(batch, version, calibrated, sweeps))
        read += len(batch)
        told(read)
    data = kept.finish(version)
    return _with_poses(store, data, kept.poses)


def _needed(batch: Sequence[Raw], version: str, calibrated: Calibrations, sweeps: bool) -> List[Raw]:
    position, channel = calibrated.position, calibrated.channel
    unknown = {row[3] for row in batch}.difference(position)
    lost = [row[3] for row in batch if row[3] in unknown and row[5] == "true"] if unknown else []
    if lost:
        raise missing_row(version, "calibrated_sensor", lost[0])
    wanted = {token for token, i in position.items() if channel[i] >= 0}
    lidars = {token for token in wanted if channel[position[token]] == LIDAR and sweeps}
    return [row for row in batch if row[3] in wanted and (row[5] == "true" or row[3] in lidars)]


class _Kept:
    """The rows that are needed, batch by batch."""

    def __init__(self, path: str, samples: Dict[str, int], calibrated: Calibrations) -> None:
        self.path, self.samples, self.calibrated = path, samples, calibrated
        self.poses: Set[str] = set()
        self._names: List[Strings] = []
        self._columns = Growing(
            token=TOKENS,
            pose_token=TOKENS,
            prev=TOKENS,
            calibrated=INTEGERS,
            sample=INTEGERS,
            timestamp=INTEGERS,
            key=np.zeros(0, bool),
        )

    def add(self, rows: Sequence[Raw]) -> None:
        found = columns(self.path, DATA_FIELDS, rows)
        self.poses.update(found["ego_pose_token"])
        position, samples = self.calibrated.position, self.samples
        self._columns.add(
            token=token_column(found["token"], self.path),
            pose_token=token_column(found["ego_pose_token"], self.path),
            prev=token_column(found["prev"], self.path),
            calibrated=np.array([position[one] for one in found["calibrated_sensor_token"]], dtype=np.int64),
            sample=np.array([samples.get(one, -1) for one in found["sample_token"]], dtype=np.int64),
            timestamp=np.asarray(found["timestamp"]),
            key=np.asarray(found["is_key_frame"]),
        )
        self._names.append(Strings.of(found["filename"]))

    def finish(self, version: str) -> SensorData:
        found = self._columns.whole()
        previous = TokenIndex(found["token"], self.path).find(found["prev"])
        previous[(previous < 0) & (found["prev"] != b"")] = -2
        keyframes = np.full((len(self.samples), len(CHANNELS)), -1, dtype=np.int64)
        key = np.flatnonzero(found["key"] & (found["sample"] >= 0))
        channel = np.array(self.calibrated.channel, dtype=np.int64)[found["calibrated"][key]]
        # Of several keyframes of a sensor in a sample the last counts, as in the devkit's reverse index.
        keyframes[found["sample"][key], channel] = key
        return SensorData(
            version=version,
            token=found["token"],
            calibrated=found["calibrated"],
            timestamp_us=found["timestamp"],
            filename=Strings.joined(self._names),
            previous=previous,
            keyframe_SK=keyframes,
            pose_token=found["pose_token"],
            pose=INTEGERS,
            rotation_P4=numbers(4),
            translation_P3=numbers(3),
        )


def _with_poses(store: Store, data: SensorData, wanted: Set[str]) -> SensorData:
    path = table_path(data.version, "ego_pose")
    poses = Growing(token=TOKENS, rotation=numbers(4), translation=numbers(3))
    for batch in row_batches(store, path, POSE_FIELDS):
        found = columns(path, POSE_FIELDS, [row for row in batch if row[0] in wanted])
        poses.add(
            token=token_column(found["token"], path),
            rotation=np.asarray(found["rotation"]),
            translation=np.asarray(found["translation"]),
        )
    whole = poses.whole()
    return replace(
        data,
        pose=TokenIndex(whole["token"], path).find(data.pose_token),
        rotation_P4=whole["rotation"],
        translation_P3=whole["translation"],
    )
