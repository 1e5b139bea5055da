"""GPUs and driver (nvidia-smi), the toolkit that torch's builder would take, the host compiler."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from bevrepro.core import proc
from bevrepro.core.errors import MachineError
from bevrepro.core.machine import Cuda, Gpu, GpuProcess, Toolkit
from bevrepro.probe.files import READ, first_lines, integer, printable, read_text

TIMEOUT_S = 5.0  # a driver in trouble lets nvidia-smi hang for ever
FIELDS = ("name", "memory.total", "memory.free", "pci.bus_id", "driver_version", "compute_cap")
WSL_NVIDIA_SMI = Path("/usr/lib/wsl/lib/nvidia-smi")  # not on every shell's PATH
BUSY_MIB = 1024  # less is a desktop: nobody is asked who holds it
CUSPARSE = ("include/cusparse.h", "targets/x86_64-linux/include/cusparse.h")
HOST_CONFIGS = ("include/crt/host_config.h", "targets/x86_64-linux/include/crt/host_config.h")


def probe_cuda(root: Path = Path("/"), environment: Mapping[str, str] | None = None) -> Cuda:
    """No GPU is a fine answer: `nvidia_smi` is then "absent" and `gpus` empty."""
    environment = os.environ if environment is None else environment
    state, said, driver, gpus = _nvidia_smi()
    gcc_path, gcc = _gcc(environment)
    return Cuda(
        nvidia_smi=state,
        nvidia_smi_said=said,
        driver=driver or driver_of_module(read_text(root / "proc/driver/nvidia/version")),
        gpus=None if gpus is None else tuple(_look_closer(gpu, root) for gpu in gpus),
        toolkit=_toolkit(root, environment),
        toolkit_searched=True,
        gcc=gcc,
        gcc_path=gcc_path,
    )


def _nvidia_smi() -> tuple[str, str | None, str | None, tuple[Gpu, ...] | None]:
    program = proc.which("nvidia-smi") or (WSL_NVIDIA_SMI if WSL_NVIDIA_SMI.exists() else None)
    if program is None:
        return "absent", None, None, ()
    fields: tuple[str, ...] = FIELDS
    try:
        done = _query(program, fields)
        if not done.ok and "compute_cap" in done.stdout + done.stderr:  # drivers before 510 do not know it
            fields = FIELDS[:-1]
            done = _query(program, fields)
    except MachineError as error:
        return "failed", error.seen, None, None
    if done.timed_out:
        return "hung", None, None, None
    if not done.ok:
        return "failed", first_lines(done.stdout + done.stderr) or f"exit status {done.rc}", None, None
    driver, gpus = parse_nvidia_smi(done.stdout, fields)
    if gpus is None:
        return "garbage", first_lines(done.stdout), None, None
    return "ok", None, driver, gpus


def _look_closer(gpu: Gpu, root: Path) -> Gpu:
    taken = (gpu.memory_total_mib or 0) - (gpu.memory_free_mib or 0)
    busy = gpu.memory_free_mib is not None and taken >= BUSY_MIB
    processes = _processes(gpu, root) if busy else None
    return replace(gpu, pci_path=_pci_path(gpu.bus_id, root), processes=processes)


def _pci_path(bus_id: str | None, root: Path) -> bool | None:
    """Whether NCCL finds it: realpath of /sys/class/pci_bus/<domain:bus>/../../<bus id> (its xml.cc)."""
    short = (bus_id or "").lower()[-12:]  # nvidia-smi writes eight digits of domain, the kernel four
    if not re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f]", short):
        return None
    return os.path.exists(root / "sys/class/pci_bus" / short[:7] / "../.." / short)


def _processes(gpu: Gpu, root: Path) -> tuple[GpuProcess, ...] | None:
    program = proc.which("nvidia-smi")
    if program is None or gpu.bus_id is None:
        return None
    query = "--query-compute-apps=gpu_bus_id,pid,used_memory,process_name"
    try:
        done = proc.run([program, query, "--format=csv,noheader,nounits"], timeout_s=TIMEOUT_S)
    except MachineError:
        return None
    if not done.ok:
        return None
    return tuple(
        replace(each, own=_is_own(each.pid, root))
        for bus, each in parse_processes(done.stdout)
        if bus == gpu.bus_id
    )


def parse_processes(text: str) -> list[tuple[str, GpuProcess]]:
    """[(bus id, process)] of the CSV; other lines are left out."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",", 3)]
        pid = integer(cells[1]) if len(cells) == 4 else None
        if pid is not None:
            name = printable(cells[3].rpartition("/")[2]).strip()
            found.append((cells[0], GpuProcess(pid, integer(cells[2]), name or None)))
    return found


