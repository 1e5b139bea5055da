"""What bevrepro knows of a mount point, as the doctor is told by the room that keeps it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MountSeen:
    """state: `mounted`, `dead`, `stuck`, `gone` or `in-process`, as `bevrepro data status` says it."""

    mountpoint: str
    state: str
    missing_archives: tuple[str, ...] = ()
    changed_archives: tuple[str, ...] = ()
