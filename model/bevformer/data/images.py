"""Which keyframe images the tables name and the store does not have."""

import os
from typing import Dict, Iterable, List, Set

from bevformer.errors import DataError

from .sensor_data import LIDAR
from .store import Store
from .store_roots import Root
from .table_set import Tables


def check_images(tables: Tables, store: Store) -> None:
    """DataError that counts the camera images of keyframes that the store does not have."""
    rows = [row for i, row in enumerate(tables.data.keyframe_SK.T) if i != LIDAR]
    names = [tables.data.filename[i] for row in rows for i in row.tolist() if i >= 0]
    missing = absent(names, store)
    if missing:
        raise DataError(
            "%d of %d keyframe images are missing, such as %s" % (len(missing), len(names), missing[0]),
            "Every frame needs its six images.",
            "Add the archive or folder that has them as another --data-root.",
        )


def absent(names: Iterable[str], store: Store) -> List[str]:
    """Those that no root has.  A folder is listed once: 200 thousand questions to FUSE take minutes."""
    left = list(names)
    for root in reversed(store.roots):
        listed: Dict[str, Set[str]] = {}
        left = [name for name in left if not _listed(root, name, listed)]
    return [name for name in left if not store.exists(name)]


def _listed(root: Root, name: str, listed: Dict[str, Set[str]]) -> bool:
    """Whether the root is a folder whose listing has the file."""
    folder, _, file = name.rpartition("/")
    if folder not in listed:
        path = root.local_path(folder) if ".." not in folder else None
        listed[folder] = _files_in(path) if path is not None else set()
    return file in listed[folder]


def _files_in(path: str) -> Set[str]:
    """Names of regular files; nothing where the folder cannot be listed, and the store is asked instead."""
    try:
        with os.scandir(path) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()
