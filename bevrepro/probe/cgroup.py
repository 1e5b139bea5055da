"""Limits of the control group that this process runs in, version 1 and 2."""

from pathlib import Path

from bevrepro.probe.files import integer, key_values, read_int, read_text

UNLIMITED_B = 1 << 60  # version 1 writes a number near 2**63 for "no limit"


def memory_limit_b(root: Path = Path("/")) -> int | None:
    """The tightest limit on the way up from our group; None where there is none."""
    files = [folder / "memory.max" for folder in _folders(root, "")]
    files += [folder / "memory.limit_in_bytes" for folder in _folders(root, "memory")]
    limits = [limit for limit in map(read_int, files) if limit is not None and 0 < limit < UNLIMITED_B]
    return min(limits, default=None)


def memory_room_b(root: Path = Path("/")) -> int | None:
    """What may still be taken before a limit on the way up is hit; None where there is no limit.

    Pages of files count as free: the kernel gives them up first.
    """
    rooms = [_room(folder, "memory.max", "memory.current", "") for folder in _folders(root, "")]
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
    rooms += [_room(folder, *names) for folder in _folders(root, "memory")]
    return min((room for room in rooms if room is not None), default=None)


def _room(folder: Path, limit_name: str, used_name: str, prefix: str) -> int | None:
    limit_b, used_b = read_int(folder / limit_name), read_int(folder / used_name)
    if limit_b is None or used_b is None or not 0 < limit_b < UNLIMITED_B:
        return None
    kept = key_values(read_text(folder / "memory.stat"), " ")
    files_b = sum(integer(kept.get(f"{prefix}{name}_file", "0")) or 0 for name in ("active", "inactive"))
    return max(0, limit_b - max(0, used_b - files_b))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPU time per wall time, in cores; None where it is not limited."""
    quotas = [_quota_v2(read_text(folder / "cpu.max")) for folder in _folders(root, "")]
    for folder in _folders(root, "cpu") + _folders(root, "cpu,cpuacct"):
        quota_us, period_us = read_int(folder / "cpu.cfs_quota_us"), read_int(folder / "cpu.cfs_period_us")
        quotas.append(_cores(quota_us, period_us))
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_v2(text: str | None) -> float | None:
    """`200000 100000` -> 2.0; `max 100000` -> None."""
    parts = (text or "").split()
    quota_us, period_us = map(integer, parts) if len(parts) == 2 else (None, None)
    return _cores(quota_us, period_us)


def _cores(quota_us: int | None, period_us: int | None) -> float | None:
    if quota_us is None or quota_us <= 0 or period_us is None or not 0 < period_us < UNLIMITED_B:
        return None
    return quota_us / period_us if quota_us < UNLIMITED_B else None


def _folders(root: Path, controller: str) -> list[Path]:
    """Our group's folder and all above it; "" is version 2's single hierarchy.

    In a container the path in /proc/self/cgroup may be the host's: the folder then does not exist and
    only the mount's own top, which is the container's group, answers.
    """
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3 and parts[1] == controller:
            top = root / "sys/fs/cgroup" / controller
            relative = Path(parts[2].lstrip("/"))
            return [top / step for step in (relative, *relative.parents)]
    return []