def _is_own(pid: int, root: Path) -> bool | None:
    try:
        return (root / "proc" / str(pid)).stat().st_uid == os.geteuid()
    except OSError:
        return None  # it ended meanwhile, or lives in another container


def _query(program: Path, fields: tuple[str, ...]) -> proc.Done:
    query = f"--query-gpu={','.join(fields)}"
    return proc.run([program, query, "--format=csv,noheader,nounits"], timeout_s=TIMEOUT_S)


def parse_nvidia_smi(
    text: str, fields: tuple[str, ...] = FIELDS
) -> tuple[str | None, tuple[Gpu, ...] | None]:
    """(driver, GPUs) of the CSV; (None, None) where it is none."""
    gpus, driver = [], None
    for line in text[:READ].splitlines():
        if not line.strip() or line.startswith("No devices"):
            continue
        cells = [printable(cell).strip() for cell in line.split(",")]
        if len(cells) != len(fields):
            return None, None
        row = {name: cell for name, cell in zip(fields, cells, strict=True) if not cell.startswith("[")}
        driver = driver or row.get("driver_version")
        gpus.append(
            Gpu(
                name=row.get("name", "unknown GPU"),
                memory_total_mib=integer(row.get("memory.total")),
                memory_free_mib=integer(row.get("memory.free")),
                capability=row.get("compute_cap"),
                bus_id=row.get("pci.bus_id"),
            )
        )
    return driver, tuple(gpus)


def driver_of_module(text: str | None) -> str | None:
    """The version in /proc/driver/nvidia/version: the loaded kernel module's."""
    match = re.search(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", text or "")
    return match[1] if match else None


def _toolkit(root: Path, environment: Mapping[str, str]) -> Toolkit | None:
    """The same places in the same order as torch.utils.cpp_extension._find_cuda_home."""
    for source in ("CUDA_HOME", "CUDA_PATH"):
        if environment.get(source):
            return _inspect(environment[source], source)
    nvcc = proc.which("nvcc")
    if nvcc is not None:
        return _inspect(str(nvcc.parent.parent), "PATH")
    default = root / "usr/local/cuda"
    return _inspect(str(default), "default") if os.path.exists(default) else None


def _inspect(home: str, source: str) -> Toolkit:
    folder = Path(home)
    nvcc = folder / "bin/nvcc"
    try:
        nvcc.stat()
    except PermissionError:
        return Toolkit(home=home, source=source)
    except OSError:
        return Toolkit(home=home, source=source, exists=os.path.isdir(folder))
    texts = (read_text(folder / name) for name in HOST_CONFIGS)
    return Toolkit(
        home=home,
        source=source,
        exists=True,
        nvcc=str(nvcc),
        version=_nvcc_version(nvcc),
        max_gcc=next((limit for limit in map(max_gcc_of, texts) if limit is not None), None),
        headers=any(os.path.exists(folder / name) for name in CUSPARSE),
        real_path=os.path.realpath(folder) if os.path.islink(folder) else None,
    )


def _nvcc_version(nvcc: Path) -> str | None:
    try:
        said = proc.run([nvcc, "--version"], timeout_s=TIMEOUT_S).stdout
    except MachineError:
        return None
    match = re.search(r"release (\d+\.\d+)", said)
    return match[1] if match else None


def max_gcc_of(host_config: str | None) -> int | None:
    """The newest gcc major that crt/host_config.h lets through."""
    match = re.search(r"__GNUC__\s*>\s*(\d+)", host_config or "")
    return int(match[1]) if match else None


def _gcc(environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    """(path, version) of the compiler nvcc calls: CUDAHOSTCXX, else gcc."""
    program = proc.which(environment.get("CUDAHOSTCXX") or "gcc")
    if program is None:
        return None, None
    try:
        said = proc.run([program, "-dumpfullversion", "-dumpversion"], timeout_s=TIMEOUT_S).stdout.strip()
    except MachineError:
        return str(program), None
    return str(program), said if re.fullmatch(r"\d+(\.\d+)*", said) else None
