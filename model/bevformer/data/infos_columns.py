"""Frames of prepared infos as columns of NumPy arrays: which there are, and from frames to columns.

A column belongs to a level: `frame` (one row a frame), `cam` (one a frame and camera, cameras in a fixed
order), `sweep` and `box` (any number a frame).
"""

import functools
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Sequence, Tuple

import numpy as np

from bevformer.types import CAMERAS

from .columns import Strings
from .infos_form import Info


@dataclass(frozen=True)
class Column:
    """`key` in the frame (camera, sweep).  kind: text, list or array of float64 numbers, integer, bool."""

    level: str
    key: str
    kind: str
    shape: Tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return "%s.%s" % (self.level, self.key)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype({"integer": "<i8", "bool": "|b1"}.get(self.kind, "<f8"))


def _pose(level: str, what: str) -> Tuple[Column, Column]:
    return (
        Column(level, what + "_translation", "list", (3,)),
        Column(level, what + "_rotation", "list", (4,)),
    )


def _sensor(level: str) -> Tuple[Column, ...]:
    """In the order of upstream's converter."""
    return (
        Column(level, "data_path", "text"),
        Column(level, "type", "text"),
        Column(level, "sample_data_token", "text"),
        *_pose(level, "sensor2ego"),
        *_pose(level, "ego2global"),
        Column(level, "timestamp", "integer"),
        Column(level, "sensor2lidar_rotation", "array", (3, 3)),
        Column(level, "sensor2lidar_translation", "array", (3,)),
    )


FRAME = (
    Column("frame", "lidar_path", "text"),
    Column("frame", "token", "text"),
    Column("frame", "prev", "text"),
    Column("frame", "next", "text"),
    Column("frame", "can_bus", "array", (18,)),
    Column("frame", "frame_idx", "integer"),
    Column("frame", "scene_token", "text"),
    *_pose("frame", "lidar2ego"),
    *_pose("frame", "ego2global"),
    Column("frame", "timestamp", "integer"),
)
CAM = (*_sensor("cam"), Column("cam", "cam_intrinsic", "array", (3, 3)))
SWEEP = _sensor("sweep")
BOX = (
    Column("box", "gt_boxes", "array", (7,)),
    Column("box", "gt_names", "text"),
    Column("box", "gt_velocity", "array", (2,)),
    Column("box", "num_lidar_pts", "integer"),
    Column("box", "num_radar_pts", "integer"),
    Column("box", "valid_flag", "bool"),
)
# A frame's keys in the order of upstream's converter; the boxes' follow.
KEYS = tuple(
    "lidar_path token prev next can_bus frame_idx sweeps cams scene_token lidar2ego_translation "
    "lidar2ego_rotation ego2global_translation ego2global_rotation timestamp".split()
)
BOX_KEYS = tuple(column.key for column in BOX)


class Unfit(ValueError):
    """Frames that hold more, less or other things than the columns do."""


@dataclass(frozen=True)
class Chunk:
    """Some frames as columns.  values: arrays or `Strings` by the column's name; counts by level."""

    frames: int
    sweeps: np.ndarray
    boxes: np.ndarray
    values: Dict[str, Any]


def columns_of(infos: Sequence[Info], with_boxes: bool) -> Chunk:
    """Raises Unfit, naming the sample and what does not fit."""
    wanted = set(KEYS) | (set(BOX_KEYS) if with_boxes else set())
    for info in infos:
        _check_keys(info, wanted, "sample %s" % info.get("token", "?"))
        if list(info["cams"]) != list(CAMERAS):
            raise Unfit("sample %s has the cameras %s" % (info["token"], ", ".join(info["cams"])))
    cams = [info["cams"][channel] for info in infos for channel in CAMERAS]
    sweeps = [sweep for info in infos for sweep in info["sweeps"]]
    for level, rows in (((CAM), cams), (SWEEP, sweeps)):
        for row in rows:
            _check_keys(row, {column.key for column in level}, "%s" % row.get("sample_data_token", "?"))
    values = {column.name: _values(column, infos) for column in FRAME}
    values.update((column.name, _values(column, cams)) for column in CAM)
    values.update((column.name, _values(column, sweeps)) for column in SWEEP)
    if with_boxes:
        values.update((column.name, _box_values(column, infos)) for column in BOX)
    return Chunk(
        len(infos),
        np.array([len(info["sweeps"]) for info in infos], dtype=np.int64),
        np.array([len(info["gt_boxes"]) if with_boxes else 0 for info in infos], dtype=np.int64),
        values,
    )


def _check_keys(row: Mapping[str, Any], wanted: Iterable[str], where: str) -> None:
    more, less = set(row).difference(wanted), set(wanted).difference(row)
    if more or less:
        raise Unfit(
            "%s %s"
            % (where, "holds also " + ", ".join(sorted(more)) if more else "lacks " + ", ".join(sorted(less)))
        )


def _values(column: Column, rows: Sequence[Mapping[str, Any]]) -> Any:
    raw = [row[column.key] for row in rows]
    if column.kind == "text":
        if not all(isinstance(one, str) for one in raw):
            raise Unfit("%s is not a text everywhere" % column.name)
        return Strings.of(raw)
    if column.kind == "integer" and not all(isinstance(one, (int, np.integer)) for one in raw):
        raise Unfit("%s is not an integer everywhere" % column.name)
    return _numbers(column, raw, len(rows))


def _numbers(column: Column, raw: Any, rows: int) -> np.ndarray:
    shape = (rows,) + column.shape
    try:
        found = np.array(raw, dtype=column.dtype) if len(raw) else np.zeros(shape, dtype=column.dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise Unfit("%s: %s" % (column.name, error)) from None
    if found.shape != shape:
        raise Unfit("%s has the shape %s, not %s" % (column.name, found.shape, shape))
    return found


def _box_values(column: Column, infos: Sequence[Info]) -> Any:
    parts = [np.asarray(info[column.key]) for info in infos]
    lengths = [len(info["gt_boxes"]) for info in infos]
    if any(len(part) != length for part, length in zip(parts, lengths)):
        raise Unfit("%s has not as many rows as there are boxes" % column.name)
    if column.kind == "text":
        return Strings.of([str(one) for part in parts for one in part.tolist()])
    for part in parts:
        kinds = {"integer": "iu", "bool": "b"}.get(column.kind, "f")
        if part.size and (part.dtype.kind not in kinds or part.dtype.itemsize > column.dtype.itemsize):
            raise Unfit("%s is of type %s" % (column.name, part.dtype))
    filled = [part.reshape((-1,) + column.shape) for part in parts if part.size]
    return _numbers(column, np.concatenate(filled) if filled else [], sum(lengths))


@functools.lru_cache(maxsize=None)
def level_of(name: str) -> Tuple[Column, ...]:
    return {"frame": FRAME, "cam": CAM, "sweep": SWEEP, "box": BOX}[name]


def all_columns(with_boxes: bool) -> List[Column]:
    return [*FRAME, *CAM, *SWEEP, *(BOX if with_boxes else ())]
