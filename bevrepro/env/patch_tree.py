"""The files of a tree that is being patched: read without leaving it, written beside and renamed, locked.

A write never goes through a link: a symlink on the way is refused (it may lead into a package cache), and a
hard link is broken by the rename, so that the other name keeps the old content.
"""

import errno
import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bevrepro.core.errors import ConfigError, DiskError

_NO_LOCKS = (errno.ENOLCK, errno.EBADF, errno.ENOTSUP, errno.EINVAL)  # some network file systems


@dataclass(frozen=True)
class Content:
    """A file's bytes; `text` and `sha256` are of the same lines ended by \\n."""

    raw: bytes
    crlf: bool

    @cached_property
    def text(self) -> bytes:
        return self.raw.replace(b"\r\n", b"\n") if self.crlf else self.raw

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.text).hexdigest()

    def with_text(self, text: bytes) -> bytes:
        """The bytes to write for other lines: ended as this file ends its own."""
        return text.replace(b"\n", b"\r\n") if self.crlf else text


@dataclass(frozen=True)
class Write:
    """A file's bytes before and after."""

    path: str
    before: bytes
    after: bytes


def read_file(root: Path, path: str) -> Content | None:
    """A regular file below `root`, None where there is none. ConfigError for a symlink on the way."""
    place = root
    for part in path.split("/"):
        place = place / part
        try:
            mode = place.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISLNK(mode):
            raise ConfigError(
                f"{place} is a symbolic link to {os.readlink(place)}",
                "Patching through it could change files outside the tree, as a package cache.",
                "Install with copies (uv: --link-mode copy), or name the folder it leads to.",
            )
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{place} is no file", "A patch changes files.", "Check --tree.")
    raw = place.read_bytes()
    # Only where it holds for every line: a file of mixed ends is none that is known.
    ends = raw.count(b"\n")
    return Content(raw, crlf=ends > 0 and raw.count(b"\r\n") == ends == raw.count(b"\r"))


def write_all(root: Path, writes: Iterable[Write], dry_run: bool) -> None:
    """Write all files or none: first all beside their places, then the renames.

    Raises DiskError or ConfigError with nothing changed; a rename that fails takes the others back.
    """
    wanted = list(writes)
    for write in wanted:
        _check_writable(root / write.path)
    if dry_run:
        return
    temporaries: list[Path] = []
    try:
        for write in wanted:
            temporaries.append(beside(root / write.path))
            _stage(root / write.path, write.after)
        for write in wanted:
            if (root / write.path).read_bytes() != write.before:
                raise ConfigError(
                    f"{root / write.path} changed while it was being patched",
                    "Nothing was written.",
                    "Run the same command again when nothing else works on the tree.",
                )
        _rename_all(root, wanted)
    except OSError as error:
        raise DiskError(
            f"could not write {error.filename or root}: {error.strerror}",
            "The tree is as it was.",
            "Free some space or mend the permissions, then run the same command again.",
        ) from error
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


def beside(place: Path) -> Path:
    """The name under which a file is written first; fixed, so that a killed run's is found again."""
    return place.with_name(f".{place.name}.bevrepro-patch")


def sweep(root: Path, paths: Iterable[str]) -> None:
    """Remove what a killed run left beside these files. The lock has to be held."""
    for path in paths:
        beside(root / path).unlink(missing_ok=True)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Keep other patch commands off this tree meanwhile; ConfigError where one is at it."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another patch command is working on {root}", do="Wait for it, then run this one again."
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
        yield
    finally:
        os.close(handle)


def _check_writable(place: Path) -> None:
    # Root may write everything, and a file that its owner made read-only is still not to be changed.
    if not place.stat().st_mode & stat.S_IWUSR:
        raise DiskError(
            f"{place} is read-only", "Nothing was written.", f"chmod u+w '{place}', if it may be patched."
        )
    if not os.access(place.parent, os.W_OK | os.X_OK):
        raise DiskError(
            f"the folder {place.parent} cannot be written", "Nothing was written.", "Mend its permissions."
        )


def _stage(place: Path, content: bytes) -> None:
    temporary, was = beside(place), place.stat()
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if (was.st_uid, was.st_gid) != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
            os.fchown(file.fileno(), was.st_uid, was.st_gid)
        os.fchmod(file.fileno(), stat.S_IMODE(was.st_mode))
    # Python takes a .pyc for fresh by the second and the size of its source: '1.7.0' to '1.7.2' in the
    # second of the installation would go unseen.
    later = max(time.time_ns(), (was.st_mtime_ns // 10**9 + 1) * 10**9)
    os.utime(temporary, ns=(later, later))


def _rename_all(root: Path, writes: list[Write]) -> None:
    begun: list[Write] = []
    try:
        for write in writes:
            begun.append(write)
            os.replace(beside(root / write.path), root / write.path)
    except BaseException:  # Ctrl-C too
        for write in begun:
            _stage(root / write.path, write.before)
            os.replace(beside(root / write.path), root / write.path)
        raise
    for folder in {(root / write.path).parent for write in writes}:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
