"""The files of a .tgz and its seek points: from the cache, or made by `gzip_index` in a child."""

import json
import os
import subprocess
import sys
from typing import Optional

from bevformer.errors import DataError, DiskError

from . import index_cache
from .gzip_end import damaged
from .gzip_index import SPACING_BYTES, require_rapidgzip
from .index_cache import Index, stamp_of

_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# As bevrepro/data/index.py: glibc's heap breaks up under pieces of 1 MiB, up to 240 MB instead of 60.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
LEAST_SPACING, MOST_SPACING = 1 << 16, 1 << 28


def spacing_of(mib: float) -> int:
    """Bytes between seek points from MiB.  Raises DataError outside 1/16 .. 256."""
    spacing = int(mib * (1 << 20)) if mib == mib and abs(mib) < 1e6 else 0
    if not LEAST_SPACING <= spacing <= MOST_SPACING:
        raise DataError(
            "a spacing of %s MiB between seek points" % mib,
            "Closer together the index outgrows its use; farther apart an image takes seconds.",
            "Choose between 0.0625 and 256; 1 is the default.",
        )
    return spacing


def index(path: str, spacing_bytes: int = SPACING_BYTES) -> Index:
    """Files of the tar inside and its seek points; from the cache when nothing changed.

    Raises DataError for an archive that is cut, fails its checksum, or holds no tar; DiskError where
    the cache cannot be written.
    """
    where = index_cache.place(path, spacing_bytes)
    known = cached(path, spacing_bytes)
    if known is not None:
        return known
    require_rapidgzip(path)  # a missing rapidgzip is said before anything is written
    try:
        index_cache.keep(where, lambda part: _build(path, part, spacing_bytes))
    except OSError as error:
        raise _no_cache(where, error.strerror or str(error)) from error
    made = cached(path, spacing_bytes)
    if made is None:
        raise _no_cache(where, "what was written there is not there, or the archive changed meanwhile")
    return made


def cached(path: str, spacing_bytes: int = SPACING_BYTES) -> Optional[Index]:
    """The index if it is in the cache and of this very archive."""
    found = index_cache.load(index_cache.place(path, spacing_bytes), stamp_of(os.stat(path)))
    return found if found is not None and found.points and found.spacing_bytes == spacing_bytes else None


def is_indexed(path: str, spacing_bytes: int = SPACING_BYTES) -> bool:
    """Whether `index` would find its work done."""
    return cached(path, spacing_bytes) is not None


def _build(path: str, out: str, spacing_bytes: int) -> None:
    """Run `gzip_index` in a child and turn how it ended into an error here."""
    others = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([_PACKAGES] + others), **MALLOC)
    argv = [sys.executable, "-m", "bevformer.data.gzip_index", path, out, str(spacing_bytes)]
    child = subprocess.run(argv, env=env, capture_output=True)
    if child.returncode == 0:
        return
    said = json.loads(child.stdout) if child.stdout.startswith(b"{") else {}
    if said.get("kind") == "data":
        raise DataError(said["seen"], said["why"], said["do"])
    if said.get("kind") == "os":
        raise OSError(said["errno"], said["seen"])
    if child.returncode == -6:  # std::terminate
        raise damaged(path, "the decoder gave up on it")
    tail = child.stderr.decode("utf-8", "replace").strip().split("\n")[-1]
    raise DataError(
        "indexing %s ended with status %d: %s" % (path, child.returncode, tail),
        "-9 is most often the system short of memory.",
        "Run the command again with more memory free.",
    )


def _no_cache(where: str, what: str) -> DiskError:
    return DiskError(
        "cannot keep the seek points of a .tgz in %s: %s" % (os.path.dirname(where), what),
        "Without them every image would be decompressed from the archive's start.",
        "Free some space there, or set BEVREPRO_CACHE to another folder.",
    )
