"""What is mounted and what is remembered, side by side."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bevrepro.data import mountinfo, remembered


@dataclass(frozen=True)
class Status:
    """state: `mounted`; `dead` (its program is gone: umount it); `gone` (remembered, not mounted, as after a
    reboot: training reads the archives); `in-process` (never mounted, training reads the archives)."""

    mountpoint: str
    state: str
    archives: tuple[str, ...]
    missing_archives: tuple[str, ...]
    since: str | None

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "archives": list(self.archives),
            "missing_archives": list(self.missing_archives),
        }


def status() -> list[Status]:
    """All mounts of ours, remembered or not, by mount point."""
    known = {one.mountpoint: one for one in remembered.load()}
    mounted = {mount.mountpoint for mount in mountinfo.read() if mount.ours}
    return [_status(place, known.get(place), place in mounted) for place in sorted(known.keys() | mounted)]


def _status(place: str, known: remembered.Remembered | None, mounted: bool) -> Status:
    archives = known.archives if known else ()
    absent = tuple(archive for archive in archives if not Path(archive).exists())
    return Status(place, _state(place, known, mounted), archives, absent, known.since if known else None)


def _state(place: str, known: remembered.Remembered | None, mounted: bool) -> str:
    if mounted:
        return "dead" if mountinfo.is_dead(Path(place)) else "mounted"
    return "in-process" if known and known.mode == remembered.IN_PROCESS else "gone"
