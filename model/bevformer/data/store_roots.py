"""What a store is made of: the root in general, and the folder.  Archives: `store_archives`."""

import errno
import os
import stat
from typing import Any, Dict, Iterable, List, Optional

from bevformer.errors import DataError

from .tar_index import REDO

DEAD = (errno.ENOTCONN, errno.ECONNABORTED)


def dead_mount(path: str) -> DataError:
    return DataError(
        "%s is a mount whose program has died" % path,
        "Nothing can be read from it.",
        "bevrepro data umount %s   and mount it again" % path,
    )


def is_dead(path: str, error: OSError) -> bool:
    """Whether `error` was met because the program behind a mount at `path` has died.

    A read that was under way then fails with ECONNABORTED or EIO; only those after it say ENOTCONN.  statvfs
    asks the program, where stat may be answered from what the kernel remembers.
    """
    if error.errno == errno.EIO:
        try:
            os.statvfs(path)
        except OSError as now:
            return now.errno in DEAD
    return error.errno in DEAD


def missing(path: str, error: OSError) -> DataError:
    if is_dead(path, error):
        return dead_mount(path)
    return DataError(
        "cannot open the data at %s: %s" % (path, error.strerror),
        "--data-root takes a folder, a .tgz, .tar.gz, .tar or .zip, and may be given several times.",
        "Check the path.",
    )


class Root:
    """One folder or archive.  `path` is what the user gave; every error names it."""

    kind = ""

    def __init__(self, path: str) -> None:
        self.path = path

    def find(self, name: str) -> int:
        """A number that `read` and `view` take for the file of this clean name; -1 when it is not here."""
        raise OSError("a root has to say what it holds")

    def has(self, name: str) -> bool:
        return self.find(name) >= 0

    def files(self) -> Iterable[str]:
        """Sorted names of everything in it."""
        return ()

    def under(self, folder: str) -> Iterable[str]:
        """Sorted names below `folder` (`""` or ending in a slash)."""
        return ()

    def read(self, name: str, found: int) -> bytes:
        """The whole file."""
        return bytes(self.view(name, found))

    def view(self, name: str, found: int) -> memoryview:
        """The whole file to look at: where it already lies in memory, if this kind of root can."""
        return memoryview(self.read(name, found))

    def local_path(self, name: str) -> Optional[str]:
        return None

    def describe(self) -> Dict[str, Any]:
        return {"path": os.path.abspath(self.path), "kind": self.kind, "files": sum(1 for _ in self.files())}

    def broken(self, name: str, what: str) -> DataError:
        return DataError("%s in %s: %s" % (name, self.path, what), "The data is damaged or changed.", REDO)


class FolderStore(Root):
    """Plain files, a mounted archive among them."""

    kind = "folder"

    def find(self, name: str) -> int:
        try:
            return 0 if stat.S_ISREG(os.stat(os.path.join(self.path, name)).st_mode) else -1
        except OSError as error:
            if is_dead(self.path, error):  # os.path.isfile would say that the file is missing
                raise dead_mount(self.path) from error
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                return -1
            raise self.broken(name, error.strerror or str(error)) from error

    def files(self) -> Iterable[str]:
        return self.under("")

    def under(self, folder: str) -> List[str]:
        found = []
        for base, _, files in os.walk(os.path.join(self.path, folder), onerror=self._unreadable):
            inside = os.path.relpath(base, self.path).replace(os.sep, "/")
            found += [file if inside == "." else inside + "/" + file for file in files]
        return sorted(found)

    def _unreadable(self, error: OSError) -> None:
        if is_dead(self.path, error):
            raise dead_mount(self.path) from error
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):  # a folder that is not there holds nothing
            raise self.broken(str(error.filename), error.strerror or str(error))

    def read(self, name: str, found: int) -> bytes:
        try:
            with open(os.path.join(self.path, name), "rb") as file:
                return file.read()
        except OSError as error:
            if is_dead(self.path, error):
                raise dead_mount(self.path) from error
            raise self.broken(name, error.strerror or str(error)) from error

    def local_path(self, name: str) -> Optional[str]:
        return os.path.join(self.path, name)
