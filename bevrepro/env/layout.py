"""Where an environment lies: PREFIX is a link to one of the builds in PREFIX.builds, switched at once.

    PREFIX -> PREFIX.builds/<16 digits of the inputs' digest>
    PREFIX.builds/.lock, .../<digits>/bevrepro-env.json (the receipt, last), .../<digits>-2 (built again)

Virtual environments do not like to be moved, so each is built where it stays.
"""

import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bevrepro.core.errors import ConfigError, DiskError, MachineError

RECEIPT = "bevrepro-env.json"
LOG = "bevrepro-env.log"
STEPS = "bevrepro-steps"
CUDA = "cuda"
LOCK = ".lock"
BUILD = re.compile(r"[0-9a-f]{16}(-[0-9]+)?")
POLL_S = 0.2


@dataclass(frozen=True)
class Layout:
    """One environment's places, all absolute. `link`: the build that `prefix` shows now, or None."""

    prefix: Path
    builds: Path
    link: Path | None

    @property
    def lock(self) -> Path:
        return self.builds / LOCK

    def all_builds(self) -> tuple[Path, ...]:
        """Every build there is, whole or not, by name."""
        if not self.builds.is_dir():
            return ()
        return tuple(sorted(path for path in self.builds.iterdir() if BUILD.fullmatch(path.name)))


def data_dir() -> Path:
    """$BEVREPRO_DATA, else bevrepro/ in the XDG data folder."""
    if os.environ.get("BEVREPRO_DATA"):
        return Path(os.environ["BEVREPRO_DATA"]).expanduser().absolute()
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local/share") / "bevrepro"


def resolve(prefix: Path | None, target: str) -> Layout:
    """The places of an environment, by default that of the target's name in the data folder.

    ConfigError where something stands at PREFIX that is no link of ours: nothing is ever replaced.
    """
    # normpath would follow `..` past a link differently from the kernel: resolve the parent instead.
    wanted = (prefix.expanduser() if prefix else data_dir() / "envs" / target).absolute()
    place = Path(os.path.realpath(wanted.parent)) / wanted.name
    if not place.name or place.name == "..":
        raise ConfigError(f"{wanted} is no name for an environment", do="Name a new folder in it.")
    builds = place.with_name(place.name + ".builds")
    if not os.path.lexists(place):
        return Layout(place, builds, None)
    return Layout(place, builds, _our_link(place, builds))


def _our_link(place: Path, builds: Path) -> Path:
    text = os.readlink(place) if place.is_symlink() else ""
    shown = Path(os.path.normpath(place.parent / text)) if text else None
    if shown is None or shown.parent != builds or not BUILD.fullmatch(shown.name):
        what = f"is a link to {text}" if text else "is a folder or file of somebody's"
        raise ConfigError(
            f"{place} {what}, not an environment that `bevrepro env build` made",
            "It is left alone: only a link into PREFIX.builds is ever replaced.",
            "Name another --prefix, or move it away.",
        )
    return shown


def real(prefix: Path | None, target: str) -> Path:
    """The folder of a finished environment. ConfigError where there is none."""
    place = resolve(prefix, target)
    if place.link is None or not (place.link / RECEIPT).is_file():
        raise ConfigError(
            f"there is no environment at {place.prefix}",
            do=f"bevrepro env build --target {target}" + (f" --prefix {prefix}" if prefix else ""),
        )
    return place.link


def switch(place: Layout, build: Path) -> None:
    """Let PREFIX show `build`, in one step: who looks meanwhile sees the old one or the new one."""
    beside = place.prefix.with_name(f".{place.prefix.name}.{os.getpid()}.new")
    try:
        beside.unlink(missing_ok=True)
        beside.symlink_to(os.path.join(place.builds.name, build.name))
        os.replace(beside, place.prefix)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise DiskError(
            f"could not switch {place.prefix}: {error.strerror}",
            "The environment there is as it was before.",
            "Make its folder writable, then run the same command again: the build itself is kept.",
        ) from error


@contextmanager
def held(place: Layout, wait: bool = False, say: Callable[[str], None] = lambda text: None) -> Iterator[None]:
    """Hold PREFIX for one builder. MachineError naming the holder, or patience where `wait`.

    The kernel lets go of it when the holder ends, however it ends.
    """
    try:
        place.builds.mkdir(parents=True, exist_ok=True)
        file = open(place.lock, "a+", encoding="utf-8")  # noqa: SIM115 - closed below
    except OSError as error:
        raise DiskError(
            f"could not use {place.builds}: {error.strerror}",
            "The environment is built there.",
            "Name a --prefix in a folder that can be written.",
        ) from error
    with file:
        _take(file.fileno(), place, wait, say)
        file.seek(0)
        file.truncate()
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}, file)
        file.flush()
        yield


def _take(handle: int, place: Layout, wait: bool, say: Callable[[str], None]) -> None:
    told = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not wait:
                raise MachineError(
                    f"{place.prefix} is being built by {_holder(place)}",
                    "Two builds of one environment would spoil each other.",
                    "Wait until it has finished, or add --wait.",
                ) from None
        if not told:
            say(f"Waiting for {_holder(place)}, which builds {place.prefix}")
            told = True
        time.sleep(POLL_S)


def _holder(place: Layout) -> str:
    try:
        holder = json.loads(place.lock.read_text(encoding="utf-8"))
        minutes = (time.time() - holder["since"]) / 60
        return f"process {holder['pid']} on {holder['host']} (for {minutes:.0f} min)"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
