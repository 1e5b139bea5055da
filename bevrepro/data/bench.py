"""What `data bench` needs around its measurement: room, a place of its own, mounts tuned and not."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bevrepro.core import paths, proc
from bevrepro.core.errors import DataError, DiskError
from bevrepro.data import fuse, index, links, mount, mountinfo, unmount
from bevrepro.data.archives import recognise

COPIES = 3.3  # the synthetic set lies there as a folder, a .tar and a .tgz; and some for the rest
MOUNTED_WITHIN_S = 300.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """`not_mounted`: why FUSE is left out; empty where it is measured."""

    archives: tuple[str, ...]
    synthetic_gb: float
    work: str
    not_mounted: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    def sentences(self) -> list[str]:
        """For a person."""
        source = ", ".join(self.archives) or f"{self.synthetic_gb:g} GB of files made in {self.work}"
        ways = "in-process readers alone" if self.not_mounted else "in-process readers and three mounts"
        return [f"would read {source}", f"by {ways}", *self.not_mounted]


def plan(archives: Sequence[Path], synthetic_gb: float, work: Path | None, no_fuse: bool) -> Plan:
    """Raises DataError for what is not there, DiskError where the synthetic set does not fit."""
    for path in archives:
        if not path.exists():
            raise DataError(f"{path} does not exist", do="Check the path.")
    folder = Path(os.path.realpath(work or paths.cache_dir()))
    if not archives:
        _check_room(folder, synthetic_gb)
    missing = ("--no-fuse was given",) if no_fuse else fuse.missing()
    real = tuple(os.path.realpath(path) for path in archives)
    return Plan(real, 0.0 if archives else synthetic_gb, str(folder), missing)


def _check_room(folder: Path, synthetic_gb: float) -> None:
    there = folder
    while not there.is_dir():
        there = there.parent
    free_gb = shutil.disk_usage(there).free / 1e9
    if free_gb < COPIES * synthetic_gb + 0.3:
        raise DiskError(
            f"{there} has {free_gb:.1f} GB free, the files would take {COPIES * synthetic_gb + 0.3:.1f} GB",
            "Nothing was written.",
            "Name another folder with --work, or make fewer with --synthetic 0.2.",
        )


@contextmanager
def workplace(planned: Plan) -> Iterator[Path]:
    """A new folder that is removed at the end, whatever happened."""
    Path(planned.work).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=planned.work) as folder:
        yield Path(folder)


@contextmanager
def mounts(planned: Plan, places: Sequence[Path | str], folder: Path, say: Say) -> Iterator[dict[str, Path]]:
    """name -> mount point: the .tar by ratarmount's defaults and as `data mount` does; the .tgz."""
    tar = next((str(place) for place in places if str(place).endswith(".tar")), None)
    tgz = next((str(place) for place in places if str(place).endswith((".tgz", ".tar.gz"))), None)
    tuned = [*index.BOUNDED, "-o", ",".join((*mount.OPTIONS, *mount.FIXED))]
    wanted = {"FUSE tar default": (tar, []), "FUSE tar tuned": (tar, tuned), "FUSE tgz default": (tgz, [])}
    with ExitStack() as stack:
        done = {}
        for name, (archive, options) in wanted.items():
            if archive is None or planned.not_mounted:
                continue
            if planned.archives:
                _check(archive)
            say(f"mounting: {name}")
            done[name] = stack.enter_context(_mounted(archive, options, folder / name.replace(" ", "-")))
        yield done


def _check(archive: str) -> None:
    """As `data mount` does. Raises DataError for one that is cut, broken, or has links out of itself."""
    found = recognise(Path(archive))
    index.ensure(found)
    links.check(found)


@contextmanager
def _mounted(archive: str, options: Sequence[str], place: Path) -> Iterator[Path]:
    """Raises DataError when the mount does not appear."""
    place.mkdir()
    indexes = place.parent / f"index-{place.name}"
    indexes.mkdir()
    kept = ["--index-folders", json.dumps([str(indexes)])]
    argv = [str(index.ratarmount()), *kept, *options, archive, str(place)]
    said = proc.run(argv, timeout_s=MOUNTED_WITHIN_S)
    try:
        if mountinfo.at(mountinfo.read(), place) is None:
            last = (said.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise DataError(
                f"ratarmount did not mount {archive}: {last}", do="Run the same command with --no-fuse."
            )
        yield place
    finally:
        if mountinfo.at(mountinfo.read(), place) is not None:
            unmount.detach(place, dead=False)
