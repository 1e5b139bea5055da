"""docker, podman or buildah: which one works here, the command that builds an image, and why it failed."""

import json
import os
import re
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bevrepro.core import proc
from bevrepro.core.errors import ChildError, DiskError, MachineError, UserError
from bevrepro.core.units import GIB, size
from bevrepro.env.container import Recipe

ENGINES = ("docker", "podman", "buildah")
EPOCH_S = 315532800  # 1980-01-01, the Dockerfiles' own SOURCE_DATE_EPOCH
ASK = {
    "docker": ("version", "--format", "{{.Server.Version}}"),
    "podman": ("info", "--format", "json"),
    "buildah": ("info",),
}
ASK_S = 30.0
SHOWN = 12  # lines of an engine that failed
KEPT = 200


@dataclass(frozen=True)
class Engine:
    """One of ENGINES. `problem`: why it cannot build here, None where it can. `storage`: where images lie."""

    name: str
    path: Path | None
    problem: str | None = None
    storage: Path | None = None
    runtime: bool = True  # whether it has a runtime that starts containers

    def said(self) -> str:
        """For the list of what was looked for."""
        return f"{self.name} {'works' if self.problem is None else self.problem}"


@dataclass(frozen=True)
class Plan:
    """A build that was not started yet. `argv` names files in `work` that do not exist before it starts."""

    engine: Engine
    argv: tuple[str, ...]
    tag: str
    base: str


@dataclass(frozen=True)
class Built:
    """`image`: sha256 of the image's configuration, which holds the digest of every layer."""

    engine: str
    tag: str
    image: str
    seconds: float


def look(name: str) -> Engine:
    """Whether an engine is on PATH and answers; a docker client without its daemon does not."""
    path = proc.which(name)
    if path is None:
        return Engine(name, None, "is not on PATH")
    done = proc.run([path, *ASK[name]], timeout_s=ASK_S)
    if not done.ok:
        lines = (done.stderr or done.stdout).strip().splitlines()
        why = lines[-1] if lines else f"ended with exit code {done.rc}"
        return Engine(name, path, f"({path}) does not answer: {why}")
    storage, runtime = _told(done.stdout) if name != "docker" else (None, True)
    return Engine(name, path, None, storage, runtime)


def choose(asked: str | None) -> Engine:
    """The engine that was asked for, else the first that works. MachineError listing what was looked for."""
    found = []
    for name in (asked,) if asked else ENGINES:
        engine = look(name)
        if engine.problem is None:
            return engine
        found.append(engine)
    raise MachineError(
        f"there is no container engine to build with: {'; '.join(each.said() for each in found)}",
        "An image is built by docker, podman or buildah; all else works without one.",
        "Install one (Debian, Ubuntu: apt-get install buildah), or take all it needs to another machine:\n"
        "bevrepro env docker --target NAME --out FOLDER",
    )


def command(
    engine: Engine,
    recipe: Recipe,
    context: Path,
    work: Path,
    secrets: Sequence[str],
    tag: str,
    options: Sequence[str] = (),
) -> Plan:
    """The command line. Secrets are named by id; their files lie in `work` while it runs."""
    program = engine.path or Path(engine.name)
    words = [str(program), "build", "--file", f"{context}/Dockerfile", "--tag", tag]
    words += ["--iidfile", f"{work}/image"]
    if engine.name == "docker":
        words += ["--build-arg", f"SOURCE_DATE_EPOCH={EPOCH_S}"]
    else:
        words += ["--timestamp", str(EPOCH_S)]
    if not engine.runtime:  # no runc and no crun: a chroot is enough for a build
        words += ["--isolation", "chroot", "--network", "host"]
    for name in secrets:
        words += ["--secret", f"id={name},src={work}/{name}"]
    return Plan(engine, (*words, *options, str(context)), tag, recipe.base)


def refuse_full_disk(engine: Engine, recipe: Recipe) -> None:
    """DiskError where the engine's storage cannot hold the environment and its layer."""
    place = _existing(engine.storage)
    if place is None:
        return
    free_b, needed_gib = shutil.disk_usage(place).free, 2 * recipe.disk_gib
    if free_b < needed_gib * GIB:
        raise DiskError(
            f"{size(free_b)} are free in {engine.storage}; {recipe.target} needs {needed_gib:.0f} GiB",
            f"{engine.name} holds the environment and its layer there while it builds.",
            f"Free some space: {engine.name} {'rmi --prune' if engine.name == 'buildah' else 'image prune'}",
        )


