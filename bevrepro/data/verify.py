"""Whether archives and folders are whole: what is planned and what is read. `report.py` judges the answers.

The control plane hashes (`hashing.py`); what lies inside archives is read by the model plane's verb `verify`,
which gets a request and gives a result, both JSON. Nothing is written but to the cache.
"""

import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bevrepro.core.errors import DataError
from bevrepro.data import archives, hashing, index, remembered
from bevrepro.data.catalogue import NOT_NEEDED, Entry, entries
from bevrepro.data.hashing import OnEvent, Stamp
from bevrepro.data.scan import Item, Scan, scan

CAMERAS = tuple(
    f"CAM_{name}" for name in ("FRONT", "FRONT_RIGHT", "FRONT_LEFT", "BACK", "BACK_LEFT", "BACK_RIGHT")
)
LIDAR = ("LIDAR_TOP",)
RADARS = tuple(f"RADAR_{name}" for name in ("FRONT", "FRONT_LEFT", "FRONT_RIGHT", "BACK_LEFT", "BACK_RIGHT"))
CHANNELS = {"camera": CAMERAS, "lidar": (*CAMERAS, *LIDAR), "all": (*CAMERAS, *LIDAR, *RADARS)}
NOT_WHOLE = ("unfinished", "cut", "broken", "contradicts", "piece")
WITH_TABLES = ("meta", "mini", "set")
READ_ANYWAY_B = 8 << 30  # tables in a bigger .tgz are only looked for with --full or an index
RunInside = Callable[[Path], dict[str, Any]]


@dataclass(frozen=True)
class Wish:
    """What was asked for. `channels`: a key of CHANNELS, for the keyframes that have to be there."""

    places: tuple[Path, ...]
    full: bool = True
    channels: str = "camera"
    sweeps: bool = False
    jobs: int | None = None
    versions: tuple[str, ...] = ()
    again: bool = False  # believe nothing that was read before


@dataclass(frozen=True)
class Checked:
    """One archive. `md5_ok`: True for an official md5, False for another one, None where there is none to
    compare with or it was not computed. `problems`: (id, seen, why, remedy) of what was found here."""

    item: Item
    stamp: Stamp | None = None
    md5: str | None = None
    entry: Entry | None = None
    md5_ok: bool | None = None
    resumed: bool = False
    exchanged: bool = False  # other ends under the same size and time as when it was read before
    index: Path | None = None
    problems: tuple[tuple[str, str, str, str], ...] = ()
    to_hash: bool = False
    read: bool = False  # through the model plane
    whole: bool = False  # every byte of it
    kept: dict[str, Any] | None = None  # what an earlier pass found inside
    inside: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return self.stamp.path if self.stamp else str(self.item.path)

    def with_problem(self, id: str, seen: str, why: str, remedy: str = "") -> "Checked":
        return replace(self, problems=(*self.problems, (id, seen, why, remedy)))


@dataclass(frozen=True)
class Plan:
    """What will be read. `skipped`: recognised, and of no use to any task here."""

    wish: Wish
    scan: Scan
    archives: tuple[Checked, ...]
    folders: tuple[str, ...]
    skipped: tuple[Item, ...]
    jobs: int
    mounts: tuple[str, ...] = ()  # folders that show archives

    @property
    def hash_b(self) -> int:
        return sum(each.stamp.size_b for each in self.archives if each.to_hash and each.stamp)

    @property
    def read_b(self) -> int:
        return sum(each.stamp.size_b for each in self.archives if each.read and each.stamp)

    def to_json(self) -> dict[str, Any]:
        return {
            "mode": "full" if self.wish.full else "fast",
            "jobs": self.jobs,
            "md5_b": self.hash_b,
            "inside_b": self.read_b,
            "archives": [
                {"path": each.path, "md5": each.to_hash, "inside": each.read, "resumed": each.resumed}
                for each in self.archives
            ],
            "folders": list(self.folders),
            "not_needed": [str(item.path) for item in self.skipped],
        }


