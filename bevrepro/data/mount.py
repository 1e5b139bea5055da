"""Mount archives read-only as one folder, prove that it can be read, and take it away again.

ratarmount says little about what went wrong (facts: mounting.md), so nothing here trusts its exit code:
a mount is there when /proc/self/mountinfo lists it and a file of the last archive reads whole.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from bevrepro.core import proc
from bevrepro.core.errors import DataError, DiskError, MountError
from bevrepro.core.machine import Fuse, Host, Machine
from bevrepro.data import fuse, index, links, mountinfo, place, preflight, proof, remembered, room, unmount
from bevrepro.data.archives import Archive, recognise
from bevrepro.probe.fuse import UNCONFINED, probe_fuse
from bevrepro.probe.host import probe_host

OPTIONS = (
    "ro",  # without it mountinfo says rw
    f"fsname={mountinfo.OURS}",
    "subtype=ratarmount",
)
# Archives do not change: 1.5 to 2 times the reads/s. In a folder files do, and were seen as they had been for
# an hour; with these it is a second.
FIXED = ("kernel_cache", "entry_timeout=3600", "attr_timeout=3600")
LIVE = ("auto_cache", "entry_timeout=1", "attr_timeout=1")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What was asked for. overlay: a writable folder shown last; allow_other: readable for other users."""

    archives: tuple[Path, ...]
    mountpoint: Path
    overlay: Path | None = None
    in_process: bool = False
    allow_other: bool = False


@dataclass(frozen=True)
class Plan:
    """What a mount would do; `missing` is why it is `in-process` and not `fuse`."""

    mountpoint: Path
    archives: tuple[Archive, ...]
    mode: str
    missing: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...]
    overlay: Path | None = None
    allow_other: bool = False
    judgement: preflight.Judgement = preflight.Judgement()

    def to_json(self) -> dict[str, Any]:
        return {
            "mountpoint": str(self.mountpoint),
            "mode": self.mode,
            "missing": list(self.missing),
            "archives": [archive.to_json() for archive in self.archives],
            "overlay": str(self.overlay) if self.overlay else None,
            "notes": list(self.judgement.notes),
            "commands": [list(command) for command in self.commands],
        }


def plan(archives: Sequence[Path], mountpoint: Path, in_process: bool = False) -> Plan:
    """As `plan_for`, without an overlay."""
    return plan_for(Wanted(tuple(archives), mountpoint, in_process=in_process))


def plan_for(wanted: Wanted, machine: Machine | None = None) -> Plan:
    """Look at everything and change nothing. DataError for bad archives, MountError for a bad mount point."""
    found = tuple(recognise(path) for path in wanted.archives)
    if not found:
        raise DataError("no archive given", do="bevrepro data mount ARCHIVE... MOUNTPOINT")
    where = mountinfo.real(wanted.mountpoint)
    place.check(where)
    overlay = _overlay(wanted, where)
    if overlay is not None:
        found = (*found, Archive(overlay, "folder", 0, 0))
    missing = ("--in-process was given",) if wanted.in_process else fuse.missing()
    if missing:
        return Plan(where, found, remembered.IN_PROCESS, missing, (), overlay)
    machine = machine or Machine(host=probe_host(), fuse=probe_fuse() if wanted.allow_other else Fuse())
    _check_others(wanted, machine)
    stale = [archive for archive in found if not index.is_fresh(archive)]
    commands = [index.command(archive) for archive in stale]
    commands.append(_command(found, where, wanted.allow_other))
    listed = tuple(tuple(command) for command in commands)
    judgement = _judge(found, stale, machine)
    return Plan(where, found, remembered.FUSE, (), listed, overlay, wanted.allow_other, judgement)


def _overlay(wanted: Wanted, where: Path) -> Path | None:
    """Its real path. It may be missing, and is then made; inside the mount point it would be hidden."""
    if wanted.overlay is None:
        return None
    overlay = Path(os.path.realpath(wanted.overlay))
    if overlay.exists() and not overlay.is_dir():
        raise MountError(f"the overlay {overlay} is not a folder", do="Name a folder, or none.")
    if overlay == where or where in overlay.parents or overlay in where.parents:
        raise MountError(
            f"the overlay {overlay} and the mount point {where} lie in one another",
            "What is in the overlay could not be reached any more.",
            "Name a folder beside the mount point.",
        )
    return overlay


