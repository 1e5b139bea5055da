"""The files of an archive as one compact block of bytes: 200,000 of them take 25 MB instead of 100.

Layout, in the machine's byte order: offsets and sizes (int64), CRC-32s (uint32), ends of the names (uint32),
hash slots (int32, -1: empty), then the names, UTF-8, sorted by their bytes.  The cache holds the same block,
so that loading it costs a read, a digest and a few passes; `check` is for a block that came from there.
"""

import re
from array import array
from operator import add, lt
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple
from zlib import crc32

from bevformer.errors import DataError

MAX_PROBES = 1024  # names made to collide would otherwise cost minutes
_UNSAFE = re.compile(rb"\A/|/\Z|//|(?:\A|/)\.\.?(?:/|\Z)|[\0\\]")


class Span(NamedTuple):
    """Where one file lies in the (uncompressed) archive: bytes offset .. offset + size."""

    offset: int
    size: int


class Members(Mapping[str, Span]):
    """name -> Span; `row` and the columns are for callers in a hurry."""

    def __init__(self, block: bytes, count: int) -> None:
        """ValueError when the block is too short for `count` files."""
        self.block = block
        self.count = count
        self._slot_count = _slot_count(count)
        view, start = memoryview(block), 0
        self.offsets, start = _column(view, start, count, "q")
        self.sizes, start = _column(view, start, count, "q")
        self.crcs, start = _column(view, start, count, "I")
        self._ends, start = _column(view, start, count, "I")
        self._slots, start = _column(view, start, self._slot_count, "i")
        self._names_start = start

    def __reduce__(self) -> Tuple[type, Tuple[bytes, int]]:
        return Members, (self.block, self.count)

    def row(self, name: str) -> int:
        """The row of a clean name, or -1."""
        try:
            key = name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # a lone surrogate that no file name decodes to
            return -1
        block, ends, first, mask = self.block, self._ends, self._names_start, self._slot_count - 1
        slot = crc32(key) & mask
        row = self._slots[slot]
        while row >= 0:
            start = ends[row - 1] if row else 0
            if block[first + start : first + ends[row]] == key:
                return int(row)
            slot = (slot + 1) & mask
            row = self._slots[slot]
        return -1

    def name(self, row: int) -> str:
        return self._key(row).decode("utf-8", "surrogateescape")

    def _key(self, row: int) -> bytes:
        start = self._ends[row - 1] if row else 0
        return self.block[self._names_start + start : self._names_start + self._ends[row]]

    def under(self, folder: str) -> List[str]:
        """Names that begin with `folder` (`""` or ending in a slash), sorted by their bytes."""
        key = folder.encode("utf-8", "surrogateescape")
        end = self._bisect(key[:-1] + b"0") if key else self.count  # "0" follows "/"
        return [self.name(row) for row in range(self._bisect(key), end)]

    def _bisect(self, key: bytes) -> int:
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self._key(middle) < key:
                low = middle + 1
            else:
                high = middle
        return low

    def __getitem__(self, name: str) -> Span:
        row = self.row(name)
        if row < 0:
            raise KeyError(name)
        return Span(self.offsets[row], self.sizes[row])

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.row(name) >= 0

    def __iter__(self) -> Iterator[str]:
        return (self.name(row) for row in range(self.count))

    def __len__(self) -> int:
        return self.count

    def check(self, archive_bytes: int) -> None:
        """ValueError unless all spans lie in `archive_bytes`, names are clean and sorted, slots sound."""
        names = len(self.block) - self._names_start
        ends = self._ends
        if self.count < 1 or ends[self.count - 1] != names or not all(map(lt, ends, ends[1:])) or ends[0] < 1:
            raise ValueError("names do not fit")
        if min(self.offsets) < 0 or min(self.sizes) < 0:
            raise ValueError("negative place")
        if max(map(add, self.offsets, self.sizes)) > archive_bytes:
            raise ValueError("a file beyond the end of its archive")
        filled = sum(map((-1).__lt__, self._slots))
        if min(self._slots) < -1 or max(self._slots) >= self.count or filled != self.count:
            raise ValueError("slots do not fit")
        self._check_names()

    def _check_names(self) -> None:
        """Sorted, so none comes twice; and the rules of `safe_name`, by a few searches over all of them."""
        block, first, last = self.block, self._names_start, b""
        starts, finals, place = set(), set(), first
        for end in self._ends:
            key = block[place : first + end]
            if key <= last:
                raise ValueError("names are not sorted")
            starts.add(key[0])
            finals.add(key[-1])
            place, last = first + end, key
        odd = any(block.find(part, first) >= 0 for part in (b"//", b"/.", b"\\", b"\0"))
        if odd or starts & set(b"/.") or finals & set(b"/"):  # or one that only looks like it
            if any(map(_UNSAFE.search, map(self._key, range(self.count)))):
                raise ValueError("a name that leaves the data root")


def _column(view: memoryview, start: int, count: int, code: str) -> Tuple[Sequence[int], int]:
    size = array(code).itemsize * count
    part = view[start : start + size]
    if len(part) != size:
        raise ValueError("too short")
    start += size
    return part.cast(code), start + -start % 8


def _slot_count(count: int) -> int:
    """A power of two, at least twice the files: a probe or two finds any name."""
    return 1 << max(3, (2 * count - 1).bit_length())


class Collector:
    """Gathers files in the order of the archive; where a name comes twice, the last one counts."""

    def __init__(self) -> None:
        self._rows: Dict[bytes, int] = {}
        self._offsets, self._sizes, self._crcs = array("q"), array("q"), array("I")
        self.replaced = 0

    def add(self, name: str, offset: int, size: int, crc: int = 0) -> None:
        """OverflowError beyond 2**63 bytes."""
        key = name.encode("utf-8", "surrogateescape")
        self.replaced += key in self._rows
        self._rows[key] = len(self._offsets)
        self._offsets.append(offset)
        self._sizes.append(size)
        self._crcs.append(crc)

    def __len__(self) -> int:
        return len(self._rows)

    def members(self, path: str) -> Members:
        """Empties the collector.  DataError for names made to collide."""
        rows, self._rows = self._rows, {}
        names, ends, kept = bytearray(), array("I"), array("I")
        for key in sorted(rows):
            names += key
            ends.append(len(names))
            kept.append(rows[key])
        rows.clear()  # before the block is made: this bounds the memory
        columns = [
            array("q", (self._offsets[row] for row in kept)),
            array("q", (self._sizes[row] for row in kept)),
            array("I", (self._crcs[row] for row in kept)),
            ends,
            _slots(names, ends, path),
        ]
        return Members(_packed(columns, names), len(ends))


def _packed(columns: Sequence["array[int]"], names: bytearray) -> bytes:
    """In one piece at once: growing it would need it twice."""
    pieces: List[Any] = []
    for column in columns:
        size = len(column) * column.itemsize
        pieces += [memoryview(column).cast("B"), bytes(-size % 8)]
    return b"".join([*pieces, names])


def _slots(names: bytearray, ends: "array[int]", path: str) -> "array[int]":
    count = _slot_count(len(ends))
    slots, start = array("i", [-1]) * count, 0
    for row, end in enumerate(ends):
        slot, probes = crc32(names[start:end]) & (count - 1), 0
        while slots[slot] >= 0:
            slot, probes = (slot + 1) & (count - 1), probes + 1
            if probes > MAX_PROBES:
                raise DataError(
                    "%s holds names that were made to be slow to look up" % path,
                    "No ordinary archive has them.",
                    "Do not use this archive.",
                )
        slots[slot] = row
        start = end
    return slots