def run(plan: Plan, contents: Mapping[str, bytes], work: Path, on_line: Callable[[str], None]) -> Built:
    """Build. `work` is a private folder; the secrets lie there only while this runs.

    Raises the UserError that the engine's last lines tell of.
    """
    started_s, tail = time.monotonic(), deque[str](maxlen=KEPT)

    def heard(line: str) -> None:
        tail.append(line)
        on_line(line)

    for name, content in contents.items():
        _write_private(work / name, content)
    environ = {**os.environ, "DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"}
    try:
        with proc.stream(plan.argv, env=environ, on_stderr=heard) as child:
            for line in child:
                heard(line)
    finally:
        for name in contents:
            (work / name).unlink(missing_ok=True)
    rc = -9 if child.rc is None else child.rc
    if rc:
        raise failure(plan, rc, tuple(tail))
    image = (work / "image").read_text(encoding="ascii").strip()
    return Built(plan.engine.name, plan.tag, image, time.monotonic() - started_s)


def private_folder() -> "tempfile.TemporaryDirectory[str]":
    """For secrets and the image's id: nobody else can read it, and it goes away with the block."""
    return tempfile.TemporaryDirectory(prefix="bevrepro-docker-")


# What the engine wrote -> (class, what it means, what to do); the first that matches counts.
CAUSES: tuple[tuple[str, type[UserError], str, str], ...] = (
    (
        r"no space left on device|disk quota exceeded",
        DiskError,
        "The disk is full.",
        "Free some space there.",
    ),
    (
        r"exec format error",
        MachineError,
        "The base is for another processor.",
        "Name a base for this one with --base, or install qemu-user-static.",
    ),
    (
        r"(/bin/sh|\bsh\b).*(no such file|not found)|executable file not found",
        MachineError,
        "The base has no shell, so nothing can be installed in it.",
        "Name a base of Debian 12 or Ubuntu 22.04 or newer with --base.",
    ),
    (
        r"manifest unknown|initializing source|pinging container registry|pull access denied|short-name"
        r"|failed to resolve source",
        MachineError,
        "The base image could not be fetched.",
        "Check the network and the name, or name one that is there with --base.",
    ),
)


def failure(plan: Plan, rc: int, tail: Sequence[str]) -> UserError:
    """What went wrong: a sentence of one of our own steps, a known cause, or the bare fact. Pure."""
    text = "\n".join(tail)
    shown = "".join(f"\n| {line}" for line in [line for line in tail if line.strip()][-SHOWN:])
    own = re.findall(r"^(?:#\d+ [\d.]+ )?bevrepro: (.+)$", text, re.MULTILINE)
    how = proc.signal_name(rc) or f"exit code {rc}"
    seen = f"{plan.engine.name} ended with {how} while it built {plan.tag} on {plan.base}{shown}"
    again = "Mend it and run the same command again: what was downloaded is kept."
    if own:
        return MachineError(own[-1] + shown, f"{plan.engine.name} stopped there.", again)
    for pattern, kind, why, do in CAUSES:
        if re.search(pattern, text, re.IGNORECASE):
            return kind(seen, why, do)
    return ChildError(seen, "The lines above are its last.", again)


def _told(text: str) -> tuple[Path | None, bool]:
    """(storage, whether there is a runtime) from `podman info` or `buildah info`."""
    try:
        told = json.loads(text)
        runtime = told["host"].get("OCIRuntime") or (told["host"].get("ociRuntime") or {}).get("path")
        place = told["store"].get("GraphRoot") or told["store"].get("graphRoot")
    except (ValueError, KeyError, AttributeError, TypeError):
        return None, True
    return Path(place) if place else None, bool(runtime)


def _existing(place: Path | None) -> Path | None:
    """The folder itself, or the nearest above it that is there already."""
    return next((each for each in (place, *place.parents) if each.is_dir()), None) if place else None


def _write_private(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
