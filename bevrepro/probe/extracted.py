"""A folder that looks like nuScenes' own (extracted, or a mount): files of each sensor, tables, CAN data."""

import errno
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bevrepro.probe.files import open_plain
from bevrepro.probe.nuscenes import TABLES

LANDMARKS = ("samples", "sweeps", "can_bus")
MOST_TABLE_B = 64 << 20
DEADLINE_S = 3.0  # of counting; a mount may take longer than anybody wants to wait
KINDS = {"CAM": "cameras", "LIDAR": "lidar", "RADAR": "radar"}


@dataclass(frozen=True)
class Extracted:
    """`samples` and `sweeps`: channel -> files in it, None where counting took too long. `tables`: version ->
    the tables that are not there. `can_scenes`: scenes with a pose message."""

    path: str
    samples: Mapping[str, int | None] = field(default_factory=dict)
    sweeps: Mapping[str, int | None] = field(default_factory=dict)
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sample_rows: Mapping[str, int | None] = field(default_factory=dict)  # version -> rows of sample.json
    can_scenes: int | None = None
    maps: int | None = None
    expansion: bool = False
    error: str | None = None

    def fewest(self) -> dict[str, int | None]:
        """`cameras`, `camera_sweeps`, ... -> the fewest files of a channel of that kind."""
        found: dict[str, int | None] = {}
        for counts, ending in ((self.samples, ""), (self.sweeps, "_sweeps")):
            for start, what in KINDS.items():
                each = [count for name, count in counts.items() if name.startswith(start)]
                name = (what.rstrip("s") if ending else what) + ending
                enough = len(each) >= {"CAM": 6, "LIDAR": 1, "RADAR": 5}[start]
                known = [count for count in each if count is not None]
                found[name] = (min(known) if len(known) == len(each) else None) if enough else 0
        return found


def is_root(names: set[str]) -> bool:
    """Whether a folder with these entries is a data root."""
    return any(name in names for name in LANDMARKS) or any(name.startswith("v1.0-") for name in names)


def probe_extracted(path: Path) -> Extracted:
    """Never raises for what it finds; a dead mount is an error that says so."""
    until = time.monotonic() + DEADLINE_S
    try:
        names = set(os.listdir(path))
        versions = sorted(name for name in names if name.startswith("v1.0-") and (path / name).is_dir())
        return Extracted(
            str(path),
            _counts(path / "samples", until),
            _counts(path / "sweeps", until),
            {version: _lacking(path / version) for version in versions},
            {version: _sample_rows(path / version / "sample.json") for version in versions},
            _ending(path / "can_bus", "_pose.json", until),
            _ending(path / "maps", ".png", until),
            (path / "maps/expansion").is_dir(),
        )
    except OSError as error:
        dead = error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
        return Extracted(str(path), error="a mount whose program has died" if dead else error.strerror)


def _counts(folder: Path, until: float) -> dict[str, int | None]:
    try:
        channels = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {channel: _ending(folder / channel, "", until) for channel in channels}


def _ending(folder: Path, ending: str, until: float) -> int | None:
    count = 0
    try:
        with os.scandir(folder) as entries:
            for number, entry in enumerate(entries):
                count += entry.name.endswith(ending)
                if number % 1000 == 0 and time.monotonic() > until:
                    return None
    except (FileNotFoundError, NotADirectoryError):
        return None if ending else 0
    return count


def _sample_rows(table: Path) -> int | None:
    """By a field that every row has once; the real table has 34,149 rows in some 10 MB."""
    try:
        with open_plain(table) as file:
            text = file.read(MOST_TABLE_B + 1)
    except OSError:
        return None
    return text.count(b'"scene_token"') if len(text) <= MOST_TABLE_B else None


def _lacking(folder: Path) -> tuple[str, ...]:
    names = set(os.listdir(folder))
    return tuple(f"{name}.json" for name in TABLES if f"{name}.json" not in names)
