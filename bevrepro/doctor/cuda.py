"""GPU, driver and CUDA toolkit."""

from collections.abc import Iterator

from bevrepro import facts
from bevrepro.core.machine import Machine
from bevrepro.doctor.architectures import NAME, runs_on
from bevrepro.doctor.check import Check, Verdict, fail, info, issue, warn
from bevrepro.doctor.versions import major, older

NVIDIA_COMPATIBILITY = "https://docs.nvidia.com/deploy/cuda-compatibility/"
# What nvidia-smi says -> what to do. The wording is NVML's own and has been the same for years.
NVML_MESSAGES = (
    ("Driver/library version mismatch", "The driver was updated while in use: restart.", "sudo reboot"),
    ("GPU access blocked by the operating system",
     "Update Windows and its NVIDIA driver (WDDM mode); install no Linux driver inside WSL.",
     "wsl.exe --update"),
    ("couldn't communicate with the NVIDIA driver",
     "The driver's kernel module is not loaded: install or rebuild it for the running kernel, then restart.",
     "sudo modprobe nvidia"),
)  # fmt: skip


def builds_for_cuda(machine: Machine) -> bool:
    """Whether a CUDA toolkit would be used here: there is a GPU, or a torch that was built for one."""
    torch = machine.python.torch
    return bool(machine.cuda.gpus) or bool(torch and torch.cuda)


def _gpu(machine: Machine) -> Iterator[Verdict]:
    cuda = machine.cuda
    if machine.ascend.npus:
        return
    if cuda.nvidia_smi == "absent" and cuda.driver is None:
        yield info("no NVIDIA GPU (no nvidia-smi)", "Use the CPU's preset, bevformer_micro.")
    elif cuda.nvidia_smi == "ok" and cuda.gpus == ():
        yield warn("nvidia-smi works and lists no GPU", "Give the container or job a GPU.", "nvidia-smi -L")


def _driver_broken(machine: Machine) -> Iterator[Verdict]:
    cuda = machine.cuda
    if cuda.nvidia_smi == "hung":
        yield fail("nvidia-smi does not answer", "The driver hangs: look at the kernel's log, then restart.",
                   "sudo dmesg | grep -i nvrm | tail")  # fmt: skip
    elif cuda.nvidia_smi in ("failed", "garbage"):
        said = cuda.nvidia_smi_said or "nothing"
        for words, remedy, command in NVML_MESSAGES:
            if words in said:
                yield fail(f"nvidia-smi says: {said}", remedy, command)
                return
        yield warn(f"nvidia-smi failed: {said}", "Run it yourself and mend what it names.", "nvidia-smi")


def _driver_old(machine: Machine) -> Iterator[Verdict]:
    torch, driver = machine.python.torch, machine.cuda.driver
    if not torch or not torch.cuda or driver is None:
        return
    for row in facts.table("cuda"):
        of_this_cuda = f"{torch.cuda}.".startswith(f"{row['cuda']}.")
        if of_this_cuda and older(driver, row["driver"]):
            yield fail(
                f"driver {driver}, but torch {torch.version} was built for CUDA {torch.cuda} "
                f"and needs {row['driver']} or newer",
                "Update the driver, or install a torch built for an older CUDA.",
            )


def _home_list(machine: Machine) -> Iterator[Verdict]:
    toolkit = machine.cuda.toolkit
    if toolkit is None or toolkit.source == "PATH" or ":" not in toolkit.home:
        return
    first = next((part for part in toolkit.home.split(":") if part), "/usr/local/cuda")
    judge = fail if builds_for_cuda(machine) else warn
    yield judge(
        f"{toolkit.source}={toolkit.home} is a list",
        "Name one folder, not a list as in PATH; look for the line in ~/.bashrc.",
        f"export {toolkit.source}={first}",
        fixable=True,
    )


