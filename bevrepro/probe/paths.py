"""Whether a path can be read at all: the first thing that every look at a path has to know."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """A path as the kernel sees it."""

    path: str
    kind: str | None = None  # "file", "folder", "absent", "forbidden", "dead" (its mount is gone), "other"
    size_b: int | None = None
    said: str | None = None  # the kernel's words where it could not be read


def probe_place(path: Path) -> Place:
    """Never raises for a path that is missing, forbidden or on a dead mount."""
    try:
        if path.is_dir():
            os.listdir(path)
            return Place(str(path), "folder")
        size_b = path.stat().st_size
        if not path.is_file():
            return Place(str(path), "other")
        with path.open("rb"):
            return Place(str(path), "file", size_b)
    except (FileNotFoundError, NotADirectoryError):
        return Place(str(path), "absent", said="no such file or folder")
    except PermissionError as error:
        return Place(str(path), "forbidden", said=error.strerror)
    except OSError as error:
        return Place(str(path), "dead", said=error.strerror)
    except ValueError as error:  # a zero byte in the name
        return Place(str(path), "absent", said=str(error))
