"""The one pass over a .tgz that checks all of it and makes its seek points; runs as a process of its own.

    python -m bevformer.data.gzip_index ARCHIVE FILE SPACING_BYTES     writes FILE, an index for the cache

The decoder is rapidgzip, which ratarmount (and its in-process library ratarmountcore) reads gzip with.
It is used directly because ratarmountcore jumps from header to header while it indexes, and so never
sees that a checksum fails; reading straight through costs the same decompression and finds it.
A process of its own, because rapidgzip 0.15 ends the whole process (std::terminate) on some cut files,
and because the memory of indexing is then given back.
"""

import json
import os
import sys
import zlib
from typing import Any, List, Optional

from bevformer.errors import DataError

from .index_cache import Index, stamp_of, write
from .seek_points import SeekPoints
from .tar_index import REDO, Source, scan

SPACING_BYTES = 1 << 20  # memory and random reads/s against the default of 16 MiB: facts, mounting.md
_CHUNK = 1 << 20
BOMB_RATIO, BOMB_BYTES = 200, 1 << 30  # tables of JSON shrink to a tenth, never to a two hundredth


def require_rapidgzip(path: str) -> Any:
    """The module, or a DataError that says what to install to index `path`."""
    try:
        import rapidgzip
    except ImportError:
        raise DataError(
            "%s is a gzip archive, and this Python has no rapidgzip to index it with" % path,
            "Without an index every image would be decompressed from the archive's start.",
            "python -m pip install ratarmountcore rapidgzip   (or repack it to a plain .tar)",
        ) from None
    return rapidgzip


def damaged(path: str, what: str) -> DataError:
    return DataError(
        "%s is damaged or cut short: %s" % (path, what), "Some of its files would be wrong.", REDO
    )


def bomb(path: str, content: int, size: int) -> DataError:
    return DataError(
        "%s expands to more than %d times its size (%d bytes from %d)" % (path, BOMB_RATIO, content, size),
        "No data set does; it would fill the memory or the disk.",
        "Do not use this archive. " + REDO,
    )


class GzipSource(Source):
    """The decompressed tar, straight through; a failed checksum is an error of the archive."""

    def __init__(self, file: Any, path: str) -> None:
        self.file = file
        self.path = path
        self.size = os.path.getsize(path)

    def _piece(self, size: int) -> bytes:
        try:
            piece = self.file.read(min(size, _CHUNK))
        except (ValueError, RuntimeError, OSError, EOFError) as error:  # what rapidgzip's C++ turns into
            raise damaged(self.path, str(error).strip().split("\n")[0]) from error
        self.position += len(piece)
        if self.position > max(BOMB_BYTES, BOMB_RATIO * self.size):
            raise bomb(self.path, self.position, self.size)
        return bytes(piece)

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
        return self.pass_file(size) is not None

    def pass_file(self, size: int) -> Optional[int]:
        crc = 0
        while size:
            piece = self._piece(size)
            if not piece:
                return None
            crc = zlib.crc32(piece, crc)
            size -= len(piece)
        return crc


def _check_trailer(path: str, total: int) -> None:
    """ISIZE, the last four bytes, is the size of the last member modulo 2**32 (RFC 1952).

    Where it is not the size of all, there are several members or the end is missing: walking through tells.
    """
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        if int.from_bytes(file.read(4), "little") == total % (1 << 32):
            return
        file.seek(0)
        found = _walked(file, path)
    if found != total:
        raise DataError(
            "%s is cut short: its members hold %d bytes, %d were read" % (path, found, total),
            "The end of the archive is missing or was changed.",
            REDO,
        )


def _walked(file: Any, path: str) -> int:
    """Size of the content, every member read to its own trailer: zlib compares CRC and size."""
    total, raw, decoder = 0, file.read(_CHUNK), None  # type: int, bytes, Any
    try:
        while raw:
            if decoder is None:
                if not raw.strip(b"\0"):  # padding of a tape
                    raw = file.read(_CHUNK)
                    continue
                decoder = zlib.decompressobj(31)
            total += len(decoder.decompress(raw, 4 * _CHUNK))
            raw = decoder.unconsumed_tail
            if decoder.eof:
                raw, decoder = decoder.unused_data, None
            raw = raw or file.read(_CHUNK)
    except zlib.error as error:
        raise damaged(path, str(error)) from error
    if decoder is not None:
        raise damaged(path, "its last member has no end")
    return total


def _points(file: Any, folder: str) -> bytes:
    """gztool's format keeps its windows compressed: 17 times smaller on JPEGs."""
    import rapidgzip

    if not hasattr(rapidgzip, "IndexFormat"):
        raise DataError(
            "rapidgzip %s cannot write the seek points that are needed"
            % getattr(rapidgzip, "__version__", "?"),
            do="python -m pip install 'rapidgzip>=0.14'",
        )
    out = os.path.join(folder, "points")
    file.export_index(out, rapidgzip.IndexFormat.GZTOOL)
    with open(out, "rb") as stream:
        return stream.read()


def build(path: str, out: str, spacing_bytes: int) -> None:
    """Write the index.  Raises DataError for an archive that is cut, fails its checksum, or holds no tar."""
    rapidgzip = require_rapidgzip(path)
    stamp = stamp_of(os.stat(path))
    file = rapidgzip.RapidgzipFile(path, parallelization=1, chunk_size=spacing_bytes)
    try:
        source = GzipSource(file, path)
        found = scan(source, path)
        _check_trailer(path, source.position)
        points = _points(file, os.path.dirname(os.path.abspath(out)))
    finally:
        file.close()  # its threads abort an interpreter that ends under them
    SeekPoints(points)
    write(
        Index(found.files, stamp, found.others, found.replaced, source.position, spacing_bytes, points), out
    )


def main(argv: List[str]) -> int:
    try:
        build(argv[0], argv[1], int(argv[2]))
    except DataError as error:
        json.dump({"kind": "data", "seen": error.seen, "why": error.why, "do": error.do}, sys.stdout)
        return error.exit_code
    except OSError as error:
        json.dump({"kind": "os", "errno": error.errno, "seen": str(error)}, sys.stdout)
        return 8
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