def _home_missing(machine: Machine) -> Iterator[Verdict]:
    toolkit = machine.cuda.toolkit
    if toolkit is None or toolkit.nvcc is not None or ":" in toolkit.home:
        return
    whats = {True: "has no bin/nvcc", False: "does not exist", None: "may not be looked into"}
    what = whats[toolkit.exists]
    where = toolkit.home if toolkit.source == "default" else f"{toolkit.source}={toolkit.home}"
    judge = fail if builds_for_cuda(machine) and toolkit.source != "default" else warn
    yield judge(
        f"{where} {what}",
        "Point it at a toolkit with bin/nvcc, or unset it so that nvcc on PATH is found.",
        "ls -d /usr/local/cuda*",
        fixable=toolkit.source != "default",
    )


def _home_unset(machine: Machine) -> Iterator[Verdict]:
    cuda = machine.cuda
    if cuda.toolkit_searched and cuda.toolkit is None and builds_for_cuda(machine):
        yield warn(
            "CUDA_HOME is unset, nvcc is not on PATH and /usr/local/cuda does not exist",
            "Only building mmcv-full or the CUDA kernels needs it: install the toolkit of torch's CUDA "
            "version, then set CUDA_HOME. The bundled model runs without.",
            "export CUDA_HOME=/usr/local/cuda",
        )


def _mismatch(machine: Machine) -> Iterator[Verdict]:
    toolkit, torch = machine.cuda.toolkit, machine.python.torch
    found = major(toolkit.version) if toolkit else None
    wanted = major(torch.cuda) if torch else None
    if toolkit and torch and found is not None and wanted is not None and found != wanted:
        yield warn(
            f"nvcc in {toolkit.home} is {toolkit.version}, torch {torch.version} is for CUDA {torch.cuda}",
            f"Set CUDA_HOME to a toolkit of CUDA {wanted} before building extensions.",
            "ls -d /usr/local/cuda-*",
        )


def _gcc(machine: Machine) -> Iterator[Verdict]:
    toolkit, gcc = machine.cuda.toolkit, machine.cuda.gcc
    found = major(gcc)
    newest = toolkit.max_gcc or _max_gcc(toolkit.version) if toolkit else None
    if not toolkit or newest is None or found is None or found <= newest:
        return
    if builds_for_cuda(machine):
        yield warn(
            f"gcc {gcc}, and nvcc {toolkit.version} takes none newer than {newest}",
            "Name an older compiler for nvcc.",
            f"export CUDAHOSTCXX=g++-{newest}",
            fixable=True,
        )


def _max_gcc(cuda: str | None) -> int | None:
    """From the table, where host_config.h of that toolkit could not be read."""
    for row in facts.table("gcc"):
        if older(cuda, row["first"]) is False and older(row["last"], cuda or "0") is False:
            return int(row["max_gcc"])
    return None


def _arch_nvcc(machine: Machine) -> Iterator[Verdict]:
    toolkit = machine.cuda.toolkit
    if toolkit is None or toolkit.version is None:
        return
    ranges = {row["capability"]: row for row in facts.table("capability")}
    for gpu in machine.cuda.gpus or ():
        row = ranges.get(gpu.capability or "")
        if row is None:
            continue
        if older(toolkit.version, row["first"]):
            yield warn(f"nvcc {toolkit.version} knows no GPU of compute capability {gpu.capability} "
                       f"({gpu.name}); CUDA {row['first']} is the first that does",
                       "Build with a newer toolkit.", "ls -d /usr/local/cuda-*")  # fmt: skip
            break
        if "last" in row and older(row["last"], toolkit.version):
            yield warn(f"nvcc {toolkit.version} no longer knows compute capability {gpu.capability} "
                       f"({gpu.name}); CUDA {row['last']} is the last that does",
                       "Build with an older toolkit.", "ls -d /usr/local/cuda-*")  # fmt: skip
            break


def _arch_list(machine: Machine) -> Iterator[Verdict]:
    listed = machine.host.variable("TORCH_CUDA_ARCH_LIST")
    entries = (listed or "").replace(";", " ").split()
    if not entries or not all(NAME.fullmatch(each.removesuffix("+PTX")) for each in entries):
        return  # unset, or names such as Ampere
    cubins = [each.removesuffix("+PTX") for each in entries]
    ptx = [each.removesuffix("+PTX") for each in entries if each.endswith("+PTX")]
    for gpu in machine.cuda.gpus or ():
        if gpu.capability and runs_on(cubins, ptx, gpu.capability) is False:
            yield warn(f"TORCH_CUDA_ARCH_LIST={listed} leaves out {gpu.name} ({gpu.capability})",
                       "Add it before building extensions.",
                       f"export TORCH_CUDA_ARCH_LIST={gpu.capability}", fixable=True)  # fmt: skip
            break


