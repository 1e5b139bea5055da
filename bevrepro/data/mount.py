"""Mount archives read-only as one folder, prove that it can be read, and take it away again.

ratarmount says little about what went wrong (facts: mounting.md), so nothing here trusts its exit code:
a mount is there when /proc/self/mountinfo lists it and a file of the last archive reads whole.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bevrepro.core import proc
from bevrepro.core.errors import DataError, MachineError, MountError
from bevrepro.data import fuse, index, mountinfo, remembered, unmount
from bevrepro.data.archives import Archive, recognise

OPTIONS = (
    "ro",  # without it mountinfo says rw
    f"fsname={mountinfo.OURS}",
    "subtype=ratarmount",
    "kernel_cache",  # archives do not change: 1.5 to 2 times the reads/s together with the timeouts
    "entry_timeout=3600",
    "attr_timeout=3600",
)
APPEARS_WITHIN_S = 5.0
PROBE_TIMEOUT_S = 60.0
PROBE = "import sys; print(len(open(sys.argv[1], 'rb').read()))"
REFUSALS = ("not permitted", "Permission denied", "libfuse", "fusermount")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a mount would do; `missing` is why it is `in-process` and not `fuse`."""

    mountpoint: Path
    archives: tuple[Archive, ...]
    mode: str
    missing: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "mountpoint": str(self.mountpoint),
            "mode": self.mode,
            "missing": list(self.missing),
            "archives": [archive.to_json() for archive in self.archives],
            "commands": [list(command) for command in self.commands],
        }


def plan(archives: Sequence[Path], mountpoint: Path, in_process: bool = False) -> Plan:
    """Look at everything and change nothing. DataError for bad archives, MountError for a bad mount point."""
    found = tuple(recognise(path) for path in archives)
    if not found:
        raise DataError("no archive given", do="bevrepro data mount ARCHIVE... MOUNTPOINT")
    place = Path(os.path.realpath(mountpoint))
    _check_place(place)
    missing = ("--in-process was given",) if in_process else fuse.missing()
    if missing:
        return Plan(place, found, remembered.IN_PROCESS, missing, ())
    needed = [index.command(archive) for archive in found if not index.is_fresh(archive)]
    commands = (*needed, _command(found, place))
    return Plan(place, found, remembered.FUSE, (), tuple(tuple(command) for command in commands))


def mount(plan: Plan, say: Say) -> Plan:
    """Carry it out; what is returned says what became of it. `say` is told each step that takes time.

    Where mounting is refused after all, the archives are remembered for the in-process reader instead.
    Interrupted or failed, the mount and a folder made for it are gone again.
    """
    if plan.mode == remembered.FUSE:
        try:
            _index(plan.archives, say)
            _mount_fuse(plan, say)
        except (_Refused, index.NoFuseLibrary) as error:
            plan = replace(plan, mode=remembered.IN_PROCESS, missing=(error.seen,))
    if plan.mode == remembered.IN_PROCESS:
        remembered.add(_memory(plan, made_folder=False))
    return plan


def _index(archives: Sequence[Archive], say: Say) -> None:
    for number, archive in enumerate(archives, 1):
        if not index.is_fresh(archive):
            say(f"indexing {archive.path.name} ({number} of {len(archives)})")
        index.ensure(archive)


def _mount_fuse(plan: Plan, say: Say) -> None:
    """Raises _Refused where the system does not allow it; leaves nothing behind on any error."""
    place = plan.mountpoint
    if _is_dead_mount(place):
        say(f"removing the dead mount at {place}")
        unmount.detach(place, dead=True)
    made_folder = _make_folder(place)
    try:
        _verify(plan, proc.run(plan.commands[-1]))
        remembered.add(_memory(plan, made_folder))
    except BaseException:  # Ctrl-C too
        _undo(place, made_folder)
        raise


class _Refused(MountError):
    """The system does not let us mount, whatever the archives are."""


def _command(archives: Sequence[Archive], place: Path) -> list[str]:
    flags = [*index.BOUNDED, "--index-folders", json.dumps([str(index.index_folder())])]
    sources = [str(archive.path) for archive in archives]
    return [str(index.ratarmount()), *flags, "-o", ",".join(OPTIONS), *sources, str(place)]


def _memory(plan: Plan, made_folder: bool) -> remembered.Remembered:
    archives = tuple(str(archive.path) for archive in plan.archives)
    since = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return remembered.Remembered(str(plan.mountpoint), archives, plan.mode, since, made_folder)


