"""ratarmount's index of an archive: made by a process of its own, kept in the cache folder.

One process per archive with seek points 1 MiB apart and one thread, 60 to 100 MB however large the archive
is; the defaults took 1.4 GB for four archives in one mount (facts: mounting.md).
"""

import hashlib
import json
import os
import shutil
import sqlite3
import sys
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bevrepro.core import paths, proc
from bevrepro.core.errors import DataError, DiskError, MachineError, UserError
from bevrepro.data.archives import BLOCK, REDO, Archive, check_against_index
from bevrepro.data.lock import locked
from bevrepro.probe.inside import isizes

# -gs is not kept in the index, so all of it is given again at mount time. Without the last, the index of a
# small archive stays in memory and cannot be looked at.
BOUNDED = ("-gs", "1", "-P", "1", "--verify-mtime", "--index-minimum-file-count", "0")

# glibc keeps freed pieces of 1 MiB in its heap, where they break up: one pass over 1.1 GB took 107 to 236 MB
# by luck, and up to 770 MB with closer seek points. Given back at once it is 60 MB each time, 10 % slower.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}

FULL_BYTES = 1 << 16  # with less than this left, an index that is not whole failed for the disk

REGULAR = (b"0", b"\0", b"7")  # tar's type flags of plain files, as the index keeps them


def find_ratarmount() -> Path | None:
    """The program that was installed with this interpreter, else the one on PATH."""
    beside = Path(sys.executable).parent / "ratarmount"
    return beside if beside.is_file() else proc.which("ratarmount")


def ratarmount() -> Path:
    """As `find_ratarmount`; MachineError where there is none."""
    found = find_ratarmount()
    if found is None:
        raise MachineError(
            f"the program ratarmount is neither beside {sys.executable} nor on PATH",
            "It mounts archives without extracting them.",
            f"{sys.executable} -m pip install ratarmount",
        )
    return found


def index_folder() -> Path:
    """Where ratarmount keeps its indexes; never beside the data."""
    return paths.cache_dir() / "ratarmount"


def index_path(archive: Archive) -> Path:
    """ratarmount's own name: the real path with underscores for slashes."""
    return index_folder() / (str(archive.path).replace("/", "_") + ".index.sqlite")


def command(archive: Archive, folder: Path | None = None) -> list[str]:
    """What indexes one archive into a folder."""
    flags = [*BOUNDED, "--no-mount", "--index-folders", json.dumps([str(folder or index_folder())])]
    return [str(ratarmount()), *flags, str(archive.path)]


def environment() -> dict[str, str]:
    """For every ratarmount that is started here."""
    return {**os.environ, **MALLOC}


def is_fresh(archive: Archive) -> bool:
    """Whether there is an index and it was made of exactly this file (size and time of change)."""
    if archive.kind not in ("tar", "tgz"):
        return True  # a zip carries its own, a folder needs none
    try:
        row = _row(archive, "SELECT value FROM metadata WHERE key = 'tarstats'")
        stats = json.loads(str(row[0])) if row else {}
        kept: tuple[object, object] = (stats.get("st_size"), stats.get("st_mtime_ns"))
        return kept == (archive.size_bytes, archive.mtime_ns) and _has_points(archive)
    except (sqlite3.Error, ValueError):  # none yet, or not whole: made again
        return False


def _has_points(archive: Archive) -> bool:
    """Seek points are written last; without them (the disk was full) a mount would go through it all again.

    ratarmount makes none for a .tgz shorter than four times their spacing.
    """
    if archive.kind != "tgz" or archive.size_bytes < 8 << 20:
        return True
    names = ("gztoolindex", "gzipindexes", "gzipindex")  # by the versions of rapidgzip and ratarmount
    found = _row(archive, f"SELECT name FROM sqlite_master WHERE name IN {names}")
    return found is not None and _row(archive, f'SELECT 1 FROM "{found[0]}" LIMIT 1') is not None


def ensure(archive: Archive, on_wait: Callable[[], None] | None = None) -> bool:
    """Index unless that was done; True when it ran. Raises DataError for an archive that is cut or broken.

    `on_wait` is called where another command indexes it right now.
    """
    ran = False
    if not is_fresh(archive):
        try:
            with locked(index_folder() / f".{_digest(archive)}.lock", on_wait):
                if not is_fresh(archive):
                    _make(archive)
                    ran = True
        except OSError as error:
            raise _no_room(error.strerror or str(error)) from error
    if archive.kind in ("tar", "tgz"):
        check_against_index(archive, tar_end(archive))
    return ran


