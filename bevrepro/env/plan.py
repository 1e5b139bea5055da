"""What a build will do, as data: `--dry-run` prints it, `build.build` carries it out. Nothing is written."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bevrepro.core.errors import ConfigError
from bevrepro.core.paths import envs_dir
from bevrepro.env import patchset
from bevrepro.env.evidence import badge
from bevrepro.env.index import Index
from bevrepro.env.interpreter import Interpreter
from bevrepro.env.layout import RECEIPT, Layout
from bevrepro.env.lockfile import LockFile, Pin, read_lock
from bevrepro.env.patchset import PatchSet
from bevrepro.env.target import Target
from bevrepro.env.tree import sha256_of

BUILDER = 1  # goes up when the same inputs make another environment
# What a target says of itself, and what is in its locks and its interpreter already.
NO_INPUT = (
    "name", "title", "source", "checked", "evidence", "gave_way", "path", "disk_gib", "selftest", "hardware",
    "platforms", "python", "requirements", "groups", "lock",
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One part of a build. `changes`: half done, it leaves an environment that has to begin anew."""

    name: str
    what: str
    changes: bool = False


@dataclass(frozen=True)
class Locks:
    """A target's lock files as they hold for one interpreter, by name of the package."""

    files: tuple[LockFile, ...]
    pins: Mapping[str, Pin]
    build: Mapping[str, Pin]

    def digests(self) -> dict[str, str]:
        """As the receipt has them: locks/cpu.txt -> sha256."""
        return {f"locks/{each.path.name}": each.sha256 for each in self.files}


@dataclass(frozen=True)
class Plan:
    """Everything that is known before the first step. `build`: the folder that the environment lives in."""

    target: Target
    place: Layout
    build: Path
    interpreter: Interpreter
    index: Index
    locks: Locks
    patches: tuple[PatchSet, ...]
    inputs_digest: str
    steps: tuple[Step, ...]
    unhashed: tuple[str, ...]  # requirements for which no hash is known on this Python and platform
    bundle: Path | None = None

    @property
    def wheels(self) -> tuple[Pin, ...]:
        """Everything that is installed as it is."""
        built = {canonicalize_name(name) for name in self.target.build.sdists}
        return tuple(pin for name, pin in sorted(self.locks.pins.items()) if name not in built)

    @property
    def sdists(self) -> tuple[Pin, ...]:
        """What is built, in the target's order."""
        return tuple(self.locks.pins[canonicalize_name(name)] for name in self.target.build.sdists)

    @property
    def finished(self) -> bool:
        """Whether that very environment is there already."""
        return (self.build / RECEIPT).is_file()

    def to_json(self) -> dict[str, Any]:
        """For --dry-run --json."""
        return {
            "target": self.target.name,
            "evidence": badge(self.target),
            "prefix": str(self.place.prefix),
            "build": str(self.build),
            "finished": self.finished,
            "python": asdict(self.interpreter),
            "inputs_digest": self.inputs_digest,
            "locks": self.locks.digests(),
            "packages": {pin.name: pin.version for pin in self.locks.pins.values()},
            "unhashed": list(self.unhashed),
            "from": self.index.said() if self.bundle is None else str(self.bundle),
            "steps": [{"name": step.name, "what": step.what} for step in self.steps],
        }


def make_plan(
    target: Target,
    place: Layout,
    interpreter: Interpreter,
    index: Index,
    *,
    rebuild: bool = False,
    bundle: Path | None = None,
) -> Plan:
    """ConfigError where target and locks do not fit together."""
    locks, unhashed = read_locks(target, interpreter)
    _check_sdists(target, locks)
    patches = tuple(patchset.load(name) for name in target.patches)
    digest = inputs_digest(target, locks, interpreter, patches)
    plan = Plan(
        target, place, choose_build(place, digest, rebuild), interpreter, index, locks, patches, digest, (),
        unhashed, bundle,
    )  # fmt: skip
    return replace(plan, steps=_steps(plan))


