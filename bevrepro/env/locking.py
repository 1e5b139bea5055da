"""From a target to its locks: what is asked of uv, the text of a lock, and whether the two still agree.

A target has up to three locks: NAME.txt (everything from the package index), NAME.torch.txt (torch where it
has an index of its own) and NAME.build.txt (what its sdists need to be built). Each begins with a header of
two digests: of what the target asks for, and of the pins below it. So an edit of either is told without a
network, and without resolving anything.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from bevrepro.core.errors import ConfigError
from bevrepro.core.paths import envs_dir
from bevrepro.env.lockfile import HEADER, LockFile, edited, parse_lock, sha256
from bevrepro.env.target import Target
from bevrepro.facts import tomllib

KINDS = ("index", "torch", "build")
SUFFIXES = {"index": ".txt", "torch": ".torch.txt", "build": ".build.txt"}
NEVER = "sys_platform == 'never'"  # an override with this marker takes a package out


@dataclass(frozen=True)
class Asked:
    """What one lock has to satisfy: the whole input of a resolution, as data."""

    target: str
    kind: str
    requirements: tuple[str, ...]
    pythons: tuple[str, ...]
    architecture: str
    glibc: str
    cutoff: str | None = None
    cutoff_of: Mapping[str, str] | None = None
    metadata: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    overrides: tuple[str, ...] = ()
    sdists: tuple[str, ...] = ()
    yanked: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()  # of torch's wheels: nothing but the target vouches for them

    @property
    def digest(self) -> str:
        """sha256 of everything above, in hex."""
        return sha256(json.dumps(vars(self), sort_keys=True, default=dict))

    @property
    def path(self) -> Path:
        return lock_path(self.target, self.kind)


@dataclass(frozen=True)
class Problem:
    """A lock that is not what its target asks for.

    `kind`: missing, edited, stale, unsatisfied, orphan, differs or yanked.
    """

    lock: str
    kind: str
    seen: str
    do: str


def lock_path(target: str, kind: str) -> Path:
    """Where that lock of the target lies, whether or not it does."""
    return envs_dir() / "locks" / f"{target}{SUFFIXES[kind]}"


def asked_of(target: Target) -> tuple[Asked, ...]:
    """Every lock that the target has, in the order they are made. ConfigError for what is no requirement."""
    chosen = [_index_lock(target)]
    if target.torch:
        chosen.append(_torch_lock(target))
    if target.build.sdists:
        chosen.append(_build_lock(target))
    for each in chosen:
        _check_requirements(target, (*each.requirements, *each.overrides))
    return tuple(chosen)


def _index_lock(target: Target) -> Asked:
    torch = target.torch
    from_its_index = (torch.requirement, *torch.companions) if torch else ()
    wanted = {*target.requirements, *(torch.requires if torch else ()), *_of_the_project(target)}
    taken_out = [f"{Requirement(each).name} ; {NEVER}" for each in from_its_index]
    rows = tuple((row.name, row.version, row.requires) for row in target.lock.metadata)
    return Asked(
        requirements=tuple(sorted(wanted)),
        metadata=rows,
        overrides=(*target.lock.overrides, *taken_out),
        sdists=target.build.sdists,
        **_common(target, "index"),
    )


def _torch_lock(target: Target) -> Asked:
    torch = target.torch
    assert torch is not None
    hashes = [f"{wheel.requirement or torch.requirement} {wheel.sha256}" for wheel in torch.wheels]
    common = {**_common(target, "torch"), "cutoff": None, "cutoff_of": None}
    return Asked(requirements=(torch.requirement, *torch.companions), hashes=tuple(hashes), **common)


def _build_lock(target: Target) -> Asked:
    return Asked(requirements=tuple(sorted(target.build.requires)), **_common(target, "build"))


def _common(target: Target, kind: str) -> dict[str, Any]:
    lock = target.lock
    return {
        "target": target.name,
        "kind": kind,
        "pythons": target.python,
        "architecture": lock.architecture,
        "glibc": lock.glibc,
        "cutoff": lock.cutoff,
        "cutoff_of": dict(lock.cutoff_of or {}),
        "yanked": lock.yanked,
    }


def _of_the_project(target: Target) -> list[str]:
    """pyproject.toml's own dependencies and the groups named, where the target holds bevrepro itself."""
    if not target.groups:
        return []
    path = require_checkout(f"target {target.name} takes {', '.join(target.groups)} from its pyproject.toml")
    project = tomllib.loads(path.read_text(encoding="utf-8"))
    groups = project.get("dependency-groups", {})
    return [*project["project"]["dependencies"], *(each for name in target.groups for each in groups[name])]


def require_checkout(why: str) -> Path:
    """pyproject.toml beside envs/. ConfigError with `why` where bevrepro was installed from a wheel."""
    path = envs_dir().parent / "pyproject.toml"
    if not path.is_file():
        raise ConfigError(
            f"{envs_dir()} is part of an installed bevrepro, and no checkout of it",
            f"Locks are made in a checkout: {why}.",
            "bevrepro env show TARGET and bevrepro env build need none.",
        )
    return path


