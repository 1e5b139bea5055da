"""Links in an archive that lead out of it: through a mount they would lead into the machine's own files.

A mount is read-only, but what a link points to is not: a program that writes "into the data" writes there.
A data set needs no such links. ratarmount itself takes `../` and leading slashes from names.
"""

import os
import sqlite3
import stat
import zipfile
from collections.abc import Iterator
from contextlib import closing

from bevrepro.core.errors import DataError
from bevrepro.data import index
from bevrepro.data.archives import REDO, Archive

MOST_TARGET_BYTES = 4096  # PATH_MAX: a longer one is no link that a system follows


def check(archive: Archive) -> None:
    """DataError for an indexed archive with a link to somewhere outside of it."""
    links = {"tar": _of_index, "tgz": _of_index, "zip": _of_zip}.get(archive.kind)
    for name, target in links(archive) if links else ():
        if leads_out(name, target):
            raise DataError(
                f"{archive.path} holds a link out of itself: {name!r} -> {target!r}",
                "In a mount it would lead to files of this machine; a data set needs no such link.",
                "Do not use this archive. " + REDO,
            )


def leads_out(name: str, target: str) -> bool:
    """Whether a link of this name in an archive points above its top."""
    place = os.path.normpath(os.path.join(os.path.dirname(name.lstrip("/")), target))
    return target.startswith("/") or place == ".." or place.startswith("../")


def _of_index(archive: Archive) -> Iterator[tuple[str, str]]:
    place = index.index_path(archive)
    with closing(sqlite3.connect(f"{place.as_uri()}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT path, name, linkname, mode FROM files WHERE linkname <> ''")
        for folder, name, target, mode in rows:
            if stat.S_ISLNK(mode):
                yield f"{folder}/{name}", target


def _of_zip(archive: Archive) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(archive.path) as packed:
        for entry in packed.infolist():
            if stat.S_ISLNK(entry.external_attr >> 16) and entry.file_size <= MOST_TARGET_BYTES:
                yield entry.filename, os.fsdecode(packed.read(entry))