def _digest(archive: Archive) -> str:
    return hashlib.sha256(os.fsencode(archive.path)).hexdigest()[:16]


def _make(archive: Archive) -> None:
    """Into a folder of its own first: an interrupted index would be taken for a whole one."""
    work = index_folder() / f"part-{_digest(archive)}"
    shutil.rmtree(work, ignore_errors=True)  # of a command that was killed; we hold its lock
    work.mkdir()
    try:
        done = proc.run(command(archive, work), env=environment())
        full = shutil.disk_usage(work).free < FULL_BYTES  # ratarmount then ends with 0 and half an index
        made = work / index_path(archive).name
        if done.ok and made.exists():
            _sync(made)
            os.replace(made, index_path(archive))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not done.ok or not is_fresh(archive):
        index_path(archive).unlink(missing_ok=True)
        raise _no_room("no space left") if full else _explain(archive, done)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _no_room(what: str) -> DiskError:
    return DiskError(
        f"cannot keep an index in {index_folder()}: {what}",
        "An index takes about 230 bytes per file and up to 32 KiB per MiB of a .tgz.",
        "Free some space there or set BEVREPRO_CACHE to another folder, then run the same command again.",
    )


class NoFuseLibrary(MachineError):
    """ratarmount cannot load FUSE, which it does before anything else, indexing included."""


def _explain(archive: Archive, done: proc.Done) -> UserError:
    """From ratarmount's last words to the cause."""
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    if any("Did not find any FUSE" in line for line in lines):
        why = next((line for line in lines if "Exception was" in line), lines[-1])
        return NoFuseLibrary(f"ratarmount cannot load a FUSE library: {why.rpartition('was: ')[2]}")
    if any("No space left" in line or "disk is full" in line for line in lines):
        return _no_room("no space left")
    if done.rc in (-9, 137):
        return MachineError(
            f"indexing {archive.path} was killed",
            "Most often the system ran out of memory; it needs about 100 MB.",
            "Close programs, or raise the memory limit of the container or WSL, and run it again.",
        )
    if archive.kind == "tgz" and _is_padded(archive):
        return DataError(
            f"{archive.path} has zeros behind its end, which ratarmount cannot pass over",
            "Tapes and disk images leave them. The in-process reader and `data repack` can.",
            "bevrepro data mount --in-process ..., or mount what `bevrepro data repack` makes of it.",
        )
    ended = "without an index" if done.ok else f"with exit code {done.rc}"
    return DataError(
        f"ratarmount ended {ended} on {archive.path}" + (f": {lines[-1]}" if lines else ""),
        "It cannot be read as an archive of files.",
        REDO,
    )


def _is_padded(archive: Archive) -> bool:
    with archive.path.open("rb") as file:
        return archive.size_bytes not in isizes(file, archive.size_bytes).values()


def tar_end(archive: Archive) -> int:
    """First byte behind the last entry of the tar, by its index. DataError when it holds no files."""
    query = (
        'SELECT MAX("offset" + CASE WHEN "type" IN (?1, ?2, ?3) THEN size ELSE 0 END),'
        ' SUM("type" IN (?1, ?2, ?3)) FROM files'
    )
    end, files = _row(archive, query, REGULAR) or (None, None)
    if not isinstance(end, int) or not files:
        raise DataError(f"{archive.path} holds no files", do="Is it the right archive? " + REDO)
    return -(-end // BLOCK) * BLOCK


def sample(archive: Archive) -> tuple[str, int] | None:
    """Name and size of the archive's last file that is not empty: reading it proves the whole way there."""
    if archive.kind == "zip":
        with zipfile.ZipFile(archive.path) as opened:
            files = [(entry.filename, entry.file_size) for entry in opened.infolist() if entry.file_size]
        return files[-1] if files else None
    if archive.kind == "folder":
        return None
    query = (
        'SELECT path || "/" || name, size FROM files WHERE size > 0 AND "type" IN (?, ?, ?)'
        ' ORDER BY "offset" DESC LIMIT 1'
    )
    row = _row(archive, query, REGULAR)
    return (str(row[0]).lstrip("/"), int(str(row[1]))) if row else None


def _row(archive: Archive, query: str, values: tuple[bytes, ...] = ()) -> tuple[object, ...] | None:
    """First row; read-only, so that a missing index is not created by looking."""
    uri = index_path(archive).as_uri() + "?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as connection:
        row: tuple[object, ...] | None = connection.execute(query, values).fetchone()
    return row
