"""Take mounts away: `umount` for the user, `detach` for one that is dead or only half there."""

import os
from dataclasses import dataclass
from pathlib import Path

from bevrepro.core import proc
from bevrepro.core.errors import MachineError, MountError
from bevrepro.data import mountinfo, remembered

TRIES_S = 20.0


@dataclass(frozen=True)
class Removed:
    """mode as in `remembered`; was_dead: the program behind it had died."""

    mountpoint: str
    mode: str
    was_dead: bool


def umount(mountpoint: Path, dry_run: bool = False) -> Removed:
    """Unmount and forget; with `dry_run` only look. MountError when it is not ours or in use."""
    place = mountinfo.real(mountpoint)
    mounted = mountinfo.at(mountinfo.read(), place)
    known = remembered.get(place)
    if mounted and not mounted.ours:
        raise MountError(
            f"{place} is not a mount of bevrepro: {mounted.source} ({mounted.fs_type})",
            "Only what `bevrepro data mount` made is taken away.",
            f"umount {place}   if you are sure",
        )
    if not mounted and not known:
        raise MountError(
            f"nothing is mounted at {place}",
            do="bevrepro data status   shows what is, and what is remembered",
        )
    dead = mounted is not None and mountinfo.is_dead(place)
    removed = Removed(str(place), known.mode if known else remembered.FUSE, dead)
    if dry_run:
        return removed
    if mounted:
        detach(place, dead or mountinfo.is_stuck(place))
    if known and known.made_folder:
        remove_folder(place)
    remembered.forget(place)
    return removed


def detach(place: Path, dead: bool) -> None:
    """Unmount. A dead one is detached at once, since nothing can be lost by it.

    ratarmount's own `-u` is not used: without fusermount it returns 0 and does nothing.
    """
    said = []
    before = _layers(place)
    for command in _commands(place, dead):
        done = proc.run(command, timeout_s=TRIES_S)
        if _layers(place) < before:  # of two on top of one another only the upper one is meant
            return
        said.append(done.stderr.strip() or f"{Path(command[0]).name} ended with exit code {done.rc}")
    if not said:
        raise MachineError(
            "neither fusermount3, fusermount nor umount is installed",
            f"One of them is needed to unmount {place}.",
            "apt-get install fuse3   (as root), or dnf install fuse3",
        )
    users = _users(place)
    raise MountError(
        f"{place} could not be unmounted: {said[0]}",
        "It is used by: " + ", ".join(users)
        if users
        else "A program may still have a file or folder in it open.",
        f"End that program or leave the folder, then: bevrepro data umount {place}",
    )


def _layers(place: Path) -> int:
    return sum(mount.mountpoint == str(place) for mount in mountinfo.read())


def _commands(place: Path, dead: bool) -> list[list[str]]:
    """root needs no helper; a user may only unmount through fusermount."""
    tools = [("umount", "-l"), ("fusermount3", "-uz"), ("fusermount", "-uz")]
    if os.geteuid() != 0:
        tools = tools[1:] + tools[:1]
    commands = []
    for name, lazy in tools:
        found = proc.which(name)
        if found:
            flags = [lazy] if dead else ["-u"] if name != "umount" else []
            commands.append([str(found), *flags, str(place)])
    return commands


def _users(place: Path) -> list[str]:
    """Programs with their folder or an open file inside, as `pid name`; only those we may look into."""
    found = []
    inside = str(place) + "/"
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [process / "cwd", *(process / "fd").iterdir()]
            if any((os.readlink(link) + "/").startswith(inside) for link in links):
                found.append(f"{process.name} {(process / 'comm').read_text().strip()}")
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return found


def remove_folder(place: Path) -> None:
    """The folder that the mount made; left alone when something was put there meanwhile."""
    try:
        place.rmdir()
    except OSError:
        if not os.path.isdir(place):
            raise
