"""What the preflight has to know of the disks: room for indexes, and how fast the archives are read."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from bevrepro.core import paths
from bevrepro.data.archives import Archive
from bevrepro.data.preflight import Room
from bevrepro.probe.files import read_text
from bevrepro.probe.host import mount_of

PROBE_B = 16 << 20
PIECE_B = 1 << 20
WITHIN_S = 1.0


def look(archives: Sequence[Archive]) -> Room:
    """Reads up to 16 MiB, for up to a second, from one archive of every file system."""
    cache = paths.cache_dir()
    slowest: tuple[float, Archive] | None = None
    for archive in _one_of_each_disk(archives):
        speed = read_speed_b_per_s(archive.path)
        if speed is not None and (slowest is None or speed < slowest[0]):
            slowest = (speed, archive)
    if slowest is None:
        return Room(cache, _free_b(cache))
    path = slowest[1].path
    filesystem = mount_of(path, read_text(Path("/proc/self/mounts")))[1]
    return Room(cache, _free_b(cache), slowest[0], str(path), filesystem)


def _one_of_each_disk(archives: Sequence[Archive]) -> list[Archive]:
    """The largest of each, so that what is measured is not all in the cache."""
    largest: dict[int, Archive] = {}
    for archive in sorted(archives, key=lambda one: one.size_bytes):
        if archive.kind == "tgz":
            largest[os.stat(archive.path).st_dev] = archive
    return list(largest.values())


def read_speed_b_per_s(path: Path) -> float | None:
    """From the middle of a file, after asking the system to forget that part; None for a small file."""
    with path.open("rb", buffering=0) as file:
        start = os.fstat(file.fileno()).st_size // 2
        if start < PROBE_B:
            return None
        os.posix_fadvise(file.fileno(), start, PROBE_B, os.POSIX_FADV_DONTNEED)
        file.seek(start)
        began_s, done_b = time.monotonic(), 0
        while done_b < PROBE_B and time.monotonic() - began_s < WITHIN_S:
            done_b += len(file.read(PIECE_B))
        return done_b / max(time.monotonic() - began_s, 1e-6)


def _free_b(folder: Path) -> int | None:
    """Of the file system that the folder is on or will be made on."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        usage = os.statvfs(folder)
    except OSError:
        return None
    return usage.f_bavail * usage.f_frsize
