"""What is known about a host: frozen values, written to and read from JSON.

Unknown is None, never a guess: a judgement says nothing about what it does not know. Sizes are bytes
(`_b`) unless the name says otherwise. `schema` grows when a field changes its meaning.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

SCHEMA = 1


@dataclass(frozen=True)
class Disk:
    """A file system, named for what bevrepro keeps there."""

    role: str  # "work", "home", "temporary"
    path: str
    filesystem: str | None = None  # "ext4", "9p", "overlay"
    total_b: int | None = None
    free_b: int | None = None  # what this user may still use
    inodes_total: int | None = None  # 0 where the file system has no such limit
    inodes_free: int | None = None
    writable: bool | None = None


@dataclass(frozen=True)
class LibStdCxx:
    """The C++ library that the target interpreter would load."""

    path: str
    glibcxx: str | None = None  # the newest version it offers: "3.4.30"
    cxxabi: str | None = None


@dataclass(frozen=True)
class Host:
    """Operating system, memory, disks and limits."""

    system: str | None = None  # "Linux"
    kernel: str | None = None
    arch: str | None = None  # "x86_64"
    distribution: str | None = None  # PRETTY_NAME of /etc/os-release
    libc: str | None = None  # "glibc" or "musl"
    libc_version: str | None = None
    wsl: int | None = None  # 0 (none), 1 or 2
    container: str | None = None  # "" (none), "docker", "podman", ...
    root: bool | None = None
    may_mount: bool | None = None  # CAP_SYS_ADMIN: held by root, for others left in the bounding set
    memory_total_b: int | None = None
    memory_available_b: int | None = None
    memory_limit_b: int | None = None  # of the control group; None where there is none
    memory_room_b: int | None = None  # what of that limit is still free
    swap_total_b: int | None = None
    swap_free_b: int | None = None
    shm_total_b: int | None = None
    shm_free_b: int | None = None
    open_files: int | None = None  # soft limit
    disks: tuple[Disk, ...] | None = None
    environment: Mapping[str, str] | None = None  # the variables listed in probe/host.py; absent = unset
    ports_in_use: tuple[int, ...] | None = None  # of those that launchers take: a server listens there
    addresses: tuple[str, ...] | None = None  # which of the addresses named in HCCL_IF_IP are this host's
    shadowing: tuple[str, ...] | None = None  # libraries on LD_LIBRARY_PATH that torch brings along, too
    has_libgl: bool | None = None  # libGL.so.1, which opencv-python needs
    libstdcxx: LibStdCxx | None = None

    def variable(self, name: str) -> str | None:
        """A recorded environment variable; None where unset, empty or unknown."""
        return (self.environment or {}).get(name) or None


@dataclass(frozen=True)
class Cpu:
    """Processor and how much of it this process may use."""

    model: str | None = None
    flags: tuple[str, ...] | None = None
    cores: int | None = None  # logical
    cores_allowed: int | None = None  # by affinity
    quota: float | None = None  # of the control group, in cores; None where there is none


@dataclass(frozen=True)
class GpuProcess:
    """A program that holds memory of a GPU."""

    pid: int
    memory_mib: int | None = None
    name: str | None = None  # without its folder
    own: bool | None = None  # this user's


@dataclass(frozen=True)
class Gpu:
    """One line of nvidia-smi."""

    name: str
    memory_total_mib: int | None = None
    memory_free_mib: int | None = None
    capability: str | None = None  # "8.0"
    bus_id: str | None = None
    pci_path: bool | None = None  # whether /sys/class/pci_bus leads to it, as NCCL looks it up
    processes: tuple[GpuProcess, ...] | None = None  # asked only where much of its memory is taken


@dataclass(frozen=True)
class Toolkit:
    """The CUDA toolkit that torch's extension builder would take."""

    home: str
    source: str  # "CUDA_HOME", "CUDA_PATH", "PATH" or "default"
    exists: bool | None = None
    nvcc: str | None = None  # its path, None where that folder has none
    version: str | None = None  # "12.4"
    max_gcc: int | None = None  # from its own host_config.h
    headers: bool | None = None  # cusparse.h is there: more than nvcc alone
    real_path: str | None = None  # where `home` leads, when it is a symbolic link


@dataclass(frozen=True)
class Cuda:
    """GPUs, driver, toolkit and host compiler."""

    nvidia_smi: str | None = None  # "absent", "ok", "failed", "hung" or "garbage"
    nvidia_smi_said: str | None = None  # first lines of what a broken one printed
    driver: str | None = None  # "550.54.14"
    gpus: tuple[Gpu, ...] | None = None
    toolkit: Toolkit | None = None  # None: none found (or unknown, where `toolkit_searched` is not True)
    toolkit_searched: bool | None = None
    gcc: str | None = None  # version of the compiler nvcc would use
    gcc_path: str | None = None


