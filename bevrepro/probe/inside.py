"""What kind of archive a file is and the first names in it: a bounded look, a few hundred KiB at most."""

import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bevrepro.probe.files import open_plain

BLOCK = 512
DEFLATE_RATIO = 1032  # the most that deflate can shrink (zlib's technical notes)
READ_B = 256 << 10  # of a compressed file
UNPACKED_B = 1 << 20  # of what comes out of it: a bomb stops here
MOST_NAMES = 64
PADDING_B = 1 << 20  # of zeros behind an archive
MOST_DIRECTORY_B = 64 << 20  # of a zip's list of files
EXTENDED = b"xgXLK"
MAGICS = ((b"\x1f\x8b", "tgz"), (b"PK\x03\x04", "zip"), (b"PK\x05\x06", "zip"), (b"BZh", "bz2"))


@dataclass(frozen=True)
class Inside:
    """form: tgz, tar, zip, bz2, html, text, empty, zeros, other; None where it could not be read. `names` are
    the first of a tar and all of a zip. `allocated_b` is less than `size_b` for a file with holes."""

    form: str | None
    size_b: int = 0
    allocated_b: int = 0
    names: tuple[str, ...] = ()
    tail: str | None = None  # what is wrong with its end, as far as a glance tells
    error: str | None = None


def peek(path: Path) -> Inside:
    """Never raises for what the file holds."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return Inside(None, error="no ordinary file")
        with open_plain(path) as file:
            return _look(path, file, found.st_size, found.st_blocks * BLOCK)
    except OSError as error:
        return Inside(None, error=error.strerror or str(error))


def _look(path: Path, file: BinaryIO, size_b: int, allocated_b: int) -> Inside:
    head = file.read(BLOCK)
    form = kind_of(head)
    if form == "tgz":
        file.seek(0)
        data = _inflated(file.read(READ_B))
        names = tuple(_names_in(data))
        return Inside(form, size_b, allocated_b, names, _gzip_tail(file, size_b))
    if form == "tar":
        return Inside(form, size_b, allocated_b, tuple(_names_on_disk(file, size_b)), _tar_tail(file, size_b))
    if form == "zip":
        listed, wrong = _zip_names(path, file, size_b)
        return Inside(form, size_b, allocated_b, listed, wrong)
    return Inside(form, size_b, allocated_b)


def kind_of(head: bytes) -> str:
    """From the first 512 bytes."""
    if not head:
        return "empty"
    for magic, form in MAGICS:
        if head.startswith(magic):
            return form
    if not head.strip(b"\0"):
        return "zeros"
    if is_tar_header(head):
        return "tar"
    if re.match(rb"\s*<(!doctype|html|\?xml)", head, re.IGNORECASE):
        return "html"
    return "text" if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head[:200]) else "other"


def is_tar_header(head: bytes) -> bool:
    """The header's own checksum: bytes 148-156 counted as spaces (POSIX.1-1988)."""
    if len(head) < BLOCK:
        return False
    stored = _octal(head[148:156])
    return stored is not None and stored == sum(head[:148]) + sum(head[156:BLOCK]) + 8 * 32


def _octal(field: bytes) -> int | None:
    if field[:1] in (b"\x80", b"\xff"):  # base-256, for sizes over 8 GiB
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0")[0].strip()
    return int(text, 8) if re.fullmatch(rb"[0-7]+", text) else None


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(data, UNPACKED_B)
    except zlib.error:
        return b""


def _entries(header_at: Iterator[bytes]) -> Iterator[str]:
    for header in header_at:
        if header[156:157] not in EXTENDED:
            yield _name(header)


def _name(header: bytes) -> str:
    name, prefix = (
        field.split(b"\0")[0].decode("utf-8", "replace") for field in (header[:100], header[345:500])
    )
    joined = f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name
    return joined[2:] if joined.startswith("./") else joined


