"""The numbers of one evaluation: a metrics_summary.json, or a log with the devkit's table."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bevrepro.probe.paths import Place, probe_place

MAX_B = 1 << 26
TAIL_B = 1 << 22  # of a log: the table stands at its end
ERRORS = {
    "trans_err": "mATE", "scale_err": "mASE", "orient_err": "mAOE", "vel_err": "mAVE", "attr_err": "mAAE",
}  # fmt: skip
LINE = re.compile(r"\b(mAP|mATE|mASE|mAOE|mAVE|mAAE|NDS)\b\W{1,6}(\d\.\d+)")
CLASSES = (
    "car", "truck", "bus", "trailer", "construction_vehicle", "pedestrian", "motorcycle", "bicycle",
    "traffic_cone", "barrier",
)  # fmt: skip
CLASS_LINE = re.compile(rf"^\W*({'|'.join(CLASSES)})\s+(\d\.\d+)(?:\s+(?:\d\.\d+|nan)){{5}}", re.MULTILINE)


@dataclass(frozen=True)
class Metrics:
    """Named as in the devkit's table; None where the file does not say."""

    place: Place
    broken: str | None = None
    map: float | None = None
    nds: float | None = None
    errors: Mapping[str, float] | None = None  # mATE, mASE, mAOE, mAVE, mAAE
    class_ap: Mapping[str, float] | None = None


def probe_metrics(path: Path, deep: bool = False) -> Metrics:
    """A folder stands for the metrics_summary.json in it. Never raises for what the file holds."""
    file = path / "metrics_summary.json" if os.path.isdir(path) else path
    place = probe_place(file)
    if place.kind != "file":
        return Metrics(place)
    try:
        with file.open("rb") as stream:
            stream.seek(max((place.size_b or 0) - (MAX_B if file.suffix == ".json" else TAIL_B), 0))
            text = stream.read().decode("utf-8", "replace")
    except OSError as error:
        return Metrics(place, broken=error.strerror)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return _from_log(place, text)
    return _from_summary(place, content)


def _from_summary(place: Place, content: Any) -> Metrics:
    if not isinstance(content, dict) or "nd_score" not in content:
        return Metrics(place, broken="it is JSON, but no metrics_summary of the devkit (no nd_score)")
    errors = content.get("tp_errors")
    return Metrics(
        place,
        map=_number(content.get("mean_ap")),
        nds=_number(content.get("nd_score")),
        errors=_numbers({ERRORS[key]: value for key, value in errors.items() if key in ERRORS})
        if isinstance(errors, dict)
        else None,
        class_ap=_numbers(content.get("mean_dist_aps")),
    )


def _from_log(place: Place, text: str) -> Metrics:
    found = {name: float(value) for name, value in LINE.findall(text)}  # the last evaluation counts
    if "NDS" not in found:
        return Metrics(place, broken="it holds no table of the devkit (no NDS)")
    rows = {name: float(ap) for name, ap in CLASS_LINE.findall(text)}
    errors = {name: value for name, value in found.items() if name in ERRORS.values()}
    return Metrics(place, None, found.get("mAP"), found["NDS"], errors or None, rows or None)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and value == value else None


def _numbers(values: Any) -> dict[str, float] | None:
    if not isinstance(values, dict):
        return None
    known = ((str(key), _number(value)) for key, value in values.items())
    return {key: value for key, value in known if value is not None}
