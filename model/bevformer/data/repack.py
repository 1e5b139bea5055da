""".tgz -> .tar in one sequential write: checked on the way, resumable, and never half under its own name.

Headers and contents are copied as they are.  What is no ordinary file or folder (links, devices) is left out
and counted; an archive with a name that leaves the tree, or cut or damaged, is refused.  The result is
renamed into place only after the last checksum held.  Beside it grow `.NAME.part` and, every 64 MiB,
`.NAME.state`, which says how far the former is good and its SHA-256; a later run compares and goes on there.
"""

import errno
import fcntl
import hashlib
import json
import os
import zlib
from typing import Any, Callable, Dict, Iterator, Optional

from bevformer.atomic import write_atomically
from bevformer.errors import DataError, DiskError

from . import gzip_tar, seek_points
from .gzip_end import BOMB_BYTES, BOMB_RATIO, bomb, damaged
from .index_cache import Index, stamp_of
from .repack_job import RECORD, Job, finished, identity, is_wanted, loaded, size_of
from .tar_index import BLOCK, REDO, Scanner, Source

CHECKPOINT_BYTES = 64 << 20
_CHUNK = 1 << 20
OnProgress = Callable[[str, int, int], None]  # what, bytes done, bytes in all


class _Content(Source):
    """The tar's bytes from `position` on; everything read as header is kept in `pending`."""

    def __init__(self, pieces: Iterator[Any], position: int, path: str, limit: int) -> None:
        self.position = position
        self.pending = bytearray()
        self.sink: Optional[Callable[[Any], None]] = None
        self._pieces, self._path, self._limit = pieces, path, limit
        self._piece = memoryview(b"")

    def _some(self, size: int) -> memoryview:
        if not len(self._piece):
            try:
                self._piece = memoryview(next(self._pieces, b""))
            except seek_points.Cut as error:
                raise damaged(self._path, str(error)) from error
        some, self._piece = self._piece[:size], self._piece[size:]
        self.position += len(some)
        if self.position > self._limit:
            raise bomb(self._path, self.position, os.path.getsize(self._path))
        return some

    def read(self, size: int) -> bytes:
        pieces = []
        while size:
            some = self._some(size)
            if not len(some):
                break
            pieces.append(bytes(some))
            size -= len(some)
        data = b"".join(pieces)
        self.pending += data if data.strip(b"\0") or len(self.pending) else b""
        return data

    def skip(self, size: int) -> bool:
        return self.pass_file(size) is not None

    def pass_file(self, size: int) -> Optional[int]:
        crc = 0
        while size:
            some = self._some(size)
            if not len(some):
                return None
            crc = zlib.crc32(some, crc)
            if self.sink is not None:
                self.sink(some)
            size -= len(some)
        return crc


class _Writer:
    """The growing .part: what was written, its digest, and where the last checkpoint was."""

    def __init__(self, job: Job, file: Any, state: Dict[str, Any]) -> None:
        self.job, self.file, self.state = job, file, state
        self.digest = hashlib.sha256()
        self.bytes = 0
        self._waiting = bytearray()

    def write(self, data: Any) -> None:
        self._waiting += data
        self.bytes += len(data)
        if len(self._waiting) >= _CHUNK:
            self._flush()

    def _flush(self) -> None:
        self.digest.update(self._waiting)
        left = memoryview(self._waiting)
        while len(left):
            left = left[self.file.write(left) :]
        self._waiting = bytearray()

    def checkpoint(self, **more: Any) -> None:
        """What is on the disk now is good up to here: first the data, then the word about it."""
        self._flush()
        os.fsync(self.file.fileno())
        self.state.update(more, out_bytes=self.bytes, sha256=self.digest.hexdigest())
        write_atomically(self.job.state, json.dumps(self.state))