def read_locks(target: Target, interpreter: Interpreter) -> tuple[Locks, tuple[str, ...]]:
    """The locks, and the requirements that no lock has a hash for."""
    folder, markers = envs_dir() / "locks", interpreter.markers()
    main = read_lock(folder / f"{target.name}.txt")
    files, pins = [main], dict(main.for_environment(markers))
    unhashed: tuple[str, ...] = ()
    if target.torch is not None and _is_hashed(target, interpreter):
        torch = read_lock(folder / f"{target.name}.torch.txt")
        files.append(torch)
        pins.update(torch.for_environment(markers))
    elif target.torch is not None:
        unhashed = tuple(target.torch.requirement.split())
    build: dict[str, Pin] = {}
    if target.build.sdists and target.build.requires:
        needs = read_lock(folder / f"{target.name}.build.txt")
        files.append(needs)
        build = needs.for_environment(markers)
    return Locks(tuple(files), pins, build), unhashed


def inputs_digest(target: Target, locks: Locks, interpreter: Interpreter, patches: Sequence[PatchSet]) -> str:
    """sha256 over everything that decides what is built. What a target merely says of itself is left out."""
    settings = {key: value for key, value in asdict(target).items() if key not in NO_INPUT}
    inputs = {
        "builder": BUILDER,
        "target": settings,
        "locks": locks.digests(),
        "patches": {each.name: patchset.digest(each) for each in patches},
        "python": [interpreter.version, interpreter.implementation, interpreter.platform],
        "toolkit": sha256_of(envs_dir() / "cuda" / f"{target.cuda.version}.toml") if target.cuda else None,
    }
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def choose_build(place: Layout, digest: str, rebuild: bool) -> Path:
    """The folder to build in. Built again, it is one that PREFIX does not show: that one stays usable."""
    first, second = place.builds / digest[:16], place.builds / f"{digest[:16]}-2"
    if not rebuild:
        # After a rebuild PREFIX shows the second: it is the same environment.
        return second if place.link == second else first
    return second if place.link == first else first


def _is_hashed(target: Target, interpreter: Interpreter) -> bool:
    here = (interpreter.minor, interpreter.platform)
    wheels = target.torch.wheels if target.torch else ()
    return any((wheel.python, wheel.platform) == here for wheel in wheels)


def _check_sdists(target: Target, locks: Locks) -> None:
    absent = [name for name in target.build.sdists if canonicalize_name(name) not in locks.pins]
    if absent:
        raise ConfigError(
            f"the target {target.name} builds {absent[0]}, which its lock does not have",
            "Only what is locked is built.",
            f"bevrepro env lock {target.name}",
        )
    wanted = {canonicalize_name(Requirement(each).name) for each in target.build.requires}
    missing = sorted(wanted - set(locks.build))
    if target.build.sdists and missing:
        raise ConfigError(
            f"the lock of build requirements of {target.name} lacks {missing[0]}",
            "It was made for another version of the target.",
            f"bevrepro env lock {target.name}",
        )


def _steps(plan: Plan) -> tuple[Step, ...]:
    target = plan.target
    steps = [Step("venv", f"an empty environment on Python {plan.interpreter.version}", changes=True)]
    count = len(plan.wheels) + len(plan.unhashed)
    steps.append(Step("wheels", f"{count} packages, each checked against its hash", changes=True))
    if target.cuda:
        steps.append(Step("cuda", f"CUDA {target.cuda.version} with nvcc, for {target.cuda.arch_list}"))
    if plan.sdists:
        steps.append(Step("build-requirements", f"{len(plan.locks.build)} packages that builds need"))
    for pin in plan.sdists:
        chosen = target.build.operators if pin.name.startswith("mmcv") else ()
        only = f", of its operators only {', '.join(chosen)}" if chosen else ""
        steps.append(Step(f"build-{pin.name}", f"{pin.name} {pin.version} built from its sdist{only}"))
    if plan.sdists:
        steps.append(Step("built", "what was built, installed", changes=True))
    for each in plan.patches:
        if each.stage == "installed":
            steps.append(Step(f"patch-{each.name}", f"{len(each.patches)} patches of {each.name}"))
    steps.append(Step("selftest", "self-test: " + ", ".join(target.selftest)))
    return tuple(steps)
