"""What a work folder holds, read into values: what ran, where, how the loss went, scores and pictures.

`collect` reads files and never judges; `report_html` draws. Anything missing or broken is left out and
named in `gaps`, so that half a run still gives a report.
"""

import hashlib
import json
import shlex
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bevrepro import __version__
from bevrepro.core.errors import DataError, UserError
from bevrepro.core.machine import Machine, Package
from bevrepro.core.paths import atomic_write_text
from bevrepro.drive.compare import Comparison, compare
from bevrepro.drive.series import read_series

CLASSES = (
    "car", "truck", "bus", "trailer", "construction_vehicle",
    "pedestrian", "motorcycle", "bicycle", "traffic_cone", "barrier",
)  # fmt: skip
CLASS_ERRORS = ("trans_err", "scale_err", "orient_err", "vel_err", "attr_err")
MEAN_ERRORS = ("mATE", "mASE", "mAOE", "mAVE", "mAAE")
MAX_PICTURES = 24

# The folders under eval/ that the demo makes, and what their numbers are about.
TITLES = {
    ("before", "labelled"): "Before training, the frames to be trained on",
    ("before", "between"): "Before training, the frames between",
    ("after", "labelled"): "Trained frames",
    ("after", "between"): "Unlabelled frames between them",
    ("unseen", "all"): "Unseen scenes",
    ("eval", "all"): "The whole split",
    ("eval", "labelled"): "The frames that were trained on",
    ("eval", "between"): "The unlabelled frames between them",
}

PICTURE_TITLES = {
    "trained": "Trained frame",
    "between": "Unlabelled frame between",
    "unseen": "Unseen scene",
}


@dataclass(frozen=True)
class Command:
    """One command line as it can be pasted, and how long it took."""

    text: str
    seconds: float | None = None


@dataclass(frozen=True)
class Score:
    """One set of frames scored by nuscenes-devkit. None: nuScenes defines no such number."""

    name: str  # folder under eval/
    subset: str
    mean_ap: float
    nds: float
    num_samples: int | None = None
    split: str | None = None
    errors: dict[str, float | None] = field(default_factory=dict)  # mATE ...
    class_ap: dict[str, float] = field(default_factory=dict)
    class_errors: dict[str, dict[str, float | None]] = field(default_factory=dict)  # car -> trans_err ...

    @property
    def title(self) -> str:
        return TITLES.get((self.name, self.subset), f"{self.name}: {self.subset}")


@dataclass(frozen=True)
class Picture:
    caption: str
    png: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Environment:
    """The target interpreter's packages; digest: sha256 over their sorted `name==version` lines."""

    python: str | None
    count: int
    digest: str


@dataclass(frozen=True)
class Report:
    work_dir: Path
    made: str
    bevrepro: str
    commands: tuple[Command, ...]
    machine: dict[str, str]  # family -> line
    environment: Environment | None
    run: dict[str, Any] | None  # run.json
    losses: tuple[tuple[int, float], ...]  # (step, loss)
    scores: tuple[Score, ...]
    pictures: tuple[Picture, ...]
    gaps: tuple[str, ...]
    verdict: dict[str, Any] | None = None  # verdict.json
    comparison: Comparison | None = None


def write_report(work_dir: Path, out: Path | None = None, against: Path | None = None) -> Path:
    """Make the page for a work folder, beside another run or log where one is named; returns its path.
    DataError where there is nothing to report.
    """
    from bevrepro.drive.report_html import render

    target = out or work_dir / "report.html"
    atomic_write_text(target, render(collect(work_dir, against)))
    return target


def collect(work_dir: Path, against: Path | None = None) -> Report:
    """Read everything in `work_dir`. Raises DataError when there is no such folder or no result in it."""
    if not work_dir.is_dir():
        raise DataError(
            f"there is no folder {work_dir}",
            "A report is made from the files that train and eval leave in a work folder.",
            "Give the --work-dir of a training, for example work_dirs/bevformer_micro.",
        )
    gaps: list[str] = []
    run = read_object(work_dir / "run.json", gaps)
    losses = read_losses(work_dir)
    scores = read_scores(work_dir, gaps)
    pictures = read_pictures(work_dir / "viz", gaps)
    verdict = read_object(work_dir / "verdict.json", gaps)
    if run is None and verdict is None and not losses and not scores and not pictures:
        raise DataError(
            f"nothing to report in {work_dir}",
            "It holds no run.json, no training log, no eval.json under eval/ and no picture under viz/.",
            "Run `bevrepro train` with this --work-dir first.",
        )
    machine = read_machine(work_dir, gaps)
    return Report(
        work_dir=work_dir,
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        bevrepro=__version__,
        commands=read_commands(work_dir, run, gaps),
        machine=describe(machine) if machine else {},
        environment=environment_of(machine) if machine else None,
        run=run,
        losses=losses,
        scores=scores,
        pictures=pictures,
        gaps=tuple(gaps),
        verdict=verdict,
        comparison=None if against is None else compare(read_series(work_dir), read_series(against)),
    )


