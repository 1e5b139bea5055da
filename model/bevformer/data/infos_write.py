"""Writing prepared files: the pickle in upstream's layout and its twin, part by part, whole or not at all."""

import errno
import fcntl
import hashlib
import os
import pickle
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

from bevformer.errors import DataError, DiskError

from .infos_columns import Chunk, columns_of
from .infos_form import Info
from .infos_twin import TwinWriter, made_from, twin_path

PROTOCOL = 2  # as mmcv writes it: any reader of such files can read it
_HEAD, _LIST_HEAD, _STOP = b"\x80\x02", b"]q\x00", b"."
_WORK = ".prepare-"  # prefix of the folder with what is not whole yet


@dataclass(frozen=True)
class Part:
    """Some frames in both forms, as a worker hands them over."""

    pickled: bytes
    chunk: Chunk


def part_of(infos: Sequence[Info], with_boxes: bool) -> Part:
    return Part(_as_items(list(infos)), columns_of(infos, with_boxes))


def _as_items(infos: List[Info]) -> bytes:
    """What, inside a pickle, appends these to the list at hand."""
    raw = pickle.dumps(infos, protocol=PROTOCOL)
    head = _HEAD + _LIST_HEAD
    if not (raw.startswith(head) and raw.endswith(_STOP)):
        raise RuntimeError("this Python begins a pickled list with %r" % raw[:8])
    return raw[len(head) : -1]


class PickleWriter:
    """A pickle of dict(infos=[...], metadata={...}) that is written frame by frame; memory stays small.

    Each part is numbered from one anew (pickle's memo), which every reader allows: a later number replaces
    the earlier.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path, "wb", buffering=1 << 20)  # noqa: SIM115
        self._digest = hashlib.sha256()
        self._write(_HEAD + b"}(" + _embedded("infos") + b"]")

    def _write(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.write(data)

    def add(self, items: bytes) -> None:
        self._write(items)

    def finish(self, metadata: Mapping[str, Any]) -> str:
        """Syncs; the file's sha256."""
        self._write(_embedded("metadata") + _embedded(dict(metadata)) + b"u" + _STOP)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._digest.hexdigest()

    def close(self) -> None:
        self._file.close()


def _embedded(value: Any) -> bytes:
    """What, inside a pickle, pushes this value."""
    return pickle.dumps(value, protocol=PROTOCOL)[len(_HEAD) : -1]


class SplitWriter:
    """Both forms of one file, under `folder`; `place` moves them to their names."""

    def __init__(
        self, folder: str, name: str, with_boxes: bool, pickled: bool = True, twin: bool = True
    ) -> None:
        self.name, self._folder = name, folder
        self._pickle_path = os.path.join(folder, name)
        self._twin_path = twin_path(self._pickle_path)
        self._pickle: Optional[PickleWriter] = PickleWriter(self._pickle_path) if pickled else None
        self._twin: Optional[TwinWriter] = TwinWriter(self._twin_path, with_boxes) if twin else None

    def add(self, part: Part) -> None:
        if self._pickle:
            self._pickle.add(part.pickled)
        if self._twin:
            self._twin.add(part.chunk)

    def finish(self, metadata: Mapping[str, Any], more: Optional[Mapping[str, Any]] = None) -> None:
        extra: Dict[str, Any] = dict(more or {})
        if self._pickle:
            digest = self._pickle.finish(metadata)
            os.chmod(self._pickle_path, 0o644)
            extra["made_from"] = made_from(self._pickle_path, digest)
        if self._twin:
            self._twin.finish(metadata, extra)

    def close(self) -> None:
        for writer in (self._pickle, self._twin):
            if writer:
                writer.close()

    def place(self, out: str) -> List[str]:
        """Each by renaming.  In between the twin may be older than the pickle, which readers notice."""
        placed = []
        if self._pickle:
            placed.append(os.path.join(out, self.name))
            os.replace(self._pickle_path, placed[-1])
        if self._twin:
            placed.append(os.path.join(out, os.path.basename(self._twin_path)))
            replace_folder(self._twin_path, placed[-1], self._folder)
        return placed


def replace_folder(new: str, path: str, work: str) -> None:
    """A folder cannot be renamed over another that holds files: the old one steps aside into `work`."""
    aside = os.path.join(work, "old-" + os.path.basename(path))
    if os.path.lexists(path):
        os.rename(path, aside)
    try:
        os.rename(new, path)
    except OSError:
        if os.path.lexists(aside):
            os.rename(aside, path)
        raise


@contextmanager
def work_folder(out: str) -> Iterator[str]:
    """A folder inside `out` for what is not whole yet; removed at the end, and so are those of killed runs.

    Raises DiskError for any OSError within.
    """
    try:
        _remove_left_over(out)
        folder = tempfile.mkdtemp(prefix=_WORK, dir=out)
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # says to other runs that this one lives
            yield folder
        finally:
            os.close(lock)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise disk_error(out, error) from error


def disk_error(out: str, error: OSError) -> DiskError:
    return DiskError(
        "could not write into %s: %s" % (out, error.strerror or error),
        "Nothing was replaced that was not whole; files that were there are as before.",
        "Free some space or name another folder, then run the same command again.",
    )


def _remove_left_over(out: str) -> None:
    for name in os.listdir(out):
        path = os.path.join(out, name)
        if name.startswith(_WORK) and os.path.isdir(path) and not os.path.islink(path):
            handle = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.ENOLCK, errno.EOPNOTSUPP):
                    raise
            finally:
                os.close(handle)


def check_room(out: str, names: Sequence[str]) -> None:
    """DataError where something of another kind has a name that is to be written."""
    for name in names:
        path = os.path.join(out, name)
        if name.endswith(".pkl") and os.path.isdir(path):
            raise DataError("%s is a folder" % path, do="Name another folder with --out.")
        twin = twin_path(path)
        if os.path.lexists(twin) and not os.path.isfile(os.path.join(twin, "index.json")):
            raise DataError(
                "%s is there and is no twin of prepared infos" % twin,
                "It would be replaced.",
                "Move it away, or name another folder with --out.",
            )
