"""Random access into a .tgz through seek points a MiB apart, made once by `gzip_index` and kept in the cache.

The cache's names are made from real path, size and time of change; nothing is written beside the data.
"""

import atexit
import ctypes
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import weakref
from typing import Any, Dict, Optional, Tuple

from bevformer.errors import DataError, DiskError

from .gzip_index import SPACING_BYTES, GzipSource, damaged, open_gzip, require_rapidgzip
from .tar_index import Span

_FORMAT = 2  # of what is kept; part of the key
_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def cache_dir() -> str:
    """$BEVREPRO_CACHE or bevrepro/ in the user's cache folder, as `bevrepro.core.paths.cache_dir`."""
    if os.environ.get("BEVREPRO_CACHE"):
        return os.path.abspath(os.path.expanduser(os.environ["BEVREPRO_CACHE"]))
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):  # the XDG rules ask to ignore a relative path
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "bevrepro")


def index(path: str) -> Tuple[Dict[str, Span], str]:
    """Files of the tar inside and the path of its seek points; from the cache when nothing changed.

    Raises DataError for an archive that is cut, fails its checksum, or holds no tar; DiskError where
    the cache cannot be written.
    """
    folder = os.path.join(cache_dir(), "gzip")
    stem = os.path.join(folder, _key(path))
    files = _cached(stem)
    if files is not None:
        return files, stem + ".gzi"
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix="part-") as work:
            _build(path, work)
            os.replace(os.path.join(work, "seek_points"), stem + ".gzi")
            os.replace(os.path.join(work, "members.json"), stem + ".members.json")  # makes the other valid
    except OSError as error:
        raise _no_cache(folder, error.strerror or str(error)) from error
    files = _cached(stem)
    if files is None:
        raise _no_cache(folder, "what was written there is not there")
    return files, stem + ".gzi"


def is_indexed(path: str) -> bool:
    """Whether `index` would find its work done."""
    return _cached(os.path.join(cache_dir(), "gzip", _key(path))) is not None


def _key(path: str) -> str:
    real = os.path.realpath(path)
    found = os.stat(real)
    text = "%d|%s|%d|%d|%d" % (_FORMAT, real, found.st_size, found.st_mtime_ns, SPACING_BYTES)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _cached(stem: str) -> Optional[Dict[str, Span]]:
    """The member list, if it and the seek points it was written with are both whole."""
    try:
        with open(stem + ".members.json") as file:
            kept = json.load(file)
        if os.path.getsize(stem + ".gzi") != kept["seek_points_bytes"]:
            return None
        rows = zip(kept["names"], kept["offsets"], kept["sizes"])
        return {name: Span(offset, size) for name, offset, size in rows}
    except (
        FileNotFoundError,
        NotADirectoryError,
        ValueError,
        KeyError,
    ):  # not there or not whole: made again
        return None


def _build(path: str, work: str) -> None:
    """Run `gzip_index` in a child and turn how it ended into an error here."""
    require_rapidgzip(path)  # a missing rapidgzip is said before anything starts
    others = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([_PACKAGES] + others))
    argv = [sys.executable, "-m", "bevformer.data.gzip_index", path, work]
    child = subprocess.run(argv, env=env, capture_output=True)
    if child.returncode == 0:
        return
    said = json.loads(child.stdout) if child.stdout.startswith(b"{") else {}
    if said.get("kind") == "data":
        raise DataError(said["seen"], said["why"], said["do"])
    if said.get("kind") == "os":
        raise OSError(said["errno"], said["seen"])
    if child.returncode == -6:  # std::terminate
        raise damaged(path, "the decoder gave up on it")
    tail = child.stderr.decode("utf-8", "replace").strip().split("\n")[-1]
    raise DataError(
        "indexing %s ended with status %d: %s" % (path, child.returncode, tail),
        "-9 is most often the system short of memory.",
        "Run the command again with more memory free.",
    )


def _no_cache(folder: str, what: str) -> DiskError:
    return DiskError(
        "cannot keep the seek points of a .tgz in %s: %s" % (folder, what),
        "Without them every image would be decompressed from the archive's start.",
        "Free some space there, or set BEVREPRO_CACHE to another folder.",
    )


class _Decoder:
    """One open decoder of this process, registered so that it is closed before the interpreter ends."""

    def __init__(self, path: str, seek_points: str) -> None:
        self.file = open_gzip(path)
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


class GzipReader:
    """Reads spans; a decoder per process, since its threads and position do not survive a fork."""

    def __init__(self, path: str, seek_points: str) -> None:
        self.path = path
        self.seek_points = seek_points
        self._stamp = _stamp(path)
        self._reset()

    def _reset(self) -> None:
        self._decoder = None  # type: Optional[_Decoder]
        self._lock = threading.Lock()
        _readers.add(self)

    def __getstate__(self) -> Dict[str, Any]:
        return {"path": self.path, "seek_points": self.seek_points, "_stamp": self._stamp}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def read(self, span: Span) -> bytes:
        """One file; fewer bytes than the span says mean a damaged archive, which the caller reports."""
        with self._lock:
            if _stamp(self.path) != self._stamp:  # rapidgzip may end the process on a file cut under it
                raise DataError("%s changed while it was in use" % self.path, do="Run the command again.")
            if self._decoder is None:
                self._decoder = _Decoder(self.path, self.seek_points)
            self._decoder.file.seek(span.offset)
            return GzipSource(self._decoder.file, self.path).read(span.size)


def _stamp(path: str) -> Tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise DataError("%s: %s" % (path, error.strerror), "It was there when it was opened.") from error
    return found.st_size, found.st_mtime_ns