def read_object(path: Path, gaps: list[str]) -> dict[str, Any] | None:
    """A JSON object; None where there is none, with a line in `gaps` where it is broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        gaps.append(f"{path.name} could not be read: {error}")
        return None
    if not isinstance(content, dict):
        gaps.append(f"{path.name} holds no JSON object")
        return None
    return content


def read_commands(work_dir: Path, run: dict[str, Any] | None, gaps: list[str]) -> tuple[Command, ...]:
    """From commands.json, which the demo writes; else the training's own command line."""
    listed = (read_object(work_dir / "commands.json", gaps) or {}).get("commands")
    if isinstance(listed, list):
        return tuple(
            Command(str(each.get("text", "")), _number(each.get("seconds")))
            for each in listed
            if isinstance(each, dict)
        )
    sessions = (run or {}).get("sessions")
    return tuple(
        Command(shlex.join(map(str, each.get("command") or ())), _number(each.get("seconds")))
        for each in (sessions if isinstance(sessions, list) else [])
        if isinstance(each, dict)
    )


def read_losses(work_dir: Path) -> tuple[tuple[int, float], ...]:
    """(step, loss) of every logged training line, all sessions together; a later session wins."""
    by_step: dict[int, float] = {}
    for path in sorted(work_dir.glob("*.log.json")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the half line that a killed process leaves
                continue
            loss = _number(entry.get("loss")) if isinstance(entry, dict) else None
            if loss is not None and entry.get("mode") == "train":
                by_step[int(entry.get("step") or entry.get("iter") or 0)] = loss
    return tuple(sorted(by_step.items()))


def read_scores(work_dir: Path, gaps: list[str]) -> tuple[Score, ...]:
    """Every subset of every eval.json under eval/; the demo's in its order, others after them."""
    scores = []
    for path in sorted(work_dir.glob("eval/**/eval.json")):
        name = path.parent.relative_to(work_dir / "eval").as_posix()
        content = read_object(path, gaps) or {}
        for subset, entry in content.items():
            if isinstance(entry, dict) and _number(entry.get("mAP")) is not None:
                scores.append(_score("eval" if name == "." else name, str(subset), entry))
    known = list(TITLES)
    return tuple(
        sorted(
            scores,
            key=lambda s: known.index((s.name, s.subset)) if s.title in TITLES.values() else len(known),
        )
    )


def _score(name: str, subset: str, entry: dict[str, Any]) -> Score:
    detail = entry.get("detail") or {}
    count = entry.get("num_samples")
    return Score(
        name,
        subset,
        float(entry["mAP"]),
        float(entry.get("NDS") or 0.0),
        count if isinstance(count, int) else None,
        str(entry["split"]) if entry.get("split") else None,
        {key: _number((entry.get("errors") or {}).get(key)) for key in MEAN_ERRORS},
        {key: float(value) for key, value in (entry.get("class_ap") or {}).items()},
        {
            kind: {key: _number(detail.get(f"pts_bbox_NuScenes/{kind}_{key}")) for key in CLASS_ERRORS}
            for kind in CLASSES
        },
    )


def read_pictures(folder: Path, gaps: list[str]) -> tuple[Picture, ...]:
    """The PNG files under `folder`, at most MAX_PICTURES."""
    pictures: list[Picture] = []
    found = sorted(folder.rglob("*.png"), key=_picture_order) if folder.is_dir() else []
    for path in found[:MAX_PICTURES]:
        content = path.read_bytes()
        if len(content) < 24 or not content.startswith(b"\x89PNG\r\n\x1a\n") or b"IEND" not in content[-16:]:
            gaps.append(f"viz/{path.relative_to(folder)} is no whole PNG")
            continue
        width, height = struct.unpack(">II", content[16:24])
        pictures.append(Picture(_caption(path.relative_to(folder)), content, width, height))
    if len(found) > MAX_PICTURES:
        gaps.append(f"{len(found) - MAX_PICTURES} more pictures in {folder}")
    return tuple(pictures)


def _picture_order(path: Path) -> tuple[int, str]:
    kinds = list(PICTURE_TITLES)
    return (kinds.index(path.parent.name) if path.parent.name in kinds else len(kinds), str(path))


def _caption(path: Path) -> str:
    """`viz/trained/scene-0061_003_ab.png` -> `Trained frame: scene-0061_003_ab`."""
    kind = PICTURE_TITLES.get(path.parts[0])
    return f"{kind}: {path.stem}" if kind else path.with_suffix("").as_posix()


def read_machine(work_dir: Path, gaps: list[str]) -> Machine | None:
    """machine.json in the work folder (from `bevrepro doctor --record`), else this machine, probed now."""
    from bevrepro.doctor.record import load
    from bevrepro.drive.launch import target_python
    from bevrepro.probe.machine import collect as probe

    recorded = work_dir / "machine.json"
    try:
        return load(recorded) if recorded.is_file() else probe(Path(target_python()))
    except UserError as error:
        gaps.append(error.seen)
        return None


def describe(machine: Machine) -> dict[str, str]:
    from bevrepro.doctor.summary import summarise

    return summarise(machine)


def environment_of(machine: Machine) -> Environment | None:
    """None where the interpreter could not be asked for its packages."""
    packages = machine.python.packages
    if packages is None:
        return None
    lines = package_lines(packages)
    return Environment(machine.python.version, len(lines), packages_digest(lines))


def package_lines(packages: Iterable[Package]) -> list[str]:
    """Sorted `name==version`; of a name installed twice the first on sys.path, which is the one imported."""
    first: dict[str, str] = {}
    for package in packages:
        first.setdefault(package.name, package.version)
    return sorted(f"{name}=={version}" for name, version in first.items())


def packages_digest(lines: Sequence[str]) -> str:
    """Equal digests mean the same packages in the same versions."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return None
    return float(value)
