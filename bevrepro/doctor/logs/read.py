"""A log as it comes, as blocks of lines: encodings, gzip, colours, progress bars, lines without end.

Memory stays bounded: blocks of about a megabyte, and a line longer than `LONGEST_LINE` counts as several.
"""

import codecs
import os
import re
import shlex
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, compress, repeat
from typing import BinaryIO

from bevrepro.core.errors import DataError

BLOCK_B = 1 << 20
LONGEST_LINE = 2000  # bytes
MANY_LINES, SHORTEST_LINE = 120_000, 4  # in a block of so many lines, lines of less bytes tell nothing
GZIP = b"\x1f\x8b\x08"
PACKED = {
    b"\xfd7zXZ\x00": ("xz", "xz -dc"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -dc"),
    b"BZh": ("bzip2", "bzip2 -dc"),
    b"PK\x03\x04": ("zip", "unzip -p"),
}
_COLOUR = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_STRUCK_OUT = re.compile(rb".\x08")


@dataclass(frozen=True)
class Block:
    """Some whole lines. `numbers[i]` is the line of the file that `lines[i]` is (a part of)."""

    lines: list[bytes]
    numbers: list[int] | range


def blocks(stream: BinaryIO) -> Iterator[Block]:
    """The stream as blocks of lines in UTF-8 (or what was there), without colours; 1-based numbers.

    DataError for what is packed in another way than by gzip, or damaged. OSError where reading fails.
    """
    number = 1
    for text in _cut_at_lines(_as_utf8(_unpacked(stream))):
        yield _split(text, number)
        number += text.count(b"\n")


def _unpacked(stream: BinaryIO) -> Iterator[bytes]:
    first = stream.read(BLOCK_B)
    name = getattr(stream, "name", "")
    path = shlex.quote(name) if isinstance(name, str) and os.path.exists(name) else "FILE"
    for magic, (form, program) in PACKED.items():
        if first.startswith(magic):
            raise DataError(
                f"the log is packed with {form}",
                "Text and gzip are read as they are, nothing else.",
                f"{program} {path} | bevrepro doctor --from-log -",
            )
    pieces = chain((first,), iter(lambda: stream.read(BLOCK_B), b""))
    return _gunzipped(pieces, path) if first.startswith(GZIP) else pieces


def _gunzipped(pieces: Iterable[bytes], path: str) -> Iterator[bytes]:
    """A megabyte at a time, however small it was packed."""
    unpack = zlib.decompressobj(wbits=31)
    do = f"gzip -dc {path} | bevrepro doctor --from-log -"  # it gives what it can
    try:
        for data in pieces:
            while data and not (unpack.eof and not data.startswith(GZIP)):  # gzip, too, ignores what follows
                if unpack.eof:  # several packed files one after another are one
                    unpack = zlib.decompressobj(wbits=31)
                if plain := unpack.decompress(data, BLOCK_B):
                    yield plain
                data = unpack.unused_data if unpack.eof else unpack.unconsumed_tail
    except zlib.error as error:
        raise DataError("the log is a damaged gzip file", f"It was read up to there: {error}.", do) from error
    if not unpack.eof:
        raise DataError("the log is a gzip file that is cut off", "Its last lines are missing.", do)


def _as_utf8(pieces: Iterator[bytes]) -> Iterator[bytes]:
    first = next(pieces, b"")
    encoding = _utf16(first[:4096])
    if encoding is None:
        yield first.removeprefix(codecs.BOM_UTF8)
        yield from pieces
        return
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    for data in chain((first,), pieces):
        yield decoder.decode(data).lstrip("\ufeff").encode("utf-8", "replace")


def _utf16(head: bytes) -> str | None:
    for bom, name in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if head.startswith(bom):
            return name
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) * 4 > len(head) and min(even, odd) * 8 < max(even, odd):
        return "utf-16-be" if even > odd else "utf-16-le"
    return None


def _cut_at_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        rest += piece
        cut = rest.rfind(b"\n") + 1
        if not cut and len(rest) > BLOCK_B:  # a "line" of a megabyte: a progress bar, or no text
            cut = max(rest.rfind(b"\r"), rest.rfind(b" ")) + 1 or len(rest)
        if cut:
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest


def _split(text: bytes, number: int) -> Block:
    lines = _plain(text).removesuffix(b"\n").split(b"\n")
    block = Block(lines, range(number, number + len(lines)))
    if b"\r" in text:
        block = _spread(block, [line.rstrip(b"\r").split(b"\r") for line in lines])
    if len(block.lines) > MANY_LINES:
        told = [len(line) >= SHORTEST_LINE for line in block.lines]
        block = Block([*compress(block.lines, told)], [*compress(block.numbers, told)])
    if max(map(len, block.lines), default=0) > LONGEST_LINE:
        block = _spread(block, [[*_short(line)] for line in block.lines])
    return block


def _spread(block: Block, parts: list[list[bytes]]) -> Block:
    """Every line in its parts."""
    counts = map(len, parts)
    numbers = chain.from_iterable(map(repeat, block.numbers, counts))
    return Block([*chain.from_iterable(parts)], [*numbers])


def _plain(text: bytes) -> bytes:
    """Without colours, backspaces and what else a terminal would not show."""
    if b"\x00" in text:
        text = text.replace(b"\x00", b"")
    if b"\x1b" in text:
        text = _COLOUR.sub(b"", text)
    if b"\x08" in text:
        text = _STRUCK_OUT.sub(b"", text)
    return text


def _short(line: bytes) -> Iterator[bytes]:
    """The line in parts of at most `LONGEST_LINE`, cut at blanks where there are any."""
    while len(line) > LONGEST_LINE:
        cut = line.rfind(b" ", LONGEST_LINE // 2, LONGEST_LINE) + 1 or LONGEST_LINE
        yield line[:cut]
        line = line[cut:]
    yield line