def _is_dead_mount(place: Path) -> bool:
    return mountinfo.at(mountinfo.read(), place) is not None and mountinfo.is_dead(place)


def _check_place(place: Path) -> None:
    """A new or an empty folder, or a dead mount of ours (which `mount` cleans)."""
    mounted = mountinfo.at(mountinfo.read(), place)
    if mounted and mountinfo.is_dead(place) and mounted.ours:
        return
    if mounted:
        raise MountError(
            f"something is already mounted at {place}: {mounted.source} ({mounted.fs_type})",
            "A second mount would hide it.",
            f"bevrepro data umount {place}   or choose another mount point"
            if mounted.ours
            else "Choose another mount point.",
        )
    try:
        entries = os.listdir(place)
    except FileNotFoundError:
        return
    except OSError as error:
        raise MountError(
            f"{place} cannot be a mount point: {error.strerror}", do="Choose a new or an empty folder."
        ) from error
    if entries:
        raise MountError(
            f"the mount point {place} is not empty: it holds {entries[0]}"
            + (f" and {len(entries) - 1} more" if len(entries) > 1 else ""),
            "A mount would hide what is in it.",
            "Choose a new or an empty folder.",
        )


def _make_folder(place: Path) -> bool:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir()
    except FileExistsError:
        return False
    except OSError as error:
        raise MountError(
            f"cannot make the mount point {place}: {error.strerror}", do="Choose a folder of yours."
        ) from error
    return True


def _verify(plan: Plan, done: proc.Done) -> None:
    """Listed by the kernel, read-only, and the last file of the last archive reads whole."""
    said = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
    ended = f"ratarmount ended with exit code {done.rc}" + (f": {said[-1]}" if said else "")
    listed = _wait_for(plan.mountpoint) if done.ok else None
    if listed is None:
        if any(refusal in line for line in said for refusal in REFUSALS):
            raise _Refused(f"the system refused the mount: {_refusal(said)}")
        raise MountError(
            f"nothing is mounted at {plan.mountpoint}: {ended}",
            "The archives are fine so far; they were read for their index.",
            "bevrepro data mount --in-process ... goes without a mount.",
        )
    if not listed.ours or not listed.read_only:
        raise MountError(f"{plan.mountpoint} was mounted, but not as asked: {listed}")
    _probe(plan)


def _refusal(said: Sequence[str]) -> str:
    return next(line for line in said if any(refusal in line for refusal in REFUSALS))


def _wait_for(place: Path) -> mountinfo.Mount | None:
    """The daemon mounts after the program has returned."""
    until_s = time.monotonic() + APPEARS_WITHIN_S
    while True:
        listed = mountinfo.at(mountinfo.read(), place)
        if listed or time.monotonic() > until_s:
            return listed
        time.sleep(0.05)


def _probe(plan: Plan) -> None:
    """In a child with a time limit, because a read from a stuck mount never returns."""
    sample = _sample(plan.archives)
    if sample is None:
        return
    path, size = plan.mountpoint / sample[0], sample[1]
    done = proc.run([sys.executable, "-I", "-S", "-c", PROBE, str(path)], timeout_s=PROBE_TIMEOUT_S)
    if done.ok and done.stdout.strip() == str(size):
        return
    lines = done.stderr.strip().splitlines()
    got = "no answer" if done.timed_out else done.stdout.strip() or (lines[-1] if lines else "nothing")
    raise MountError(
        f"the mount does not give what the archive holds: {path} should have {size} bytes, got {got}",
        "The archive may have changed after it was indexed.",
        "Check the archive and mount it again.",
    )


def _sample(archives: Sequence[Archive]) -> tuple[str, int] | None:
    """A file and its size as the union should show it: a folder given later may hold its own version."""
    over: list[Path] = []
    for archive in reversed(archives):
        found = index.sample(archive)
        if found:
            own = next((folder / found[0] for folder in over if (folder / found[0]).is_file()), None)
            return (found[0], own.stat().st_size) if own else found
        over.append(archive.path)
    return None


def _undo(place: Path, made_folder: bool) -> None:
    """Whatever happened, leave no mount behind; the error being raised is the one that counts."""
    if mountinfo.at(mountinfo.read(), place):
        try:
            unmount.detach(place, dead=True)
        except (MountError, MachineError) as error:
            print(f"could not remove the mount at {place}: {error.seen}", file=sys.stderr)
            return
    if made_folder:
        unmount.remove_folder(place)
