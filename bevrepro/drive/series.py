"""Training logs as series: our own and mmcv's `.log` / `.log.json`, mmengine's `.log` and scalars.json."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bevrepro.core.errors import DataError

QUANTITIES = ("lr", "loss", "grad_norm")
MAX_B = 1 << 28
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
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", do="Name a work folder or a log.") from error
    series = _json_lines(path, text) if _is_json(text) else _text(path, text)
    if not series.points:
        raise DataError(
            f"{path} has no line of a training",
            "Looked for mmcv's and mmengine's lines and for JSON lines with a loss.",
            "Name a work folder, a <time>.log or a <time>.log.json.",
        )
    return series


def _folder(folder: Path) -> Series:
    """Logs of later sessions win; run.json tells about it."""
    logs = sorted(folder.glob("*.log.json")) or sorted(folder.glob("*/vis_data/scalars.json"))
    logs = logs or sorted(folder.glob("*.log"))
    parts = [part for part in map(_readable, logs) if part is not None]
    if not parts:
        raise DataError(
            f"{folder} holds no training log",
            "Looked for *.log.json, */vis_data/scalars.json and *.log.",
            "Name the --work-dir of a training.",
        )
    merged = {(p.epoch if p.step is None else None, p.step or p.place): p for s in parts for p in s.points}
    run = _object(folder / "run.json")
    per_epoch = run.get("steps_per_epoch") if run else parts[-1].per_epoch
    points = tuple(
        sorted(merged.values(), key=lambda point: (point.step or 0, point.epoch or 0, point.place))
    )
    about = {key: value for part in parts for key, value in part.about.items()}
    return Series(str(folder), "work folder", points, per_epoch, about, run)


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


def _is_json(text: str) -> bool:
    return text.lstrip()[:1] == "{"


def _json_lines(path: Path, text: str) -> Series:
    points, about, engine = [], {}, False
    for entry in _objects(text):
        values = _values(entry)
        if "loss" not in values or entry.get("mode", "train") != "train":
            about.update(
                {key: value for key, value in entry.items() if key in ("seed", "exp_name", "env_info")}
            )
            continue
        engine = engine or "mode" not in entry
        step = entry.get("step")
        place = entry.get("iter", step)
        if not isinstance(place, int):
            continue
        epoch = entry.get("epoch")
        points.append(
            Point(
                epoch if isinstance(epoch, int) else None,
                place,
                step if isinstance(step, int) else None,
                values,
            )
        )
    beside = (
        path.with_suffix("") if path.name.endswith(".log.json") else path.parent.parent.with_suffix(".log")
    )
    per_epoch, more = _per_epoch_of(beside)
    kind = "mmengine scalars" if engine else "mmcv .log.json"
    return Series(str(path), kind, tuple(points), per_epoch, {**more, **about})


def _per_epoch_of(beside: Path) -> tuple[int | None, dict[str, Any]]:
    """From the text log of the same run, where it lies beside."""
    try:
        text = beside.read_text(encoding="utf-8", errors="replace") if beside.is_file() else ""
    except OSError:
        return None, {}
    found = EPOCH.search(text)
    return (int(found[3]) if found else None), _about(text)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the half line that a killed process leaves
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


def _text(path: Path, text: str) -> Series:
    points, per_epoch = [], None
    for line in text.splitlines():
        epoch, iteration = EPOCH.search(line), ITER.search(line)
        if epoch is None and iteration is None:
            continue
        values = {key: float(value) for key, value in VALUE.findall(line)}
        if "loss" not in values:  # an evaluation's line
            continue
        if epoch is not None:
            per_epoch = int(epoch[3])
            points.append(Point(int(epoch[1]), int(epoch[2]), None, values))
        elif iteration is not None:
            points.append(Point(None, int(iteration[1]), int(iteration[1]), values))
    kind = "mmengine .log" if "(train)" in text else "mmcv .log"
    return Series(str(path), kind, tuple(points), per_epoch, _about(text))


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
