"""Whether archives can be mounted. Nothing here fails: the in-process reader reads the same archives."""

from collections.abc import Iterator

from bevrepro.core.machine import Machine
from bevrepro.doctor.check import Check, Verdict, info, warn

INSTEAD = "Until then --data-root takes the archives themselves."


def _device(machine: Machine) -> Iterator[Verdict]:
    state, container = machine.fuse.device, machine.host.container
    if state == "absent":
        seen = "no /dev/fuse"
    elif state == "forbidden":
        seen = "/dev/fuse is there, but may not be opened"
    else:
        return
    if container:
        yield warn(
            f"{seen} in this container ({container})",
            f"Start it with --device /dev/fuse --cap-add SYS_ADMIN. {INSTEAD}",
        )
    else:
        yield warn(seen, f"Load the kernel module. {INSTEAD}", "sudo modprobe fuse")


def _library(machine: Machine) -> Iterator[Verdict]:
    if machine.fuse.libraries == ():
        yield warn(
            "no FUSE library (libfuse.so.2 or libfuse3.so.3)",
            f"Install it: Debian and Ubuntu, or Fedora. {INSTEAD}",
            "sudo apt install fuse3 libfuse3-3",
            "sudo dnf install fuse3-libs fuse3",
        )


def _helper(machine: Machine) -> Iterator[Verdict]:
    if machine.host.root is False and machine.fuse.helpers == ():
        yield warn(
            "no fusermount or fusermount3 on PATH",
            f"Install it. {INSTEAD}",
            "sudo apt install fuse3",
        )


def _capability(machine: Machine) -> Iterator[Verdict]:
    if machine.host.may_mount is False and machine.fuse.device == "ok":
        yield warn(
            f"no right to mount here (CAP_SYS_ADMIN){' in a container' if machine.host.container else ''}",
            f"Start the container with --cap-add SYS_ADMIN --device /dev/fuse. {INSTEAD}",
        )


def _override(machine: Machine) -> Iterator[Verdict]:
    path = machine.host.variable("FUSE_LIBRARY_PATH")
    if path and machine.fuse.libraries:
        yield info(f"FUSE_LIBRARY_PATH={path} decides which library is used")


CHECKS = (
    Check("fuse-device", "fuse", "/dev/fuse", "Archives cannot be mounted.", _device,
          ("https://github.com/mxmlnkn/ratarmount",)),
    Check("fuse-library", "fuse", "the FUSE library", "ratarmount cannot load FUSE.", _library),
    Check("fuse-helper", "fuse", "fusermount", "Ordinary users mount through it.", _helper),
    Check("fuse-capability", "fuse", "the right to mount", "Mounting ends in 'Operation not permitted'.",
          _capability),
    Check("fuse-override", "fuse", "FUSE_LIBRARY_PATH", "Another library than the system's is loaded.",
          _override),
)  # fmt: skip
