"""What a FUSE mount needs: the device, a library, the right, and for ordinary users a set-uid helper.

What is missing is worded once, in `lacks`: for the doctor's warnings, and for `data mount`'s reasons.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bevrepro.core import proc
from bevrepro.core.errors import MachineError
from bevrepro.core.machine import Fuse, Host
from bevrepro.probe.files import globbed, key_values, read_text
from bevrepro.probe.host import is_character_device

HELPERS = ("fusermount3", "fusermount")
LIBRARY = re.compile(r"libfuse3?\.so\.\d+")
LIBRARY_DIRS = ("lib", "lib64", "usr/lib", "usr/lib64", "usr/local/lib")


def probe_fuse(root: Path = Path("/"), environment: Mapping[str, str] | None = None) -> Fuse:
    """Without mounting anything."""
    environment = os.environ if environment is None else environment
    helpers = {name: path for name in HELPERS if (path := proc.which(name))}
    status = key_values(read_text(root / "proc/self/status"))
    return Fuse(
        device=_device(root / "dev/fuse"),
        libraries=_libraries(root, environment.get("FUSE_LIBRARY_PATH")),
        helpers=tuple(helpers),
        helper_set_uid=_is_set_uid(next(iter(helpers.values()))) if helpers else None,
        no_new_privileges={"0": False, "1": True}.get(status.get("NoNewPrivs", "")),
        apparmor=_apparmor(read_text(root / "proc/self/attr/current")),
        allow_other=_allows_others(read_text(root / "etc/fuse.conf")),
    )


def _is_set_uid(path: Path) -> bool | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return bool(found.st_mode & stat.S_ISUID) and found.st_uid == 0


def _apparmor(current: str | None) -> str | None:
    """`docker-default (enforce)` -> `docker-default`; None where nothing is enforced."""
    name, found, _ = (current or "").strip("\0\n").partition(" (enforce)")
    return name if found else None


def _allows_others(text: str | None) -> bool:
    return any(line.strip() == "user_allow_other" for line in (text or "").splitlines())


def _device(path: Path) -> str:
    if not is_character_device(path):
        return "absent"
    try:
        # A container's device filter refuses at open, whatever the file's mode says.
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return "forbidden"
    return "ok"


def _libraries(root: Path, override: str | None) -> tuple[str, ...]:
    """As ratarmount's binding looks for them: FUSE_LIBRARY_PATH, else the linker's cache."""
    if override:
        return (Path(override).name,) if os.path.isfile(override) else ()
    names = parse_ldconfig(_ldconfig()) if root == Path("/") else set()
    if not names:  # no ldconfig (musl) or an empty cache
        names = {
            path.name
            for folder in LIBRARY_DIRS
            for pattern in ("libfuse*.so.*", "*-linux-gnu/libfuse*.so.*")
            for path in globbed(root / folder, pattern)
            if LIBRARY.fullmatch(path.name)
        }
    return tuple(sorted(names))


def parse_ldconfig(text: str) -> set[str]:
    """The FUSE libraries in the output of `ldconfig -p`."""
    return {line.split()[0] for line in text.splitlines() if LIBRARY.match(line.strip())}


def _ldconfig() -> str:
    program = proc.which("ldconfig") or next(
        (path for path in (Path("/sbin/ldconfig"), Path("/usr/sbin/ldconfig")) if path.exists()), None
    )
    if program is None:
        return ""
    try:
        return proc.run([program, "-p"], timeout_s=5.0).stdout
    except MachineError:
        return ""


CONTAINER = "start the container with --device /dev/fuse --cap-add SYS_ADMIN"
UNCONFINED = f"{CONTAINER} --security-opt apparmor=unconfined"
DENYING = (
    "docker-default",
    "containers-default",
    "crio-default",
    "cri-containerd.apparmor.d",
)  # "deny mount"
INSTALL = ("sudo apt install fuse3 libfuse3-3", "sudo dnf install fuse3-libs fuse3")


@dataclass(frozen=True)
class Lack:
    """One thing that keeps a mount from being made. `id` is that of the doctor's check."""

    id: str
    seen: str
    remedy: str
    commands: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        return f"{self.seen} ({'; or '.join([self.remedy, *self.commands[:1]])})"


def lacks(fuse: Fuse, host: Host) -> tuple[Lack, ...]:
    """Pure. What is unknown (None) does not stand in the way: the mount itself will say."""
    return (*_device_lacks(fuse, host), *_library_lacks(fuse), *_right_lacks(fuse, host))


def _device_lacks(fuse: Fuse, host: Host) -> Iterator[Lack]:
    if fuse.device not in ("absent", "forbidden"):
        return
    seen = "no /dev/fuse" if fuse.device == "absent" else "/dev/fuse is there, but may not be opened"
    if host.container:
        yield Lack("fuse-device", f"{seen} in this container ({host.container})", CONTAINER)
    elif host.wsl == 1:
        yield Lack(
            "fuse-device", f"{seen}: WSL1 has no FUSE", "use WSL2", ("wsl.exe --set-version Ubuntu 2",)
        )
    elif fuse.device == "forbidden":
        yield Lack("fuse-device", seen, "let users open it", ("sudo chmod 666 /dev/fuse",))
    else:
        yield Lack("fuse-device", seen, "load the kernel module", ("sudo modprobe fuse",))


def _library_lacks(fuse: Fuse) -> Iterator[Lack]:
    if fuse.libraries == ():
        seen = "no FUSE library (libfuse.so.2 or libfuse3.so.3)"
        yield Lack("fuse-library", seen, "install it: Debian and Ubuntu, or Fedora", INSTALL)


def _right_lacks(fuse: Fuse, host: Host) -> Iterator[Lack]:
    if host.may_mount is False:
        where = " in a container" if host.container else ""
        yield Lack("fuse-capability", f"no right to mount here (CAP_SYS_ADMIN){where}", CONTAINER)
    elif fuse.apparmor is not None and fuse.apparmor.startswith(DENYING):
        yield Lack("fuse-capability", f"AppArmor's profile {fuse.apparmor} forbids mounting", UNCONFINED)
    if host.root is not False:
        return
    if fuse.helpers == ():
        yield Lack("fuse-helper", "no fusermount or fusermount3 on PATH", "install it", INSTALL)
    elif fuse.no_new_privileges:
        seen = "fusermount gains no rights here (no_new_privs is set)"
        yield Lack("fuse-helper", seen, "start the container without --security-opt no-new-privileges")
    elif fuse.helper_set_uid is False:
        seen = "the fusermount on PATH is not root's set-uid program"
        yield Lack("fuse-helper", seen, "put the system's first on PATH, or install it", INSTALL)
