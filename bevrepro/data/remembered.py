"""The mounts bevrepro made, in one JSON file under the state folder: what `umount` and `resolve` go by."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bevrepro.core import paths
from bevrepro.core.errors import DiskError, MountError

FUSE = "fuse"
IN_PROCESS = "in-process"


@dataclass(frozen=True)
class Remembered:
    """mode: `fuse`, or `in-process` where no mount was possible and training reads the archives itself.
    made_folder: the mount point was created by the mount, so umount removes it."""

    mountpoint: str
    archives: tuple[str, ...]
    mode: str
    since: str
    made_folder: bool = False


def _file() -> Path:
    return paths.state_dir() / "mounts.json"


def load() -> list[Remembered]:
    """Everything remembered. MountError for a file that is not ours."""
    try:
        kept = json.loads(_file().read_text())
        return [Remembered(**{**one, "archives": tuple(one["archives"])}) for one in kept["mounts"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise MountError(
            f"cannot read the list of mounts in {_file()}: {error}",
            "bevrepro writes it whole or not at all, so something else changed it.",
            f"Remove it: rm {_file()}   (mounts themselves stay; findmnt lists them)",
        ) from error


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
    folder = paths.state_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "mounts.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise DiskError(
            f"cannot remember mounts in {folder}: {error.strerror}",
            "Without that, umount and training would not know the archives.",
            "Set BEVREPRO_STATE to a folder that can be written.",
        ) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
