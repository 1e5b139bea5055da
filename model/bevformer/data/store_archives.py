"""Archives as roots of a store: tar, gzip-compressed tar, zip.  None is extracted."""

import mmap
import os
import stat
import threading
import zipfile
from bisect import bisect_left
from typing import Any, Dict, List, Optional
from zlib import crc32

from bevformer.errors import DataError

from . import gzip_tar, index_cache, seek_points
from .gzip_end import damaged
from .gzip_index import SPACING_BYTES
from .index_cache import Index, Stamp, stamp_of
from .members import Members
from .store_roots import Root, missing
from .tar_index import BLOCK, REDO, PlainSource, safe_name, scan

_NOWAIT = getattr(os, "RWF_NOWAIT", 0)  # Linux
_PROBED_HEADERS = 16
LOOKED_AT_B = 64 << 10  # below, copying a file takes less than asking for its pages and mapping them
BOMB_RATIO, BOMB_BYTES = 200, 100 << 20  # deflate reaches 1032; JSON tables about 20


def _opened(path: str, stamp: Optional[Stamp] = None) -> int:
    """A descriptor; DataError when the archive is not there or not what it was."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise missing(path, error) from error
    if stamp is not None and stamp_of(os.fstat(fd)) != stamp:
        os.close(fd)
        raise _changed(path)
    return fd


def _changed(path: str) -> DataError:
    return DataError("%s changed while it was in use" % path, do="Run the command again.")


class _TarRoot(Root):
    """Members, and a descriptor that processes and threads share without harm: only pread uses it."""

    members = None  # type: Members
    others = 0

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._fd = _opened(path)
        self._stamp = stamp_of(os.fstat(self._fd))

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    def __getstate__(self) -> Dict[str, Any]:
        return dict(self.__dict__, _fd=-1)

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._fd = _opened(self.path, self._stamp)

    def find(self, name: str) -> int:
        return self.members.row(name)

    def files(self) -> List[str]:
        return self.members.under("")

    def under(self, folder: str) -> List[str]:
        return self.members.under(folder)

    def describe(self) -> Dict[str, Any]:
        return {
            "path": os.path.abspath(self.path),
            "kind": self.kind,
            "files": len(self.members),
            "not_followed": self.others,
        }


class TarStore(_TarRoot):
    """A plain .tar: one look where the bytes already lie in memory, or one pread."""

    kind = "tar"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        where = index_cache.place(path)
        index = index_cache.load(where, self._stamp)
        if index is None or not self._headers_fit(index.members):
            index = self._indexed(where)
        self.members, self.others = index.members, index.others
        self._map_it()

    def _indexed(self, where: str) -> Index:
        found = scan(PlainSource(self._fd), self.path)
        size = os.fstat(self._fd).st_size
        index = Index(found.files, self._stamp, found.others, found.replaced, size)
        try:
            index_cache.keep(where, lambda part: index_cache.write(index, part))
        except OSError:  # scanning again next time costs seconds: no reason to stop
            return index
        return index

    def _headers_fit(self, members: Members) -> bool:
        """An archive can be changed and keep size, time and inode: look at some headers again."""
        step = max(1, len(members) // _PROBED_HEADERS)
        for row in range(0, len(members), step):
            offset = members.offsets[row] - BLOCK
            header = os.pread(self._fd, BLOCK, offset) if offset >= 0 else b""
            base = members.name(row).rsplit("/", 1)[-1].encode("utf-8", "surrogateescape")
            if header[156:157] not in (b"0", b"\0", b"7") or (len(base) < 100 and base not in header[:100]):
                return False
        return True

    def _map_it(self) -> None:
        self._byte = [bytearray(1)]
        self._map = None  # type: Optional[memoryview]
        try:
            self._map = memoryview(mmap.mmap(self._fd, 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ))
        except (OSError, ValueError, OverflowError):  # limited address space, a file system without
            return

    def __getstate__(self) -> Dict[str, Any]:
        return dict(super().__getstate__(), _map=None)

    def __setstate__(self, state: Dict[str, Any]) -> None:
        super().__setstate__(state)
        self._map_it()

    def view(self, name: str, found: int) -> memoryview:
        """Where the page cache holds the file, the very pages, uncopied; else what a pread brings.

        Looking at a mapped page that has to be fetched could end the process (SIGBUS) when the disk fails or
        the archive was cut; so both ends are asked for first, without waiting (RWF_NOWAIT).  File systems
        that cannot tell, network and FUSE ones among them, refuse and are read by pread.
        """
        offset, size = self.members.offsets[found], self.members.sizes[found]
        if self._map is not None and size >= LOOKED_AT_B:
            try:
                if os.preadv(self._fd, self._byte, offset + size - 1, _NOWAIT) == 1:
                    os.preadv(self._fd, self._byte, offset, _NOWAIT)
                    return self._map[offset : offset + size]
            except OSError:  # not in memory, or not to be told: pread says what is wrong, if anything
                pass
        return memoryview(self._pread(name, offset, size))

    def read(self, name: str, found: int) -> bytes:
        """By pread: mapping pages only to copy them once costs more than the copy."""
        return self._pread(name, self.members.offsets[found], self.members.sizes[found])

    def _pread(self, name: str, offset: int, size: int) -> bytes:
        try:
            data = os.pread(self._fd, size, offset)  # a position of its own: safe after a fork
            while 0 < len(data) < size:  # one pread moves at most 2 GiB
                more = os.pread(self._fd, size - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            raise self.broken(name, error.strerror or str(error)) from error
        if len(data) != size:
            raise self.broken(name, "%d of %d bytes" % (len(data), size))
        return data


class GzipTarStore(_TarRoot):
    """A .tgz: checked and indexed once (kept in the cache), then read from the nearest seek point.

    Every file is compared with the CRC-32 of the pass that checked the whole archive.
    """

    kind = "tgz"

    def __init__(self, path: str, spacing_bytes: int = SPACING_BYTES) -> None:
        super().__init__(path)
        index = gzip_tar.index(path, spacing_bytes)
        self.members, self.others, self._stamp = index.members, index.others, index.stamp
        try:
            self._points = seek_points.SeekPoints(index.points)
        except ValueError as error:  # its digest fits: what made it was no friend
            raise damaged(index_cache.place(path, spacing_bytes), str(error)) from error

    def read(self, name: str, found: int) -> bytes:
        members = self.members
        try:
            data = seek_points.read_span(self._fd, self._points, members.offsets[found], members.sizes[found])
        except OSError as error:
            raise self.broken(name, error.strerror or str(error)) from error
        except seek_points.Cut as error:
            raise self._moved() or self.broken(name, str(error)) from error
        if crc32(data) != members.crcs[found]:
            raise self._moved() or self.broken(name, "its bytes are not those that were indexed")
        return data

    def _moved(self) -> Optional[DataError]:
        return None if stamp_of(os.fstat(self._fd)) == self._stamp else _changed(self.path)


class ZipStore(Root):
    """A .zip; zipfile checks the CRC of every file it reads."""

    kind = "zip"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._forget()
        self._entries = {}  # type: Dict[str, zipfile.ZipInfo]
        for entry in self._opened().infolist():
            name = safe_name(entry.orig_filename, path)
            if name and not entry.is_dir() and not stat.S_ISLNK(entry.external_attr >> 16):
                self._entries[name] = entry
        if not self._entries:
            raise DataError("%s holds no files" % path, do="Is it the right archive? " + REDO)
        self._sorted = sorted(self._entries)

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
            except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
                raise DataError(
                    "%s cannot be read as a zip: %s" % (self.path, error),
                    "It is cut short, damaged, or no zip.",
                    REDO,
                ) from error
        return self._zip

    def find(self, name: str) -> int:
        return 0 if name in self._entries else -1

    def files(self) -> List[str]:
        return list(self._sorted)

    def under(self, folder: str) -> List[str]:
        names = self._sorted
        end = bisect_left(names, folder[:-1] + "0") if folder else len(names)  # "0" follows "/"
        return names[bisect_left(names, folder) : end]

    def read(self, name: str, found: int) -> bytes:
        if self._pid != os.getpid():  # a fork shares the parent's file position
            self._forget()
        entry = self._entries[name]
        if entry.file_size > max(BOMB_BYTES, BOMB_RATIO * entry.compress_size):
            raise self.broken(name, "it would expand %d bytes to %d" % (entry.compress_size, entry.file_size))
        try:
            with self._lock, self._opened().open(entry) as file:
                data = file.read()
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, zipfile.zlib.error) as error:
            raise self.broken(name, str(error) or type(error).__name__) from error
        if len(data) != entry.file_size:
            raise self.broken(name, "%d of %d bytes" % (len(data), entry.file_size))
        return data