class _Packer(Scanner):
    """A scan that copies what it passes by."""

    def __init__(self, source: _Content, job: Job, out: _Writer, index: Optional[Index]) -> None:
        super().__init__(source, job.source)
        self.content, self.job, self.out, self.index = source, job, out, index
        state = out.state
        self.globals = dict(state.get("globals", {}))
        self.others = state.get("not_followed", 0)
        self.kept, self.left_out = state.get("files", 0), state.get("left_out", 0)
        self._last = out.bytes

    def file(self, name: str, size: int) -> None:
        wanted = is_wanted(name, self.job.keyframes_only)
        self._begin(wanted)
        offset = self.content.position
        crc = self.content.pass_file(size)
        if crc is None or not self.content.skip(-size % BLOCK):
            raise damaged(self.path, "it ends inside %s" % name)
        self._compare(name, offset, crc)
        self.kept += wanted
        self.left_out += not wanted
        self._end_entry()

    def other(self, name: str, kind: bytes, size: int) -> None:
        folder = kind == b"5" and is_wanted(name, self.job.keyframes_only)
        self._begin(folder)
        self.content.sink = None
        super().other(name, kind, size)
        self._end_entry()

    def _extended(self, kind: bytes, data: bytes, start: int) -> None:
        super()._extended(kind, data, start)
        if kind == b"g":  # holds for all that follow, whether this entry is kept or not
            self._begin(True)
            self.content.sink = None

    def _begin(self, wanted: bool) -> None:
        if wanted:
            self.out.write(bytes(self.content.pending))
        self.content.pending.clear()
        self.content.sink = self.out.write if wanted else None

    def _end_entry(self) -> None:
        self.content.sink = None
        if self.out.bytes - self._last >= CHECKPOINT_BYTES:
            self._last = self.out.bytes
            self.out.checkpoint(**self.counts(), in_bytes=self.content.position, globals=self.globals)

    def _compare(self, name: str, offset: int, crc: int) -> None:
        """With the pass that made the index; where a name comes twice it knows the last one."""
        row = self.index.members.row(name) if self.index is not None else -1
        if self.index is None or (row >= 0 and self.index.members.offsets[row] > offset):
            return
        if row < 0 or (self.index.members.offsets[row], self.index.members.crcs[row]) != (offset, crc):
            raise damaged(self.path, "%s is not what was indexed" % name)

    def counts(self) -> Dict[str, int]:
        return {"files": self.kept, "left_out": self.left_out, "not_followed": self.others}


def repack(job: Job, reread: bool, on_progress: OnProgress) -> Dict[str, Any]:
    """Make `job.out` and return its receipt; finish an earlier run's work where there is some.

    Raises DataError for an archive that cannot be trusted and for a result that is in the way; DiskError.
    """
    receipt = finished(job)
    if receipt:
        return _settled(job, receipt)
    if os.path.lexists(job.out):
        raise DataError(
            "%s is there already, and not from this archive as it is now" % job.out,
            "It is not replaced.",
            "Move it away, or name another folder with --out.",
        )
    os.makedirs(os.path.dirname(job.out), exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(job.part, flags, 0o644), "r+b", buffering=0) as part:
        _lock(part, job)
        try:
            state = _write(job, part, on_progress)
            if reread:
                _compare_again(job, state, on_progress)
        except DataError:
            _drop(job)  # what such an archive gave is worth nothing
            raise
        except DiskError as error:  # of the state
            raise _full(job, part, error.__cause__ or error) from error
        except OSError as error:
            raise _full(job, part, error) from error
        os.replace(job.part, job.out)
    return _settled(job, state)


def _settled(job: Job, receipt: Dict[str, Any]) -> Dict[str, Any]:
    _sync_folder(job.out)
    if os.path.exists(job.state):
        os.replace(job.state, job.receipt)
    folder, name = os.path.split(job.state)
    for left in os.listdir(folder):
        if left.startswith("." + name + "."):  # a state that a killed run had begun to write
            os.unlink(os.path.join(folder, left))
    return receipt


