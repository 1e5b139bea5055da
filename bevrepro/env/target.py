"""Targets: what an environment consists of, read from envs/targets/<name>.toml.

A target is written by hand. What a key means is said in docs/environments.md; a key that is not known
is refused, so that a slip of the pen is not an environment with a part missing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from bevrepro.core.errors import ConfigError
from bevrepro.core.paths import envs_dir
from bevrepro.env import operator_names
from bevrepro.facts import tomllib

LEVELS = ("resolved", "installed", "compiled", "ran-on-cpu", "ran-on-gpu")
STACKS = ("torch2", "openmmlab1")
T = TypeVar("T")
KINDS = ("cpu", "nvidia", "ascend")


@dataclass(frozen=True)
class Evidence:
    """What was really done with a target: one of LEVELS, on which day, by which command, on what."""

    level: str
    date: str
    command: str
    on: str


@dataclass(frozen=True)
class GaveWay:
    """A pin of the seeds or of upstream that is not kept, what stands in its place, and why."""

    pin: str
    instead: str
    why: str


@dataclass(frozen=True)
class Hardware:
    """`architectures`: what operators are compiled for, as sm_80; `minimum_driver` of the NVIDIA driver."""

    kind: str
    gpus: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    minimum_driver: str | None = None


@dataclass(frozen=True)
class Wheel:
    """A wheel of torch whose sha256 is known for one Python (3.11) and platform (linux-x86_64).

    `requirement` is that of the table where the wheel is not of torch itself but of a companion.
    """

    python: str
    platform: str
    sha256: str
    source: str
    checked: str
    requirement: str | None = None


@dataclass(frozen=True)
class Torch:
    """torch where it is no plain pin of the lock: a build with a local version, from its own index.

    `companions` come from there as well: torchvision has to be the build for that torch.
    """

    requirement: str
    index: str
    requires: tuple[str, ...]  # installed without its dependencies, so the lock has to hold them
    wheels: tuple[Wheel, ...]
    source: str
    checked: str
    companions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metadata:
    """Static metadata of an sdist whose setup.py cannot tell: `requires` as in Requires-Dist."""

    name: str
    version: str
    requires: tuple[str, ...]


@dataclass(frozen=True)
class Lock:
    """How the lock is resolved: nothing uploaded after `cutoff` (a date), but for the packages named.

    With one Python, only wheels that `architecture` and `glibc` (the oldest one) take are chosen; with
    several, the lock carries markers. Overrides stand in place of what any package asks for.
    """

    cutoff: str | None = None
    cutoff_of: Mapping[str, str] | None = None
    metadata: tuple[Metadata, ...] = ()
    overrides: tuple[str, ...] = ()
    architecture: str = "x86_64"
    glibc: str = "2.17"
    yanked: tuple[str, ...] = ()  # pins kept although their authors withdrew them


@dataclass(frozen=True)
class Build:
    """Sdists that are built without isolation, in this order, from the second lock made of `requires`."""

    sdists: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    environment: Mapping[str, str] | None = None
    operators: tuple[str, ...] = ()  # only these files of mmcv's operators are compiled; all where empty
    gib_per_job: float = 2.0


@dataclass(frozen=True)
class Cuda:
    """The toolkit that compiles operators, a recipe of envs/cuda, and TORCH_CUDA_ARCH_LIST."""

    version: str
    arch_list: str


@dataclass(frozen=True)
class Target:
    """One environment. `gave_way` is empty where every pin it starts from is kept."""

    name: str
    title: str
    stack: str
    source: str
    checked: str
    hardware: Hardware
    python: tuple[str, ...]  # best first
    platforms: tuple[str, ...]  # linux-x86_64
    requirements: tuple[str, ...]
    groups: tuple[str, ...]  # of pyproject.toml, whose own dependencies then belong to it as well
    disk_gib: float
    evidence: tuple[Evidence, ...]
    lock: Lock
    build: Build
    torch: Torch | None
    cuda: Cuda | None
    patches: tuple[str, ...]  # folders of patches/, in the order of application
    environment: Mapping[str, str]  # variables that `env run` and `env shell` set
    selftest: tuple[str, ...]  # names of checks in env/selftest.py
    gave_way: tuple[GaveWay, ...]
    path: Path

    @property
    def level(self) -> str | None:
        """The highest level of evidence; None where nothing was done yet."""
        done = {each.level for each in self.evidence}
        return next((level for level in reversed(LEVELS) if level in done), None)

    @property
    def torch_requirement(self) -> str | None:
        """`torch==1.13.1`, of the table [torch] or of the requirements; None where none is asked for."""
        if self.torch:
            return self.torch.requirement
        return next((each for each in self.requirements if re.match(r"torch\b(?!-)", each)), None)


def names() -> tuple[str, ...]:
    """Every target there is, `cpu` first."""
    found = sorted(path.stem for path in (envs_dir() / "targets").glob("*.toml"))
    return tuple(sorted(found, key=lambda name: name != "cpu"))


def load(name: str) -> Target:
    """The target of that name. ConfigError naming the nearest for any other, or the slip in its file."""
    if name not in names():
        near = get_close_matches(name, names(), n=1, cutoff=0.5)
        raise ConfigError(
            f"there is no target {name!r}" + (f"; is {near[0]!r} meant?" if near else ""),
            f"The targets are: {', '.join(names())}.",
            "bevrepro env list",
        )
    return read(envs_dir() / "targets" / f"{name}.toml")


def read(path: Path) -> Target:
    """A target's file. ConfigError naming file and key where it does not hold to the format."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return _target(table, path)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", "It is no target file.") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path}: {_slip(error)}", "docs/environments.md lists what a target file holds."
        ) from error