def _names_in(data: bytes) -> Iterator[str]:
    """Of the beginning of a tar."""

    def headers() -> Iterator[bytes]:
        at = 0
        while is_tar_header(header := data[at : at + BLOCK]):
            yield header
            at += BLOCK + -(-(_octal(header[124:136]) or 0) // BLOCK) * BLOCK

    return _first(_entries(headers()))


def _names_on_disk(file: BinaryIO, size_b: int) -> Iterator[str]:
    def headers() -> Iterator[bytes]:
        at = 0
        while at < size_b:
            file.seek(at)
            header = file.read(BLOCK)
            if not is_tar_header(header):
                return
            yield header
            at += BLOCK + -(-(_octal(header[124:136]) or 0) // BLOCK) * BLOCK

    return _first(_entries(headers()))


def _first(names: Iterator[str]) -> Iterator[str]:
    for number, name in enumerate(names):
        if number == MOST_NAMES:
            return
        yield name


def _zip_names(path: Path, file: BinaryIO, size_b: int) -> tuple[tuple[str, ...], str | None]:
    """Everything its directory lists. The directory lies at the end, so a cut zip has none."""
    file.seek(max(0, size_b - (1 << 16) - 22))
    end = file.read()
    at = end.rfind(b"PK\x05\x06")
    if at < 0 or len(end) - at < 22:
        return (), "its end is missing"
    if int.from_bytes(end[at + 12 : at + 16], "little") > MOST_DIRECTORY_B:
        return (), "its list of files is far too long"
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(archive.namelist()), None
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        return (), str(error) or "its list of files cannot be read"


def isizes(file: BinaryIO, size_b: int) -> dict[int, int]:
    """What ISIZE, a gzip file's last four bytes, may be (RFC 1952: the content's size modulo 2**32), and
    where the archive then ends.

    Zeros there mean a content of exactly 4 GiB or a multiple, or that padding follows, as tapes and disk
    images leave it: then ISIZE is in front of it, and may itself end in zeros. 1 MiB is looked at. Empty
    where all of that is zeros.
    """
    file.seek(size_b - 4)
    last = file.read(4)
    if last.strip(b"\0"):
        return {int.from_bytes(last, "little"): size_b}
    start = max(0, size_b - PADDING_B)
    file.seek(start)
    tail = file.read()
    end = len(tail.rstrip(b"\0"))
    ends = [at for at in range(max(4, end), end + 4) if end and at <= len(tail)]
    if len(tail) - end <= 8:  # no more than a trailer has: 4 GiB
        ends.append(len(tail))
    return {int.from_bytes(tail[at - 4 : at], "little"): start + at for at in ends}


def _gzip_tail(file: BinaryIO, size_b: int) -> str | None:
    """ISIZE is the tar's size modulo 2**32, and a tar's size is a multiple of 512 that deflate can have made
    into `size_b`. A cut archive ends in compressed data, which passes for that once in 512 times (a large
    one) or practically never."""
    if size_b < 18:
        return "it is shorter than any gzip file"
    said = isizes(file, size_b)
    if any(_may_be(isize, end) for isize, end in said.items()):
        return None
    if size_b not in said.values():
        return "it ends in zeros and no archive ends in front of them: a download that never finished"
    return f"its last four bytes say {next(iter(said))}, which no tar in it can be long: its end is missing"


def _may_be(isize: int, size_b: int) -> bool:
    most = size_b * DEFLATE_RATIO
    possible = most >= 1 << 32 or size_b * 0.99 - 1000 <= isize <= most
    return isize % BLOCK == 0 and possible


def _tar_tail(file: BinaryIO, size_b: int) -> str | None:
    file.seek(max(0, size_b - 2 * BLOCK))
    if size_b % BLOCK or file.read().strip(b"\0"):
        return "a tar ends in two blocks of zeros, this one does not"
    return None


@dataclass(frozen=True)
class Family:
    """What the names say an archive is about."""

    versions: frozenset[str] = frozenset()  # v1.0-... with tables in it
    samples: frozenset[str] = frozenset()  # kinds of sensor: CAM, LIDAR, RADAR
    sweeps: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()  # can_bus, maps, expansion, lidarseg, panoptic

    @property
    def is_known(self) -> bool:
        return bool(self.versions or self.samples or self.sweeps or self.others)


ABOVE = re.compile(
    r"^(?:(?!lidarseg/|panoptic/)[^/]+/){0,3}?(?=(?:samples|sweeps|can_bus|maps|lidarseg|panoptic|v1\.0-\w+)/)"
)
TABLE = re.compile(r"^(v1\.0-\w+)/")
SENSOR = re.compile(r"^(samples|sweeps)/(CAM|LIDAR|RADAR)_")
MAP_FILE = re.compile(r"^(?:maps/)?(?:expansion|basemap|prediction)/|^(?:boston|singapore)-\w+\.json$")


def family(names: Iterable[str]) -> Family:
    """Folders above nuScenes' own (`data/nuscenes/samples/...`) are looked through."""
    versions, others = set(), set()
    sensors: dict[str, set[str]] = {"samples": set(), "sweeps": set()}
    for name in names:
        short = ABOVE.sub("", name)
        if sensor := SENSOR.match(short):
            sensors[sensor[1]].add(sensor[2])
        elif table := TABLE.match(short):
            versions.add(table[1])
        elif MAP_FILE.match(short):
            others.add("expansion")
        elif (top := short.partition("/")[0]) in ("can_bus", "maps", "lidarseg", "panoptic"):
            others.add(top)
    return Family(
        frozenset(versions), frozenset(sensors["samples"]), frozenset(sensors["sweeps"]), frozenset(others)
    )
