"""The data set's files, wherever they lie: folders and archives as one tree, read without extracting.

    store = open_store(["v1.0-mini.tgz", "can_bus.zip", "out/infos"])
    store.read("samples/CAM_FRONT/x.jpg")      # bytes; where two roots hold a name, the last one wins

A Store can be pickled and read from forked workers and threads: plain reads go through pread, and
what has a position (gzip, zip) is opened again in every process.
"""

import errno
import os
import stat
import threading
import zipfile
from bisect import bisect_left
from typing import Any, Dict, Iterable, List, Optional, Sequence

from bevformer.errors import DataError

from . import gzip_tar
from .tar_index import REDO, PlainSource, Span, looks_like_tar, safe_name, scan


class Root:
    """One folder or archive.  `path` is what the user gave; every error names it."""

    kind = ""

    def __init__(self, path: str) -> None:
        self.path = path

    def has(self, name: str) -> bool:
        return name in self.files()

    def files(self) -> Iterable[str]:
        """Sorted names of everything in it."""
        return ()

    def under(self, folder: str) -> Iterable[str]:
        """Sorted names below `folder` (`""` or ending in a slash)."""
        return ()

    def read(self, name: str) -> bytes:
        raise self.broken(name, "it cannot be read")

    def local_path(self, name: str) -> Optional[str]:
        return None

    def describe(self) -> Dict[str, Any]:
        return {"path": os.path.abspath(self.path), "kind": self.kind, "files": sum(1 for _ in self.files())}

    def broken(self, name: str, what: str) -> DataError:
        return DataError("%s in %s: %s" % (name, self.path, what), "The data is damaged or changed.", REDO)


class FolderStore(Root):
    """Plain files, a mounted archive among them."""

    kind = "folder"

    def has(self, name: str) -> bool:
        try:
            return stat.S_ISREG(os.stat(os.path.join(self.path, name)).st_mode)
        except OSError as error:
            if error.errno == errno.ENOTCONN:  # os.path.isfile would say that the file is missing
                raise dead_mount(self.path) from error
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                return False
            raise self.broken(name, error.strerror or str(error)) from error

    def files(self) -> Iterable[str]:
        return self.under("")

    def under(self, folder: str) -> List[str]:
        found = []
        for base, _, files in os.walk(os.path.join(self.path, folder), onerror=self._unreadable):
            inside = os.path.relpath(base, self.path).replace(os.sep, "/")
            found += [file if inside == "." else inside + "/" + file for file in files]
        return sorted(found)

    def _unreadable(self, error: OSError) -> None:
        if error.errno == errno.ENOTCONN:
            raise dead_mount(self.path) from error
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):  # a folder that is not there holds nothing
            raise self.broken(str(error.filename), error.strerror or str(error))

    def read(self, name: str) -> bytes:
        try:
            with open(os.path.join(self.path, name), "rb") as file:
                return file.read()
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                raise dead_mount(self.path) from error
            raise self.broken(name, error.strerror or str(error)) from error

    def local_path(self, name: str) -> Optional[str]:
        return os.path.join(self.path, name)


