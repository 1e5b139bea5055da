"""Random access into gzip by zlib alone: start at a seek point, inflate on to the bytes that are wanted.

A seek point is a place where a deflate block begins, with the 32 KiB that came before it.  Blocks begin at
any bit, and Python's zlib has no inflatePrime; so the decoder is first fed empty blocks that end at that very
bit.  (Shifting the data instead would break stored blocks, which are aligned to bytes.)

Format of the points: gztool's index (big-endian), as rapidgzip exports it (RFC 1951, RFC 1952).
"""

import os
import struct
import zlib
from array import array
from bisect import bisect_right
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

_HEAD = struct.Struct(">QQQQ")  # zeros, "gzipindx", points, points
_POINT = struct.Struct(">QQII")  # place in the content, in the file, bits, bytes of the window
_NAME = int.from_bytes(b"gzipindx", "big")
_CHUNK = 128 << 10
_MOST_AT_ONCE = 4 << 20  # of content: a megabyte of a bomb inflates to a gigabyte
WINDOW = 32768


class Cut(Exception):
    """The file ended, or what it holds is no deflate stream, before the bytes that were wanted."""


class SeekPoints:
    """Where to start for a place of the content.  ValueError when the bytes are not gztool's format."""

    def __init__(self, data: bytes) -> None:
        zeros, name, count, again = _HEAD.unpack_from(data)
        if zeros or name != _NAME or count != again or not 0 < count <= len(data) // _POINT.size:
            raise ValueError("not an index of seek points")
        self._data = data
        self._outs, self._ins, self._bits = array("q"), array("q"), array("B")
        self._windows = array("q")
        place = _HEAD.size
        for _ in range(count):
            out, at, bits, size = _POINT.unpack_from(data, place)
            place += _POINT.size
            if bits > 7 or at < bits or place + size > len(data):
                raise ValueError("a seek point that cannot be")
            self._outs.append(out)
            self._ins.append(at)
            self._bits.append(bits)
            self._windows.append(place)
            place += size
        self._windows.append(place + _POINT.size)
        if self._outs[0] != 0 or any(a > b for a, b in zip(self._outs, self._outs[1:])):
            raise ValueError("seek points out of order")

    def __len__(self) -> int:
        return len(self._outs)

    def before(self, offset: int) -> "Start":
        """The last point at or before a place of the content."""
        row = bisect_right(self._outs, offset) - 1
        packed = self._data[self._windows[row] : self._windows[row + 1] - _POINT.size]
        if packed:
            inflater = zlib.decompressobj()
            window = inflater.decompress(packed, WINDOW)
        else:
            window = b""
        return Start(self._outs[row], self._ins[row], self._bits[row], window)


class Start(NamedTuple):
    """out: place in the content; at: first whole byte in the file; `bits`: of the byte before, part of it."""

    out: int
    at: int
    bits: int
    window: bytes


def inflated(fd: int, start: Optional[Start] = None) -> Iterator[memoryview]:
    """The content from a point on, or from the beginning, piece by piece, through all members of the file.

    zlib compares the checksum of every member that is read from its beginning.  Raises Cut at the end of a
    damaged or cut file, OSError for one that cannot be read; ends at its end.
    """
    place, raw, trailer = 0, b"", 0
    decoder: Any = zlib.decompressobj(31)
    if start is not None:
        place, trailer = start.at, 8
        decoder = zlib.decompressobj(-15, start.window) if start.window else zlib.decompressobj(-15)
    try:
        if start is not None and start.bits:
            decoder, raw = _aligned(decoder, 8 - start.bits, os.pread(fd, 1, start.at - 1))
        while True:
            if not raw:
                raw = os.pread(fd, _CHUNK, place)
                place += len(raw)
            piece = decoder.decompress(raw, _MOST_AT_ONCE)
            if piece:
                yield memoryview(piece)
            if decoder.eof:  # of one member; pigz, bgzip and `cat` make several
                place += trailer - len(decoder.unused_data)
                raw, decoder, trailer = os.pread(fd, _CHUNK, place), zlib.decompressobj(31), 0
                place += len(raw)
                if not raw.strip(b"\0"):  # nothing, or the padding of a tape
                    return
            elif not raw:
                raise Cut("it ends in the middle")
            else:
                raw = decoder.unconsumed_tail
    except zlib.error as error:
        raise Cut(str(error)) from error


def _aligned(decoder: Any, used: int, byte: bytes) -> Tuple[Any, bytes]:
    """`used` low bits of the byte belong to what came before; empty blocks take their place."""
    if not byte:
        raise Cut("it ends in the middle")
    whole, low = _PREFIXES[used]
    decoder.decompress(whole)
    return decoder, bytes([low | byte[0] & (0xFF << used) & 0xFF])


def read_span(fd: int, points: SeekPoints, offset: int, size: int) -> bytes:
    """content[offset : offset + size].  Raises Cut when there is less."""
    start = points.before(offset)
    skip = offset - start.out
    pieces: List[memoryview] = []
    for piece in inflated(fd, start) if size else ():
        if skip >= len(piece):
            skip -= len(piece)
            continue
        piece = piece[skip : skip + size]
        skip, size = 0, size - len(piece)
        pieces.append(piece)
        if not size:
            break
    if size:
        raise Cut("%d bytes are missing" % size)
    return b"".join(pieces)


def _prefixes() -> List[Tuple[bytes, int]]:
    """For 0..7 bits: whole bytes of empty, not final blocks, and the low bits of the byte they end in.

    An empty fixed block has 10 bits; for odd numbers comes an empty dynamic one of 91: 257 literal codes of
    which only the end of the block is used, and two distance codes.
    """
    fixed = _bits((0, 1), (1, 2), (0, 7))
    lengths = [(1 if symbol in (2, 17) else 0, 3) for symbol in range(18)]  # of the lengths 18 and 1
    zeros = [(1, 1), (138 - 11, 7), (1, 1), (118 - 11, 7)]  # 256 literals unused
    dynamic = _bits((0, 1), (2, 2), (0, 5), (1, 5), (14, 4), *lengths, *zeros, (0, 3), (0, 1))
    made = []
    for used in range(8):
        bits = list(dynamic) if used % 2 else []
        while len(bits) % 8 != used:
            bits += fixed
        number = sum(bit << place for place, bit in enumerate(bits))
        data = number.to_bytes(len(bits) // 8 + 1, "little")
        made.append((data[:-1], data[-1]))
    return made


def _bits(*fields: Tuple[int, int]) -> List[int]:
    return [value >> place & 1 for value, size in fields for place in range(size)]


_PREFIXES = _prefixes()
