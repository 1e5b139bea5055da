"""NPUs: driver, CANN and torch_npu against each other. None of it was run on an NPU by us."""

from collections.abc import Iterator

from bevrepro import facts
from bevrepro.core.machine import Machine
from bevrepro.doctor.check import Check, Verdict, fail, info, warn
from bevrepro.doctor.versions import older

SET_ENV = "source /usr/local/Ascend/ascend-toolkit/set_env.sh"


def _torch_npu(machine: Machine) -> str | None:
    package = machine.python.package("torch-npu")
    return package.version if package else None


def _smi(machine: Machine) -> Iterator[Verdict]:
    ascend = machine.ascend
    if ascend.npu_smi == "hung":
        yield fail("npu-smi does not answer", "The driver hangs: look at its log, then restart.",
                   "dmesg | grep -i -e davinci -e devdrv | tail")  # fmt: skip
    elif ascend.npu_smi in ("failed", "garbage"):
        yield warn(f"npu-smi failed: {ascend.npu_smi_said or 'nothing'}",
                   "Run it yourself and mend what it names; in a container map the devices and the driver.",
                   "npu-smi info")  # fmt: skip


def _health(machine: Machine) -> Iterator[Verdict]:
    for index, npu in enumerate(machine.ascend.npus or ()):
        if npu.health is not None and npu.health != "OK":
            yield warn(f"NPU {index} ({npu.name}) says {npu.health}", "Look at its error codes.",
                       f"npu-smi info -t health -i {index}")  # fmt: skip


def _leftover(machine: Machine) -> Iterator[Verdict]:
    for index, npu in enumerate(machine.ascend.npus or ()):
        if npu.processes:
            told = ", ".join(str(pid) for pid in npu.processes[:3])
            yield warn(f"NPU {index} ({npu.name}) is used by process {told}",
                       "Is it left over from a run that died? End your own, leave others' alone.",
                       "npu-smi info")  # fmt: skip


def _pair(machine: Machine) -> Iterator[Verdict]:
    npu, torch = _torch_npu(machine), machine.python.torch
    plain = torch.version.split("+")[0] if torch and torch.version else None
    if npu and plain and _release(npu) != _release(plain):
        yield fail(
            f"torch_npu {npu} with torch {plain}",
            "torch_npu carries the version of the torch it is for: install the pair.",
            f"python -m pip install torch=={_release(npu)}",
        )


def _release(version: str) -> str:
    """`2.1.0` of `2.1.0.post12` and `2.1.0rc1`."""
    numbers = []
    for part in version.split("+")[0].split(".")[:3]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        numbers.append(digits)
    return ".".join(numbers)


def _matrix(machine: Machine) -> Iterator[Verdict]:
    npu, cann = _torch_npu(machine), machine.ascend.cann
    if npu is None or cann is None:
        return
    rows = facts.table("cann")
    if any(row["cann"] == cann and row["torch_npu"] == npu for row in rows):
        return
    fitting = [row["torch_npu"] for row in rows if row["cann"] == cann]
    if fitting:
        yield warn(f"torch_npu {npu} with CANN {cann} is not in the public matrix",
                   f"For that CANN it lists {', '.join(fitting)}.",
                   f"python -m pip install torch-npu=={fitting[0]}")  # fmt: skip
    else:
        wanted = [row["cann"] for row in rows if row["torch_npu"] == npu]
        judge = warn if wanted else info
        yield judge(f"CANN {cann} is not in our copy of the public matrix",
                    f"torch_npu {npu} is listed for CANN {', '.join(wanted)}." if wanted else
                    "Compare with the table in Ascend/pytorch's README.")  # fmt: skip


def _autoload(machine: Machine) -> Iterator[Verdict]:
    npu, torch, row = _torch_npu(machine), machine.python.torch, facts.row("torch", "npu-autoload")
    off = machine.host.variable("TORCH_DEVICE_BACKEND_AUTOLOAD") == "0"
    searched = machine.ascend.npu_smi is not None
    if npu and torch and searched and machine.ascend.toolkit is None and not off:
        if older(torch.version, row["from"]) is False:
            yield fail(
                f"torch_npu {npu} is installed and no CANN toolkit was found",
                "Load CANN's environment, or switch the plugin off for programs that need no NPU.",
                SET_ENV,
                "export TORCH_DEVICE_BACKEND_AUTOLOAD=0",
                fixable=True,
            )


def _idle(machine: Machine) -> Iterator[Verdict]:
    if machine.ascend.npus and machine.python.packages is not None and _torch_npu(machine) is None:
        yield warn(f"{machine.ascend.npus[0].name} is there, and torch_npu is not installed",
                   "Install the one that belongs to this torch and CANN.")  # fmt: skip


def _toolkit(machine: Machine) -> Iterator[Verdict]:
    if machine.ascend.npus and machine.ascend.toolkit is None:
        yield warn("NPUs are there, and no CANN toolkit was found (ASCEND_HOME_PATH, /usr/local/Ascend)",
                   "Install CANN's toolkit and kernels, then load its environment.", SET_ENV)  # fmt: skip


def _static_tls(machine: Machine) -> Iterator[Verdict]:
    copies = machine.python.libgomp or ()
    if machine.host.arch == "aarch64" and copies and not machine.host.variable("LD_PRELOAD"):
        package = machine.python.package("torch")
        folder = package.location if package else ""
        yield warn(
            f"{len(copies)} copies of libgomp in packages ({copies[0]}) on aarch64",
            "Load the one that the message names before everything else.",
            f"export LD_PRELOAD={folder}/{copies[0]}",
            fixable=True,
        )


CHECKS = (
    Check("npu-smi-broken", "ascend", "whether npu-smi works", "torch_npu will see no NPU.", _smi),
    Check("npu-unhealthy", "ascend", "the NPUs' own health", "Operators stop with ACL error codes.", _health),
    Check("npu-occupied", "ascend", "programs that hold an NPU",
          "Operators stop with error 507018 or for want of memory.", _leftover),
    Check("npu-torch-pair", "ascend", "torch_npu against torch",
          "import torch_npu stops with an undefined symbol.", _pair),
    Check("npu-cann-matrix", "ascend", "torch_npu against CANN",
          "Pairs outside the public matrix fail at initialisation or in single operators.", _matrix,
          ("https://github.com/Ascend/pytorch#ascend-auxiliary-software",)),
    Check("npu-no-cann", "ascend", "torch_npu without CANN",
          "torch loads the plugin by itself: every import torch stops at a missing libhccl.so.",
          _autoload),
    Check("npu-toolkit-missing", "ascend", "CANN beside NPUs", "torch_npu does not load.", _toolkit),
    Check("npu-idle", "ascend", "whether torch can use the NPU", "Training falls back to the CPU.", _idle),
    Check("libgomp-static-tls", "ascend", "copies of libgomp on aarch64",
          "An import stops: 'cannot allocate memory in static TLS block'.", _static_tls),
)  # fmt: skip
