"""Wheels from sdists: without isolation, in the target's own interpreter, from the locked build requirements.

What was built is kept in the cache under everything that decides about it, so the next environment with
the same operators compiles nothing.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bevrepro.core import proc
from bevrepro.core.errors import ChildError, DiskError, MachineError, UserError
from bevrepro.core.paths import atomic_write_text, cache_dir
from bevrepro.env import build_variables, operators, patching, patchset, sdists, toolkit, wheels
from bevrepro.env.index import Index
from bevrepro.env.job import Job
from bevrepro.env.layout import CUDA
from bevrepro.env.lockfile import Pin
from bevrepro.env.tree import sha256_of
from bevrepro.facts import tomllib
from bevrepro.probe.cgroup import memory_limit_b
from bevrepro.probe.files import read_text
from bevrepro.probe.host import parse_meminfo

LEGACY = "setuptools.build_meta:__legacy__"
COMPILED = (".c", ".cc", ".cpp", ".cxx", ".cu", ".pyx", ".f", ".f90")
MANY = 8  # C++ files from which a precompiled header pays
# Not torch/extension.h: what that declares more is instantiated again in every file, which eats all the gain.
HEADER = "torch/types.h"
# Named, because setuptools 75.7 and newer leave out Python's own flags where CFLAGS is set.
OPTIMIZED = "-O3 -fwrapv -DNDEBUG"
PLAIN = re.compile(r"[\w./+@,~-]+")  # of a path that compilers, their flags and ninja take as one word
NINJA = re.compile(r"^\[(\d+)/(\d+)\]")
SUM = "sha256"  # of the wheel beside it
EPOCH = "315532800"  # 1980, the earliest date that a zip file knows


def install_requirements(job: Job) -> None:
    """What builds need, into a folder beside the environment."""
    folder = _side(job)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wheels.install_side(job, job.plan.locks.build.values(), folder)


def build(job: Job, pin: Pin) -> None:
    """The wheel of one sdist, in the cache afterwards."""
    if chosen := _chosen(job, pin):
        job.note(f"Of {pin.name}'s operators only these were compiled: {', '.join(chosen)}.")
    kept = kept_folder(job, pin)
    if _sound(kept) is not None and not job.afresh:
        job.said[pin.name] = "compiled before"
        return
    archive = sdists.obtain(pin, job.plan.index)
    source = _source(job, pin, archive)
    needs_compiler = any(path.suffix in COMPILED for path in source.rglob("*"))
    if needs_compiler:
        check_compiler(job)
        if left_out := build_variables.said(os.environ):
            job.note(left_out)
    out = job.work / f"{pin.name}.out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    backend, paths = _backend(source)
    child = Path(__file__).with_name("_build_child.py")
    argv: list[str | Path] = [_alias(job) / "bin/python", "-u", child, out, backend, *paths]
    env = build_environment(job, source if needs_compiler else None)

    def show(line: str) -> None:
        step = NINJA.match(line)
        if step:
            job.progress(int(step[1]), int(step[2]), f"{pin.name} {pin.version}")

    status, text = job.run(argv, env, cwd=source, on_line=show)
    wheel = _wheel_in(out)
    if status or wheel is None:
        raise _failed(job, pin, status, text)
    _keep(wheel, kept)
    shutil.rmtree(source.parent, ignore_errors=True)


def install_built(job: Job) -> None:
    """Every wheel that was built, from the cache into the environment."""
    for pin in job.plan.sdists:
        if _sound(kept_folder(job, pin)) is None:
            build(job, pin)  # lost or changed since its own step
        wheel = _sound(kept_folder(job, pin))
        if wheel is None:
            raise ChildError(
                f"the wheel of {pin.name} is gone from {kept_folder(job, pin)}", do="Run it again."
            )
        kept = Index(no_index=True, find_links=(str(wheel.parent),))
        # By name and not by path: a path would be written into the environment. Two builds of one name
        # and version differ, so uv's cache is left out.
        wheels.install(job, f"{pin.name}=={pin.version}\n", 1, ["--no-cache"], only_from=kept)


def check_compiler(job: Job) -> None:
    """MachineError where there is no C++ compiler, no headers of this Python, or no path for compilers."""
    if not PLAIN.fullmatch(str(job.work)):
        raise MachineError(
            f"compilers stumble over the path of the cache: {cache_dir()}",
            "Of a path with spaces or quotes their flags make several words; what is compiled lies there.",
            "BEVREPRO_CACHE=/var/tmp/bevrepro in front of the same command: it goes on",
        )
    own = _toolkit(job) if job.plan.target.cuda else {}
    compiler = own.get("CXX") or os.environ.get("CXX") or "c++"
    if proc.which(compiler.split()[0]) is None:
        raise MachineError(
            f"there is no C++ compiler: {compiler} was not found on PATH",
            f"The target {job.plan.target.name} compiles operators.",
            "apt-get install g++     (Debian, Ubuntu; as root), or name one: CXX=/path/to/g++",
        )
    ask = "import sysconfig; print(sysconfig.get_paths()['include'])"
    folder = Path(proc.run([job.python, "-I", "-c", ask]).stdout.strip())
    if not (folder / "Python.h").is_file():
        minor = job.plan.interpreter.minor
        raise MachineError(
            f"{folder}/Python.h is missing: Python {minor} is here without its headers",
            "Operators are compiled against them.",
            f"apt-get install python{minor}-dev     (Debian, Ubuntu; as root), or --python with another one",
        )


def build_environment(job: Job, source: Path | None) -> dict[str, str]:
    """The variables of a build. `source` where something is compiled in it."""
    target, alias, side = job.plan.target, _alias(job), _side(job)
    env = build_variables.cleaned(job.plan.index.environment())
    env.update(target.environment)
    env.update(target.build.environment or {})
    env["PATH"] = os.pathsep.join([str(side / "bin"), str(alias / "bin"), env.get("PATH", os.defpath)])
    env.update(PYTHONPATH=str(side), PYTHONNOUSERSITE="1", PYTHONDONTWRITEBYTECODE="1", LC_ALL="C.UTF-8")
    env.update(SOURCE_DATE_EPOCH=EPOCH, PYTHONHASHSEED="0")
    env.setdefault("MAX_JOBS", str(limit_jobs(target.build.gib_per_job)))
    if target.cuda:
        env.update(_toolkit(job))
        env["PATH"] = f"{alias / CUDA / 'bin'}{os.pathsep}{env['PATH']}"
        env["TORCH_CUDA_ARCH_LIST"] = target.cuda.arch_list
    if source is not None:
        # Neither the user's folders nor the cache's get into what is compiled.
        plain = f"-g0 -ffile-prefix-map={job.work}=/build"
        for name in ("CFLAGS", "CXXFLAGS"):
            env[name] = " ".join(filter(None, (OPTIMIZED, env.get(name), plain)))
        if sum(1 for _ in source.rglob("*.cpp")) >= MANY:
            env["CXX"] = str(_compiler(job, env.get("CXX") or "c++"))
    return env


def limit_jobs(gib_per_job: float) -> int:
    """How many compilers may run at once: by cores, and by the memory that is free."""
    free = parse_meminfo(read_text(Path("/proc/meminfo"))).get("MemAvailable")
    bounds = [each for each in (free, memory_limit_b()) if each is not None]
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, int(min(bounds) / 2**30 / gib_per_job))) if bounds else 1


def _toolkit(job: Job) -> dict[str, str]:
    """CUDA_HOME and the g++ that its nvcc takes, by paths without spaces."""
    made = toolkit.read_toolkit(job.plan.build / CUDA)
    told = made.environment if made else {"CUDA_HOME": str(job.plan.build / CUDA)}
    build, alias = str(job.plan.build), str(_alias(job))
    return {name: value.replace(build, alias) for name, value in told.items()}


def _compiler(job: Job, real: str) -> Path:
    """A script that stands for the compiler (_cxx_child.py)."""
    folder = job.work / "headers"
    folder.mkdir(parents=True, exist_ok=True)
    script = job.work / "cxx"
    child = Path(__file__).with_name("_cxx_child.py")
    quoted = " ".join(f"'{part}'" for part in (_alias(job) / "bin/python", "-I", child, folder, HEADER))
    script.write_text(f'#!/bin/sh\nexec {quoted} {real} "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return script


def _alias(job: Job) -> Path:
    """The environment under a path without spaces, the same for every prefix."""
    alias = job.work / "env"
    if not alias.is_symlink() or os.readlink(alias) != str(job.plan.build):
        job.work.mkdir(parents=True, exist_ok=True)
        alias.unlink(missing_ok=True)
        alias.symlink_to(job.plan.build)
    return alias


def _side(job: Job) -> Path:
    return job.work / "needs"


def _source(job: Job, pin: Pin, archive: Path) -> Path:
    """The unpacked and patched sdist; one that a killed build left goes on from its objects, where they are
    those of the same wheel."""
    folder = job.work / f"{pin.name}-{pin.version}"
    ready = folder / ".bevrepro-ready"
    sets = [each for each in job.plan.patches if each.stage == "source" and each.package == pin.name]
    chosen = _chosen(job, pin)
    mark = json.dumps([kept_folder(job, pin).name, [patchset.digest(each) for each in sets], chosen])
    if job.afresh or (ready.read_text() if ready.is_file() else "") != mark:
        source = sdists.unpack(archive, folder)
        for each in sets:
            patching.apply(each, source)
        if chosen:
            operators.leave_out(source, chosen)
        ready.write_text(mark)
    return next(each for each in folder.iterdir() if each.is_dir())


def _chosen(job: Job, pin: Pin) -> tuple[str, ...]:
    """The operators that are compiled; empty: all there are."""
    return job.plan.target.build.operators if pin.name.startswith("mmcv") else ()


def _backend(source: Path) -> tuple[str, list[str]]:
    """The build backend of pyproject.toml, setuptools where it names none."""
    try:
        table = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return LEGACY, []
    told = table.get("build-system", {})
    return str(told.get("build-backend", LEGACY)), [str(path) for path in told.get("backend-path", ())]


def kept_folder(job: Job, pin: Pin) -> Path:
    """The cache's folder for the wheel: its name is a digest of everything that decides about it."""
    plan = job.plan
    inputs: dict[str, Any] = {
        "sdist": [pin.name, pin.version, sorted(pin.hashes)],
        "patches": [patchset.digest(each) for each in plan.patches if each.stage == "source"],
        "python": [plan.interpreter.version, plan.interpreter.platform, plan.interpreter.base],
        "needs": [[each.name, each.version] for each in plan.locks.build.values()],
        "beside": [[each.name, each.version] for each in plan.locks.pins.values()] + [list(plan.unhashed)],
        "settings": [plan.target.build.operators, _sorted(plan.target.build.environment)],
        "cuda": [plan.target.cuda.version, plan.target.cuda.arch_list] if plan.target.cuda else None,
        "compiler": [*_compiler_versions(job), HEADER, OPTIMIZED],
        "flags": [os.environ.get(name) for name in build_variables.FLAGS],
        **build_variables.in_key(os.environ, cuda=plan.target.cuda is not None),
    }
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return cache_dir() / "built" / f"{pin.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _compiler_versions(job: Job) -> list[str]:
    """The first line that each compiler says of itself; empty where there is none."""
    own = _toolkit(job) if job.plan.target.cuda else {}
    said = []
    for name, usual in (("CC", "cc"), ("CXX", "c++")):
        compiler = (own.get(name) or os.environ.get(name) or usual).split()[0]
        told = proc.run([compiler, "--version"]).stdout if proc.which(compiler) else ""
        said.append(told.partition("\n")[0].strip())
    return said


