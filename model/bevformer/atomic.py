"""Files that appear whole or not at all: temporary name beside, fsync, rename."""

import contextlib
import errno
import os
import shutil
import tempfile
from typing import Any, Callable

from .errors import DiskError


def write_atomically(path: str, content: str) -> None:
    """The whole text or nothing: a full disk or a killed process leaves the old file.  Raises DiskError."""
    write_whole(path, lambda stream: stream.write(content.encode("utf-8")))


def write_whole(path: str, fill: Callable[[Any], Any]) -> None:
    """`fill` writes bytes into the stream it is given; `path` changes only when it has finished."""
    folder = os.path.dirname(os.path.abspath(path))
    temporary = None
    try:
        os.makedirs(folder, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix="." + os.path.basename(path) + ".")
        with os.fdopen(handle, "wb") as stream:
            witness = _Witness(stream)
            try:
                fill(witness)
            except RuntimeError as error:
                raise witness.error or OSError(errno.EIO, str(error)) from error
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes 0600
        os.replace(temporary, path)
        temporary = None
        sync_folder(folder)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary is not None:
            _remove(temporary)


def cannot_write(path: str, error: OSError) -> DiskError:
    return DiskError(
        "could not write %s: %s" % (path, error.strerror),
        "What was finished before is whole.",
        "Free some space or name another folder, then run the same command again.",
    )


def _remove(path: str) -> None:
    """As far as that goes: a folder that has lost its rights is why the file could not be written, too."""
    with contextlib.suppress(OSError):
        os.unlink(path)


class _Witness:
    """Remembers the OSError of a write: torch's C++ writer turns it into a RuntimeError without a cause."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.error = None  # type: Optional[OSError]

    def write(self, data: Any) -> int:
        try:
            return int(self.stream.write(data))
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self.stream.flush()


def sync_folder(folder: str) -> None:
    """So that a rename outlives a power loss; without it, a later one may reach the disk before it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # a system that opens no folders
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # a file system that cannot
            raise
    finally:
        os.close(handle)


def link_latest(path: str) -> None:
    """Make `latest.pth` beside `path` point to it; a copy where there are no links.  Raises DiskError."""
    try:
        _link_latest(path)
    except OSError as error:
        raise cannot_write(os.path.join(os.path.dirname(path), "latest.pth"), error) from error


def _link_latest(path: str) -> None:
    folder, name = os.path.split(os.path.abspath(path))
    latest, temporary = os.path.join(folder, "latest.pth"), os.path.join(folder, ".latest.pth.new")
    if os.path.lexists(temporary):
        os.unlink(temporary)
    try:
        os.symlink(name, temporary)
    except OSError:
        with open(path, "rb") as source:
            write_whole(latest, lambda stream: shutil.copyfileobj(source, stream))
        return
    os.replace(temporary, latest)
    sync_folder(folder)
