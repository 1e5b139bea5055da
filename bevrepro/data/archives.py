"""What a file is (by content; a wrong ending is common) and whether its two ends look whole.

Quick and from the standard library only: the full check is the index pass and `data verify`.
"""

import os
import stat
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bevrepro.core.errors import DataError
from bevrepro.probe.inside import isizes

BLOCK = 512
RECORD = 20 * BLOCK  # tar pads its end to a multiple of this, or with `-b` of one of
LARGE_RECORDS = tuple(1 << bits for bits in range(14, 21))
REDO = "Fetch the archive again and compare its size and md5 with the published ones."


@dataclass(frozen=True)
class Archive:
    """One source of a mount. `path` is real, since ratarmount names its index after it. kind: tar, tgz, zip,
    or folder (a live one, for what is prepared)."""

    path: Path
    kind: str
    size_bytes: int
    mtime_ns: int

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


def recognise(path: Path) -> Archive:
    """Raises DataError for what is missing, empty, cut at its end, or no archive."""
    real = Path(os.path.realpath(path))
    try:
        found = real.stat()
        if stat.S_ISDIR(found.st_mode):
            return Archive(real, "folder", 0, found.st_mtime_ns)
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{path} is neither an archive nor a folder")
        with real.open("rb") as file:
            kind = _kind(path, file, found.st_size)
    except OSError as error:
        raise DataError(
            f"no archive at {path}: {error.strerror}",
            "An archive is a .tgz, .tar.gz, .tar or .zip, as downloaded.",
            "Check the path; nothing needs to be extracted.",
        ) from error
    return Archive(real, kind, found.st_size, found.st_mtime_ns)


def _kind(path: Path, file: BinaryIO, size: int) -> str:
    head = file.read(BLOCK)
    if not head:
        raise DataError(f"{path} is empty", do=REDO)
    if head[:2] == b"\x1f\x8b":
        if size < 18 or head[2] != 8:
            raise DataError(f"{path} begins like a gzip archive and is none", do=REDO)
        return "tgz"
    if head[:2] == b"PK":
        _check_zip(path)
        return "zip"
    if is_tar_header(head):
        _check_tar_end(path, file, size)
        return "tar"
    raise DataError(
        f"{path} is neither a tar, a gzip-compressed tar nor a zip",
        f"It begins with {head[:8]!r}.",
        "Is it the right file? " + REDO,
    )


def is_tar_header(head: bytes) -> bool:
    """The header's own checksum: bytes 148-156 counted as spaces (POSIX.1-1988)."""
    if len(head) < BLOCK:
        return False
    try:
        stored = int(head[148:156].split(b"\0")[0].strip() or b"x", 8)
    except ValueError:
        return False
    return stored == sum(head[:148]) + sum(head[156:]) + 8 * 32


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            empty = not archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as a zip: {error}", "It is cut short or damaged.", REDO
        ) from error
    if empty:
        raise DataError(f"{path} holds no files", do="Is it the right archive? " + REDO)


def _check_tar_end(path: Path, file: BinaryIO, size: int) -> None:
    file.seek(max(0, size - 2 * BLOCK))
    if size % BLOCK or file.read().strip(b"\0"):
        raise cut_short(path, "a tar ends in two blocks of zeros, this one does not")


def check_against_index(archive: Archive, end: int) -> None:
    """`end`: first byte behind the last file in the tar, as its index knows it. ratarmount lists a tar only
    up to the first header it cannot read, and a cut one as a shorter one; neither is said by its exit code.

    Raises DataError. A .tgz of several gzip members is refused too: its trailer counts the last member only.
    """
    if archive.kind not in ("tar", "tgz"):
        return
    with archive.path.open("rb") as file:
        if archive.kind == "tgz":
            totals, wrap = tuple(isizes(file, archive.size_bytes)), 1 << 32
        else:
            totals, wrap = (archive.size_bytes,), 1 << 64
        whole = any(2 * BLOCK <= (total - end) % wrap <= _most_padding(total) for total in totals)
        if whole and archive.kind == "tar":
            file.seek(end)
            whole = not file.read().strip(b"\0")
    if not whole:
        raise cut_short(archive.path, f"its last readable file ends at byte {end}, not the tar's end")


def _most_padding(total: int) -> int:
    return 2 * BLOCK + max([RECORD, *(record for record in LARGE_RECORDS if total % record == 0)])


def cut_short(path: Path, what: str) -> DataError:
    """The error for an archive that does not end where it should."""
    return DataError(f"{path} is cut short or broken in the middle: {what}", "Files would be missing.", REDO)