def plan(wish: Wish, known: tuple[Entry, ...] | None = None) -> Plan:
    """DataError where there is nothing to verify. `known`: the catalogue, for tests."""
    found = scan(wish.places, known)
    named = {os.path.realpath(place) for place in wish.places}
    items = [item for item in found.items if item.use != "foreign" or os.path.realpath(item.path) in named]
    skipped = [
        item
        for item in items
        if item.identity.kind in NOT_NEEDED and os.path.realpath(item.path) not in named
    ]
    folders = tuple(folder.path for folder in found.folders if not folder.error)
    if not items and not found.folders:
        raise DataError(
            f"nothing of nuScenes in {', '.join(map(str, wish.places))}",
            "Archives (.tgz, .tar, .zip) and folders with samples/, can_bus/ or tables are looked for.",
            "bevrepro data status   lists mounts; bevrepro data scan DIR says what a folder holds.",
        )
    jobs = wish.jobs or min((hashing.jobs_for(item.path) for item in items), default=1)
    known = entries() if known is None else known
    chosen = tuple(_planned(item, wish, known) for item in items if item not in skipped)
    mounts = tuple(each for each in folders if remembered.get(Path(os.path.realpath(each))))
    return Plan(wish, found, chosen, folders, tuple(skipped), jobs, mounts)


def _planned(item: Item, wish: Wish, known: tuple[Entry, ...]) -> Checked:
    """Without reading more than its ends and what is remembered of it."""
    checked = Checked(item)
    if item.identity.status in NOT_WHOLE or item.inside.form not in ("tgz", "tar", "zip"):
        return checked
    try:
        checked = replace(checked, stamp=hashing.stamp(item.path))
    except OSError as error:
        return checked.with_problem("archive-unreadable", f"{item.path} cannot be read: {error.strerror}", "")
    official = bool(_official(item, known))
    checked = _with_reading(_with_index(_with_memory(checked, wish.again)), wish, official)
    # A .tgz that is read for its tables gets its md5 on the way.
    passing = checked.read and item.inside.form == "tgz"
    to_hash = wish.full and official and checked.md5 is None and not passing
    return replace(
        checked, to_hash=to_hash, resumed=checked.resumed or (wish.full and checked.md5 is not None)
    )


def _with_memory(checked: Checked, again: bool) -> Checked:
    """What earlier runs found of this very file; disks forget, so it need not be believed (`again`)."""
    if checked.stamp is None:
        return checked
    md5, exchanged_md5 = hashing.recall(checked.stamp, "md5.json")
    kept, exchanged = hashing.recall(checked.stamp, "json")
    checked = replace(checked, exchanged=exchanged or exchanged_md5)
    known = (md5 or {}).get("md5") or (kept or {}).get("md5")
    return checked if again else replace(checked, kept=kept, md5=known)


def _official(item: Item, known: tuple[Entry, ...]) -> dict[str, Entry]:
    """md5 -> entry, of all generations of this archive. A .tar of a .tgz has none."""
    entry = item.identity.entry
    if entry is None or item.identity.status in ("repacked", "synthetic"):
        return {}
    return {each.md5: each for each in known if each.name == entry.name and each.md5}


def _with_reading(checked: Checked, wish: Wish, has_official: bool) -> Checked:
    """Whether the model plane reads it: for tables, for headers, or for checksums where no md5 is known."""
    item, kept = checked.item, checked.kept
    small = checked.stamp is not None and checked.stamp.size_b <= READ_ANYWAY_B
    perhaps = item.identity.kind in WITH_TABLES or item.identity.entry is None
    tables = bool(kept["tables"]) if kept else perhaps and (small or wish.full)
    whole = wish.full and not has_official
    done = bool(kept and (kept.get("whole") or not whole))
    cheap = item.inside.form in ("tar", "zip")
    read = (not done and (whole or cheap)) or tables
    return replace(checked, read=read, whole=whole and not done, resumed=checked.resumed or (done and whole))


