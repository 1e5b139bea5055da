"""Training logs as series: our own and mmcv's `.log` / `.log.json`, mmengine's `.log` and scalars.json."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bevrepro.core.errors import DataError

QUANTITIES = ("lr", "loss", "grad_norm")
MAX_B = 1 << 28
HEADER_B = 1 << 20
NUMBER = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf)"
# mmcv: "Epoch [1][50/3517]\tlr: 1e-4, ..., loss: 3.1"
# mmengine: "Epoch(train)  [1][  50/3517]  lr: 1e-4  ..."
EPOCH = re.compile(r"Epoch(?:\(train\))?\s*\[(\d+)\]\s*\[\s*(\d+)/(\d+)\]")
ITER = re.compile(r"Iter(?:\(train\))?\s*\[\s*(\d+)/(\d+)\]")
VALUE = re.compile(rf"(?<![\w.])(lr|loss|grad_norm): ({NUMBER})")
CONFIG_LINES = {
    "lr": re.compile(rf"optimizer\s*=\s*dict\([^)]*?\blr=({NUMBER})", re.DOTALL),
    "samples_per_gpu": re.compile(r"\bsamples_per_gpu=(\d+)"),
    "queue_length": re.compile(r"\bqueue_length\s*=\s*(\d+)"),
    "gpus": re.compile(r"^gpu_ids\s*=\s*range\(0, (\d+)\)", re.MULTILINE),
}


@dataclass(frozen=True)
class Point:
    """One logged line: values by quantity. `epoch` from 1; `place` within it, or the step of the run."""

    epoch: int | None
    place: int
    step: int | None
    values: Mapping[str, float]


@dataclass(frozen=True)
class Series:
    """A run as its logs tell it. `about`: what run.json or the log's header says of it."""

    path: str
    kind: str  # "work folder", "mmcv .log.json", "mmcv .log", "mmengine .log", "mmengine scalars"
    points: tuple[Point, ...]
    per_epoch: int | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] | None = None  # run.json
    dropped: int = 0  # earlier runs in the same file or folder

    @property
    def by_epoch(self) -> bool:
        """Whether places start anew with every epoch."""
        return any(point.epoch is not None and point.step is None for point in self.points) or any(
            point.step is not None and point.step != point.place for point in self.points
        )

    def steps(self) -> dict[int, Point]:
        """By step of the run, from 1; empty where an epoch's length is not known."""
        found = {}
        for point in self.points:
            step = point.step
            if step is None and point.epoch is None:
                step = point.place
            elif step is None and self.per_epoch and point.epoch is not None:
                step = (point.epoch - 1) * self.per_epoch + point.place
            if step is not None:
                found[step] = point
        return found

    def places(self) -> dict[tuple[int, int], Point]:
        return {(point.epoch, point.place): point for point in self.points if point.epoch is not None}


def read_series(path: Path) -> Series:
    """A work folder (all its sessions together), or one log. DataError where nothing of training is in it."""
    if path.is_dir():
        return _folder(path)
    try:
        if path.stat().st_size > MAX_B:
            raise DataError(f"{path} has more than {MAX_B >> 20} MiB: no training log", do="Name a log.")
        with path.open(encoding="utf-8", errors="replace") as lines:
            series = _json_lines(path, lines) if _is_json(path) else _text(path, lines)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", do="Name a work folder or a log.") from error
    if not series.points:
        raise DataError(
            f"{path} has no line of a training",
            "Looked for mmcv's and mmengine's lines and for JSON lines with a loss.",
            "Name a work folder, a <time>.log or a <time>.log.json.",
        )
    return series


def _is_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4096).lstrip()[:1] == b"{"


