"""Whether archives can be mounted. Nothing here fails: the in-process reader reads the same archives."""

from collections.abc import Iterator
from functools import partial

from bevrepro.core.machine import Machine
from bevrepro.doctor.check import Check, Verdict, info, warn
from bevrepro.probe.fuse import lacks

INSTEAD = "Until then --data-root takes the archives themselves."


def _lacking(id: str, machine: Machine) -> Iterator[Verdict]:
    for lack in lacks(machine.fuse, machine.host):
        if lack.id == id:
            yield warn(lack.seen, f"{lack.remedy[0].upper()}{lack.remedy[1:]}. {INSTEAD}", *lack.commands)


_device = partial(_lacking, "fuse-device")
_library = partial(_lacking, "fuse-library")
_helper = partial(_lacking, "fuse-helper")


def _capability(machine: Machine) -> Iterator[Verdict]:
    if machine.fuse.device == "ok":  # without the device, rights are the second question
        yield from _lacking("fuse-capability", machine)


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