@dataclass(frozen=True)
class Fuse:
    """What mounting an archive needs."""

    device: str | None = None  # "ok", "absent", "forbidden"
    libraries: tuple[str, ...] | None = None  # file names: "libfuse.so.2", "libfuse3.so.3"
    helpers: tuple[str, ...] | None = None  # "fusermount", "fusermount3"
    helper_set_uid: bool | None = None  # the first of them runs as root, whoever starts it
    no_new_privileges: bool | None = None  # no program gains rights by being started, so no helper works
    apparmor: str | None = None  # this process's profile where it is enforced: "docker-default"
    allow_other: bool | None = None  # /etc/fuse.conf lets ordinary users show mounts to others


@dataclass(frozen=True)
class Package:
    """One installed distribution, in the order of sys.path: the first of a name is the one imported."""

    name: str  # normalised: lower case, "-"
    version: str
    location: str  # the sys.path entry it lies in


@dataclass(frozen=True)
class Compiled:
    """What compiled libraries say of themselves, read as files."""

    name: str  # "torch", "mmcv/_ext.cpython-38-x86_64-linux-gnu.so"
    architectures: tuple[str, ...] | None = None  # ("3.7", "8.0"); () where there is no code for GPUs
    ptx: tuple[str, ...] | None = None
    gpu_code_b: int | None = None
    missing: tuple[str, ...] | None = None  # needed libraries that are nowhere: "libcudart.so.10.2"
    undefined: tuple[str, ...] | None = None  # torch's symbols that this torch lacks, a few of them
    undefined_count: int | None = None
    glibcxx: str | None = None  # the newest version that is asked for
    cxxabi: str | None = None
    glibc: str | None = None
    error: str | None = None  # why it could not be read


@dataclass(frozen=True)
class Torch:
    """torch in the target interpreter: from its files, and where asked for from a child that imports it."""

    version: str | None = None
    cuda: str | None = None  # "" for a build without CUDA
    tried: bool = False  # a child imported it; the fields below are only then known
    child_rc: int | None = None  # negative: died of that signal
    imports: bool | None = None
    computes: bool | None = None  # a matrix product and a convolution
    error: str | None = None
    cuda_available: bool | None = None
    gpu_count: int | None = None
    cpu_capability: str | None = None  # "AVX2"
    compiled: Compiled | None = None  # its libraries together
    deleted: tuple[str, ...] | None = None  # libraries that its RECORD lists and that are gone
    nccl: str | None = None  # "2.10.3", from the library file


@dataclass(frozen=True)
class Python:
    """The target interpreter, where the model plane runs."""

    executable: str | None = None
    version: str | None = None
    implementation: str | None = None
    prefix: str | None = None
    isolated: bool | None = None  # a venv or conda environment
    user_site: str | None = None  # its folder, where it is on sys.path; "" where it is not
    packages: tuple[Package, ...] | None = None
    built: Mapping[str, str] | None = None  # package -> version, as `bevrepro env build` left and tested them
    torch: Torch | None = None  # None: not installed (or unknown, where `packages` is None)
    extensions: tuple[Compiled, ...] | None = None  # of mmcv, mmdet3d, torchvision
    libgomp: tuple[str, ...] | None = None  # copies inside packages, looked for on aarch64 only
    error: str | None = None  # why the interpreter could not be asked

    def package(self, name: str) -> Package | None:
        """The first installed distribution of that normalised name."""
        return next((package for package in self.packages or () if package.name == name), None)


@dataclass(frozen=True)
class Npu:
    """One device of `npu-smi info`."""

    name: str  # "910B3"
    health: str | None = None  # "OK"
    processes: tuple[int, ...] | None = None  # process ids that npu-smi lists on it


@dataclass(frozen=True)
class Ascend:
    """NPUs, driver and CANN."""

    npu_smi: str | None = None  # "absent", "ok", "failed", "hung" or "garbage"
    npu_smi_said: str | None = None
    driver: str | None = None  # "25.0.rc1.1"
    npus: tuple[Npu, ...] | None = None
    toolkit: str | None = None  # folder of CANN; None: none found (or unknown, where npu_smi is None)
    cann: str | None = None  # "8.2.RC1"


@dataclass(frozen=True)
class Machine:
    """One host as the doctor sees it."""

    schema: int = SCHEMA
    bevrepro: str | None = None  # version that recorded it
    recorded: str | None = None  # date, UTC
    host: Host = field(default_factory=Host)
    cpu: Cpu = field(default_factory=Cpu)
    cuda: Cuda = field(default_factory=Cuda)
    fuse: Fuse = field(default_factory=Fuse)
    python: Python = field(default_factory=Python)
    ascend: Ascend = field(default_factory=Ascend)
    trouble: tuple[str, ...] = ()  # probes that failed: "cuda: ValueError: ..."
