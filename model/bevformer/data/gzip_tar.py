"""Random access into a .tgz: seek points every MiB, made in one pass that also checks the whole archive.

The decoder is rapidgzip, which ratarmount (and its in-process library ratarmountcore) reads gzip with.
It is used directly because ratarmountcore jumps from header to header while it indexes, and so never
sees that a checksum fails; reading straight through costs the same decompression and finds it.
Seek points and member list are kept in the cache folder under a name made from real path, size and
time of change, never beside the data.
"""
import atexit
import ctypes
import hashlib
import json
import os
import tempfile
import threading
import weakref
from typing import Any, Dict, Optional, Tuple

from ..errors import DataError, DiskError
from .tar_index import REDO, Scan, Source, Span, columns, scan

SPACING_BYTES = 1 << 20  # memory and random reads/s against the default of 16 MiB: facts, mounting.md
_FORMAT = 1


def cache_dir() -> str:
    """$BEVREPRO_CACHE_DIR, else bevrepro/ in the user's cache folder."""
    named = os.environ.get("BEVREPRO_CACHE_DIR")
    if named:
        return named
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "bevrepro")


def _rapidgzip(path: str) -> Any:
    try:
        import rapidgzip
    except ImportError:
        raise DataError(
            "%s is a gzip archive, and this Python has no rapidgzip to read it with" % path,
            "Without it every image would be decompressed from the archive's start.",
            "python -m pip install ratarmountcore rapidgzip   (or repack the archive to a plain .tar)") from None
    return rapidgzip


class _Decoder:
    """One open rapidgzip file.  Closed at exit: its threads abort an interpreter that ends under them."""

    def __init__(self, path: str, seek_points: Optional[str] = None) -> None:
        self.file = _rapidgzip(path).RapidgzipFile(path, parallelization=1, chunk_size=SPACING_BYTES)
        if seek_points:
            self.file.import_index(seek_points)
        _open_decoders.add(self)

    def close(self) -> None:
        self.file.close()
        _open_decoders.discard(self)


_open_decoders = weakref.WeakSet()  # type: Any
_readers = weakref.WeakSet()  # type: Any


@atexit.register
def _close_decoders() -> None:
    for decoder in list(_open_decoders):
        decoder.close()


def _forget_decoders() -> None:
    """In a forked child: the parent's decoders wait for threads that do not exist here, so never end them."""
    for decoder in list(_open_decoders):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(decoder))
    _open_decoders.clear()
    for reader in list(_readers):
        reader._reset()


os.register_at_fork(after_in_child=_forget_decoders)


class _GzipSource(Source):
    """The decompressed tar, straight through; a failed checksum is an error of the archive."""

    def __init__(self, file: Any, path: str) -> None:
        self.file = file
        self.path = path

    def read(self, size: int) -> bytes:
        pieces = []
        while size:
            try:
                piece = self.file.read(min(size, SPACING_BYTES))
            except (ValueError, RuntimeError, OSError, EOFError) as error:  # what rapidgzip's C++ turns into
                raise DataError(
                    "%s is damaged: %s" % (self.path, str(error).strip().split("\n")[0]),
                    "Some of its files would be wrong.", REDO) from error
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
            self.position += len(piece)
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def skip(self, size: int) -> bool:
        while size:
            got = len(self.read(min(size, SPACING_BYTES)))
            if not got:
                return False
            size -= got
        return True


def _key(path: str) -> str:
    real = os.path.realpath(path)
    found = os.stat(real)
    text = "%d|%s|%d|%d|%d" % (_FORMAT, real, found.st_size, found.st_mtime_ns, SPACING_BYTES)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _check_trailer(path: str, total: int) -> None:
    """ISIZE, the last four bytes, is the decompressed size modulo 2**32 (RFC 1952)."""
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        stored = int.from_bytes(file.read(4), "little")
    if stored != total % (1 << 32):
        raise DataError(
            "%s is cut short: its trailer says %d bytes, it holds %d" % (path, stored, total % (1 << 32)),
            "The end of the archive is missing or was changed.", REDO)


def _cached(stem: str) -> Optional[Dict[str, Span]]:
    """The member list, if it and the seek points it was written with are both whole."""
    try:
        with open(stem + ".members.json") as file:
            kept = json.load(file)
        if os.path.getsize(stem + ".gzi") != kept["seek_points_bytes"]:
            return None
        return {name: Span(offset, size)
                for name, offset, size in zip(kept["names"], kept["offsets"], kept["sizes"])}
    except (FileNotFoundError, ValueError, KeyError):  # not there or not whole: made again
        return None


def _no_cache(folder: str, error: OSError) -> DiskError:
    return DiskError(
        "cannot keep the seek points of a .tgz in %s: %s" % (folder, error.strerror or error),
        "Without them every image would be decompressed from the archive's start.",
        "Free some space there, or set BEVREPRO_CACHE_DIR to another folder.")


def _write(stem: str, decoder: _Decoder, found: Scan) -> None:
    """Seek points first; the member list, which makes them valid, last."""
    folder = os.path.dirname(stem)
    handle, temporary = tempfile.mkstemp(dir=folder, suffix=".part")
    try:
        os.close(handle)
        decoder.file.export_index(temporary)
        size = os.path.getsize(temporary)
        os.replace(temporary, stem + ".gzi")
        names, offsets, sizes = columns(found.files)
        kept = {"format": _FORMAT, "seek_points_bytes": size, "names": names, "offsets": offsets, "sizes": sizes}
        with open(temporary, "w") as file:
            json.dump(kept, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, stem + ".members.json")
    except OSError as error:
        raise _no_cache(folder, error) from error
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def _stem(path: str) -> str:
    folder = os.path.join(cache_dir(), "gzip")
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise _no_cache(folder, error) from error
    return os.path.join(folder, _key(path))


def index(path: str) -> Tuple[Dict[str, Span], str]:
    """Files of the tar inside and the path of its seek points; from the cache when nothing changed.

    Raises DataError for an archive that is cut, fails its checksum, or holds no tar.
    """
    stem = _stem(path)
    files = _cached(stem)
    if files is None:
        decoder = _Decoder(path)
        try:
            source = _GzipSource(decoder.file, path)
            found = scan(source, path)
            _check_trailer(path, source.position)
            _write(stem, decoder, found)
        finally:
            decoder.close()
        files = found.files
    return files, stem + ".gzi"


class GzipReader:
    """Reads spans; opens its own decoder in every process, since threads and position do not survive a fork."""

    def __init__(self, path: str, seek_points: str) -> None:
        self.path = path
        self.seek_points = seek_points
        self._reset()

    def _reset(self) -> None:
        self._decoder = None  # type: Optional[_Decoder]
        self._lock = threading.Lock()
        _readers.add(self)

    def __getstate__(self) -> Dict[str, str]:
        return {"path": self.path, "seek_points": self.seek_points}

    def __setstate__(self, state: Dict[str, str]) -> None:
        self.path = state["path"]
        self.seek_points = state["seek_points"]
        self._reset()

    def read(self, span: Span) -> bytes:
        """Fewer bytes than the span says mean a damaged archive; the caller reports it."""
        with self._lock:
            if self._decoder is None:
                self._decoder = _Decoder(self.path, self.seek_points)
            self._decoder.file.seek(span.offset)
            return _GzipSource(self._decoder.file, self.path).read(span.size)
