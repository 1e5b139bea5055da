"""From what a user calls the data to what the model plane is given as --data-root."""

from collections.abc import Sequence
from pathlib import Path

from bevrepro.core.errors import DataError
from bevrepro.data import mountinfo, remembered


def resolve(roots: Sequence[Path]) -> list[str]:
    """One list of folders and archives, in order. A live mount stays a folder; a remembered mount point that
    is not mounted (no FUSE here, a reboot, a dead program) becomes its archives, which the in-process reader
    takes as they are. Raises DataError for what is missing.
    """
    mounts = mountinfo.read()
    return [path for root in roots for path in _resolve(root, mounts)]


def _resolve(root: Path, mounts: list[mountinfo.Mount]) -> list[str]:
    real = mountinfo.real(root)
    mounted = mountinfo.at(mounts, real)
    if mounted and not mountinfo.is_dead(real):
        return [str(real)]
    known = remembered.get(real)
    if known:
        return [
            _existing(Path(archive), f"the mount point {root} stands for it") for archive in known.archives
        ]
    if mounted:
        raise DataError(
            f"{root} is a mount whose program has died",
            "Nothing can be read from it.",
            f"bevrepro data umount {root}   and mount it again",
        )
    return [_existing(real, "it was given as data")]


def _existing(path: Path, why: str) -> str:
    if not path.exists():
        raise DataError(
            f"there is no {path}",
            f"As {why}, it has to be there.",
            "Check the path, or: bevrepro data mount ARCHIVE... MOUNTPOINT",
        )
    return str(path)
