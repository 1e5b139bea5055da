"""Frames of a twin as the mappings that the rest of the program reads, built when they are asked for."""

from collections.abc import Mapping as AbstractMapping
from collections.abc import Sequence as AbstractSequence
from typing import Any, Dict, Iterator, List

import numpy as np

from bevformer.types import CAMERAS

from .infos_columns import BOX, BOX_KEYS, CAM, FRAME, KEYS, SWEEP, Column
from .infos_form import Info, relative_path
from .infos_twin import Twin

_FRAME = {column.key: column for column in FRAME}
_BOX = {column.key: column for column in BOX}
_CAM = {column.key: column for column in CAM}
_PATHS = ("lidar_path", "data_path")


class Frame(AbstractMapping):  # type: ignore[type-arg]
    """One frame: the keys and values of the pickle's dict.  Arrays are copies."""

    def __init__(self, twin: Twin, row: int) -> None:
        self._twin, self._row = twin, row

    def __getitem__(self, key: str) -> Any:
        twin, row = self._twin, self._row
        if key in _FRAME:
            return _value(twin, _FRAME[key], row)
        if key == "cams":
            first = row * len(CAMERAS)
            return {channel: _Camera(twin, first + i) for i, channel in enumerate(CAMERAS)}
        if key == "sweeps":
            start, end = twin.ends["sweep"][row : row + 2]
            return [{one.key: _value(twin, one, i) for one in SWEEP} for i in range(start, end)]
        if key in _BOX and twin.with_boxes:
            start, end = twin.ends["box"][row : row + 2]
            return _rows(twin, _BOX[key], start, end)
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(KEYS + (BOX_KEYS if self._twin.with_boxes else ()))

    def __len__(self) -> int:
        return len(KEYS) + (len(BOX_KEYS) if self._twin.with_boxes else 0)


class _Camera(AbstractMapping):  # type: ignore[type-arg]
    def __init__(self, twin: Twin, row: int) -> None:
        self._twin, self._row = twin, row

    def __getitem__(self, key: str) -> Any:
        return _value(self._twin, _CAM[key], self._row)

    def __iter__(self) -> Iterator[str]:
        return iter(_CAM)

    def __len__(self) -> int:
        return len(_CAM)


def _value(twin: Twin, column: Column, row: int) -> Any:
    if column.kind == "text":
        text = twin.texts[column.name][row]
        return relative_path(text) if column.key in _PATHS else text
    value = twin.numbers[column.name][row]
    if column.kind == "array":
        return np.array(value)
    return value.tolist() if column.kind == "list" else int(value)


def _rows(twin: Twin, column: Column, start: int, end: int) -> np.ndarray:
    if column.kind == "text":
        return np.array(twin.texts[column.name].part(start, end), dtype=str)
    return np.array(twin.numbers[column.name][start:end])


class Frames(AbstractSequence):  # type: ignore[type-arg]
    """All frames of a twin in time order."""

    def __init__(self, twin: Twin) -> None:
        self.twin = twin
        self.order = np.argsort(twin.numbers["frame.timestamp"], kind="stable")

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [Frame(self.twin, row) for row in self.order[index].tolist()]
        return Frame(self.twin, int(self.order[index]))

    def __iter__(self) -> Iterator[Frame]:
        return (Frame(self.twin, row) for row in self.order.tolist())

    def column(self, name: str) -> Any:
        """A whole column of a frame or camera level in time order: an array or a list of texts."""
        level, key = name.split(".")
        if name in self.twin.texts:
            texts = self.twin.texts[name].tolist()
            return [texts[row] for row in self.order.tolist()]
        values = self.twin.numbers[name]
        if level == "cam":
            values = values.reshape((len(self), len(CAMERAS)) + values.shape[1:])
        return values[self.order]


def plain_frames(twin: Twin) -> List[Info]:
    """All frames as dicts, in the order and with the paths of the file it was made from."""
    return [plain_frame(twin, row) for row in range(twin.frames)]


def plain_frame(twin: Twin, row: int) -> Info:
    """As the pickle holds it."""

    def paths(entry: Dict[str, Any], level: str, at: int) -> Dict[str, Any]:
        return dict(entry, data_path=twin.texts[level + ".data_path"][at])

    frame, first = Frame(twin, row), row * len(CAMERAS)
    out = {key: frame[key] for key in frame}
    out["lidar_path"] = twin.texts["frame.lidar_path"][row]
    out["cams"] = {
        channel: paths(dict(cam), "cam", first + i) for i, (channel, cam) in enumerate(out["cams"].items())
    }
    start = int(twin.ends["sweep"][row])
    out["sweeps"] = [paths(sweep, "sweep", start + i) for i, sweep in enumerate(out["sweeps"])]
    return out
