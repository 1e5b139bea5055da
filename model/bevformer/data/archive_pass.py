"""One pass over an archive from its first byte to its last: checksums, headers, names, and tables on the way.

Only the standard library is needed, so that it runs in any interpreter; what a seekable index needs is
`gzip_index`. Memory does not grow with the archive but for its list of names.
"""

import hashlib
import os
import stat
import zipfile
import zlib
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional

from bevformer.errors import DataError

from .tar_index import BLOCK, REDO, PlainSource, Source, safe_name, scan

CHUNK = 1 << 20
BOMB_RATIO, BOMB_BYTES = 300, 64 << 30  # tables shrink 10 to 20 times, pictures not at all
Blocks = Iterator[bytes]
UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError)
OnBytes = Callable[[int], None]
OnMember = Callable[[str, Blocks], None]  # called for a wanted member while it passes by


class Passed(NamedTuple):
    """`names`: name -> bytes.  `md5` of the archive as it lies on the disk; None: only headers were read."""

    names: Dict[str, int]
    others: int
    md5: Optional[str]
    unpacked_bytes: int


class Wanted(NamedTuple):
    """Which members are handed on, and to whom."""

    matches: Callable[[str], bool]
    on_member: OnMember


def nothing() -> Wanted:
    """For a pass that only checks."""
    return Wanted(lambda name: False, lambda name, blocks: None)


def pass_through(path: str, form: str, wanted: Wanted, whole: bool, on_bytes: OnBytes) -> Passed:
    """`form`: tgz, tar or zip.  `whole`: every byte of a tar and of a zip too, not only their lists of files.

    Raises DataError where it is cut, broken, fails a checksum, or names files outside.
    """
    before = _stamp(path)
    found = {"tgz": _pass_tgz, "tar": _pass_tar, "zip": _pass_zip}[form](path, wanted, whole, on_bytes)
    if _stamp(path) != before:
        raise DataError("%s changed while it was read" % path, do="Run the command again once it is whole.")
    return found


def _stamp(path: str) -> Any:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


class GzipStream(Source):
    """The decompressed bytes in order; zlib compares each gzip member's CRC-32 and length at its end."""

    def __init__(self, file: Any, path: str, on_bytes: OnBytes) -> None:
        self.file, self.path, self.on_bytes = file, path, on_bytes
        self.md5 = hashlib.md5()
        self.raw_bytes = 0
        self._inflate = zlib.decompressobj(31)
        self._left = b""  # read and not decompressed yet
        self._data = b""
        self._at = 0
        self._ended = False

    def read(self, size: int) -> bytes:
        pieces = []
        while size:
            piece = self._piece(size)
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def skip(self, size: int) -> bool:
        while size:
            if self._at == len(self._data) and not self._fill():
                return False
            step = min(size, len(self._data) - self._at)
            self._at += step
            self.position += step
            size -= step
        return True

    def _piece(self, size: int) -> bytes:
        if self._at == len(self._data) and not self._fill():
            return b""
        piece = self._data[self._at : self._at + size]
        self._at += len(piece)
        self.position += len(piece)
        return piece

    def _fill(self) -> bool:
        """The next decompressed bytes; False at the archive's end."""
        self._data, self._at = b"", 0
        while not self._data and not self._ended:
            raw, self._left = self._left or self._raw(), b""
            try:
                self._data = self._inflate.decompress(raw, CHUNK)
            except zlib.error as error:
                what = "a checksum fails" if "incorrect" in str(error) else str(error)
                raise self._damaged("%s (%s) near byte %d" % (what, error, self.raw_bytes)) from error
            self._left = self._inflate.unconsumed_tail
            if self._inflate.eof:
                self._next_member()
        self._no_bomb()
        return bool(self._data)

    def _raw(self) -> bytes:
        data = self.file.read(CHUNK)
        self.md5.update(data)
        self.raw_bytes += len(data)
        self.on_bytes(len(data))
        if not data:
            raise self._damaged("it ends at byte %d, before its gzip trailer" % self.raw_bytes)
        return bytes(data)

    def _next_member(self) -> None:
        """What follows was read with the end of this one: another member, or zeros of a tape, or nothing."""
        rest, padding = self._inflate.unused_data, False
        while not rest.strip(b"\0"):
            padding = padding or bool(rest)
            rest = self.file.read(CHUNK)
            self.md5.update(rest)
            self.raw_bytes += len(rest)
            self.on_bytes(len(rest))
            if not rest:
                self._ended = True
                return
        if padding or rest[:2] != b"\x1f\x8b"[: len(rest[:2])]:
            raise self._damaged("something else follows its end at byte %d" % self.raw_bytes)
        self._inflate, self._left = zlib.decompressobj(31), rest

    def _no_bomb(self) -> None:
        if self.position > BOMB_BYTES and self.position > BOMB_RATIO * self.raw_bytes:
            raise DataError(
                "%s unpacks to more than %d times its size" % (self.path, BOMB_RATIO),
                "No archive of nuScenes does; this one was made to fill disks.",
                "Do not use this archive. " + REDO,
            )

    def _damaged(self, what: str) -> DataError:
        return DataError("%s is damaged or cut short: %s" % (self.path, what), "Files would be wrong.", REDO)