def with_operators(target: Target, names: Sequence[str]) -> Target:
    """The target with only these of mmcv's operators compiled. ConfigError where it compiles none at all, and
    for a name that its mmcv does not have."""
    if not any(each.startswith("mmcv") for each in target.build.sdists):
        raise ConfigError(
            f"the target {target.name} compiles no operators of mmcv", "--operators chooses among them."
        )
    _check_operators(target.requirements, names)
    return replace(target, build=replace(target.build, operators=tuple(sorted(set(names)))))


def _check_operators(requirements: Sequence[str], names: Sequence[str]) -> None:
    """ConfigError for what is no operator of the mmcv that is pinned. What is not known of a version that
    nobody has looked into is seen when its sdist is unpacked (operators.leave_out)."""
    for each in requirements if names else ():
        pinned = re.fullmatch(r"(mmcv(?:-full)?)==([\w.]+)", each.replace(" ", ""))
        known = operator_names.known(*pinned.groups()) if pinned else None
        if pinned and known is not None:
            operator_names.refuse_unknown(names, known, " ".join(pinned.groups()))


def _slip(error: Exception) -> str:
    return f"the key {error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)


def _target(table: dict[str, Any], path: Path) -> Target:
    known = {
        "name", "title", "stack", "source", "checked", "evidence", "hardware", "python", "platform", "disk",
        "requirements", "lock", "build", "torch", "cuda", "patches", "environment", "selftest", "gave_way",
    }  # fmt: skip
    _only(table, known, "the file")
    if table["name"] != path.stem:
        raise ValueError(f"its name is {table['name']!r}")
    target = Target(
        name=table["name"],
        title=_text(table["title"], "title"),
        stack=_one_of(table["stack"], STACKS, "stack"),
        source=_text(table["source"], "source"),
        checked=_text(table["checked"], "checked"),
        hardware=_make(Hardware, table["hardware"], "hardware"),
        python=_texts(table["python"]["order"], "python.order"),
        platforms=_texts(table["platform"]["verified"], "platform.verified"),
        requirements=_texts(table["requirements"]["model"], "requirements.model"),
        groups=_texts(table["requirements"].get("groups", ()), "requirements.groups"),
        disk_gib=_value(table["disk"]["needs_gib"], float, "disk.needs_gib"),
        evidence=tuple(_make(Evidence, row, "evidence") for row in table.get("evidence", ())),
        lock=_lock(table.get("lock", {})),
        build=_make(Build, table.get("build", {}), "build"),
        torch=_torch(table["torch"]) if "torch" in table else None,
        cuda=_make(Cuda, table["cuda"], "cuda") if "cuda" in table else None,
        patches=_texts(table.get("patches", {}).get("use", ()), "patches.use"),
        environment=_value(table.get("environment", {}), Mapping[str, str], "environment"),
        selftest=_texts(table["selftest"]["checks"], "selftest.checks"),
        gave_way=tuple(_make(GaveWay, row, "gave_way") for row in table.get("gave_way", ())),
        path=path,
    )
    _one_of(target.hardware.kind, KINDS, "hardware.kind")
    _check_operators(target.requirements, target.build.operators)
    for each in target.evidence:
        _one_of(each.level, LEVELS, "evidence.level")
        _day(each.date, "evidence.date")
    for version in target.python:
        if not re.fullmatch(r"3\.\d+", version):
            raise ValueError(f"python.order has {version!r}, not a version as 3.11")
    return target


