"""What stops an installed OpenMMLab stack, told before anything of it is started or imported."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from bevrepro.core.errors import MachineError
from bevrepro.core.finding import Finding, Severity
from bevrepro.core.machine import Machine, Package, Python, Torch
from bevrepro.doctor import openmmlab, torch
from bevrepro.doctor.check import Check
from bevrepro.doctor.judge import judge_all
from bevrepro.probe.compiled import read_compiled
from bevrepro.probe.python import probe_python

BESIDE = frozenset(("mmcv-twice", "torch-numpy2", "devkit-numpy", "torch-library-deleted", "library-missing"))
CHECKS: tuple[Check, ...] = (*openmmlab.CHECKS, *(each for each in torch.CHECKS if each.id in BESIDE))


def examine(python: Path) -> tuple[Finding, ...]:
    """What the doctor's checks of packages say of one interpreter; from files alone, in about a second.

    Raises MachineError where the interpreter does not answer.
    """
    found = probe_python(python)
    if found.error is not None:
        raise MachineError(
            f"{python}: {found.error}",
            "It is the interpreter of the environment.",
            "Build it again: bevrepro env build --rebuild",
        )
    return judge(read_compiled(found))


def examine_files(
    site: Path, version: str, installed: Mapping[str, str], built: Mapping[str, str]
) -> tuple[Finding, ...]:
    """The same without starting an interpreter. `installed` and `built`: normalised name -> version."""
    packages = tuple(Package(name, found, str(site)) for name, found in sorted(installed.items()))
    torch = Torch(installed["torch"]) if "torch" in installed else None
    return judge(read_compiled(Python(version=version, packages=packages, built=built, torch=torch)))


def judge(python: Python) -> tuple[Finding, ...]:
    """The same of an interpreter that was looked at already. Pure."""
    return judge_all(Machine(python=python), CHECKS)


def refuse_broken(findings: Iterable[Finding], target: str, rebuild: str) -> None:
    """MachineError with every finding that fails. `rebuild`: the command that makes the environment whole."""
    broken = [each for each in findings if each.severity is Severity.FAIL]
    if broken:
        raise MachineError(
            f"the environment of {target} is not as it was built: " + "; ".join(each.seen for each in broken),
            broken[0].why,
            f"Build it again: {rebuild}",
        )
