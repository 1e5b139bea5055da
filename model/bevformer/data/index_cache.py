"""What was found out about an archive, kept in the cache: its files and, for gzip, its seek points.

One file per archive, named by a digest of the archive's real path; nothing is written beside the data.
It counts only while the archive's size, time of change and inode are those it was made from.  A cache can be
cut, damaged or written by somebody else, so nothing of it is believed: it has to be the user's own or root's,
its SHA-256 has to fit, and every place, name and slot is checked.  What does not hold is made again.
"""

import contextlib
import fcntl
import glob
import hashlib
import os
import shutil
import struct
import sys
import tempfile
from typing import Callable, Iterator, NamedTuple, Optional, Tuple

from .members import Members

_MAGIC = b"bevrepro-index-1" if sys.byteorder == "little" else b"bevrepro-index-B"
_HEAD = struct.Struct("=16sqqQqqqqqqq")
_DIGEST_BYTES = 32
Stamp = Tuple[int, int, int]


class Index(NamedTuple):
    """What is kept.

    stamp: of the archive; total_bytes: of the (uncompressed) tar; points: gztool's format, b"" for a .tar.
    """

    members: Members
    stamp: Stamp
    others: int
    replaced: int
    total_bytes: int
    spacing_bytes: int = 0
    points: bytes = b""


def cache_dir() -> str:
    """$BEVREPRO_CACHE or bevrepro/ in the user's cache folder, as `bevrepro.core.paths.cache_dir`."""
    if os.environ.get("BEVREPRO_CACHE"):
        return os.path.abspath(os.path.expanduser(os.environ["BEVREPRO_CACHE"]))
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):  # the XDG rules ask to ignore a relative path
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "bevrepro")


def stamp_of(found: os.stat_result) -> Stamp:
    return found.st_size, found.st_mtime_ns, found.st_ino


def place(path: str, spacing_bytes: int = 0) -> str:
    """Where the index of this archive lies, or would."""
    real = os.path.realpath(path).encode("utf-8", "surrogateescape")
    kind = "gz%d" % spacing_bytes if spacing_bytes else "tar"
    return os.path.join(cache_dir(), "index", "%s.%s" % (hashlib.sha256(real).hexdigest()[:32], kind))


def load(where: str, stamp: Stamp) -> Optional[Index]:
    """The index, or None when there is none, or one that is of another state of the archive or not sound."""
    data = own_bytes(where)
    if data is None or len(data) < _HEAD.size + _DIGEST_BYTES:
        return None
    try:
        return _parsed(data, stamp)
    except (ValueError, IndexError, struct.error, OverflowError, MemoryError):
        return None


def own_bytes(where: str) -> Optional[bytes]:
    """Only a plain file that nobody but this user and root can write."""
    try:
        fd = os.open(where, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not _is_own(found):
            return None
        try:
            return file.read()
        except OSError:
            return None


def _is_own(found: os.stat_result) -> bool:
    plain = found.st_mode & 0o170000 == 0o100000
    return plain and found.st_uid in (os.geteuid(), 0) and not found.st_mode & 0o022


def _parsed(data: bytes, stamp: Stamp) -> Optional[Index]:
    head = _HEAD.unpack_from(data)
    magic, made_from = head[0], (head[1], head[2], head[3])
    count, block_bytes, points_bytes, others, replaced, total_bytes, spacing_bytes = head[4:]
    size = _HEAD.size + block_bytes + points_bytes + _DIGEST_BYTES
    if magic != _MAGIC or made_from != stamp or len(data) != size:
        return None
    if min(count, block_bytes, points_bytes, others, replaced, total_bytes, spacing_bytes) < 0:
        return None
    if hashlib.sha256(memoryview(data)[:-_DIGEST_BYTES]).digest() != data[-_DIGEST_BYTES:]:
        return None
    block = data[_HEAD.size : _HEAD.size + block_bytes]
    points = data[_HEAD.size + block_bytes : -_DIGEST_BYTES]
    del data  # 25 MB for 200,000 files
    members = Members(block, count)
    members.check(total_bytes)
    return Index(members, stamp, others, replaced, total_bytes, spacing_bytes, points)


def write(index: Index, out: str) -> None:
    """The bytes of an index to a new file, synced."""
    block = index.members.block
    numbers = (len(index.members), len(block), len(index.points))
    head = _HEAD.pack(
        _MAGIC, *index.stamp, *numbers, index.others, index.replaced, index.total_bytes, index.spacing_bytes
    )
    digest = hashlib.sha256()
    with open(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        for piece in (head, block, index.points):
            digest.update(piece)
            file.write(piece)
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())


def keep(where: str, make: Callable[[str], None]) -> None:
    """`make` writes the file of the name it is given; it appears at `where` whole.  Raises OSError."""
    folder = os.path.dirname(where)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with _part(folder) as work:
        part = os.path.join(work, "index")
        make(part)
        os.replace(part, where)


@contextlib.contextmanager
def _part(folder: str) -> Iterator[str]:
    """A new folder in `folder`, locked while it is written to: what nobody holds is of a killed program."""
    for left in glob.glob(os.path.join(glob.escape(folder), "part-*")):
        held = _lock(left, fcntl.LOCK_NB)
        if held is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(held)
    work, held = _locked(folder)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if held is not None:
            os.close(held)


def _locked(folder: str) -> Tuple[str, Optional[int]]:
    """Another program may see it before it is locked, and take it away."""
    while True:
        work = tempfile.mkdtemp(dir=folder, prefix="part-")
        held = _lock(work)
        if os.path.isdir(work):
            return work, held
        if held is not None:
            os.close(held)


def _lock(folder: str, how: int = 0) -> Optional[int]:
    """What holds the lock until it is closed; None: another holds it, or there are no locks here."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | how)
    except OSError:
        os.close(fd)
        return None
    return fd