def _headers(machine: Machine) -> Iterator[Verdict]:
    toolkit = machine.cuda.toolkit
    if toolkit and toolkit.nvcc and toolkit.headers is False and builds_for_cuda(machine):
        yield warn(
            f"{toolkit.home} has nvcc and no cusparse.h: its compiler came without the libraries' headers",
            "Install the whole toolkit of that version (conda: cuda-toolkit or cuda-libraries-dev).",
        )


def _link(machine: Machine) -> Iterator[Verdict]:
    toolkit = machine.cuda.toolkit
    if toolkit and toolkit.real_path and builds_for_cuda(machine):
        yield info(f"{toolkit.home} is a link to {toolkit.real_path}: moving it changes every build",
                   "Name the folder with its version.", f"export CUDA_HOME={toolkit.real_path}")  # fmt: skip


def _shadowing(machine: Machine) -> Iterator[Verdict]:
    found = machine.host.shadowing
    if found and machine.python.torch:
        more = f" and {len(found) - 2} more" if len(found) > 2 else ""
        yield warn(
            f"LD_LIBRARY_PATH holds {', '.join(found[:2])}{more}",
            "torch brings its own: unset the variable, or take these folders out of it.",
            "unset LD_LIBRARY_PATH",
            fixable=True,
        )


CHECKS = (
    Check("gpu-none", "cuda", "GPUs",
          "Training a published configuration needs one; the demo does not.", _gpu),
    Check("driver-broken", "cuda", "whether nvidia-smi works",
          "torch will not see the GPU, or hang with the driver.", _driver_broken),
    Check("driver-old", "cuda", "the driver against torch's CUDA",
          "torch stops with 'The NVIDIA driver on your system is too old'.", _driver_old,
          (NVIDIA_COMPATIBILITY,)),
    Check("cuda-home-list", "cuda", "CUDA_HOME written as a list",
          "Extension builds look for nvcc in a folder of that whole name and stop.", _home_list,
          (issue("mit-han-lab/bevfusion", 111), issue("open-mmlab/mmcv", 876))),
    Check("cuda-home-missing", "cuda", "whether CUDA_HOME holds nvcc",
          "Extension builds take CUDA_HOME on trust and stop at the missing nvcc.", _home_missing),
    Check("cuda-home-unset", "cuda", "whether a CUDA toolkit can be found",
          "Extension builds stop with 'CUDA_HOME environment variable is not set'.", _home_unset),
    Check("cuda-mismatch", "cuda", "nvcc against torch's CUDA",
          "Extension builds stop with 'The detected CUDA version mismatches'.", _mismatch,
          (issue("fundamentalvision/BEVFormer", 181),)),
    Check("gcc-too-new", "cuda", "gcc against nvcc",
          "Extension builds stop with 'unsupported GNU version!'.", _gcc),
    Check("gpu-arch-nvcc", "cuda", "nvcc against the GPU",
          "Extension builds stop with \"Unsupported gpu architecture 'compute_xx'\".", _arch_nvcc),
    Check("arch-list-gpu", "cuda", "TORCH_CUDA_ARCH_LIST against the GPU",
          "What is built stops at its first kernel: 'no kernel image is available'.", _arch_list),
    Check("cuda-headers-missing", "cuda", "whether the toolkit is whole",
          "Extension builds stop at 'cusparse.h: No such file or directory'.", _headers,
          (issue("fundamentalvision/BEVFormer", 139),)),
    Check("cuda-link", "cuda", "where a linked toolkit leads",
          "With several toolkits behind one link, a build takes whichever it points to that day.", _link),
    Check("library-path-shadow", "cuda", "CUDA and C++ libraries on LD_LIBRARY_PATH",
          "They are loaded before torch's own, in another version: odd crashes and undefined symbols.",
          _shadowing),
)  # fmt: skip
