"""What `data repack` makes of an archive, whether there is room for it, and whether it is made already."""

import json
import os
from typing import Any, Dict, List, NamedTuple

from bevformer.errors import DataError, DiskError

from . import gzip_tar
from .gzip_end import BOMB_BYTES
from .index_cache import stamp_of
from .tar_index import BLOCK, looks_like_tar

RECORD = 10240  # tar pads its end to this
SPARE_BYTES = 16 << 20


class Job(NamedTuple):
    """One archive and what it becomes.  expected_bytes: of the result; exact where an index is known."""

    source: str
    out: str
    keyframes_only: bool
    is_gzip: bool
    expected_bytes: int

    @property
    def part(self) -> str:
        return _beside(self.out, ".part")

    @property
    def state(self) -> str:
        return _beside(self.out, ".state")

    @property
    def receipt(self) -> str:
        return _beside(self.out, ".repacked.json")


def _beside(out: str, ending: str) -> str:
    folder, name = os.path.split(out)
    return os.path.join(folder, "." + name + ending)


def plan(source: str, folder: str, keyframes_only: bool) -> Job:
    """Raises DataError for what is no .tgz or .tar, or would be written over itself."""
    try:
        with open(source, "rb") as file:
            head = file.read(BLOCK)
    except OSError as error:
        raise DataError("cannot read %s: %s" % (source, error.strerror), do="Check the path.") from error
    is_gzip = head[:2] == b"\x1f\x8b"
    if not is_gzip and not looks_like_tar(head):
        raise DataError("%s is neither a .tgz nor a .tar" % source, do="Name the archives as downloaded.")
    out = os.path.join(os.path.realpath(folder), _name(source, keyframes_only))
    if not is_gzip and not keyframes_only:
        raise DataError("%s is a plain .tar already" % source, do="Use it as it is, or add --keyframes-only.")
    if os.path.exists(out) and os.path.samefile(out, source):
        raise DataError("%s would be written over itself" % source, do="Name another folder with --out.")
    return Job(
        os.path.realpath(source), out, keyframes_only, is_gzip, _expected(source, is_gzip, keyframes_only)
    )


def _name(source: str, keyframes_only: bool) -> str:
    stem = os.path.basename(source)
    for ending in (".tar.gz", ".tgz", ".tar", ".gz"):
        if stem.lower().endswith(ending):
            stem = stem[: -len(ending)]
            break
    if keyframes_only and "keyframes" not in stem:
        stem = stem.replace("_blobs", "_keyframes") if "_blobs" in stem else stem + "_keyframes"
    return stem + ".tar"


def is_wanted(name: str, keyframes_only: bool) -> bool:
    """nuScenes keeps keyframes in samples/ and what was recorded between them in sweeps/."""
    return not (keyframes_only and (name + "/").startswith("sweeps/"))


def _expected(source: str, is_gzip: bool, keyframes_only: bool) -> int:
    size = os.path.getsize(source)
    index = gzip_tar.cached(source) if is_gzip else None
    if index is not None and keyframes_only:
        rows = zip(index.members, index.members.sizes)
        kept = [_padded(size) + BLOCK for name, size in rows if is_wanted(name, True)]
        return sum(kept) + RECORD
    if index is not None:
        return index.total_bytes
    if not is_gzip or size < 18:
        return size
    with open(source, "rb") as file:
        file.seek(-4, os.SEEK_END)
        said = int.from_bytes(file.read(4), "little")  # of the content, modulo 4 GiB
    while said < size * 0.97:  # pictures hardly shrink; tables shrink, but are small
        said += 1 << 32
    return said if said < 1.5 * size + BOMB_BYTES else size  # several members: only the last one is known


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def check_room(jobs: List[Job], folder: str) -> None:
    """DiskError, before anything is written, when the results cannot fit."""
    there = folder
    while not os.path.isdir(there):
        there = os.path.dirname(os.path.abspath(there))
    found = os.statvfs(there)
    free = found.f_bavail * found.f_frsize
    needed = sum(max(0, job.expected_bytes - size_of(job.part)) for job in jobs if not finished(job))
    if needed and needed + SPARE_BYTES > free:
        raise DiskError(
            "%s has %.1f GB free, the results need about %.1f GB" % (there, free / 1e9, needed / 1e9),
            "Nothing was written.",
            "Free some space, name another folder with --out, or add --keyframes-only.",
        )


def size_of(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def loaded(path: str) -> Dict[str, Any]:
    """A small JSON of ours; {} when it is not there or not whole."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def finished(job: Job) -> Dict[str, Any]:
    """The receipt of a result that is there and of this very archive, else {}."""
    for path in (job.receipt, job.state):  # a run killed between its last two steps left the latter
        found = loaded(path)
        if found.get("done") is True and found.get("of") == identity(job):
            if size_of(job.out) == found.get("out_bytes") and not os.path.exists(job.part):
                return found
    return {}


def identity(job: Job) -> List[Any]:
    return [job.source, *stamp_of(os.stat(job.source)), job.keyframes_only]
