"""What is mounted and what is remembered, side by side, and whether the archives are still the same."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bevrepro.data import mountinfo, remembered

MOUNTED = "mounted"
DEAD = "dead"
STUCK = "stuck"
GONE = "gone"
IN_PROCESS = "in-process"


@dataclass(frozen=True)
class Status:
    """state: `mounted`; `dead` (its program is gone); `stuck` (it does not answer); `gone` (remembered, not
    mounted, as after a reboot); `in-process` (never mounted). In the last two training reads the archives.

    missing_archives are not there any more: a mount still shows them until it ends. changed_archives have
    another size or time of change than when they were mounted: a mount shows parts of both.
    """

    mountpoint: str
    state: str
    archives: tuple[str, ...]
    missing_archives: tuple[str, ...]
    since: str | None
    changed_archives: tuple[str, ...] = ()
    overlay: str | None = None

    @property
    def well(self) -> bool:
        """Nothing has to be done about it."""
        return self.state in (MOUNTED, IN_PROCESS) and not self.missing_archives + self.changed_archives

    def to_json(self) -> dict[str, Any]:
        tuples = ("archives", "missing_archives", "changed_archives")
        return {**asdict(self), **{name: list(getattr(self, name)) for name in tuples}}


def status() -> list[Status]:
    """All mounts of ours, remembered or not, by mount point."""
    known = {one.mountpoint: one for one in remembered.load()}
    mounted = {mount.mountpoint for mount in mountinfo.read() if mount.ours}
    return [_status(place, known.get(place), place in mounted) for place in sorted(known.keys() | mounted)]


def _status(place: str, known: remembered.Remembered | None, mounted: bool) -> Status:
    state = _state(place, known, mounted)
    if known is None:
        return Status(place, state, (), (), None)
    absent = tuple(archive for archive in known.archives if not Path(archive).exists())
    return Status(place, state, known.archives, absent, known.since, _changed(known), known.overlay)


def _changed(known: remembered.Remembered) -> tuple[str, ...]:
    """Folders may change, and what is missing is told as missing."""
    found = []
    for path, stamp in zip(known.archives, known.stamps):
        try:
            now = os.stat(path)
        except OSError:
            continue
        if os.path.isfile(path) and (now.st_size, now.st_mtime_ns) != stamp:
            found.append(path)
    return tuple(found)


def _state(place: str, known: remembered.Remembered | None, mounted: bool) -> str:
    if mounted:
        dead = mountinfo.is_dead(Path(place))
        return DEAD if dead else STUCK if mountinfo.is_stuck(Path(place)) else MOUNTED
    return IN_PROCESS if known and known.mode == remembered.IN_PROCESS else GONE
