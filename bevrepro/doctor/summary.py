"""One line per family: what the machine is, before any judgement. Unknown parts are left out."""

from bevrepro.core.machine import Machine
from bevrepro.core.units import MIB, size
from bevrepro.doctor.cpu import usable_cores
from bevrepro.doctor.host import usable_memory_b

NOTHING_KNOWN = "unknown"


def summarise(machine: Machine) -> dict[str, str]:
    """Family -> its line."""
    return {
        "host": _host(machine),
        "cpu": _cpu(machine),
        "cuda": _cuda(machine),
        "fuse": _fuse(machine),
        "python": _python(machine),
        "torch": _torch(machine),
        "openmmlab": _openmmlab(machine),
        "dist": _dist(machine),
        "ascend": _ascend(machine),
    }


def _join(*parts: str | None) -> str:
    return ", ".join(part for part in parts if part) or NOTHING_KNOWN


def _host(machine: Machine) -> str:
    host = machine.host
    memory_b = usable_memory_b(host)
    work = next((disk for disk in host.disks or () if disk.role == "work"), None)
    return _join(
        host.distribution or host.system,
        host.kernel and f"kernel {host.kernel}",
        f"WSL{host.wsl}" if host.wsl else None,
        f"in {host.container}" if host.container else None,
        host.libc and f"{host.libc} {host.libc_version or ''}".strip(),
        None if memory_b is None else f"{size(memory_b)} memory",
        f"{size(host.swap_total_b)} swap" if host.swap_total_b else None,
        None if work is None or work.free_b is None else f"{size(work.free_b)} free in {work.path}",
    )


def _cpu(machine: Machine) -> str:
    cpu = machine.cpu
    cores = usable_cores(cpu)
    best = next((name for name in ("avx512f", "avx2", "avx", "sse4_2") if name in (cpu.flags or ())), None)
    return _join(cpu.model, None if cores is None else f"{cores:g} core(s)", best and best.upper())


def _cuda(machine: Machine) -> str:
    cuda = machine.cuda
    gpus = [
        gpu.name + (f" {size(gpu.memory_total_mib * MIB)}" if gpu.memory_total_mib else "")
        for gpu in cuda.gpus or ()
    ]
    toolkit = cuda.toolkit
    return _join(
        "no GPU" if cuda.gpus == () else ", ".join(gpus),
        cuda.driver and f"driver {cuda.driver}",
        f"nvcc {toolkit.version or '?'} in {toolkit.home}" if toolkit and toolkit.nvcc else None,
        cuda.gcc and f"gcc {cuda.gcc}",
    )


def _fuse(machine: Machine) -> str:
    fuse = machine.fuse
    return _join(
        fuse.device and f"/dev/fuse {fuse.device}",
        ", ".join(fuse.libraries or ()) or None,
        ", ".join(fuse.helpers or ()) or None,
    )


def _python(machine: Machine) -> str:
    python = machine.python
    return _join(python.version and f"Python {python.version}", python.executable)


def _torch(machine: Machine) -> str:
    python, torch = machine.python, machine.python.torch
    if python.packages is not None and torch is None:
        return "not installed"
    compiled = torch.compiled if torch else None
    others = (python.package(name) for name in ("numpy", "nuscenes-devkit"))
    return _join(
        f"torch {torch.version}" if torch and torch.version else None,
        f"CUDA {torch.cuda}" if torch and torch.cuda else None,
        f"code for {' '.join(compiled.architectures)}" if compiled and compiled.architectures else None,
        "tried in a child" if torch and torch.computes else None,
        *(f"{package.name} {package.version}" for package in others if package),
    )


def _openmmlab(machine: Machine) -> str:
    python = machine.python
    names = ("mmcv", "mmcv-full", "mmdet", "mmsegmentation", "mmdet3d")
    found = [package for package in map(python.package, names) if package]
    if python.packages is not None and not found:
        return "not installed"
    return _join(*(f"{package.name} {package.version}" for package in found))


def _dist(machine: Machine) -> str:
    torch, ports = machine.python.torch, machine.host.ports_in_use
    taken = "the launchers' ports are free" if ports == () else None
    if ports:
        taken = f"port {', '.join(map(str, ports))} taken"
    return _join(f"NCCL {torch.nccl}" if torch and torch.nccl else None, taken)


def _ascend(machine: Machine) -> str:
    ascend = machine.ascend
    if ascend.npu_smi == "absent" and not ascend.npus:
        return "no NPU"
    return _join(
        ", ".join(npu.name for npu in ascend.npus or ()) or None,
        ascend.driver and f"driver {ascend.driver}",
        ascend.cann and f"CANN {ascend.cann}",
    )