class _Runs:
    """Points as they come: a step back to where the run began is another run, any other one goes on from an
    earlier checkpoint. Only the last run is kept."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.dropped = 0

    def add(self, point: Point) -> bool:
        """Whether a run begins with it."""
        known = self.points
        begins = bool(known) and _position(point) <= _position(known[0])
        if begins:
            self.points, self.dropped = [], self.dropped + 1
        while self.points and _position(self.points[-1]) >= _position(point):
            self.points.pop()
        self.points.append(point)
        return begins


def _position(point: Point) -> tuple[int, int]:
    return (0, point.step) if point.step is not None else (point.epoch or 0, point.place)


def _folder(folder: Path) -> Series:
    """Logs of later sessions win; run.json tells about it."""
    logs = sorted(folder.glob("*.log.json")) or sorted(folder.glob("*/vis_data/scalars.json"))
    logs = sorted(logs or folder.glob("*.log"), key=_session)
    parts = [part for part in map(_readable, logs) if part is not None]
    if not parts:
        raise DataError(
            f"{folder} holds no training log",
            "Looked for *.log.json, */vis_data/scalars.json and *.log.",
            "Name the --work-dir of a training.",
        )
    runs = _Runs()
    for point in (point for part in parts for point in part.points):
        runs.add(point)
    run = _object(folder / "run.json")
    per_epoch = run.get("steps_per_epoch") if run else parts[-1].per_epoch
    about = {key: value for part in parts for key, value in part.about.items()}
    dropped = runs.dropped + sum(part.dropped for part in parts)
    return Series(str(folder), "work folder", tuple(runs.points), per_epoch, about, run, dropped)


def _session(path: Path) -> tuple[str, int]:
    """`<ts>_10.log.json` comes after `<ts>_9.log.json`."""
    found = re.match(r"(\d{8}_\d{6})(?:_(\d+))?\.log", path.name)
    return (found[1], int(found[2] or 0)) if found else (str(path), 0)


def _readable(path: Path) -> Series | None:
    try:
        return read_series(path)
    except DataError:  # a session that ended before its first line
        return None


def _object(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _json_lines(path: Path, lines: Iterable[str]) -> Series:
    runs, about, engine = _Runs(), {}, False
    for entry in _objects(lines):
        values = _values(entry)
        if "loss" not in values or entry.get("mode", "train") != "train":
            about.update(
                {key: value for key, value in entry.items() if key in ("seed", "exp_name", "env_info")}
            )
            continue
        engine = engine or "mode" not in entry
        step, epoch = _whole(entry.get("step")), _whole(entry.get("epoch"))
        place = _whole(entry.get("iter", step))
        if place is not None:
            runs.add(Point(epoch, place, step, values))
    beside = (
        path.with_suffix("") if path.name.endswith(".log.json") else path.parent.parent.with_suffix(".log")
    )
    per_epoch, more = _per_epoch_of(beside)
    kind = "mmengine scalars" if engine else "mmcv .log.json"
    return Series(str(path), kind, tuple(runs.points), per_epoch, {**more, **about}, None, runs.dropped)


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _per_epoch_of(beside: Path) -> tuple[int | None, dict[str, Any]]:
    """From the text log of the same run, where it lies beside."""
    try:
        with beside.open(encoding="utf-8", errors="replace") as lines:
            series = _text(beside, lines)
    except OSError:
        return None, {}
    return series.per_epoch, dict(series.about)


def _objects(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):  # the half line that a killed process leaves
            continue
        if isinstance(entry, dict):
            yield entry


def _values(entry: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for key in QUANTITIES:
        value = entry.get(key)
        if isinstance(value, list):  # several groups: the last is the model's, the first the backbone's
            value = value[-1] if value else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[key] = float(value)
    return found


def _text(path: Path, lines: Iterable[str]) -> Series:
    """What stands before the first line of a run is its header."""
    runs, header, engine = _Runs(), _Header(), False
    per_epoch = None
    for line in lines:
        found = EPOCH.search(line) or ITER.search(line) if "Epoch" in line or "Iter" in line else None
        values = _numbers(line) if found else {}
        if found is None or "loss" not in values:  # an evaluation's line among others
            header.add(line)
            continue
        if found.re is EPOCH:
            per_epoch = int(found[3])
            point = Point(int(found[1]), int(found[2]), None, values)
        else:
            point = Point(None, int(found[1]), int(found[1]), values)
        engine = engine or "(train)" in line
        header.end(runs.add(point))
    kind = "mmengine .log" if engine else "mmcv .log"
    return Series(str(path), kind, tuple(runs.points), per_epoch, _about(header.text), None, runs.dropped)


class _Header:
    """The lines since the last one of training; kept where a run begins after them."""

    def __init__(self) -> None:
        self.text = ""
        self._lines: list[str] = []
        self._left, self._first = HEADER_B, True

    def add(self, line: str) -> None:
        self._left -= len(line)
        if self._left > 0:
            self._lines.append(line)

    def end(self, begins: bool) -> None:
        if begins or self._first:
            self.text = "".join(self._lines)
        self._lines, self._left, self._first = [], HEADER_B, False


def _numbers(line: str) -> dict[str, float]:
    """Without one that the end of the file may have cut."""
    cut = not line.endswith("\n")
    found = VALUE.finditer(line)
    return {match[1]: float(match[2]) for match in found if not (cut and match.end() == len(line))}


def _about(text: str) -> dict[str, Any]:
    """What a text log's printed configuration and environment say."""
    found: dict[str, Any] = {}
    for key, pattern in CONFIG_LINES.items():
        match = pattern.search(text)
        if match:
            found[key] = float(match[1]) if key == "lr" else int(match[1])
    for key, words in (("torch", r"^PyTorch: (\S+)"), ("seed", r"Set random seed to (\d+)")):
        match = re.search(words, text, re.MULTILINE)
        if match:
            found[key] = match[1]
    return found
