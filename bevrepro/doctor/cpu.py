"""Processor: instruction sets and cores."""

from collections.abc import Iterator

from bevrepro import facts
from bevrepro.core.machine import Cpu, Machine
from bevrepro.doctor.check import Check, Verdict, fail, info, issue, warn


def usable_cores(cpu: Cpu) -> float | None:
    """Cores this process may use: the least of what there is, the affinity and the quota."""
    known = [value for value in (cpu.cores, cpu.cores_allowed, cpu.quota) if value is not None]
    return min(known, default=None)


def _avx(machine: Machine) -> Iterator[Verdict]:
    flags, torch = machine.cpu.flags, machine.python.torch
    if machine.host.arch != "x86_64" or flags is None or "avx" in flags:
        return
    version = torch.version if torch else None
    seen = f"{machine.cpu.model or 'this CPU'} has no AVX"
    if version in facts.row("torch", "needs-avx")["versions"]:
        yield fail(f"{seen}, and torch {version} needs it", "Use another release of torch.")
    elif version in facts.row("torch", "avx-on-gpu-path")["versions"]:
        yield warn(
            f"{seen}; torch {version} was once seen to die on a GPU without it (one report)",
            "Try it in a child process, and see whether a training step on the GPU survives.",
            "bevrepro doctor --deep",
        )
    elif version not in facts.row("torch", "runs-without-avx")["versions"]:
        yield warn(
            f"{seen}; whether torch {version or '(any release)'} needs it is not known",
            "Try it in a child process; a death by SIGILL is then named.",
            "bevrepro doctor --deep",
        )
    else:
        yield info(f"{seen}; torch {version} was measured to run without it on the CPU")


def _avx2(machine: Machine) -> Iterator[Verdict]:
    flags = machine.cpu.flags
    if machine.host.arch == "x86_64" and flags is not None and "avx" in flags and "avx2" not in flags:
        yield info(f"{machine.cpu.model or 'this CPU'} has AVX but no AVX2", "Expect slower steps.")


def _cores(machine: Machine) -> Iterator[Verdict]:
    need = facts.row("needs", "cores")["count"]
    cores = usable_cores(machine.cpu)
    if cores is not None and cores < need:
        yield warn(f"{cores:g} CPU core(s) may be used", "Give the container or virtual machine more.")


CHECKS = (
    Check("cpu-no-avx", "cpu", "AVX",
          "Programs built for AVX die of 'Illegal instruction' (SIGILL), without a traceback.", _avx,
          (issue("pytorch/pytorch", 43551), issue("pytorch/pytorch", 37577))),
    Check("cpu-no-avx2", "cpu", "AVX2", "torch falls back to its slower kernels.", _avx2),
    Check("cpu-cores", "cpu", "cores this process may use",
          "The times told for the demo were measured on two cores.", _cores),
)  # fmt: skip
