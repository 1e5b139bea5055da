"""Judging a machine for one target, by what facts/targets.toml says it is made for.

The checks of one machine ask "does what is here work?", these ask "would that environment work here?".
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any

from bevrepro import facts
from bevrepro.core.errors import ConfigError
from bevrepro.core.machine import Gpu, Machine
from bevrepro.doctor.architectures import runs_on
from bevrepro.doctor.check import Check, Verdict, fail, info, issue, warn
from bevrepro.doctor.versions import major, older

TABLE = "targets"
# Judged for the target instead of for the default environment.
REPLACED = ("host-libc", "host-arch", "python-version", "gpu-none")
# Nothing in these matters to a target without an accelerator of that kind.
ACCELERATOR_FAMILIES = {"none": ("cuda", "dist", "ascend"), "nvidia": ("ascend",), "ascend": ("cuda",)}


@dataclass(frozen=True)
class Target:
    """One row of facts/targets.toml; None and () where it does not say."""

    id: str
    title: str
    accelerator: str  # "none", "nvidia" or "ascend"
    arch: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    kernels: tuple[str, ...] = ()
    cuda: str | None = None
    driver: str | None = None
    builds: bool = False
    toolkit: str | None = None
    glibc: str | None = None
    python: tuple[str, ...] = ()
    torch: str | None = None
    nccl: str | None = None
    wsl: int | None = None
    verified: bool = True  # False: nothing of it may be a fail


def names() -> tuple[str, ...]:
    """All targets, in the table's order."""
    return tuple(row["id"] for row in facts.table(TABLE))


def find(name: str) -> Target:
    """The target of that name; ConfigError with the list for any other."""
    known = names()
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        raise ConfigError(
            f"there is no target {name!r}" + (f"; is {near[0]!r} meant?" if near else ""),
            f"The targets are: {', '.join(known)}.",
            f"bevrepro doctor --target {near[0] if near else known[0]}",
        )
    row = facts.row(TABLE, name)
    skipped = {*facts.REQUIRED, "status"} - {"id"}
    values: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in row.items() if key not in skipped
    }
    return Target(**values, verified=row.get("status") != "unverified")


def _with_capability(machine: Machine) -> list[tuple[Gpu, str]]:
    return [(gpu, gpu.capability) for gpu in machine.cuda.gpus or () if gpu.capability]


def _gpu(target: Target, machine: Machine) -> Iterator[Verdict]:
    if target.accelerator == "nvidia" and machine.cuda.gpus == ():
        yield fail(f"no NVIDIA GPU, and target {target.id} is for {target.title}",
                   "Run it where the GPU is, or use the CPU.", "bevrepro doctor --target cpu")  # fmt: skip
    if target.accelerator == "ascend":
        yield info(f"target {target.id} has never been run by us", "Treat what it says as a starting point.")


def _kernels(target: Target, machine: Machine) -> Iterator[Verdict]:
    for gpu, capability in _with_capability(machine):
        if target.kernels and runs_on(target.kernels, (), capability) is False:
            better = [name for name in names() if _suits(find(name), capability)]
            yield fail(
                f"{gpu.name} has compute capability {capability}; torch {target.torch or ''} for CUDA "
                f"{target.cuda} has code for {', '.join(target.kernels)}",
                f"Use a target for this GPU: {', '.join(better)}." if better else "No target here covers it.",
                *(f"bevrepro doctor --target {name}" for name in better[:1]),
            )


def _suits(target: Target, capability: str) -> bool:
    return capability in target.capabilities and runs_on(target.kernels, (), capability) is True


def _capability(target: Target, machine: Machine) -> Iterator[Verdict]:
    for gpu, capability in _with_capability(machine):
        meant = target.capabilities
        if meant and capability not in meant and runs_on(target.kernels, (), capability):
            yield info(f"{gpu.name} has compute capability {capability}; target {target.id} is made for "
                       f"{', '.join(meant)} and has code that runs on it")  # fmt: skip


def _driver(target: Target, machine: Machine) -> Iterator[Verdict]:
    driver = machine.cuda.driver
    if target.driver and older(driver, target.driver):
        yield fail(f"driver {driver}; target {target.id} (CUDA {target.cuda}) needs {target.driver} or newer",
                   "Update the driver.")  # fmt: skip


def _arch(target: Target, machine: Machine) -> Iterator[Verdict]:
    arch = "x86_64" if machine.host.arch == "AMD64" else machine.host.arch
    if arch is not None and target.arch and arch not in target.arch:
        yield fail(f"the processor's architecture is {arch}; target {target.id} is for "
                   f"{' and '.join(target.arch)}", "Use a machine of that architecture.")  # fmt: skip


def _libc(target: Target, machine: Machine) -> Iterator[Verdict]:
    host = machine.host
    if target.glibc is None or host.libc is None:
        return
    if host.libc == "musl":
        yield fail("the C library is musl", "Use a distribution with glibc (Debian, Ubuntu, Fedora ...).")
    elif host.libc == "glibc" and older(host.libc_version, target.glibc):
        yield fail(f"glibc {host.libc_version}; target {target.id} needs {target.glibc}",
                   "Use a newer distribution or a container image.")  # fmt: skip


def _wsl(target: Target, machine: Machine) -> Iterator[Verdict]:
    if target.wsl is not None and machine.host.wsl == 0:
        yield info(f"this is no WSL{target.wsl}", f"Target {target.id} runs here too; others may fit better.")


