"""Where the files of a tar archive lie: one pass over the headers, every irregularity an error.

Python's tarfile (and so ratarmount) ends its listing quietly at the first header it cannot read, and
reads a cut archive as a shorter one.  A data set that lost its last scenes that way trains without a
word, so this scanner accepts an archive only when it is whole to its end blocks.

Format: POSIX.1-1988 (ustar), POSIX.1-2001 (pax) and GNU long names; 512-byte blocks.
"""

import os
import re
from typing import Dict, NamedTuple, Optional

from bevformer.errors import DataError

from .members import Collector, Members, Span

BLOCK = 512
_ZEROS = bytes(BLOCK)
_MAX_EXTENDED = 1 << 20  # a pax or long-name record beyond this is not a name
_CLEAN = re.compile(r"(?!\.{1,2}(?:/|\Z))[^/\\\0]+(?:/(?!\.{1,2}(?:/|\Z))[^/\\\0]+)*\Z")
REDO = "Fetch the archive again and compare its size and md5 with the published ones."
__all__ = ["REDO", "PlainSource", "Scan", "Scanner", "Source", "Span", "looks_like_tar", "safe_name", "scan"]


class Scan(NamedTuple):
    """files: by name, the last entry of a name wins; others: links, devices and the like, never followed.

    replaced: entries that a later one of the same name replaced; end: where the end blocks begin.
    """

    files: Members
    others: int
    end: int
    replaced: int = 0


class Source:
    """Bytes in order: `read` the next n (fewer at the end only), `skip` n.  Subclasses know where from."""

    position = 0

    def read(self, size: int) -> bytes:
        raise OSError("a source has to say how it reads")

    def skip(self, size: int) -> bool:
        """Move on by `size` bytes; False when the archive ends before."""
        raise OSError("a source has to say how it skips")

    def pass_file(self, size: int) -> Optional[int]:
        """Move past a file's content: its CRC-32, 0 where not read; None when the archive ends before."""
        return 0 if self.skip(size) else None


