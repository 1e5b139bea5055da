"""The data set's files, wherever they lie: folders and archives as one tree, read without extracting.

    store = open_store(["v1.0-mini.tgz", "can_bus.zip", "out/infos"])
    store.read("samples/CAM_FRONT/x.jpg")      # bytes; where two roots hold a name, the last one wins

A Store can be pickled and read from forked workers and threads: plain reads go through pread, and
what has a position (gzip, zip) is opened again in every process.
"""

import os
import stat
from typing import Any, Dict, List, Optional, Sequence

from bevformer.errors import DataError

from .store_roots import FolderStore, GzipTarStore, Root, TarStore, ZipStore, missing
from .tar_index import REDO, looks_like_tar, safe_name


class Store:
    """The union of its roots, the last one first asked."""

    def __init__(self, roots: Sequence[Root]) -> None:
        self.roots = tuple(roots)

    def _holder(self, name: str) -> Optional[Root]:
        return next((root for root in reversed(self.roots) if root.has(name)), None)

    def exists(self, name: str) -> bool:
        """Raises DataError for a name that points outside (`../`)."""
        return self._holder(safe_name(name, "the request")) is not None

    def read(self, name: str) -> bytes:
        """The whole file.  Raises DataError, naming file and archives, when it is missing or short."""
        clean = safe_name(name, "the request")
        root = self._holder(clean)
        if root is None:
            raise DataError(
                "%s is in none of: %s" % (name, ", ".join(root.path for root in self.roots)),
                "The tables or infos name it, so the data set is not complete or of another version.",
                "Add the archive that holds it as one more --data-root.",
            )
        return root.read(clean)

    def names(self, prefix: str = "") -> List[str]:
        """Sorted names of the files under a folder, e.g. `can_bus/`; all of them for the empty prefix."""
        folder = safe_name(prefix, "the request")
        folder = folder + "/" if folder else ""
        return sorted({name for root in self.roots for name in root.under(folder)})

    def local_path(self, name: str) -> Optional[str]:
        """The real path where the winning root is a folder, else None."""
        clean = safe_name(name, "the request")
        root = self._holder(clean)
        return root.local_path(clean) if root else None

    def describe(self) -> Dict[str, Any]:
        """JSON: `roots` (path, kind, files) in the order given, and `files` of the union."""
        return {"roots": [root.describe() for root in self.roots], "files": len(self.names(""))}


def _open_archive(path: str) -> Root:
    """By content, since a wrong ending is common; the size decides nothing."""
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        raise DataError("%s is empty" % path, do=REDO)
    if head[:2] == b"\x1f\x8b":
        return GzipTarStore(path)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return ZipStore(path)
    if looks_like_tar(head) is not False:
        return TarStore(path)
    raise DataError(
        "%s is neither a tar, a gzip-compressed tar nor a zip" % path,
        "It begins with %r." % head[:8],
        "Is it the right file? " + REDO,
    )


def open_root(path: str) -> Root:
    """Raises DataError for what is missing, cut, damaged, hostile, or no archive."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            os.listdir(path)  # a dead or unreadable mount is found here, not in the first worker
            return FolderStore(path)
        if not stat.S_ISREG(mode):
            raise DataError("%s is neither a folder nor a file" % path)
        return _open_archive(path)
    except OSError as error:
        raise missing(path, error) from error


def open_store(paths: Sequence[str]) -> Store:
    """Folders and archives as one tree; where two hold a name, the last one given wins."""
    if not paths:
        raise DataError("no data root given", do="--data-root FOLDER_OR_ARCHIVE")
    return Store([open_root(str(path)) for path in paths])
