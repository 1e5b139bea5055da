"""The mounts bevrepro made, in one JSON file under the state folder: what `umount` and `resolve` go by."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bevrepro.core import paths
from bevrepro.core.errors import DiskError, MountError
from bevrepro.data.lock import locked

FUSE = "fuse"
IN_PROCESS = "in-process"


@dataclass(frozen=True)
class Remembered:
    """mode: `fuse`, or `in-process` where no mount was possible and training reads the archives itself.
    made_folder: the mount point was created by the mount, so umount removes it. stamps: size and time of
    change (ns) of each archive as it was mounted. overlay: the writable folder, the last of `archives`.
    allow_other: other users may read it."""

    mountpoint: str
    archives: tuple[str, ...]
    mode: str
    since: str
    made_folder: bool = False
    stamps: tuple[tuple[int, int], ...] = ()
    overlay: str | None = None
    allow_other: bool = False


def _file() -> Path:
    return paths.state_dir() / "mounts.json"


def load() -> list[Remembered]:
    """Everything remembered. MountError for a file that is not ours."""
    try:
        kept = json.loads(_file().read_text())
        return [_read(one) for one in kept["mounts"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise MountError(
            f"cannot read the list of mounts in {_file()}: {error}",
            "bevrepro writes it whole or not at all, so something else changed it.",
            f"Remove it: rm {_file()}   (mounts themselves stay; findmnt lists them)",
        ) from error


def _read(one: dict[str, Any]) -> Remembered:
    stamps = tuple((int(size), int(time)) for size, time in one.get("stamps", ()))
    return Remembered(**{**one, "archives": tuple(one["archives"]), "stamps": stamps})


def get(mountpoint: Path) -> Remembered | None:
    return next((one for one in load() if one.mountpoint == str(mountpoint)), None)


def add(one: Remembered) -> None:
    """Remember, in place of what was remembered at that mount point."""
    with _locked():
        _save([*(other for other in load() if other.mountpoint != one.mountpoint), one])


def forget(mountpoint: Path) -> None:
    with _locked():
        _save([one for one in load() if one.mountpoint != str(mountpoint)])


def _save(mounts: list[Remembered]) -> None:
    kept: dict[str, Any] = {"format": 1, "mounts": [asdict(one) for one in mounts]}
    paths.atomic_write_text(_file(), json.dumps(kept, indent=2) + "\n")


@contextmanager
def _locked() -> Iterator[None]:
    """Two commands at once must not lose each other's line."""
    with _held("mounts.lock"):
        yield


@contextmanager
def alone_at(mountpoint: Path) -> Iterator[None]:
    """One mount at a time at a place: the second waits, and then sees what the first made."""
    digest = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]
    with _held(f"mount-{digest}.lock"):
        yield


@contextmanager
def _held(name: str) -> Iterator[None]:
    folder = paths.state_dir()
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / name))
        except OSError as error:
            raise DiskError(
                f"cannot remember mounts in {folder}: {error.strerror}",
                "Without that, umount and training would not know the archives.",
                "Set BEVREPRO_STATE to a folder that can be written.",
            ) from error
        yield
