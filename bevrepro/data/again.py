"""Mount again what is remembered: after a reboot, or when the program behind a mount has died."""

import os
from collections.abc import Sequence
from pathlib import Path

from bevrepro.core.errors import MountError
from bevrepro.data import mountinfo, remembered
from bevrepro.data.mount import Wanted
from bevrepro.data.status import DEAD, GONE, MOUNTED, Status, status


def wanted_again(mountpoint: Path | None = None) -> tuple[Wanted, ...]:
    """What to mount: at one place, or everything that was mounted and is not now. MountError for nothing."""
    known = {one.mountpoint: one for one in remembered.load()}
    if mountpoint is None:
        lost = [one for one in status() if one.state in (GONE, DEAD) and one.mountpoint in known]
        return tuple(_wanted(known[one.mountpoint]) for one in lost)
    place = str(mountinfo.real(mountpoint))
    if place not in known and os.path.isfile(place):
        raise MountError(
            f"{mountpoint} is given without a MOUNTPOINT",
            "The archives are shown as one folder, which has to have a name.",
            f"bevrepro data mount {mountpoint} MOUNTPOINT",
        )
    if place not in known:
        raise MountError(
            f"nothing is remembered for {place}",
            "Which archives belong there was forgotten by umount, or it was never mounted.",
            f"bevrepro data mount ARCHIVE... {mountpoint}",
        )
    _check_not_mounted(status(), place)
    return (_wanted(known[place]),)


def _check_not_mounted(found: Sequence[Status], place: str) -> None:
    if any(one.mountpoint == place and one.state == MOUNTED for one in found):
        raise MountError(f"{place} is mounted already", do="bevrepro data status")


def _wanted(known: remembered.Remembered) -> Wanted:
    """`in_process` is not taken over: it was for want of FUSE, which may be there by now."""
    overlay = Path(known.overlay) if known.overlay else None
    archives = tuple(Path(path) for path in known.archives if path != known.overlay)
    return Wanted(archives, Path(known.mountpoint), overlay, allow_other=known.allow_other)