def _check_others(wanted: Wanted, machine: Machine) -> None:
    if wanted.allow_other and machine.host.root is False and machine.fuse.allow_other is False:
        raise MountError(
            "--allow-other is not allowed to ordinary users here",
            "/etc/fuse.conf has no line user_allow_other.",
            "As root: echo user_allow_other >> /etc/fuse.conf   or mount without it",
        )


def _judge(archives: Sequence[Archive], stale: Sequence[Archive], machine: Machine) -> preflight.Judgement:
    tasks = [task for archive in stale if (task := preflight.task(archive, preflight.MOUNT))]
    around = room.look(stale)
    wanted = preflight.forecast(tasks, archives, around.read_b_per_s)
    return preflight.judge(machine, wanted, around, mounting=True)


def mount(plan: Plan, say: Say) -> Plan:
    """Carry it out; what is returned says what became of it. `say` is told each step that takes time.

    Where mounting is refused after all, the archives are remembered for the in-process reader instead.
    Interrupted or failed, the mount and a folder made for it are gone again.
    """
    if plan.judgement.refusal is not None:
        raise plan.judgement.refusal
    if plan.overlay is not None:
        _make_overlay(plan.overlay)
    if plan.mode == remembered.FUSE:
        try:
            _index(plan.archives, say)
            with remembered.alone_at(plan.mountpoint):
                _mount_fuse(plan, say)
        except proof.Refused as error:
            plan = replace(plan, mode=remembered.IN_PROCESS, missing=(error.seen + _hint(probe_host()),))
        except index.NoFuseLibrary as error:
            plan = replace(plan, mode=remembered.IN_PROCESS, missing=(error.seen,))
    if plan.mode == remembered.IN_PROCESS:
        remembered.add(_memory(plan, made_folder=False))
    return plan


def _hint(host: Host) -> str:
    """What else forbids mounting in a container cannot be seen from inside."""
    if not host.container:
        return ""
    return f" ({UNCONFINED}; its seccomp profile has to allow mount, too)"


def _make_overlay(overlay: Path) -> None:
    try:
        overlay.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(
            f"cannot make the overlay {overlay}: {error.strerror}", do="Name a folder of yours."
        ) from error


def _index(archives: Sequence[Archive], say: Say) -> None:
    for number, archive in enumerate(archives, 1):
        name = archive.path.name
        if not index.is_fresh(archive):
            say(f"indexing {name} ({number} of {len(archives)})")
        index.ensure(archive, partial(say, f"{name}: another command indexes it, waiting for that"))
        links.check(archive)


def _mount_fuse(plan: Plan, say: Say) -> None:
    """Raises proof.Refused where the system does not allow it; leaves nothing behind on any error."""
    where = plan.mountpoint
    place.check(where)  # again: another command may have been here while the archives were indexed
    if place.is_dead_mount(where):
        say(f"removing the dead mount at {where}")
        unmount.detach(where, dead=True)
    before = remembered.get(where)
    made_folder = place.make(where) or (before is not None and before.made_folder)
    try:
        proof.verify(where, plan.archives, proc.run(plan.commands[-1], env=index.environment()))
        remembered.add(_memory(plan, made_folder))
    except BaseException:  # Ctrl-C too
        place.undo(where, made_folder)
        raise


def _command(archives: Sequence[Archive], where: Path, allow_other: bool) -> list[str]:
    flags = [*index.BOUNDED, "--index-folders", json.dumps([str(index.index_folder())])]
    live = any(archive.kind == "folder" for archive in archives)
    options = [*OPTIONS, *(LIVE if live else FIXED), *(["allow_other"] if allow_other else [])]
    sources = [str(archive.path) for archive in archives]
    return [str(index.ratarmount()), *flags, "-o", ",".join(options), *sources, str(where)]


def _memory(plan: Plan, made_folder: bool) -> remembered.Remembered:
    return remembered.Remembered(
        mountpoint=str(plan.mountpoint),
        archives=tuple(str(archive.path) for archive in plan.archives),
        mode=plan.mode,
        since=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        made_folder=made_folder,
        stamps=tuple((archive.size_bytes, archive.mtime_ns) for archive in plan.archives),
        overlay=str(plan.overlay) if plan.overlay else None,
        allow_other=plan.allow_other,
    )
