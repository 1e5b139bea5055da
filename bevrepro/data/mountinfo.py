"""What the kernel has mounted: /proc/self/mountinfo (proc(5)) as values. Pure, except for `read`."""

import errno
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path

OURS = "bevrepro"  # the fsname given to every mount of ours
MOUNTINFO = Path("/proc/self/mountinfo")
ANSWERS_WITHIN_S = 5.0
DEAD = (errno.ENOTCONN, errno.ECONNABORTED)  # what a read says once the program is gone, and while it goes


@dataclass(frozen=True)
class Mount:
    """One line. `source` is the fsname of a FUSE mount."""

    mountpoint: str
    fs_type: str
    source: str
    read_only: bool

    @property
    def ours(self) -> bool:
        return self.source == OURS and self.fs_type.startswith("fuse")


def parse(text: str) -> list[Mount]:
    """All mounts in the kernel's order: of two at one place the later lies on top."""
    return [mount for mount in map(_line, text.splitlines()) if mount]


def _line(line: str) -> Mount | None:
    left, found, right = line.partition(" - ")
    before, after = left.split(" "), right.split(" ")
    if not found or len(before) < 6 or len(after) < 2:
        return None
    return Mount(_plain(before[4]), after[0], _plain(after[1]), "ro" in before[5].split(","))


def _plain(field: str) -> str:
    """Spaces, tabs, newlines and backslashes are written as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def at(mounts: list[Mount], mountpoint: Path) -> Mount | None:
    """The mount on top at exactly this place."""
    return next((mount for mount in reversed(mounts) if mount.mountpoint == str(mountpoint)), None)


def read() -> list[Mount]:
    """What is mounted now; nothing where there is no /proc."""
    try:
        return parse(MOUNTINFO.read_text(errors="surrogateescape"))
    except FileNotFoundError:
        return []


def real(path: Path) -> Path:
    """The real path, without asking the mount that may be there: one that is stuck would never answer."""
    listed = {mount.mountpoint for mount in read()}
    absolute = os.path.abspath(path)
    if absolute in listed:
        return Path(absolute)
    folder, name = os.path.split(absolute)
    candidate = os.path.join(os.path.realpath(folder), name)
    return Path(candidate if candidate in listed else os.path.realpath(path))


def is_dead(mountpoint: Path) -> bool:
    """Whether the program behind a FUSE mount is gone: all access gives errno 107, exists() says False."""
    return _answer(mountpoint) in DEAD


def is_stuck(mountpoint: Path) -> bool:
    """Whether the program behind a FUSE mount is there and does not answer: stopped, or waiting itself."""
    return _answer(mountpoint) is None


def _answer(mountpoint: Path) -> int | None:
    """The errno of asking for free space, 0 for an answer, None for none within `ANSWERS_WITHIN_S`.

    statvfs always asks that program; stat is answered from the kernel's cache for an hour (our timeouts). In
    a thread of its own, since it may never return.
    """
    answers: list[int] = []
    thread = threading.Thread(target=_ask, args=(mountpoint, answers), daemon=True)
    thread.start()
    thread.join(ANSWERS_WITHIN_S)
    return answers[0] if answers else None


def _ask(mountpoint: Path, answers: list[int]) -> None:
    try:
        os.statvfs(mountpoint)
    except OSError as error:
        answers.append(error.errno or errno.EIO)
    else:
        answers.append(0)
