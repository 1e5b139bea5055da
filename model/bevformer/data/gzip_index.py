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

from .gzip_end import BOMB_BYTES, BOMB_RATIO, Front, Walked, bomb, damaged, padded, walk
from .index_cache import Index, stamp_of, write
from .seek_points import SeekPoints
from .tar_index import REDO, Source, scan

SPACING_BYTES = 1 << 20  # memory and random reads/s against the default of 16 MiB: facts, mounting.md
_CHUNK = 1 << 20


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


def _check_size(path: str, content: int, walked: Optional[Walked]) -> None:
    """ISIZE, the last four bytes, is the size of the last member modulo 2**32 (RFC 1952).

    Where it is not the size of all, there are several members or the end is missing: walking through tells.
    """
    if walked is None:
        with open(path, "rb") as file:
            file.seek(-4, os.SEEK_END)
            if int.from_bytes(file.read(4), "little") == content % (1 << 32):
                return
        walked = walk(path)
    if walked.content_bytes != content:
        raise DataError(
            "%s is cut short: its members hold %d bytes, %d were read"
            % (path, walked.content_bytes, content),
            "The end of the archive is missing or was changed.",
            REDO,
        )


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
    walked = padded(path)
    whole = path if walked is None else Front(path, walked.end)
    file = rapidgzip.RapidgzipFile(whole, parallelization=1, chunk_size=spacing_bytes)
    try:
        source = GzipSource(file, path)
        found = scan(source, path)
        _check_size(path, source.position, walked)
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
