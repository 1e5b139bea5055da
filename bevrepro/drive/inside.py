"""The environment that the model plane runs in where a target is named: `train --target cpu-openmmlab`.

It has to be one that `env build` made, of that target, for this machine, and still as it was built: what is
not would end in an ImportError, or in numbers that nobody can place.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bevrepro.core.errors import ConfigError, MachineError
from bevrepro.doctor import stack
from bevrepro.env import layout, run
from bevrepro.env.evidence import named
from bevrepro.env.interpreter import this_platform
from bevrepro.env.receipt import Receipt, read_receipt
from bevrepro.env.target import Target, load
from bevrepro.probe.cuda import probe_cuda
from bevrepro.probe.environment import normalised, probe_env

SHOWN = 6


@dataclass(frozen=True)
class Inside:
    """An environment that can be used here. `variables`: those of a program in it; `digest`: of its files."""

    target: str
    title: str
    build: Path
    python: str
    digest: str
    variables: Mapping[str, str]
    gpus: int | None


def enter(name: str, gpus: int | None, prefix: Path | None = None) -> Inside:
    """The environment of a target, by default where it is built. `gpus`: as asked for; 0 for a target that is
    for CPUs. ConfigError or MachineError where there is none, or it cannot be used here.
    """
    target = load(name)
    build = layout.real(prefix, name)
    receipt = read_receipt(build)
    if receipt.target != name:
        raise ConfigError(
            f"{prefix or build} holds {receipt.target}, not {name}",
            do=f"Say --target {receipt.target}, or build it: bevrepro env build --target {name}",
        )
    python = build / "bin/python"
    _require_of_this_machine(receipt, python)
    count = _gpus(target, gpus)
    _require_unchanged(receipt, build)
    title = f"{named(target)}: Python {receipt.python['version']}, torch {receipt.packages.get('torch')}"
    return Inside(
        name, title, build, str(python), receipt.digest, run.variables(receipt, build, os.environ), count
    )


def _require_of_this_machine(receipt: Receipt, python: Path) -> None:
    again = f"Build it here: bevrepro env build --target {receipt.target} --rebuild"
    made_for, here = receipt.python.get("platform"), this_platform()
    if made_for and made_for != here:
        raise MachineError(
            f"the environment of {receipt.target} is for {made_for}, this machine is {here}",
            "Its libraries hold another processor's code.",
            again,
        )
    if not os.access(python, os.X_OK):
        raise MachineError(
            f"{python} leads to {os.path.realpath(python)}, which is not on this machine",
            f"The environment was built on another one, or that Python ({receipt.python.get('version')}) was "
            "removed since.",
            again,
        )


def require_fitting(target: Target, gpus: int | None) -> None:
    """ConfigError for what a target is not for, whatever the machine."""
    kind = target.hardware.kind
    if kind == "cpu" and gpus:
        raise ConfigError(
            f"--gpus {gpus} with target {target.name}, which is for CPUs",
            "Its operators were compiled without CUDA.",
            "Say --gpus 0, or name the target of your GPU: bevrepro env list",
        )
    if kind not in ("cpu", "nvidia"):
        raise ConfigError(
            f"target {target.name} is for {kind} accelerators",
            "The bundled model runs on CPUs and NVIDIA GPUs.",
            f"Your own program runs in it: bevrepro env run --target {target.name} -- python ...",
        )


def _gpus(target: Target, asked: int | None) -> int | None:
    """What --gpus comes to here. MachineError where the target is for a GPU and there is none."""
    require_fitting(target, asked)
    if target.hardware.kind == "cpu":
        return 0
    if asked != 0 and not probe_cuda().gpus:
        raise MachineError(
            f"target {target.name} is for {', '.join(target.hardware.gpus)}, and no NVIDIA GPU is seen here",
            "The training would run on the processor, many times slower.",
            "Say --gpus 0 if that is meant; `bevrepro doctor` says why a GPU is not seen.",
        )
    return asked


def _require_unchanged(receipt: Receipt, build: Path) -> None:
    """Packages and compiled operators, which takes a second; `env verify` compares every file."""
    found = probe_env(build)
    built = {normalised(name): version for name, version in receipt.packages.items()}
    for site in build.glob("lib/python3*/site-packages"):
        findings = stack.examine_files(site, receipt.python["version"], found.installed or {}, built)
        stack.refuse_broken(
            findings, receipt.target, f"bevrepro env build --target {receipt.target} --rebuild"
        )
    changes = list(changed(receipt.packages, found.installed or {}, found.twice or ()))
    if not changes:
        return
    more = [f"and {len(changes) - SHOWN} more"] if len(changes) > SHOWN else []
    raise MachineError(
        f"the environment of {receipt.target} was changed since it was built: "
        + "; ".join(changes[:SHOWN] + more),
        "What runs in it is no longer what was locked and tested, and a result could not be placed.",
        f"bevrepro doctor env {receipt.prefix} says what does not go together; it is built anew by: "
        f"bevrepro env build --target {receipt.target} --rebuild",
    )


def changed(
    built: Mapping[str, str], installed: Mapping[str, str], twice: tuple[str, ...] = ()
) -> Iterator[str]:
    """`numpy 1.24.4 instead of 1.23.5`, `mmcv 2.1.0 added`, `mmdet removed`, by name. Pure."""
    then = {normalised(name): version for name, version in built.items()}
    for name in sorted({*then, *installed}):
        if name in twice:
            yield f"{name} installed twice"
        elif name not in installed:
            yield f"{name} removed"
        elif name not in then:
            yield f"{name} {installed[name]} added"
        elif installed[name] != then[name]:
            yield f"{name} {installed[name]} instead of {then[name]}"
