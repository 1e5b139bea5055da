"""The one pass over a .tgz that checks all of it and makes its seek points; runs as a process of its own.

    python -m bevformer.data.gzip_index ARCHIVE FOLDER     writes FOLDER/seek_points and FOLDER/members.json

The decoder is rapidgzip, which ratarmount (and its in-process library ratarmountcore) reads gzip with.
It is used directly because ratarmountcore jumps from header to header while it indexes, and so never
sees that a checksum fails; reading straight through costs the same decompression and finds it.
A process of its own, because rapidgzip 0.15 ends the whole process (std::terminate) on some cut files,
and because the memory of indexing is then given back.
"""

import json
import os
import sys
from typing import Any, List

from bevformer.errors import DataError

from .tar_index import REDO, Source, columns, scan

SPACING_BYTES = 1 << 20  # memory and random reads/s against the default of 16 MiB: facts, mounting.md


def require_rapidgzip(path: str) -> Any:
    """The module, or a DataError that says what to install to read `path`."""
    try:
        import rapidgzip
    except ImportError:
        raise DataError(
            "%s is a gzip archive, and this Python has no rapidgzip to read it with" % path,
            "Without it every image would be decompressed from the archive's start.",
            "python -m pip install ratarmountcore rapidgzip   (or repack it to a plain .tar)",
        ) from None
    return rapidgzip


def open_gzip(path: str) -> Any:
    """A rapidgzip file.  Close it: its threads abort an interpreter that ends under them."""
    return require_rapidgzip(path).RapidgzipFile(path, parallelization=1, chunk_size=SPACING_BYTES)


def damaged(path: str, what: str) -> DataError:
    return DataError(
        "%s is damaged or cut short: %s" % (path, what), "Some of its files would be wrong.", REDO
    )


class GzipSource(Source):
    """The decompressed tar, straight through; a failed checksum is an error of the archive."""

    def __init__(self, file: Any, path: str) -> None:
        self.file = file
        self.path = path

    def read(self, size: int) -> bytes:
        pieces = []
        while size:
            try:
                piece = self.file.read(min(size, SPACING_BYTES))
            except (ValueError, RuntimeError, OSError, EOFError) as error:  # what rapidgzip's C++ turns into
                raise damaged(self.path, str(error).strip().split("\n")[0]) from error
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
            self.position += len(piece)
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def skip(self, size: int) -> bool:
        while size:
            got = len(self.read(min(size, SPACING_BYTES)))
            if not got:
                return False
            size -= got
        return True


def _check_trailer(path: str, total: int) -> None:
    """ISIZE, the last four bytes, is the decompressed size modulo 2**32 (RFC 1952)."""
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        stored = int.from_bytes(file.read(4), "little")
    if stored != total % (1 << 32):
        raise DataError(
            "%s is cut short: its trailer says %d bytes, it holds %d" % (path, stored, total % (1 << 32)),
            "The end of the archive is missing or was changed.",
            REDO,
        )


def _export(file: Any, path: str) -> None:
    """gztool's format keeps its windows compressed: 17 times smaller on JPEGs."""
    import rapidgzip

    if hasattr(rapidgzip, "IndexFormat"):  # rapidgzip >= 0.14
        file.export_index(path, rapidgzip.IndexFormat.GZTOOL)
    else:
        file.export_index(path)


def build(path: str, folder: str) -> None:
    """Write both files.  Raises DataError for an archive that is cut, fails its checksum, or holds no tar."""
    file = open_gzip(path)
    try:
        source = GzipSource(file, path)
        found = scan(source, path)
        _check_trailer(path, source.position)
        _export(file, os.path.join(folder, "seek_points"))
    finally:
        file.close()
    names, offsets, sizes = columns(found.files)
    kept = {
        "seek_points_bytes": os.path.getsize(os.path.join(folder, "seek_points")),
        "names": names,
        "offsets": offsets,
        "sizes": sizes,
    }
    with open(os.path.join(folder, "members.json"), "w") as out:
        json.dump(kept, out)
        out.flush()
        os.fsync(out.fileno())


def main(argv: List[str]) -> int:
    try:
        build(*argv)
    except DataError as error:
        json.dump({"kind": "data", "seen": error.seen, "why": error.why, "do": error.do}, sys.stdout)
        return error.exit_code
    except OSError as error:
        json.dump({"kind": "os", "errno": error.errno, "seen": str(error)}, sys.stdout)
        return 8
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
