"""The mount point: free before, made where it is missing, cleaned after a failure."""

import os
import sys
from pathlib import Path

from bevrepro.core.errors import MachineError, MountError
from bevrepro.data import mountinfo, unmount


def is_dead_mount(place: Path) -> bool:
    """Whether a FUSE mount is there whose program is gone."""
    return mountinfo.at(mountinfo.read(), place) is not None and mountinfo.is_dead(place)


def check(place: Path) -> None:
    """A new or an empty folder, or a dead mount of ours (which `mount` cleans)."""
    mounted = mountinfo.at(mountinfo.read(), place)
    if mounted and mountinfo.is_dead(place) and mounted.ours:
        return
    if mounted:
        raise MountError(
            f"something is already mounted at {place}: {mounted.source} ({mounted.fs_type})",
            "A second mount would hide it.",
            f"bevrepro data umount {place}   or choose another mount point"
            if mounted.ours
            else "Choose another mount point.",
        )
    try:
        entries = os.listdir(place)
    except FileNotFoundError:
        return
    except OSError as error:
        raise MountError(
            f"{place} cannot be a mount point: {error.strerror}", do="Choose a new or an empty folder."
        ) from error
    if entries:
        raise MountError(
            f"the mount point {place} is not empty: it holds {entries[0]}"
            + (f" and {len(entries) - 1} more" if len(entries) > 1 else ""),
            "A mount would hide what is in it.",
            "Choose a new or an empty folder.",
        )


def make(place: Path) -> bool:
    """True when it was missing and was made. MountError where it cannot be."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir()
    except FileExistsError:
        return False
    except OSError as error:
        raise MountError(
            f"cannot make the mount point {place}: {error.strerror}", do="Choose a folder of yours."
        ) from error
    return True


def undo(place: Path, made_folder: bool) -> None:
    """Whatever happened, leave no mount behind; the error being raised is the one that counts."""
    if mountinfo.at(mountinfo.read(), place):
        try:
            unmount.detach(place, dead=True)
        except (MountError, MachineError) as error:
            print(f"could not remove the mount at {place}: {error.seen}", file=sys.stderr)
            return
    if made_folder:
        unmount.remove_folder(place)