def _lock(table: dict[str, Any]) -> Lock:
    rows = tuple(_make(Metadata, row, "lock.metadata") for row in table.get("metadata", ()))
    lock = _make(Lock, {**table, "metadata": rows}, "lock")
    for day in ([lock.cutoff] if lock.cutoff else []) + list((lock.cutoff_of or {}).values()):
        _day(day, "a cutoff of [lock]")
    return lock


def _day(text: str, where: str) -> None:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{where} is {text!r}, not a day as 2026-11-21") from None


def _torch(table: dict[str, Any]) -> Torch:
    wheels = tuple(_make(Wheel, row, "torch.wheel") for row in table.get("wheel", ()))
    for wheel in wheels:
        if not re.fullmatch(r"[0-9a-f]{64}", wheel.sha256):
            raise ValueError(f"torch.wheel.sha256 is {wheel.sha256!r}, not 64 hexadecimal digits")
    rest = {key: value for key, value in table.items() if key != "wheel"}
    return _make(Torch, {**rest, "wheels": wheels}, "torch")


def _make(kind: type[T], table: Mapping[str, Any], where: str) -> T:
    _only(table, {field.name for field in fields(kind)}, where)  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    given = {key: _value(value, hints[key], f"{where}.{key}") for key, value in table.items()}
    try:
        return kind(**given)
    except TypeError as error:  # "missing 1 required positional argument: 'source'"
        missing = re.findall(r"'(\w+)'", str(error))
        raise ValueError(f"{where} lacks {' and '.join(missing)}") from error


def _value(value: Any, hint: Any, where: str) -> Any:
    """The value as the annotation wants it; ValueError for another kind (a text where a list belongs)."""
    if hint in (str, str | None):
        return _text(value, where)
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint is bool and type(value) is bool:
        return value
    if get_origin(hint) is tuple:
        return _texts(value, where) if get_args(hint)[0] is str else tuple(value)
    if isinstance(value, Mapping):
        return {key: _text(each, f"{where}.{key}") for key, each in value.items()}
    raise ValueError(f"{where} is {value!r}")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} is {value!r}, not a text in quotes")
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{where} is {value!r}, not a list")
    return tuple(_text(each, f"an entry of {where}") for each in value)


def _only(table: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        near = get_close_matches(unknown[0], known, n=1)
        raise ValueError(
            f"unknown key {unknown[0]!r} in {where}" + (f"; is {near[0]!r} meant?" if near else "")
        )


def _one_of(value: str, choices: tuple[str, ...], where: str) -> str:
    if value not in choices:
        raise ValueError(f"{where} is {value!r}, not one of {', '.join(choices)}")
    return value
