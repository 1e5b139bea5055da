"""The kinds of data root a store is made of: folder, tar, gzip-compressed tar, zip."""

import errno
import os
import stat
import threading
import zipfile
from bisect import bisect_left
from typing import Any, Dict, Iterable, List, Optional

from bevformer.errors import DataError

from . import gzip_tar
from .tar_index import REDO, PlainSource, Span, safe_name, scan


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
