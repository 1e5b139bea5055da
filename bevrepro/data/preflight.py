"""What indexing and mounting will take, and whether this machine has it, before anything starts.

Pure: archives and a Machine in, a forecast and a judgement out. The numbers are measured ones
(facts/indexing.toml); time counts the slower of the processor and the disk.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bevrepro import facts
from bevrepro.core.errors import DiskError, MachineError, UserError
from bevrepro.core.machine import Machine
from bevrepro.core.units import size
from bevrepro.data.archives import Archive

MB = 1_000_000
MOUNT = "mount"
READER = "reader"
NETWORK_LIKE = ("9p", "drvfs", "v9fs", "nfs", "nfs4", "cifs", "smb3", "fuse.sshfs")
WSLCONFIG = "%UserProfile%\\.wslconfig"


@dataclass(frozen=True)
class Task:
    """One pass over one archive by a process of its own. use: `mount` (ratarmount's index) or `reader`."""

    archive: Archive
    use: str
    memory_b: int
    cpu_s: float
    disk_b: int


@dataclass(frozen=True)
class Forecast:
    """memory_b: peak of the whole command, however many archives. disk_b: what stays in the cache."""

    tasks: tuple[Task, ...]
    memory_b: int
    disk_b: int
    time_s: float
    mount_memory_b: int

    def to_json(self) -> dict[str, Any]:
        return {
            "memory_bytes": self.memory_b,
            "disk_bytes": self.disk_b,
            "time_s": round(self.time_s, 1),
            "mount_memory_bytes": self.mount_memory_b,
        }


@dataclass(frozen=True)
class Room:
    """Around the work, probed by the caller. None where it is not known."""

    cache: Path
    cache_free_b: int | None = None
    read_b_per_s: float | None = None  # from the archive that lies on the slowest disk
    read_from: str = ""  # that archive's path
    filesystem: str | None = None


@dataclass(frozen=True)
class Judgement:
    """refusal: why it cannot work; notes: what will hurt."""

    refusal: UserError | None = None
    notes: tuple[str, ...] = field(default=())


def task(archive: Archive, use: str) -> Task | None:
    """What a pass would take; None where there is nothing to be done."""
    kind = archive.kind if use == MOUNT else f"reader-{archive.kind}"
    row = next((row for row in facts.table("indexing") if row["id"] == kind), None)
    if row is None:  # a folder or a zip; a tar's headers are read in seconds whenever it is opened
        return None
    gb = archive.size_bytes / 1e9
    memory_mb = row["memory_base_mb"] + gb * row["memory_mb_per_gb"]
    disk_b = gb * (row["disk_kb_per_gb"] * 1000 + row["files_per_gb"] * row["disk_b_per_file"])
    return Task(archive, use, int(memory_mb * MB), gb * row["cpu_s_per_gb"], int(disk_b))


def forecast(
    tasks: Sequence[Task], archives: Sequence[Archive], read_b_per_s: float | None = None
) -> Forecast:
    """`tasks` run one after another; `archives` are all that a mount would serve."""
    own_b = facts.row("indexing", "command")["memory_base_mb"] * MB
    time_s = 0.0
    for one in tasks:
        reading_s = (
            one.archive.size_bytes / read_b_per_s if read_b_per_s and one.archive.kind == "tgz" else 0.0
        )
        time_s += max(one.cpu_s, reading_s)
    return Forecast(
        tuple(tasks),
        own_b + max((one.memory_b for one in tasks), default=0),
        sum(one.disk_b for one in tasks),
        time_s,
        _mount_memory_b(archives),
    )


def _mount_memory_b(archives: Sequence[Archive]) -> int:
    row = facts.row("indexing", "mount")
    packed = [one for one in archives if one.kind == "tgz"]
    gb = sum(one.size_bytes for one in packed) / 1e9
    mb = row["memory_base_mb"] + len(packed) * row["memory_mb_per_archive"] + gb * row["memory_mb_per_gb"]
    return int(mb * MB)


def judge(machine: Machine, wanted: Forecast, room: Room, mounting: bool = False) -> Judgement:
    """Whether it can work here. What is unknown (None) does not stand in the way."""
    need_b = max(wanted.memory_b if wanted.tasks else 0, wanted.mount_memory_b if mounting else 0)
    has_b = memory_b(machine)
    if has_b is not None and has_b < need_b:
        return Judgement(_too_little_memory(machine, need_b, has_b))
    if room.cache_free_b is not None and room.cache_free_b < wanted.disk_b:
        return Judgement(_no_room(wanted.disk_b, room))
    notes = []
    if has_b is not None and has_b < 2 * need_b:
        notes.append(f"only {size(has_b)} of memory are free; about {size(need_b)} will be used")
    if wanted.tasks and room.read_b_per_s is not None:
        notes += _slow_disk(machine, room)
    return Judgement(notes=tuple(notes))


def memory_b(machine: Machine) -> int | None:
    """What a process may take now: the least of what is free and what the control group allows."""
    known = (machine.host.memory_available_b, _group_b(machine))
    return min((value for value in known if value is not None), default=None)


def _group_b(machine: Machine) -> int | None:
    """What the control group leaves; an older record knows the limit alone."""
    room_b = machine.host.memory_room_b
    return machine.host.memory_limit_b if room_b is None else room_b


def _too_little_memory(machine: Machine, need_b: int, has_b: int) -> MachineError:
    host, gb = machine.host, _gb(need_b)
    seen = f"this needs about {size(need_b)} of memory; "
    why = "The system would end the process in the middle, as it does with tools that index unbounded."
    if _group_b(machine) == has_b:
        gb = max(gb, _gb(((host.memory_limit_b or 0) + need_b) // 2))
        return MachineError(
            seen + f"this container or session may take {size(has_b)} more",
            why,
            f"Start it with more: docker run --memory {gb}g ..., or systemd's MemoryMax={gb}G",
        )
    seen += f"{size(has_b)} are left"
    if host.wsl == 2:
        gb = max(facts.row("indexing", "wsl2")["memory_gb"], gb)
        return MachineError(
            seen + (f" of {size(host.memory_total_b)} in WSL" if host.memory_total_b else " in WSL"),
            why,
            f"In {WSLCONFIG} under [wsl2] write the line memory={gb}GB, then in Windows: "
            "wsl.exe --shutdown   (or close programs in WSL first)",
        )
    return MachineError(seen, why, "Close programs, then run the same command again.")


def _gb(need_b: int) -> int:
    """Whole gigabytes, with as much again for everything else."""
    return max(1, -(-2 * need_b // (1000 * MB)))


def _no_room(need_b: int, room: Room) -> DiskError:
    return DiskError(
        f"indexes take up to {size(need_b)} in {room.cache}, where {size(room.cache_free_b or 0)} are free",
        "They are written nowhere else, and never beside the data.",
        "Free some space there or set BEVREPRO_CACHE to another folder, then run the same command again.",
    )


def _slow_disk(machine: Machine, room: Room) -> list[str]:
    limit_mb = facts.row("indexing", "slow-disk")["read_mb_per_s"]
    if room.read_b_per_s is None or room.read_b_per_s >= limit_mb * MB:
        return []
    where = f"{room.read_from} is read with {room.read_b_per_s / MB:.1f} MB/s"
    if machine.host.wsl and room.filesystem in NETWORK_LIKE:
        return [f"{where} through {room.filesystem}: copying it to WSL's own disk first is faster"]
    return [f"{where}: that disk decides how long this takes"]
