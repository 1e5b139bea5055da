"""Operating system, memory, disks and limits, from /proc, /sys and statvfs."""

import os
import platform
import re
import resource
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bevrepro.core.machine import Disk, Host
from bevrepro.probe import cgroup
from bevrepro.probe.files import globbed, integer, key_values, read_text
from bevrepro.probe.libraries import has_library, shadowing
from bevrepro.probe.network import own_addresses, ports_in_use, proxies

# Recorded where set; nothing else of the environment leaves the machine.
VARIABLES = (
    "CONDA_PREFIX",
    "CUDA_HOME",
    "CUDA_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDAHOSTCXX",
    "FUSE_LIBRARY_PATH",
    "HCCL_IF_IP",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "MASTER_PORT",
    "OMP_NUM_THREADS",
    "PYTHONHOME",
    "PYTHONNOUSERSITE",
    "PORT",
    "PYTHONPATH",
    "RANK",
    "TMPDIR",
    "TORCH_CUDA_ARCH_LIST",
    "TORCH_DEVICE_BACKEND_AUTOLOAD",
    "VIRTUAL_ENV",
    "WORLD_SIZE",
)
CAP_SYS_ADMIN = 21  # linux/capability.h: what mount(2) asks for


def probe_host(root: Path = Path("/"), environment: Mapping[str, str] | None = None) -> Host:
    """Everything about this host; `root` is another folder in tests."""
    environment = os.environ if environment is None else environment
    memory = parse_meminfo(read_text(root / "proc/meminfo"))
    uname = platform.uname()
    kernel = (read_text(root / "proc/sys/kernel/osrelease") or uname.release).strip()
    libc, libc_version = _libc()
    shm_total_b, shm_free_b = _space(root / "dev/shm")
    return Host(
        system=uname.system or None,
        kernel=kernel or None,
        arch=uname.machine or None,
        distribution=_distribution(root),
        libc=libc,
        libc_version=libc_version,
        wsl=wsl_version(kernel, read_text(root / "proc/version")),
        container=_container(root),
        root=os.geteuid() == 0,
        may_mount=_may_mount(read_text(root / "proc/self/status"), os.geteuid() == 0),
        memory_total_b=memory.get("MemTotal"),
        memory_available_b=memory.get("MemAvailable"),
        memory_limit_b=cgroup.memory_limit_b(root),
        memory_room_b=cgroup.memory_room_b(root),
        swap_total_b=memory.get("SwapTotal"),
        swap_free_b=memory.get("SwapFree"),
        shm_total_b=shm_total_b,
        shm_free_b=shm_free_b,
        open_files=_open_files(),
        disks=_disks(root),
        environment={name: environment[name] for name in VARIABLES if name in environment}
        | proxies(environment),
        ports_in_use=ports_in_use(root, environment),
        addresses=own_addresses(environment.get("HCCL_IF_IP")),
        shadowing=shadowing(environment.get("LD_LIBRARY_PATH")),
        has_libgl=has_library("libGL.so.1", root),
    )


def parse_meminfo(text: str | None) -> dict[str, int]:
    """/proc/meminfo in bytes; lines of another form are left out."""
    values = {}
    for name, value in key_values(text).items():
        kib = integer(value.removesuffix(" kB")) if value.endswith(" kB") else None
        if kib is not None:
            values[name] = kib * 1024
    return values


def wsl_version(kernel: str, version: str | None) -> int | None:
    """0, 1 or 2; None where the kernel's name cannot be read.

    WSL1 has no Linux kernel and reports `4.4.0-19041-Microsoft`; WSL2's is `...-microsoft-standard-WSL2`.
    A kernel of one's own in WSL2 may carry any name: /proc/version still says who built it, mostly.
    """
    if not kernel and version is None:
        return None
    if re.search(r"^4\.4\.0-\d+-Microsoft", kernel):
        return 1
    return 2 if re.search("microsoft|wsl2", f"{kernel} {version or ''}", re.IGNORECASE) else 0


def _distribution(root: Path) -> str | None:
    value = key_values(read_text(root / "etc/os-release"), "=").get("PRETTY_NAME")
    return value.strip("\"'") if value else None


def _libc() -> tuple[str | None, str | None]:
    try:
        answer = os.confstr("CS_GNU_LIBC_VERSION") or ""  # "glibc 2.36"
    except (OSError, ValueError):
        answer = ""
    name, _, version = answer.partition(" ")
    if version:
        return name, version
    return ("musl", None) if globbed(Path("/lib"), "ld-musl-*") else (None, None)


def _container(root: Path) -> str:
    """The kind of container, "" for none seen."""
    if os.path.exists(root / ".dockerenv"):
        return "docker"
    if os.path.exists(root / "run/.containerenv"):
        return "podman"
    groups = read_text(root / "proc/1/cgroup") or ""
    return next((name for name in ("docker", "kubepods", "lxc") if name in groups), "")


def _may_mount(status: str | None, root: bool) -> bool | None:
    # An ordinary user mounts through a set-uid helper, which gets no more than the bounding set.
    held = key_values(status).get("CapEff" if root else "CapBnd")
    bits = integer(held, 16)
    return None if bits is None else bool(bits >> CAP_SYS_ADMIN & 1)


def _open_files() -> int | None:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _space(path: Path) -> tuple[int | None, int | None]:
    try:
        usage = os.statvfs(path)
    except OSError:
        return None, None
    return usage.f_blocks * usage.f_frsize, usage.f_bavail * usage.f_frsize


def _disks(root: Path) -> tuple[Disk, ...]:
    """The folders bevrepro writes to; those on one file system are told once."""
    places = (("work", Path.cwd), ("home", Path.home), ("temporary", lambda: Path(tempfile.gettempdir())))
    mounts = read_text(root / "proc/self/mounts")
    disks: dict[int, Disk] = {}
    for role, find in places:
        try:
            path = find()
            device, usage = path.stat().st_dev, os.statvfs(path)
        except (OSError, RuntimeError):  # a deleted working folder, a user without a home
            continue
        if device in disks:
            continue
        disks[device] = Disk(
            role=role,
            path=str(path),
            filesystem=filesystem_of(path, mounts),
            total_b=usage.f_blocks * usage.f_frsize,
            free_b=usage.f_bavail * usage.f_frsize,
            inodes_total=usage.f_files,
            inodes_free=usage.f_favail,
            writable=os.access(path, os.W_OK) and not usage.f_flag & os.ST_RDONLY,
        )
    return tuple(disks.values())


def filesystem_of(path: Path, mounts: str | None) -> str | None:
    """The type of the file system that `path` lies on."""
    return mount_of(path, mounts)[1]


def mount_of(path: Path, mounts: str | None) -> tuple[str | None, str | None]:
    """(source, type) of the longest mount point above `path` (the last of equals: it hides the others)."""
    best = -1
    found: tuple[str | None, str | None] = (None, None)
    for line in (mounts or "").splitlines():
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), parts[1])
        if len(point) >= best and (point == "/" or f"{path}/".startswith(f"{point}/")):
            best, found = len(point), (parts[0], parts[2])
    return found


def is_character_device(path: Path) -> bool:
    """Whether a device node is there."""
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except OSError:
        return False