def _sorted(table: Mapping[str, str] | None) -> list[list[str]]:
    return [[key, value] for key, value in sorted((table or {}).items())]


def _wheel_in(folder: Path) -> Path | None:
    return next(iter(sorted(folder.glob("*.whl"))), None)


def _sound(folder: Path) -> Path | None:
    """The wheel that was kept there, unless it is not what was compiled any more, or not alone: uv, which
    asks by name and version, could take the other.
    """
    found = sorted(folder.glob("*.whl"))
    noted = read_text(folder / SUM) if len(found) == 1 else None
    return found[0] if noted is not None and noted.strip() == sha256_of(found[0]) else None


def _keep(wheel: Path, folder: Path) -> None:
    """Into the cache, whole or not at all, with its sha256; alone, since the installer asks by name."""
    part = folder / f".{wheel.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(wheel, part)
        for other in folder.glob("*.whl"):
            other.unlink()
        os.replace(part, folder / wheel.name)
        atomic_write_text(folder / SUM, f"{sha256_of(wheel)}\n")
    except OSError as error:
        raise DiskError(
            f"could not keep {wheel.name} in {folder}: {error.strerror}",
            "What was compiled is still in the scratch folder.",
            "Free some space, then run the same command again.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _failed(job: Job, pin: Pin, status: int, text: str) -> UserError:
    """The first line that looks like the cause; a full disk and a killed compiler in words of their own."""
    what = f"{pin.name} {pin.version}"
    if "No space left on device" in text:
        return DiskError(f"the disk became full while {what} was built", "", f"The whole log: {job.log}")
    if "Killed signal terminated program" in text or status == -9:
        return MachineError(
            f"the compiler was killed while {what} was built, most often for want of memory",
            f"{limit_jobs(job.plan.target.build.gib_per_job)} ran at once.",
            f"MAX_JOBS=1 and the same command again: it goes on. The whole log: {job.log}",
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line for line in lines if re.search(r"\berror\b|Error:|not found", line)]
    return ChildError(
        f"{what} could not be built: " + (causes or lines or ["it said nothing"])[0 if causes else -1][:300],
        "The old environment was not touched.",
        f"The whole log: {job.log}",
    )