def _with_index(checked: Checked) -> Checked:
    """ratarmount's index, when it is of this very file and ends where the archive does."""
    form = checked.item.inside.form
    if form not in ("tar", "tgz") or checked.stamp is None:
        return checked
    archive = archives.Archive(Path(checked.stamp.path), form, checked.stamp.size_b, checked.stamp.mtime_ns)
    path = index.index_path(archive)
    if not path.exists():
        return checked
    name = Path(checked.stamp.path).name
    again = "It is made again by: bevrepro data index " + checked.stamp.path
    if not index.is_fresh(archive):
        why = "Reading by it would give bytes of other files; ratarmount itself does not look at the time."
        return checked.with_problem("index-stale", f"{name} changed after it was indexed", why, again)
    try:
        archives.check_against_index(archive, index.tar_end(archive))
    except DataError as error:
        return checked.with_problem("index-differs", error.seen, error.why, error.do)
    if path.stat().st_mtime_ns < Path(checked.stamp.path).stat().st_ctime_ns:
        why = "Size and time are as they were: it was only moved or linked, or another file took its place."
        checked = checked.with_problem("index-older", f"{name} was touched after it was indexed", why, again)
    return replace(checked, index=path)


def hash_archives(planned: Plan, known: tuple[Entry, ...] | None, on_event: OnEvent) -> Plan:
    """With the md5 of every archive that has a published one."""
    known = entries() if known is None else known
    stamps = [each.stamp for each in planned.archives if each.to_hash and each.stamp]
    found = hashing.md5_all(stamps, planned.jobs, on_event) if stamps else {}
    return replace(planned, archives=tuple(_with_md5(each, found, known) for each in planned.archives))


def _with_md5(checked: Checked, found: dict[str, str | OSError], known: tuple[Entry, ...]) -> Checked:
    md5 = found.get(checked.path, checked.md5)
    if isinstance(md5, OSError):
        said = md5.strerror or str(md5)
        return checked.with_problem("archive-unreadable", f"{checked.path} cannot be read: {said}", "")
    if md5 is None:
        return checked
    official = _official(checked.item, known)
    if not official:
        return replace(checked, md5=md5)
    # An md5 that nobody published: its own checksums say whether it is damaged or only another generation.
    unknown = md5 not in official
    read = unknown and not (checked.kept and checked.kept.get("whole"))
    return replace(
        checked,
        md5=md5,
        entry=official.get(md5),
        md5_ok=not unknown,
        read=checked.read or read,
        whole=checked.whole or read,
    )


def look_inside(
    planned: Plan, run: RunInside, known: tuple[Entry, ...] | None = None
) -> tuple[Plan, dict[str, Any]]:
    """The plan with what the model plane found in each archive, and the tables by version."""
    known = entries() if known is None else known
    archives_ = [
        each for each in planned.archives if each.stamp and each.item.inside.form in ("tgz", "tar", "zip")
    ]
    if not archives_ and not planned.folders:
        return planned, {}
    with tempfile.TemporaryDirectory(prefix="bevrepro-verify-") as work:
        request = Path(work) / "request.json"
        request.write_text(json.dumps(_request(planned, archives_)))
        result = run(request)
    done = tuple(
        _with_inside(each, result["archives"].get(each.path, {}), known) for each in planned.archives
    )
    return replace(planned, archives=done), result["tables"]


def _with_inside(checked: Checked, found: dict[str, Any], known: tuple[Entry, ...]) -> Checked:
    checked = replace(checked, inside=found)
    md5 = found.get("md5") or checked.md5
    official = _official(checked.item, known)
    if not md5:
        return checked
    return replace(checked, md5=md5, entry=official.get(md5), md5_ok=md5 in official if official else None)


def _request(planned: Plan, chosen: Sequence[Checked]) -> dict[str, Any]:
    wish = planned.wish
    channels = CHANNELS[wish.channels]
    return {
        "archives": [_spec(each) for each in chosen],
        "roots": [*(each.path for each in chosen), *planned.folders],
        "keyframes": channels,
        "sweeps": channels if wish.sweeps else [],
        "versions": wish.versions,
        "whole": wish.full,
        "contents": wish.full,
        "jobs": planned.jobs,
    }


def _spec(each: Checked) -> dict[str, Any]:
    assert each.stamp is not None
    stem = str(each.stamp.stem())
    kept_names = f"{stem}.names.gz" if each.kept and Path(f"{stem}.names.gz").is_file() else None
    return {
        "path": each.path,
        "form": each.item.inside.form,
        "read": each.read,
        "whole": each.whole,
        "state": stem,
        "stamp": asdict(each.stamp),
        "kept_names": kept_names,
        "index": str(each.index) if each.index else None,
    }