class _Indexed(Root):
    """An archive whose file list is known."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._sorted = None  # type: Optional[List[str]]

    def has(self, name: str) -> bool:
        return name in self._names()

    def _names(self) -> Dict[str, Any]:
        return {}

    def files(self) -> List[str]:
        if self._sorted is None:
            self._sorted = sorted(self._names())
        return self._sorted

    def under(self, folder: str) -> List[str]:
        names = self.files()
        end = bisect_left(names, folder[:-1] + "0") if folder else len(names)  # "0" follows "/"
        return names[bisect_left(names, folder) : end]


class TarStore(_Indexed):
    """A plain .tar: the headers are scanned once, then one pread per file."""

    kind = "tar"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._stamp = _stamp(os.fstat(self._fd))
        found = scan(PlainSource(self._fd), path)
        self._spans, self._others = found.files, found.others

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    def __getstate__(self) -> Dict[str, Any]:
        return dict(self.__dict__, _fd=-1)

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._fd = _reopen(self.path, self._stamp)

    def _names(self) -> Dict[str, Span]:
        return self._spans

    def read(self, name: str) -> bytes:
        span = self._spans[name]
        try:
            data = os.pread(self._fd, span.size, span.offset)  # a position of its own: safe after a fork
            while 0 < len(data) < span.size:  # one pread moves at most 2 GiB
                more = os.pread(self._fd, span.size - len(data), span.offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise self.broken(name, error.strerror or str(error)) from error
        if len(data) != span.size:
            raise self.broken(name, "%d of %d bytes" % (len(data), span.size))
        return data

    def describe(self) -> Dict[str, Any]:
        return dict(super().describe(), not_followed=self._others)


class GzipTarStore(_Indexed):
    """A .tgz: checked and indexed once (kept in the cache), then read from the nearest seek point."""

    kind = "tgz"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._spans, seek_points = gzip_tar.index(path)
        self._reader = gzip_tar.GzipReader(os.path.realpath(path), seek_points)

    def _names(self) -> Dict[str, Span]:
        return self._spans

    def read(self, name: str) -> bytes:
        span = self._spans[name]
        data = self._reader.read(span)
        if len(data) != span.size:
            raise self.broken(name, "%d of %d bytes" % (len(data), span.size))
        return data


class ZipStore(_Indexed):
    """A .zip; zipfile checks the CRC of every file it reads."""

    kind = "zip"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._stamp = _stamp(os.stat(path))
        self._forget()
        self._entries = {}  # type: Dict[str, zipfile.ZipInfo]
        for entry in self._opened().infolist():
            name = safe_name(entry.orig_filename, path)
            if name and not entry.is_dir() and not stat.S_ISLNK(entry.external_attr >> 16):
                self._entries[name] = entry
        if not self._entries:
            raise DataError("%s holds no files" % path, do="Is it the right archive? " + REDO)

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._zip = None  # type: Optional[zipfile.ZipFile]

    def __getstate__(self) -> Dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_lock", "_zip", "_pid")}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _opened(self) -> zipfile.ZipFile:
        if self._zip is None:
            try:
                self._zip = zipfile.ZipFile(self.path)
            except (zipfile.BadZipFile, OSError, ValueError) as error:
                raise DataError(
                    "%s cannot be read as a zip: %s" % (self.path, error),
                    "It is cut short, damaged, or no zip.",
                    REDO,
                ) from error
        return self._zip

    def _names(self) -> Dict[str, Any]:
        return self._entries

    def read(self, name: str) -> bytes:
        if self._pid != os.getpid():  # a fork shares the parent's file position
            self._forget()
        try:
            with self._lock, self._opened().open(self._entries[name]) as file:
                data = file.read()
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, zipfile.zlib.error) as error:
            raise self.broken(name, str(error) or type(error).__name__) from error
        if len(data) != self._entries[name].file_size:
            raise self.broken(name, "%d of %d bytes" % (len(data), self._entries[name].file_size))
        return data


class Store:
    """The union of its roots, the last one first asked."""

    def __init__(self, roots: Sequence[Root]) -> None:
        self.roots = tuple(roots)

    def _holder(self, name: str) -> Optional[Root]:
        return next((root for root in reversed(self.roots) if root.has(name)), None)

    def exists(self, name: str) -> bool:
        """Raises DataError for a name that points outside (`../`)."""
        return self._holder(safe_name(name, "the request")) is not None

    def read(self, name: str) -> bytes:
        """The whole file.  Raises DataError, naming file and archives, when it is missing or short."""
        clean = safe_name(name, "the request")
        root = self._holder(clean)
        if root is None:
            raise DataError(
                "%s is in none of: %s" % (name, ", ".join(root.path for root in self.roots)),
                "The tables or infos name it, so the data set is not complete or of another version.",
                "Add the archive that holds it as one more --data-root.",
            )
        return root.read(clean)

    def names(self, prefix: str = "") -> List[str]:
        """Sorted names of the files under a folder, e.g. `can_bus/`; all of them for the empty prefix."""
        folder = safe_name(prefix, "the request")
        folder = folder + "/" if folder else ""
        return sorted({name for root in self.roots for name in root.under(folder)})

    def local_path(self, name: str) -> Optional[str]:
        """The real path where the winning root is a folder, else None."""
        clean = safe_name(name, "the request")
        root = self._holder(clean)
        return root.local_path(clean) if root else None

    def describe(self) -> Dict[str, Any]:
        """JSON: `roots` (path, kind, files) in the order given, and `files` of the union."""
        return {"roots": [root.describe() for root in self.roots], "files": len(self.names(""))}


def _stamp(found: os.stat_result) -> Any:
    return found.st_size, found.st_mtime_ns


def _reopen(path: str, stamp: Any) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise missing(path, error) from error
    if _stamp(os.fstat(fd)) != stamp:
        os.close(fd)
        raise DataError("%s changed while it was in use" % path, do="Run the command again.")
    return fd


def dead_mount(path: str) -> DataError:
    return DataError(
        "%s is a mount whose program has died" % path,
        "Nothing can be read from it.",
        "bevrepro data umount %s   and mount it again" % path,
    )


def missing(path: str, error: OSError) -> DataError:
    if error.errno == errno.ENOTCONN:
        return dead_mount(path)
    return DataError(
        "cannot open the data at %s: %s" % (path, error.strerror),
        "--data-root takes a folder, a .tgz, .tar.gz, .tar or .zip, and may be given several times.",
        "Check the path.",
    )


def _open_archive(path: str) -> Root:
    """By content, since a wrong ending is common; the size decides nothing."""
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        raise DataError("%s is empty" % path, do=REDO)
    if head[:2] == b"\x1f\x8b":
        return GzipTarStore(path)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return ZipStore(path)
    if looks_like_tar(head) is not False:
        return TarStore(path)
    raise DataError(
        "%s is neither a tar, a gzip-compressed tar nor a zip" % path,
        "It begins with %r." % head[:8],
        "Is it the right file? " + REDO,
    )


def open_root(path: str) -> Root:
    """Raises DataError for what is missing, cut, damaged, hostile, or no archive."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            os.listdir(path)  # a dead or unreadable mount is found here, not in the first worker
            return FolderStore(path)
        if not stat.S_ISREG(mode):
            raise DataError("%s is neither a folder nor a file" % path)
        return _open_archive(path)
    except OSError as error:
        raise missing(path, error) from error


def open_store(paths: Sequence[str]) -> Store:
    """Folders and archives as one tree; where two hold a name, the last one given wins."""
    if not paths:
        raise DataError("no data root given", do="--data-root FOLDER_OR_ARCHIVE")
    return Store([open_root(str(path)) for path in paths])
