"""What a FUSE mount needs: the device, a library, and for ordinary users a set-uid helper."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from bevrepro.core import proc
from bevrepro.core.errors import MachineError
from bevrepro.core.machine import Fuse
from bevrepro.probe.files import globbed
from bevrepro.probe.host import is_character_device

HELPERS = ("fusermount3", "fusermount")
LIBRARY = re.compile(r"libfuse3?\.so\.\d+")
LIBRARY_DIRS = ("lib", "lib64", "usr/lib", "usr/lib64", "usr/local/lib")


def probe_fuse(root: Path = Path("/"), environment: Mapping[str, str] | None = None) -> Fuse:
    """Without mounting anything."""
    environment = os.environ if environment is None else environment
    return Fuse(
        device=_device(root / "dev/fuse"),
        libraries=_libraries(root, environment.get("FUSE_LIBRARY_PATH")),
        helpers=tuple(name for name in HELPERS if proc.which(name)),
    )


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