def _sync_folder(path: str) -> None:
    fd = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _lock(part: Any, job: Job) -> None:
    try:
        fcntl.flock(part.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DataError(
            "another run is writing %s" % job.part, do="Wait for it, or end it; then run this again."
        ) from error
    if not os.path.exists(job.part) or not os.path.samestat(os.fstat(part.fileno()), os.stat(job.part)):
        raise DataError("another run has just finished %s" % job.out, do="Run the command again.")


def _drop(job: Job) -> None:
    for path in (job.part, job.state):
        if os.path.lexists(path):
            os.unlink(path)


def _full(job: Job, part: Any, error: BaseException) -> DiskError:
    """Back to the last checkpoint: from there the next run goes on."""
    good = loaded(job.state).get("out_bytes", 0)
    part.truncate(good)
    if not good:
        _drop(job)
    kept = "%s (%.1f GB) is kept." % (job.part, good / 1e9) if good else "Nothing is left of it."
    no_room = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    return DiskError(
        "could not write %s: %s" % (job.part, getattr(error, "strerror", "") or error),
        "%s was not made. %s" % (job.out, kept),
        "Free some space and run the same command again: it goes on." if no_room else "Run it again.",
    )


def _write(job: Job, part: Any, on_progress: OnProgress) -> Dict[str, Any]:
    """Everything up to the finished, synced .part; the final state says `done`."""
    index = gzip_tar.cached(job.source) if job.is_gzip else None
    state = _resumed(job, part, on_progress)
    out = _Writer(job, part, state)
    if state.get("out_bytes"):
        out.digest, out.bytes = state.pop("_digest"), state["out_bytes"]
    if state.get("done") is True:
        return state
    fd = os.open(job.source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = _content(job, fd, state, index, on_progress)
        packer = _Packer(content, job, out, index)
        try:
            packer.run()
        except (EOFError, ValueError) as error:
            raise damaged(job.source, str(error)) from error
        if stamp_of(os.fstat(fd)) != tuple(state["of"][1:4]):
            raise DataError("%s changed while it was in use" % job.source, do="Run the command again.")
    finally:
        os.close(fd)
    if not packer.kept:
        raise DataError(
            "%s holds no files that are wanted" % job.source, do="Is it the right archive? " + REDO
        )
    out.write(bytes(2 * BLOCK + -(out.bytes + 2 * BLOCK) % RECORD))
    out.checkpoint(**packer.counts(), in_bytes=content.position, globals={}, done=True, out=job.out)
    return dict(out.state)


def _resumed(job: Job, part: Any, on_progress: OnProgress) -> Dict[str, Any]:
    """The state of an earlier run whose bytes are still what it says; else a new one, and an empty .part."""
    state, fresh = loaded(job.state), {"of": identity(job), "resumed_at_bytes": 0}
    good = state.get("out_bytes")
    if state.get("of") == fresh["of"] and isinstance(good, int) and 0 < good <= size_of(job.part):
        digest = _digest_of(job.part, good, lambda done: on_progress("check %s" % job.part, done, good))
        if digest.hexdigest() == state.get("sha256"):
            part.truncate(good)
            part.seek(good)
            return dict(state, _digest=digest, resumed_at_bytes=good)
    part.truncate(0)
    part.seek(0)
    return fresh


def _digest_of(path: str, size: int, on_bytes: Callable[[int], None]) -> Any:
    digest, done = hashlib.sha256(), 0
    with open(path, "rb", buffering=0) as file:
        while done < size:
            data = file.read(min(_CHUNK, size - done))
            if not data:
                break
            digest.update(data)
            done += len(data)
            on_bytes(done)
    return digest


def _content(
    job: Job, fd: int, state: Dict[str, Any], index: Optional[Index], on_progress: OnProgress
) -> _Content:
    """The tar from the byte on where the last run stopped: from a seek point where an index is known."""
    begin, size = state.get("in_bytes", 0), os.fstat(fd).st_size
    start = None
    if begin and index is not None:
        start = seek_points.SeekPoints(index.points).before(begin)
    pieces = _plain(fd) if not job.is_gzip else seek_points.inflated(fd, start)
    limit = max(BOMB_BYTES, BOMB_RATIO * size)
    content = _Content(_told(pieces, job, on_progress), start.out if start else 0, job.source, limit)
    if not content.skip(begin - content.position):
        raise damaged(job.source, "it ends before what an earlier run has read")
    return content


def _plain(fd: int) -> Iterator[bytes]:
    place = 0
    while True:
        data = os.pread(fd, _CHUNK, place)
        if not data:
            return
        place += len(data)
        yield data


def _told(pieces: Iterator[Any], job: Job, on_progress: OnProgress) -> Iterator[Any]:
    done = 0
    for piece in pieces:
        done += len(piece)
        on_progress("repack %s" % os.path.basename(job.out), done, max(done, job.expected_bytes))
        yield piece


def _compare_again(job: Job, state: Dict[str, Any], on_progress: OnProgress) -> None:
    """Read the result back from the disk, not from memory."""
    fd = os.open(job.part, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    size = state["out_bytes"]
    digest = _digest_of(job.part, size, lambda done: on_progress("read back %s" % job.out, done, size))
    if digest.hexdigest() != state["sha256"] or size_of(job.part) != size:
        raise DataError(
            "%s reads back different from what was written" % job.part,
            "The disk or the memory is at fault.",
            "It was removed. Check the disk before you trust it.",
        )
