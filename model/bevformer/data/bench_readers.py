"""The ways to read one file of a data set that `data bench` sets side by side."""

from typing import Any, Callable, Dict, List, NamedTuple, Optional

from .store import open_store

Read = Callable[[str], Any]  # name -> bytes-like


class Reader(NamedTuple):
    """open: gives a fresh `Read`, as a new process would have it.  Slow ones get fewer files per round.

    again: whether reading the same files a second time with the same `Read` is a case of its own.
    """

    name: str
    open: Callable[[], Read]
    files_per_round: int
    again: bool = False
    cold: bool = False


class Places(NamedTuple):
    """What there is to read from; None where it is not."""

    folder: Optional[str]
    tar: Optional[str]
    tgz: Optional[str]
    mounts: Dict[str, str]


def readers(places: Places, spacings_mib: List[float]) -> List[Reader]:
    """Those that the places allow."""
    found = _of_folders(places)
    if places.tar:
        found += _of_tar(places.tar)
    if places.tgz:
        found += [_of_tgz(places.tgz, mib) for mib in spacings_mib]
        found += _of_ratarmount(places.tgz, "tgz ratarmountcore gs 16", 12)
    return found


def _of_folders(places: Places) -> List[Reader]:
    found = []
    if places.folder:
        folder = places.folder
        found.append(Reader("extracted", lambda: _plain(folder), 300, cold=True))
        found.append(Reader("extracted, through Store", lambda: open_store([folder]).read, 300))
    for name, mount in sorted(places.mounts.items()):
        slow = 12 if "tgz" in name else 100
        found.append(Reader(name, lambda mount=mount: _plain(mount), slow, again="tgz" not in name))  # type: ignore[misc]
    return found


def _plain(folder: str) -> Read:
    def read(name: str) -> bytes:
        with open(folder + "/" + name, "rb") as file:
            return file.read()

    return read


def _of_tar(tar: str) -> List[Reader]:
    return [
        Reader("tar Store.view", lambda: open_store([tar]).view, 300, again=True, cold=True),
        Reader("tar Store.read", lambda: open_store([tar]).read, 300, cold=True),
        *_of_ratarmount(tar, "tar ratarmountcore", 200),
    ]


def _of_tgz(tgz: str, mib: float) -> Reader:
    spacing = int(mib * (1 << 20))
    return Reader(
        "tgz Store spacing %g MiB" % mib, lambda: open_store([tgz], spacing).read, 60, cold=mib == 1
    )


def _of_ratarmount(archive: str, name: str, count: int) -> List[Reader]:
    try:
        from ratarmountcore.mountsource.factory import open_mount_source
    except ImportError:
        return []

    def opened() -> Read:
        # As installed: spacing 16 MiB, all cores. Beside the archive is where it would write its index.
        source = open_mount_source(archive, indexFilePath=":memory:")

        def read(name: str) -> Any:
            with source.open(source.lookup("/" + name)) as file:
                return file.read()

        return read

    return [Reader(name, _once(opened), count)]


def _once(make: Callable[[], Read]) -> Callable[[], Read]:
    """Its index lives in memory: made once, or each round would index again."""
    made: List[Read] = []

    def opened() -> Read:
        if not made:
            made.append(make())
        return made[0]

    return opened
