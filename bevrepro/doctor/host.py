"""Operating system, memory, disks and limits."""

from collections.abc import Iterator

from bevrepro import facts
from bevrepro.core.machine import Host, Machine
from bevrepro.core.units import GIB, MIB, size
from bevrepro.doctor.check import Check, Verdict, fail, info, issue, warn
from bevrepro.doctor.versions import kernel_older, older

WSL_CONFIG = "https://learn.microsoft.com/en-us/windows/wsl/wsl-config"
WINDOWS_FILESYSTEMS = ("9p", "drvfs", "v9fs")


def usable_memory_b(host: Host) -> int | None:
    """What this process may use at most: the machine's memory or the control group's limit."""
    known = [value for value in (host.memory_total_b, host.memory_limit_b) if value is not None]
    return min(known, default=None)


def _system(machine: Machine) -> Iterator[Verdict]:
    system = machine.host.system
    if system is not None and system != "Linux":
        yield fail(f"the operating system is {system}", "Use Linux, or Windows with WSL2.", "wsl --install")


def _wsl1(machine: Machine) -> Iterator[Verdict]:
    if machine.host.wsl == 1:
        yield fail(
            f"WSL version 1 (kernel {machine.host.kernel})",
            "Convert the distribution to WSL2, from Windows.",
            "wsl.exe --list --verbose",
            "wsl.exe --set-version <distribution> 2",
        )


def _wsl_kernel(machine: Machine) -> Iterator[Verdict]:
    oldest, kernel = facts.row("needs", "wsl-kernel")["oldest"], machine.host.kernel
    if machine.host.wsl == 2 and kernel_older(kernel, oldest):
        yield warn(
            f"WSL2's kernel is {kernel}; CUDA in WSL2 asks for {oldest} or newer",
            "Update WSL, from Windows; a kernel of your own in .wslconfig has to be built anew.",
            "wsl.exe --update",
            "wsl.exe --shutdown",
        )


def _libc(machine: Machine) -> Iterator[Verdict]:
    oldest = facts.row("needs", "glibc")["oldest"]
    host = machine.host
    if host.libc == "musl":
        yield fail("the C library is musl", "Use a distribution with glibc (Debian, Ubuntu, Fedora ...).")
    elif host.libc == "glibc" and older(host.libc_version, oldest):
        yield fail(
            f"glibc {host.libc_version}, older than {oldest}",
            "Use a newer distribution or a container image, or a target with an older torch.",
        )


def _arch(machine: Machine) -> Iterator[Verdict]:
    arch = machine.host.arch
    if arch is not None and arch not in ("x86_64", "AMD64"):
        yield info(f"the processor's architecture is {arch}", "Install the packages unhashed, by name.")


def _memory(machine: Machine) -> Iterator[Verdict]:
    need_b = facts.row("needs", "demo-memory")["gib"] * GIB
    host = machine.host
    usable_b, swap_b = usable_memory_b(host), host.swap_total_b or 0
    if usable_b is None:
        return
    limited = host.memory_limit_b is not None and host.memory_limit_b == usable_b
    whose = "the control group (container) allows" if limited else "the machine has"
    advice = "Give the container more (docker run --memory)." if limited else "Add memory or swap."
    if usable_b + swap_b < need_b:
        yield fail(f"{whose} {size(usable_b)} of memory and {size(swap_b)} of swap", advice)
    elif host.memory_available_b is not None:
        free_b = min(host.memory_available_b, usable_b) + (host.swap_free_b or 0)
        if free_b < need_b:
            yield warn(f"{size(free_b)} of memory and swap are free now", "End other programs first.")


def _wsl_memory(machine: Machine) -> Iterator[Verdict]:
    need_b = facts.row("needs", "wsl-memory")["gib"] * GIB
    total_b = machine.host.memory_total_b
    if machine.host.wsl == 2 and total_b is not None and total_b < need_b:
        yield warn(
            f"WSL2 has {size(total_b)} of memory (by default half of Windows')",
            "Write a [wsl2] section with memory= and swap= into %UserProfile%\\.wslconfig, then restart WSL.",
            "wsl.exe --shutdown",
            fixable=True,
        )


def _swap(machine: Machine) -> Iterator[Verdict]:
    need_b = facts.row("needs", "wsl-memory")["gib"] * GIB
    usable_b = usable_memory_b(machine.host)
    if machine.host.swap_total_b == 0 and usable_b is not None and usable_b < need_b:
        yield info(f"no swap beside {size(usable_b)} of memory", "A swap file softens peaks.")


def _disk(machine: Machine) -> Iterator[Verdict]:
    least_b, comfortable_b = (
        facts.row("needs", name)["gib"] * GIB for name in ("disk-least", "disk-comfortable")
    )
    for disk in machine.host.disks or ():
        if disk.free_b is None or disk.free_b >= comfortable_b:
            continue
        seen = f"{size(disk.free_b)} free on {disk.path} ({disk.role} folder)"
        if disk.role == "work" and disk.free_b < least_b:
            yield fail(seen, "Free some space, or work in a folder on another disk.", f"df -h {disk.path}")
        elif disk.role == "work" or disk.free_b < least_b:
            yield warn(seen, "Free some space before training or building.", f"df -h {disk.path}")


