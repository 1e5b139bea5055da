"""Programs inside an environment: its variables, and becoming the program."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from bevrepro.core.errors import ConfigError, MachineError
from bevrepro.core.paths import model_dir
from bevrepro.env.layout import CUDA
from bevrepro.env.receipt import Receipt

INSTALLERS = ("pip", "pip3", "conda", "mamba", "easy_install")
SHELL = "/bin/sh"


def variables(receipt: Receipt, build: Path, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a program in the environment sees: its programs first, its own and the target's variables.

    PYTHONPATH stays, as upstream's commands need it, and the model plane comes last on it, so that
    `python -m bevformer.selftest` runs. PYTHONHOME and the user's own packages do not stay.
    """
    env = {key: value for key, value in base.items() if key not in ("PYTHONHOME", "CONDA_PREFIX")}
    env.update(receipt.environment)
    programs = [str(build / "bin")]
    if receipt.cuda:
        env["CUDA_HOME"] = str(build / CUDA)
        programs.append(str(build / CUDA / "bin"))
    others = [part for part in base.get("PATH", os.defpath).split(os.pathsep) if part not in programs]
    env["PATH"] = os.pathsep.join([*programs, *others, *_own(others)])
    env.update(VIRTUAL_ENV=str(build), PYTHONNOUSERSITE="1", BEVREPRO_PYTHON=str(build / "bin/python"))
    env["BEVREPRO_ENV"] = receipt.target
    places = [part for part in base.get("PYTHONPATH", "").split(os.pathsep) if part]
    env["PYTHONPATH"] = os.pathsep.join([*places, str(model_dir())])
    return env


def start(command: Sequence[str], env: Mapping[str, str], build: Path) -> NoReturn:
    """Become the program. ConfigError for an installer from outside, MachineError where it does not start."""
    name = command[0]
    if name in INSTALLERS and not (build / "bin" / name).exists():
        raise ConfigError(
            f"there is no {name} in this environment, and the one outside would change another one",
            "What is locked is not installed into.",
            "Add the package to the target, then: bevrepro env lock TARGET, bevrepro env build",
        )
    program = shutil.which(name, path=env["PATH"])
    if program is None:
        raise MachineError(
            f"{name} was found neither in the environment nor on PATH",
            do=f"Its own programs are in {build / 'bin'}",
        )
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(program, list(command), dict(env))
    except OSError as error:
        raise MachineError(f"could not start {program}: {error.strerror}") from error


def shell(receipt: Receipt, env: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The user's shell, whose prompt names the target where the shell takes one from outside."""
    chosen = env.get("SHELL") or SHELL
    prompt = f"({receipt.target}) {env.get('PS1') or '$ '}"
    return [chosen, *(["--norc"] if Path(chosen).name == "bash" else [])], {**env, "PS1": prompt}


def _own(others: Sequence[str]) -> list[str]:
    """bevrepro's folder, so that `env run -- bevrepro train` finds it, where PATH does not have it."""
    folder = str(Path(sys.executable).parent)
    return [folder] if folder not in others and (Path(folder) / "bevrepro").exists() else []
