"""Archives and extracted data sets below a folder: a bounded search that stays out of a set's own folders."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bevrepro.core.errors import DataError
from bevrepro.data import remembered, roots
from bevrepro.data.mountinfo import DEAD
from bevrepro.probe import downloads
from bevrepro.probe.extracted import LANDMARKS, is_root

DEPTH = 3
MOST_ENTRIES = 50_000
SKIPPED = frozenset((*LANDMARKS, "maps", "lost+found", "node_modules"))


@dataclass
class Found:
    """`archives` in order of their names; `roots` hold samples/, can_bus/ or tables. `notes`: what was not
    looked at, one sentence each. `synthetic`: files of a folder that `data synth` made."""

    archives: list[Path] = field(default_factory=list)
    roots: list[Path] = field(default_factory=list)
    synthetic: set[Path] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    entries: int = 0
    made_by_synth: bool = False


def walk(places: Sequence[Path]) -> Found:
    """Folders, and archives named one by one. DataError for a place that is not there."""
    found, seen = Found(), set[tuple[int, int]]()
    for place in [meant for each in places for meant in _meant(each)]:
        if os.path.isdir(place):  # Path.is_dir raises for a dead mount
            _folder(place, DEPTH, found, seen)
        else:
            _named(place, found)
    found.archives = sorted(dict.fromkeys(found.archives), key=lambda path: (path.name, str(path)))
    return found


def _meant(place: Path) -> list[Path]:
    """A mount point that is remembered and not mounted (no FUSE here, a reboot) stands for its archives."""
    known = remembered.get(Path(os.path.realpath(place)))
    return [Path(one) for one in roots.resolve([place])] if known else [place]


def _named(place: Path, found: Found) -> None:
    try:
        place.stat()
    except OSError as error:
        dead = "a mount whose program has died" if error.errno in DEAD else error.strerror
        raise DataError(
            f"cannot look at {place}: {dead}",
            "Name the folder that holds nuScenes' archives, or the archives, or an extracted data set.",
            "bevrepro data status   lists mounts",
        ) from error
    found.archives.append(place)
    if _made_by_synth(place.parent):
        found.synthetic.add(place)


def _made_by_synth(folder: Path) -> bool:
    return any(os.path.isfile(each / "synth.json") for each in (folder, folder.absolute().parent))


def _folder(folder: Path, depth: int, found: Found, seen: set[tuple[int, int]]) -> None:
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        entries = sorted(_bounded(folder, found), key=lambda entry: entry.name)
    except OSError as error:
        found.notes.append(f"{folder} was not looked at: {error.strerror}")
        return
    names = {entry.name for entry in entries}
    synthetic = _made_by_synth(folder)
    if is_root({entry.name for entry in entries if _is_folder(entry)}):
        found.roots.append(folder)
        found.made_by_synth |= synthetic
    for entry in entries:
        if not _is_folder(entry):
            _file(Path(entry.path), names, synthetic, found)
        elif downloads.parse(entry.name).state == "unfinished":
            found.archives.append(Path(entry.path))  # Safari's .download is a folder
        elif depth and not entry.name.startswith((".", "v1.0-")) and entry.name not in SKIPPED:
            _folder(Path(entry.path), depth - 1, found, seen)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a dead mount, a loop of links
        return False


def _bounded(folder: Path, found: Found) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        for entry in entries:
            found.entries += 1
            if found.entries > MOST_ENTRIES:
                found.notes.append(f"{folder} was not looked through: more than {MOST_ENTRIES} files so far")
                return
            yield entry


def _file(path: Path, names: set[str], synthetic: bool, found: Found) -> None:
    """Archives by name, and what a downloader left."""
    name = downloads.parse(path.name)
    if path.name.lower().endswith(".aria2") and path.name[:-6] in names:
        return  # aria2's own notes about the file beside it, which `scan` reads
    if name.state == "unfinished" or downloads.ARCHIVE.search(name.plain):
        found.archives.append(path)
        if synthetic:
            found.synthetic.add(path)