def _inodes(machine: Machine) -> Iterator[Verdict]:
    need = facts.row("needs", "inodes")["count"]
    for disk in machine.host.disks or ():
        if disk.inodes_total and disk.inodes_free is not None and disk.inodes_free < need:
            yield warn(
                f"{disk.inodes_free} inodes free on {disk.path}: room for bytes, not for files",
                "Remove folders of many small files; mount archives instead of extracting them.",
                f"df -i {disk.path}",
            )


def _read_only(machine: Machine) -> Iterator[Verdict]:
    for disk in machine.host.disks or ():
        if disk.writable is False and disk.role == "work":
            yield warn(f"{disk.path} cannot be written", "Work in a folder of your own.")


def _windows_drive(machine: Machine) -> Iterator[Verdict]:
    for disk in machine.host.disks or ():
        if machine.host.wsl and disk.filesystem in WINDOWS_FILESYSTEMS:
            yield warn(
                f"{disk.path} is a Windows drive ({disk.filesystem})",
                "Work and keep data inside WSL's own disk, or leave the archives there and mount them.",
            )


def _shm(machine: Machine) -> Iterator[Verdict]:
    need_b = facts.row("needs", "shm")["mib"] * MIB
    total_b = machine.host.shm_total_b
    if total_b is None or total_b >= need_b:
        return
    if machine.host.container:
        yield warn(f"/dev/shm has {size(total_b)}", "Start the container with --shm-size=16g or --ipc=host.")
    else:
        yield warn(f"/dev/shm has {size(total_b)}", "Enlarge it.", "sudo mount -o remount,size=8G /dev/shm")


def _open_files(machine: Machine) -> Iterator[Verdict]:
    need = facts.row("needs", "open-files")["count"]
    limit = machine.host.open_files
    if limit is not None and limit < need:
        yield warn(f"at most {limit} open files", "Raise the limit in this shell.", "ulimit -n 65535",
                   fixable=True)  # fmt: skip


def _trouble(machine: Machine) -> Iterator[Verdict]:
    for line in machine.trouble:
        yield warn(f"a probe failed: {line}", "Please report it with the output of this command.",
                   "bevrepro doctor --record host.json")  # fmt: skip


CHECKS = (
    Check("host-system", "host", "the operating system", "Everything here is made for Linux.", _system),
    Check("host-wsl1", "host", "WSL1 or WSL2",
          "WSL1 has no Linux kernel: no GPU, no FUSE, no containers.", _wsl1,
          ("https://learn.microsoft.com/en-us/windows/wsl/compare-versions",)),
    Check("wsl-kernel-old", "host", "WSL2's kernel",
          "The GPU does not appear in WSL2, or CUDA fails with errors that name no cause.", _wsl_kernel,
          ("https://learn.microsoft.com/en-us/windows/ai/directml/gpu-cuda-in-wsl",)),
    Check("host-libc", "host", "the C library",
          "torch's wheels do not load with another or an older C library.", _libc),
    Check("host-arch", "host", "the processor's architecture",
          "The locked environment is for x86-64; elsewhere packages are not pinned by hash.", _arch),
    Check("memory-low", "host", "memory, swap and the container's limit",
          "The kernel ends the process with a bare 'Killed' when memory runs out.", _memory),
    Check("wsl-memory", "host", "WSL2's share of memory",
          "Indexing archives and training are killed when WSL's share runs out, however much Windows has.",
          _wsl_memory, (WSL_CONFIG, issue("mxmlnkn/ratarmount", 150))),
    Check("swap-none", "host", "swap beside little memory", "A short peak already kills the process.", _swap),
    Check("disk-low", "host", "free space",
          "Checkpoints and results end in 'No space left on device'.", _disk),
    Check("inodes-low", "host", "free inodes",
          "'No space left on device' comes with free space left when the file table is full.", _inodes),
    Check("work-read-only", "host", "whether the working folder can be written",
          "Infos, checkpoints and reports go into the working folder by default.", _read_only),
    Check("wsl-windows-drive", "host", "folders on Windows drives under WSL",
          "Small files on /mnt/c and its like go through a network protocol and are many times slower.",
          _windows_drive),
    Check("shm-small", "host", "shared memory",
          "Data loader workers die of a bus error and NCCL fails when /dev/shm is full.", _shm,
          (issue("open-mmlab/mmdetection", 1997), issue("pytorch/pytorch", 5040))),
    Check("open-files-low", "host", "the limit of open files",
          "Data loader workers fail with 'Too many open files' or 'received 0 items of ancdata'.",
          _open_files),
    Check("probe-failed", "host", "whether the machine could be read",
          "What could not be read was not judged.", _trouble),
)  # fmt: skip