class _Tap(Source):
    """Passes everything on to `scan` and hands wanted members out where it would skip them."""

    def __init__(self, source: Source, wanted: Wanted) -> None:
        self.source, self.wanted = source, wanted
        self._name = ""
        self._size = 0

    @property
    def position(self) -> int:  # type: ignore[override]
        return self.source.position

    def read(self, size: int) -> bytes:
        data = self.source.read(size)
        if size == BLOCK:
            self._name = _short_name(data)
        return data

    def skip(self, size: int) -> bool:
        name, self._name = self._name, ""
        if not (name and self.wanted.matches(name)):
            return self.source.skip(size)
        until = self.source.position + size
        self.wanted.on_member(name, self._blocks(until))
        return self.source.skip(until - self.source.position)

    def _blocks(self, until: int) -> Blocks:
        """A tar pads to 512 with zeros, which no JSON text holds: cut off where they begin."""
        while self.source.position < until:
            block = self.source.read(min(CHUNK, until - self.source.position))
            if not block:
                return
            yield block.rstrip(b"\0") if self.source.position == until else block


def _short_name(header: bytes) -> str:
    """Enough for tables, whose names are short; `scan` reads long ones."""
    name = header[:100].split(b"\0", 1)[0].decode("utf-8", "replace")
    return name[2:] if name.startswith("./") else name


def _pass_tgz(path: str, wanted: Wanted, whole: bool, on_bytes: OnBytes) -> Passed:
    with open(path, "rb", buffering=0) as file:
        source = GzipStream(file, path, on_bytes)
        found = scan(_Tap(source, wanted), path)
        while source.read(CHUNK):  # to the gzip trailer, behind the tar's own end
            pass
        return Passed(_sizes(found.files), found.others, source.md5.hexdigest(), source.position)


def _sizes(files: Any) -> Dict[str, int]:
    return {name: span.size for name, span in files.items()}


def _pass_tar(path: str, wanted: Wanted, whole: bool, on_bytes: OnBytes) -> Passed:
    with open(path, "rb", buffering=0) as file:
        found = scan(_Tap(PlainSource(file.fileno()), wanted), path)
        size = os.fstat(file.fileno()).st_size
        return Passed(_sizes(found.files), found.others, _md5(file, on_bytes) if whole else None, size)


def _md5(file: Any, on_bytes: OnBytes) -> str:
    digest = hashlib.md5()
    file.seek(0)
    for block in iter(lambda: file.read(CHUNK), b""):
        digest.update(block)
        on_bytes(len(block))
    return digest.hexdigest()


def _pass_zip(path: str, wanted: Wanted, whole: bool, on_bytes: OnBytes) -> Passed:
    names, others, total = {}, 0, 0  # type: Dict[str, int], int, int
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = safe_name(entry.orig_filename, path)
                if entry.is_dir() or not name:
                    continue
                if stat.S_ISLNK(entry.external_attr >> 16):
                    others += 1
                    continue
                names[name] = entry.file_size
                total += entry.file_size
                _no_zip_bomb(path, total)
                _zip_member(archive, entry, name, wanted, whole)
    except UNREADABLE as error:
        raise DataError("%s is damaged: %s" % (path, error), "Files would be wrong.", REDO) from error
    if not names:
        raise DataError("%s holds no files" % path, do="Is it the right archive? " + REDO)
    with open(path, "rb", buffering=0) as file:
        return Passed(names, others, _md5(file, on_bytes) if whole else None, total)


def _no_zip_bomb(path: str, total: int) -> None:
    if total > BOMB_BYTES and total > BOMB_RATIO * os.path.getsize(path):
        raise DataError(
            "%s unpacks to %d bytes or more" % (path, total), "It was made to fill disks.", "Do not use it."
        )


def _zip_member(archive: Any, entry: Any, name: str, wanted: Wanted, whole: bool) -> None:
    """zipfile compares the CRC-32 at the end of a member that is read."""
    matched = wanted.matches(name)
    if not (matched or whole):
        return
    with archive.open(entry) as member:
        blocks = iter(lambda: member.read(CHUNK), b"")
        if matched:
            wanted.on_member(name, blocks)
        for _ in blocks:
            pass