class PlainSource(Source):
    """A tar on disk; skipping costs nothing."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size

    def read(self, size: int) -> bytes:
        data = os.pread(self.fd, size, self.position)
        self.position += len(data)
        return data

    def skip(self, size: int) -> bool:
        self.position += size
        return self.position <= self.size


def safe_name(raw: str, path: str) -> str:
    """`./a//b/` -> `a/b`.  Raises DataError for a name that would leave the data root."""
    if _CLEAN.match(raw):
        return raw
    parts = [part for part in raw.split("/") if part not in ("", ".")]
    if raw.startswith("/") or ".." in parts or "\0" in raw or "\\" in raw:
        raise DataError(
            "%s holds an entry named %r" % (path, raw),
            "Such a name points outside the data root; official archives have none.",
            "Do not use this archive. " + REDO,
        )
    return "/".join(parts)


def _number(field: bytes, path: str, position: int) -> int:
    if field[:1] == b"\x80":  # base-256 for sizes over 8 GiB
        return int.from_bytes(field[1:], "big")
    if field[:1] == b"\xff":  # base-256 below zero
        raise _broken(path, position)
    text = field.split(b"\0", 1)[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise _broken(path, position) from None


def _broken(path: str, position: int) -> DataError:
    return DataError(
        "%s: broken header at byte %d" % (path, position),
        "Everything behind a broken header would be missing without a word.",
        REDO,
    )


def _cut(path: str, position: int, name: str = "") -> DataError:
    where = " inside %s" % name if name else ""
    return DataError(
        "%s is cut short: it ends at byte %d%s, before its end blocks" % (path, position, where),
        "The rest of its files is missing.",
        REDO,
    )


def _checked(header: bytes, path: str, position: int) -> bytes:
    """The checksum counts its own eight bytes as spaces; some old tars summed signed bytes."""
    stored = _number(header[148:156], path, position)
    plain = sum(header) - sum(header[148:156]) + 8 * 32
    if stored != plain:
        signed = plain - 256 * sum(byte > 127 for byte in header[:148] + header[156:])
        if stored != signed:
            raise _broken(path, position)
    return header


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _pax(data: bytes, path: str, position: int) -> Dict[str, str]:
    """`<length> <key>=<value>\\n` records."""
    found = {}
    while data.strip(b"\0"):
        try:
            length = int(data.split(b" ", 1)[0])
            key, value = data[:length].split(b" ", 1)[1][:-1].split(b"=", 1)
            if not 0 < length <= len(data):
                raise ValueError("record longer than its header")
        except (ValueError, IndexError):
            raise _broken(path, position) from None
        found[key.decode("utf-8", "surrogateescape")] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return found


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


class Scanner:
    """State of one pass: what earlier extended headers said about the next entry."""

    def __init__(self, source: Source, path: str) -> None:
        self.source = source
        self.path = path
        self.files = Collector()
        self.others = 0
        self.globals = {}  # type: Dict[str, str]
        self.locals = {}  # type: Dict[str, str]

    def run(self) -> Scan:
        """Raises DataError when the archive is cut, broken anywhere, or names files outside."""
        while True:
            start = self.source.position
            header = self.source.read(BLOCK)
            if len(header) < BLOCK:
                raise _cut(self.path, start + len(header))
            if header == _ZEROS:
                self._end(start)
                replaced = self.files.replaced
                return Scan(self.files.members(self.path), self.others, start, replaced)
            self._entry(_checked(header, self.path, start), start)

    def _entry(self, header: bytes, start: int) -> None:
        kind = header[156:157]
        size = _number(header[124:136], self.path, start)
        if kind in b"xgXLK":
            self._extended(kind, self._payload(size, start), start)
            return
        said = dict(self.globals, **self.locals) if self.globals or self.locals else self.locals
        self.locals = {}
        if said:
            size = self._size(said, size, start)
        name = safe_name(said.get("path") or self._header_name(header), self.path)
        is_file = kind in (b"0", b"\0", b"7") and not any(key.startswith("GNU.sparse") for key in said)
        if is_file and name:
            self.file(name, size)
            return
        if kind == b"S":
            self._sparse_map(header)
        if kind in b"123456":  # links, devices, folders and pipes have no content, whatever they say
            size = 0
        self.other(name, kind, size)

    def file(self, name: str, size: int) -> None:
        """An ordinary file whose content follows."""
        offset = self.source.position
        crc = self.source.pass_file(size)
        if crc is None or not self.source.skip(-size % BLOCK):
            raise _cut(self.path, self.source.position, name)
        self.files.add(name, offset, size, crc)

    def other(self, name: str, kind: bytes, size: int) -> None:
        """A folder, or what is never followed: links, devices, sparse files."""
        if kind != b"5":
            self.others += 1
        if not self.source.skip(_padded(size)):
            raise _cut(self.path, self.source.position, name)

    def _sparse_map(self, header: bytes) -> None:
        """Old GNU sparse files: more blocks of the map come before the content."""
        more = header[482:483]
        while more not in (b"", b"\0"):
            more = self.source.read(BLOCK)[504:505]

    def _size(self, said: Dict[str, str], size: int, start: int) -> int:
        try:
            size = int(said.get("size", size))
        except ValueError:
            size = -1
        if size < 0:
            raise _broken(self.path, start)
        return size

    @staticmethod
    def _header_name(header: bytes) -> str:
        name = _text(header[:100])
        prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
        return prefix + "/" + name if prefix else name

    def _payload(self, size: int, start: int) -> bytes:
        if size > _MAX_EXTENDED:
            raise _broken(self.path, start)
        data = self.source.read(_padded(size))
        if len(data) < _padded(size):
            raise _cut(self.path, self.source.position)
        return data[:size]

    def _extended(self, kind: bytes, data: bytes, start: int) -> None:
        if kind == b"L":
            self.locals["path"] = _text(data)
        elif kind == b"g":
            self.globals.update(_pax(data, self.path, start))
        elif kind in b"xX":
            self.locals.update(_pax(data, self.path, start))

    def _end(self, start: int) -> None:
        """Two zero blocks, then nothing but zeros: a zeroed header mid-archive is not an end."""
        second = self.source.read(BLOCK)
        if len(second) < BLOCK:
            raise _cut(self.path, start + BLOCK + len(second))
        rest = second
        while rest:
            if rest.strip(b"\0"):
                raise _broken(self.path, start)
            rest = self.source.read(1 << 20)


def scan(source: Source, path: str) -> Scan:
    """Raises DataError when the archive is cut, broken anywhere, names files outside, or holds none."""
    found = Scanner(source, path).run()
    if not found.files:
        raise DataError("%s holds no files" % path, do="Is it the right archive? " + REDO)
    return found


def looks_like_tar(head: bytes) -> Optional[bool]:
    """From the first 512 bytes; an all-zero block (an empty tar) is None: unknown."""
    if len(head) < BLOCK:
        return False
    if head == _ZEROS:
        return None
    return head[257:262] == b"ustar" or head[148:156].strip(b" \0").isdigit()
