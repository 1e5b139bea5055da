"""The Python that an environment is built on: looked for where envs/interpreters.py says, or named.

That file belongs to `make venv`, which runs before anything of ours is installed; it is loaded from where
it lies so that there is one list of places and not two.
"""

import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.markers import default_environment

from bevrepro.core import proc
from bevrepro.core.errors import MachineError
from bevrepro.core.paths import envs_dir

PROBE_S = 30.0
SPLIT_OFF = ("venv", "ensurepip")  # uv makes environments without them
Hook = Callable[[Sequence[str]], str | None]


@dataclass(frozen=True)
class Interpreter:
    """A CPython. `version` in full (3.11.7), `platform` as linux-x86_64, `base` the one beneath a venv."""

    path: str
    version: str
    implementation: str
    platform: str
    base: str

    @property
    def minor(self) -> str:
        return ".".join(self.version.split(".")[:2])

    def markers(self) -> dict[str, str]:
        """The environment that a lock's markers are judged in. It runs here, so the machine is ours."""
        ours = {key: str(value) for key, value in default_environment().items()}
        return {
            **ours,
            "python_version": self.minor,
            "python_full_version": self.version,
            "implementation_version": self.version,
        }


def find_python(versions: Sequence[str], asked: str | None = None, hook: Hook | None = None) -> Interpreter:
    """The first that will do, by order of `versions`; `asked` is the only one looked at where given.

    `hook` is asked last (conda, or a download by uv) and returns a path or None. MachineError with the
    list of where it looked.
    """
    rules = _rules()
    if asked is not None:
        return _asked(asked, versions, rules)
    seen, refused = rules.find(list(versions), probe=probe)
    if seen is not None:
        return _interpreter(seen)
    for offer in (hook, _managed_by_uv):
        path = offer(versions) if offer else None
        found = probe(path) if path else None
        if found and not rules.judge(found, list(versions)):
            return _interpreter(found)
    others = [f"{each['path']} {rules.judge(each, list(versions))}" for each in refused]
    raise MachineError(
        f"no usable Python {_either(versions)} was found on this machine",
        "\n".join(["Looked at:", *(f"  {line}" for line in (*others, *_places(versions[0])))]),
        _advice(versions[0]),
    )


def probe(path: str) -> dict[str, Any] | None:
    """What an interpreter says of itself (envs/interpreters.py PROBE); None where it does not start."""
    try:
        done = proc.run([path, "-I", "-c", _rules().PROBE], timeout_s=PROBE_S)
        said: dict[str, Any] = json.loads(done.stdout) if done.ok else {}
    except (MachineError, ValueError):
        return None
    if not said:
        return None
    said["missing"] = [name for name in said["missing"] if name not in SPLIT_OFF]
    return said


def _asked(asked: str, versions: Sequence[str], rules: ModuleType) -> Interpreter:
    found = proc.which(asked)
    seen = probe(str(found or asked))
    why = "does not start as a Python interpreter" if seen is None else rules.judge(seen, list(versions))
    if seen is None or why:
        raise MachineError(
            f"{asked} {why}",
            f"The target needs 64-bit CPython {_either(versions)}.",
            "Name another one with --python, or leave it out: the common places are searched.",
        )
    return _interpreter(seen)


def _interpreter(seen: Mapping[str, Any]) -> Interpreter:
    # The real file: a link such as python3 may show another Python tomorrow.
    base = os.path.realpath(seen["path"])
    return Interpreter(seen["path"], seen["version"], seen["implementation"], seen["platform"], base)


def _managed_by_uv(versions: Sequence[str]) -> str | None:
    """A Python that uv downloads, where its source can be reached and the user lets it."""
    uv = proc.which("uv") or Path(sys.executable).with_name("uv")
    if os.environ.get("UV_PYTHON_DOWNLOADS") in ("never", "manual") or not uv.exists():
        return None
    if not proc.run([uv, "python", "install", "--quiet", versions[0]], timeout_s=600).ok:
        return None
    done = proc.run([uv, "python", "find", "--managed-python", versions[0]], timeout_s=PROBE_S)
    return done.stdout.strip() if done.ok else None


def _places(version: str) -> list[str]:
    """Where it was looked, in words."""
    return [
        f"every folder of PATH for python{version} and python3",
        f"$PYENV_ROOT/versions or ~/.pyenv/versions/{version}.*",
        f"uv's own, $UV_PYTHON_INSTALL_DIR or ~/.local/share/uv/python/cpython-{version}.*",
        f"uv python install {version}: not to be had from here, or not allowed",
    ]


def _advice(version: str) -> str:
    return "\n".join(
        (
            "Install one, then run the same command again. Any of these will do:",
            f"  apt-get install python{version} python{version}-dev     (Debian, Ubuntu; as root)",
            f"  uv python install {version}     (no root)",
            f"  pyenv install {version}     (no root, compiles)",
            f"or name one: --python /path/to/python{version}",
        )
    )


def _either(versions: Sequence[str]) -> str:
    return " or ".join((", ".join(versions[:-1]), versions[-1])) if len(versions) > 1 else versions[0]


@cache
def _rules() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bevrepro_interpreters", envs_dir() / "interpreters.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def this_platform() -> str:
    """linux-x86_64, as targets name it."""
    return f"{platform.system().lower()}-{platform.machine()}"