def _nccl(target: Target, machine: Machine) -> Iterator[Verdict]:
    oldest = facts.row("dist", "nccl-wsl")["first_ok"]
    if machine.host.wsl == 2 and older(target.nccl, oldest):
        # A warning: one GPU without a launcher does not need NCCL.
        yield warn(
            f"target {target.id} has NCCL {target.nccl}; WSL2 needs {oldest}",
            "Run on one GPU without a launcher, as `bevrepro train` does, or use target wsl2.",
            "bevrepro doctor --target wsl2",
        )


def _python(target: Target, machine: Machine) -> Iterator[Verdict]:
    version = machine.python.version
    if version is None or not target.python or ".".join(version.split(".")[:2]) in target.python:
        return
    yield info(f"Python {version} ({machine.python.executable}); target {target.id} is for "
               f"{', '.join(target.python)}",
               "Make the target's environment with one of those, beside this one.")  # fmt: skip


def _torch(target: Target, machine: Machine) -> Iterator[Verdict]:
    torch = machine.python.torch
    if torch and torch.version and target.torch and torch.version != target.torch:
        yield info(f"torch {torch.version} is installed; target {target.id} has {target.torch}",
                   "Make an environment of its own for the target.")  # fmt: skip


def _compiler(target: Target, machine: Machine) -> Iterator[Verdict]:
    if not target.builds or target.toolkit is None or not machine.cuda.toolkit_searched:
        return
    toolkit = machine.cuda.toolkit
    remedy = "`bevrepro env build` brings its own; to compile by hand, put one together without root."
    if toolkit is None or toolkit.nvcc is None:
        yield warn(f"no nvcc, and target {target.id} compiles operators with CUDA {target.toolkit}",
                   remedy, f"bevrepro env cuda {target.toolkit}")  # fmt: skip
    elif major(toolkit.version) not in (None, major(target.toolkit)):
        yield warn(f"nvcc in {toolkit.home} is {toolkit.version}; target {target.id} compiles operators with "
                   f"CUDA {target.toolkit}", remedy, f"bevrepro env cuda {target.toolkit}")  # fmt: skip


Judge = Callable[[Target, Machine], Iterator[Verdict]]
_RULES: tuple[tuple[str, str, str, Judge, tuple[str, ...]], ...] = (
    ("target-arch", "the architecture against the target", "Its packages are built for that architecture.",
     _arch, ()),
    ("target-libc", "the C library against the target", "torch's wheels do not load with an older one.",
     _libc, ()),
    ("target-wsl", "WSL against the target", "The target was put together for it.", _wsl, ()),
    ("target-gpu", "an accelerator for the target", "The environment is of no use without it.", _gpu, ()),
    ("target-kernels", "compiled GPU code against the GPU",
     "Every step on the GPU ends in 'no kernel image is available for execution on the device'.", _kernels,
     ("https://docs.nvidia.com/cuda/archive/11.0_GA/pascal-compatibility-guide/index.html",)),
    ("target-capability", "the GPU against the one the target is made for",
     "It runs, but nobody tuned or measured it there.", _capability, ()),
    ("target-driver", "the driver against the target's CUDA",
     "torch stops with 'The NVIDIA driver on your system is too old'.", _driver,
     ("https://docs.nvidia.com/deploy/cuda-compatibility/",)),
    ("target-nccl", "the target's NCCL under WSL2",
     "A launcher ends in 'NCCL error: unhandled system error', even with one GPU.", _nccl,
     (issue("NVIDIA/nccl", 442), issue("NVIDIA/nccl", 511))),
    ("target-python", "the interpreter against the target", "The locked packages are for another Python.",
     _python, ()),
    ("target-torch", "the installed torch against the target", "What is installed is not the target.",
     _torch, ()),
    ("target-compiler", "nvcc against the target's CUDA",
     "Building mmcv-full stops at a missing nvcc or 'The detected CUDA version mismatches'.", _compiler,
     (issue("fundamentalvision/BEVFormer", 181),)),
)  # fmt: skip


def _soften(judge: Judge, target: Target, machine: Machine) -> Iterator[Verdict]:
    """What is not verified never fails."""
    for verdict in judge(target, machine):
        unsure = warn(verdict.seen, f"{verdict.remedy} (This target's facts are unverified.)",
                      *verdict.commands)  # fmt: skip
        yield verdict if target.verified or verdict.severity.value != "fail" else unsure


def _nothing(machine: Machine) -> Iterator[Verdict]:
    return iter(())


def checks_for(target: Target | None) -> tuple[Check, ...]:
    """The checks of family `target`, for that one; without one they have nothing to say."""
    return tuple(
        Check(
            id,
            "target",
            looks_at,
            why,
            _nothing if target is None else partial(_soften, judge, target),
            links,
        )
        for id, looks_at, why, judge, links in _RULES
    )


CHECKS = checks_for(None)


def describe(target: Target) -> str:
    """One line, with what was not looked at for it."""
    out = ", ".join(ACCELERATOR_FAMILIES[target.accelerator])
    return f"{target.id}: {target.title} (does not matter to it: {out})"


def left_out(target: Target, check: Check) -> bool:
    """Whether a machine's check says nothing that matters to the target."""
    return check.id in REPLACED or check.family in ACCELERATOR_FAMILIES[target.accelerator]