def _check_requirements(target: Target, lines: tuple[str, ...]) -> None:
    for line in lines:
        try:
            Requirement(line)
        except InvalidRequirement as error:
            raise ConfigError(
                f"{target.path}: {line!r} is no requirement: {str(error).splitlines()[0]}",
                "A requirement is NAME, a version and a marker, as in 'numpy==1.23.5'.",
            ) from error


def render(asked: Asked, pins: str) -> str:
    """The whole text of a lock from the lines that uv gave."""
    body = pins.rstrip("\n") + "\n" if pins.strip() else ""
    return (
        f"# Locked for target {asked.target} by `bevrepro env lock`; not to be edited.\n"
        f"# asked sha256:{asked.digest}\n"
        f"# pins sha256:{sha256(body)}\n{body}"
    )


def body_of(text: str) -> str:
    """A lock's lines without its header; all of it where there is none."""
    header = HEADER.match(text)
    return text[header.end() :] if header else text


def torch_pins(target: Target) -> str:
    """The lines of NAME.torch.txt: exact builds, with the hashes that are known."""
    torch = target.torch
    assert torch is not None
    lines = ["# Installed without dependencies; they are in the other lock."]
    for requirement in (torch.requirement, *torch.companions):
        wheels = [each for each in torch.wheels if (each.requirement or torch.requirement) == requirement]
        lines += [f"# Python {each.python}, {each.platform}" for each in wheels]
        lines.append(requirement + "".join(f" \\\n    --hash=sha256:{each.sha256}" for each in wheels))
    return "\n".join(lines) + "\n"


def examine(asked: Asked) -> list[Problem]:
    """What is wrong with a lock, told without a network. Empty where it is what the target asks for."""
    path = asked.path
    again = f"bevrepro env lock {asked.target}"
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return [Problem(path.name, "missing", f"{path} is not there", again)]
    except (OSError, UnicodeDecodeError) as error:
        return [Problem(path.name, "missing", f"{path} cannot be read: {error}", again)]
    header = HEADER.match(text)
    if header is None:
        return [Problem(path.name, "edited", f"{path} does not begin as a lock does", again)]
    found: list[Problem] = []
    if edited(text):
        seen = f"{path} was edited by hand: its pins are not those that were locked"
        found.append(Problem(path.name, "edited", seen, f"git checkout -- {path}, or {again}"))
    if header["target"] != asked.target or header["asked"] != asked.digest:
        found += _differences(asked, text, again)
    return found


def _differences(asked: Asked, text: str, again: str) -> list[Problem]:
    """A sentence per requirement that the pins do not meet; one for the rest where all are met."""
    name = asked.path.name
    try:
        lock = parse_lock(text, asked.path)
        unmet = [each for python in asked.pythons for each in unsatisfied(asked, lock, python)]
    except ConfigError as error:
        return [Problem(name, "stale", error.seen, again)]
    if not unmet:
        seen = f"the target {asked.target} was changed after {name} was made from it"
        return [Problem(name, "stale", seen, again)]
    return [Problem(name, "unsatisfied", each, again) for each in dict.fromkeys(unmet)]


def unsatisfied(asked: Asked, lock: LockFile, python: str) -> list[str]:
    """Requirements that the lock's pins for one Python on Linux do not meet, as sentences."""
    environment = linux(python, asked.architecture)
    pins = lock.for_environment(environment)
    found = []
    for requirement in map(Requirement, asked.requirements):
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        pin = pins.get(canonicalize_name(requirement.name))
        if pin is None:
            found.append(f"{asked.target} asks for {requirement}, which {lock.path.name} does not lock")
        elif not requirement.specifier.contains(pin.version, prereleases=True):
            found.append(f"{asked.target} asks for {requirement}; {lock.path.name} locks {pin.version}")
    return found


def linux(python: str, architecture: str = "x86_64") -> dict[str, str]:
    """The marker environment of CPython 3.x (any patch release) on Linux."""
    plain = {key: str(value) for key, value in default_environment().items()}
    return {
        **plain,
        "implementation_name": "cpython",
        "implementation_version": f"{python}.18",
        "os_name": "posix",
        "platform_machine": architecture,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.18",
        "python_version": python,
        "sys_platform": "linux",
    }


def orphans(targets: tuple[str, ...]) -> list[Problem]:
    """Locks that belong to no target."""
    folder = envs_dir() / "locks"
    found = []
    for path in sorted(folder.glob("*.txt")):
        owner = re.sub(r"(\.torch|\.build)?\.txt$", "", path.name)
        if owner not in targets:
            seen = f"{path} belongs to no target"
            found.append(Problem(path.name, "orphan", seen, f"git rm {path}"))
    return found
