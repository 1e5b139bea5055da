"""Whether the files that the tables promise are there: against lists of names, folders, and their sizes."""

import errno
import gzip
import os
import re
import sqlite3
from contextlib import closing
from typing import Any, Callable, Dict, Iterable, Iterator, List, Set, Tuple

from bevformer.errors import DataError

from .store_roots import dead_mount, is_dead
from .tar_index import safe_name

Sized = Tuple[str, int]
POSE = re.compile(r"^can_bus/(scene-\d{4})_pose\.json$")
EMPTY_JSON = 4  # bytes: `[]` and white space
_REGULAR = (b"0", b"\0", b"7")


class Presence:
    """`waiting`: promised and not seen yet.  Give it every name there is, in any order."""

    def __init__(self, promised: Iterable[str]) -> None:
        self.waiting: Set[str] = set(promised)
        self.empty: List[str] = []
        self.poses: Dict[str, bool] = {}  # scene -> whether its pose file holds anything
        self.maps: Set[str] = set()

    def see(self, name: str, size: int) -> None:
        if name in self.waiting:
            self.waiting.discard(name)
            if size == 0:
                self.empty.append(name)
        elif name.startswith("can_bus/"):
            pose = POSE.match(name)
            if pose:
                self.poses[pose.group(1)] = self.poses.get(pose.group(1), False) or size > EMPTY_JSON
        elif name.startswith("maps/"):
            self.maps.add(name)

    def see_all(self, names: Iterable[Sized]) -> int:
        count = 0
        for name, size in names:
            self.see(name, size)
            count += 1
        return count


def save_names(path: str, names: Dict[str, int]) -> None:
    """A line per file; kept so that an archive that was read once need not be read again."""
    temporary = path + ".new-%d" % os.getpid()
    try:
        with gzip.open(temporary, "wt", compresslevel=1, encoding="utf-8", errors="surrogateescape") as out:
            for name, size in names.items():
                if "\n" not in name:
                    out.write("%d\t%s\n" % (size, name))
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def saved_names(path: str) -> Iterator[Sized]:
    """What `save_names` wrote.  DataError where something else did."""
    try:
        with gzip.open(path, "rt", encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                size, name = line.rstrip("\n").split("\t", 1)
                yield name, int(size)
    except (OSError, ValueError, EOFError) as error:
        raise DataError("cannot read %s: %s" % (path, error), "It is a cache.", "rm %s" % path) from error


def indexed_names(path: str) -> Iterator[Sized]:
    """Of ratarmount's SQLite index.  DataError where it is none."""
    query = 'SELECT path || "/" || name, size FROM files WHERE "type" IN (?, ?, ?)'
    try:
        with closing(sqlite3.connect("file:%s?mode=ro" % path.replace("?", "%3f"), uri=True)) as database:
            for name, size in database.execute(query, _REGULAR):
                yield safe_name(name.lstrip("/"), path), size
    except sqlite3.Error as error:
        raise DataError(
            "cannot read the index %s: %s" % (path, error), "It is a cache.", "rm %s" % path
        ) from error


def folder_names(root: str, folders: Iterable[str], on_entry: Callable[[], Any]) -> Iterator[Sized]:
    """Files right below each of `folders`; one that is not there has none.  DataError for a dead mount."""
    for folder in folders:
        try:
            with os.scandir(os.path.join(root, folder)) as entries:
                for entry in entries:
                    on_entry()
                    if entry.is_file():
                        yield folder + "/" + entry.name, entry.stat().st_size
        except OSError as error:
            if is_dead(root, error):
                raise dead_mount(root) from error
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise DataError("cannot read %s: %s" % (error.filename, error.strerror)) from error


def folders_of(files: Iterable[str]) -> List[str]:
    """The folders that promised files lie in, and those of CAN data and maps."""
    return sorted({name.rpartition("/")[0] for name in files} | {"can_bus", "maps"})


def what_is_wrong_inside(path: str) -> str:
    """For an extracted file: "" or what its two ends say.  There is no published checksum of single files.

    A JPEG begins with FF D8 and ends with FF D9 (ITU-T T.81); a lidar sweep has 5 floats per point; a radar
    sweep is a PCD file.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        return "cannot be read: %s" % error.strerror
    if path.endswith(".jpg"):
        if data[:2] != b"\xff\xd8":
            return "is no JPEG"
        return "" if data.rstrip(b"\0")[-2:] == b"\xff\xd9" else "is a JPEG that is cut short"
    if path.endswith(".pcd.bin"):
        return "" if data and len(data) % 20 == 0 else "is no whole number of lidar points"
    if path.endswith(".pcd"):
        return "" if b"DATA binary" in data[:1000] else "is no radar point cloud"
    return "" if data.strip(b"\0") else "holds nothing but zeros"
