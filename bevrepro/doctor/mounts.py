"""A data root that is a mount of ours: whether its program lives, and its archives are the same as then."""

import shlex
from collections.abc import Iterator

from bevrepro.doctor.check import Check, Verdict, fail, info
from bevrepro.probe.mounts import MountSeen
from bevrepro.probe.nuscenes import DataSet

INSTEAD = "Training reads the archives meanwhile."


def _state(data: DataSet) -> Iterator[Verdict]:
    if data.mount is None:
        return
    place = data.mount.mountpoint
    again = f"bevrepro data mount {shlex.quote(place)}"
    if data.mount.state == "dead":
        yield fail(f"the program behind the mount at {place} has died",
                   f"Mount it again as it was. {INSTEAD}", again)  # fmt: skip
    elif data.mount.state == "stuck":
        yield fail(f"the program behind the mount at {place} does not answer",
                   "It is stopped, or its disk does not answer. Take it away and mount it again.",
                   f"bevrepro data umount {shlex.quote(place)}")  # fmt: skip
    elif data.mount.state == "gone":
        yield info(f"{place} is remembered as a mount and is not mounted, as after a reboot",
                   f"Mount it again as it was. {INSTEAD}", again)  # fmt: skip


def _archives(data: DataSet) -> Iterator[Verdict]:
    if data.mount is None:
        return
    missing, changed = data.mount.missing_archives, data.mount.changed_archives
    if missing:
        until = "; what is mounted shows it until it ends" if data.mount.state == "mounted" else ""
        yield fail(f"{_named(missing)} of the mount {data.mount.mountpoint} is gone{until}", "Put it back.")
    if changed:
        yield fail(f"{_named(changed)} changed after it was mounted at {data.mount.mountpoint}",
                   "Mount it anew; a mount reads the new file by the old one's index.",
                   *_anew(data.mount))  # fmt: skip


def _named(archives: tuple[str, ...]) -> str:
    return archives[0] + (f" (and {len(archives) - 1} more)" if len(archives) > 1 else "")


def _anew(mount: MountSeen) -> tuple[str, ...]:
    place = shlex.quote(mount.mountpoint)
    return (f"bevrepro data umount {place}", f"bevrepro data mount ARCHIVE... {place}")


CHECKS = (
    Check("mount-lost", "data", "whether a mount of bevrepro is alive",
          "Every read gives errno 107, or none ever returns.", _state),
    Check("mount-archives", "data", "whether a mount's archives are there and unchanged",
          "A mount reads a changed archive by its old index: other files' bytes, without any message.",
          _archives),
)  # fmt: skip
