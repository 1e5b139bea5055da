"""The data set's files, wherever they lie: folders and archives as one tree, read without extracting.

    store = open_store(["v1.0-mini.tgz", "can_bus.zip", "out/infos"])
    store.read("samples/CAM_FRONT/x.jpg")      # bytes; where two roots hold a name, the last one wins
    store.view("samples/CAM_FRONT/x.jpg")      # a memoryview: from a .tar the page cache itself, uncopied

A Store can be pickled and read from forked workers and threads: .tar and .tgz are read through pread, and
what has a position (zip) is opened again in every process.
"""

import os
import stat
from typing import Any, Dict, List, Optional, Sequence, Tuple

from bevformer.errors import DataError

from .gzip_index import SPACING_BYTES
from .store_archives import GzipTarStore, TarStore, ZipStore
from .store_roots import FolderStore, Root, missing
from .tar_index import REDO, looks_like_tar, safe_name


class Store:
    """The union of its roots, the last one first asked."""

    def __init__(self, roots: Sequence[Root]) -> None:
        self.roots = tuple(roots)
        self._last_first = self.roots[::-1]

    def _holder(self, clean: str) -> Tuple[Optional[Root], int]:
        """The last root that has the file, and its number there."""
        for root in self._last_first:
            found = root.find(clean)
            if found >= 0:
                return root, found
        return None, -1

    def exists(self, name: str) -> bool:
        """Raises DataError for a name that points outside (`../`)."""
        return self._holder(safe_name(name, "the request"))[0] is not None

    def read(self, name: str) -> bytes:
        """The whole file.  Raises DataError, naming file and archives, when it is missing or short."""
        clean = safe_name(name, "the request")
        root, found = self._holder(clean)
        if root is None:
            raise self._missing(name)
        return root.read(clean, found)

    def view(self, name: str) -> memoryview:
        """The whole file, read-only, without a copy where that can be; for what looks at it once: a decoder.

        It stays valid as long as it is kept, also after the archive was deleted.  An archive that is written
        over in place changes under it.  Raises DataError as `read`.
        """
        clean = safe_name(name, "the request")
        root, found = self._holder(clean)
        if root is None:
            raise self._missing(name)
        return root.view(clean, found)

    def _missing(self, name: str) -> DataError:
        return DataError(
            "%s is in none of: %s" % (name, ", ".join(root.path for root in self.roots)),
            "The tables or infos name it, so the data set is not complete or of another version.",
            "Add the archive that holds it as one more --data-root.",
        )

    def names(self, prefix: str = "") -> List[str]:
        """Sorted names of the files under a folder, e.g. `can_bus/`; all of them for the empty prefix."""
        folder = safe_name(prefix, "the request")
        folder = folder + "/" if folder else ""
        return sorted({name for root in self.roots for name in root.under(folder)})

    def local_path(self, name: str) -> Optional[str]:
        """The real path where the winning root is a folder, else None."""
        clean = safe_name(name, "the request")
        root, _ = self._holder(clean)
        return root.local_path(clean) if root else None

    def describe(self) -> Dict[str, Any]:
        """JSON: `roots` (path, kind, files) in the order given, and `files` of the union."""
        return {"roots": [root.describe() for root in self.roots], "files": len(self.names(""))}


def _open_archive(path: str, spacing_bytes: int) -> Root:
    """By content, since a wrong ending is common; the size decides nothing."""
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        raise DataError("%s is empty" % path, do=REDO)
    if head[:2] == b"\x1f\x8b":
        return GzipTarStore(path, spacing_bytes)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return ZipStore(path)
    if looks_like_tar(head) is not False:
        return TarStore(path)
    raise DataError(
        "%s is neither a tar, a gzip-compressed tar nor a zip" % path,
        "It begins with %r." % head[:8],
        "Is it the right file? " + REDO,
    )


def open_root(path: str, spacing_bytes: int = SPACING_BYTES) -> Root:
    """`spacing_bytes`: between a .tgz's seek points.

    Raises DataError for what is missing, cut, damaged, hostile, or no archive.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            os.listdir(path)  # a dead or unreadable mount is found here, not in the first worker
            return FolderStore(path)
        if not stat.S_ISREG(mode):
            raise DataError("%s is neither a folder nor a file" % path)
        return _open_archive(path, spacing_bytes)
    except OSError as error:
        raise missing(path, error) from error


def open_store(paths: Sequence[str], spacing_bytes: int = SPACING_BYTES) -> Store:
    """Folders and archives as one tree; where two hold a name, the last one given wins.

    `spacing_bytes` is the content between two seek points of a .tgz: less is faster and makes a larger index.
    """
    if not paths:
        raise DataError("no data root given", do="--data-root FOLDER_OR_ARCHIVE")
    return Store([open_root(str(path), spacing_bytes) for path in paths])
