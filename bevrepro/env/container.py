"""Container files of a target: one of docker/Dockerfile.* with its arguments filled in. Nothing is written.

Equal targets and locks give equal text. Which base image stands for which kind of target is said, with its
source, in docker/bases.toml.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bevrepro import __version__
from bevrepro.core.errors import ConfigError
from bevrepro.core.paths import docker_dir, envs_dir
from bevrepro.env.evidence import badge, in_order, missing
from bevrepro.env.lockfile import LockFile, read_lock
from bevrepro.env.target import Target
from bevrepro.facts import tomllib

LOCKS = (".txt", ".torch.txt", ".build.txt")
ARCHITECTURES = {"linux-x86_64": "amd64", "linux-aarch64": "arm64"}  # as Debian calls them
REFERENCE = re.compile(r"[a-zA-Z0-9][\w./:-]*(@sha256:[0-9a-f]{64})?", re.ASCII)
_ARGUMENT = re.compile(r"^ARG (?P<name>[A-Z0-9_]+)=.*$", re.MULTILINE)


@dataclass(frozen=True)
class Base:
    """A base image that was looked up. `digest` None: a tag that moves, so the image may change."""

    id: str
    file: str
    image: str
    source: str
    checked: str
    digest: str | None = None

    @property
    def reference(self) -> str:
        """As FROM takes it."""
        return f"{self.image}@{self.digest}" if self.digest else self.image


@dataclass(frozen=True)
class Recipe:
    """A target's image before it is built. `pinned`: whether the base is named by its digest."""

    target: str
    file: str
    base: str
    pinned: bool
    base_source: str
    lock_sha256: str
    arguments: tuple[tuple[str, str], ...]
    disk_gib: float
    evidence: tuple[str, ...]  # a line for each thing that was done with the target, and one for what was not

    @property
    def tag(self) -> str:
        """What the image is called unless told otherwise."""
        return f"bevrepro:{self.target}"


def bases() -> tuple[Base, ...]:
    """Every row of docker/bases.toml."""
    table = tomllib.loads((docker_dir() / "bases.toml").read_text(encoding="utf-8"))
    return tuple(Base(**row) for row in table["row"])


def base_of(target: Target) -> Base:
    """The base image for that kind of target."""
    if target.hardware.kind == "ascend":
        kind = "ascend"
    elif target.stack == "openmmlab1":
        kind = "openmmlab1"
    else:
        kind = "cuda" if target.hardware.kind == "nvidia" else "cpu"
    return next(each for each in bases() if each.id == kind)


def locks_of(target: Target) -> tuple[LockFile, ...]:
    """The target's locks. ConfigError where it has none: an image of unpinned packages is not made."""
    paths = [envs_dir() / "locks" / f"{target.name}{ending}" for ending in LOCKS]
    found = tuple(read_lock(path) for path in paths if path.exists())
    if not paths[0].exists():
        raise ConfigError(
            f"target {target.name} has no lock: {paths[0]} is not there",
            "An image is built from hashed packages only.",
            f"bevrepro env lock {target.name}",
        )
    return found


def lock_digest(locks: Iterable[LockFile]) -> str:
    """sha256 over what `sha256sum` prints of the locks in their folder, in the order of their names."""
    lines = sorted((each.path.name, each.sha256) for each in locks)
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in lines).encode()).hexdigest()


def make_recipe(target: Target, base: str | None = None) -> Recipe:
    """What the target's image is made of. ConfigError for a base that is no image's name."""
    known = base_of(target)
    reference = known.reference if base is None else base
    if not REFERENCE.fullmatch(reference):
        raise ConfigError(
            f"{reference!r} is no name of an image",
            "A base is named as docker pull takes it.",
            f"For example: --base {known.reference}",
        )
    digest = lock_digest(locks_of(target))
    arguments = {
        "BASE": reference,
        "TARGET": target.name,
        "ARCHITECTURE": architecture(target),
        "TITLE": f"bevrepro, target {target.name}: {target.title}",
        "VERSION": __version__,
        "LOCK_SHA256": digest,
        "EVIDENCE": badge(target),
    }
    return Recipe(
        target=target.name,
        file=known.file,
        base=reference,
        pinned="@sha256:" in reference,
        base_source=f"{known.source} ({known.checked})" if base is None else "named with --base",
        lock_sha256=digest,
        arguments=tuple(arguments.items()),
        disk_gib=target.disk_gib,
        evidence=_evidence(target),
    )


def architecture(target: Target) -> str:
    """What Debian calls the processor that the target's lock was resolved for."""
    platform = next(iter(target.platforms), f"linux-{target.lock.architecture}")
    if platform not in ARCHITECTURES:
        raise ConfigError(f"target {target.name} is for {platform}, of which there are no Debian packages")
    return ARCHITECTURES[platform]


def render(recipe: Recipe) -> str:
    """The Dockerfile with every argument that the recipe knows filled in."""
    text = (docker_dir() / recipe.file).read_text(encoding="utf-8")
    values = dict(recipe.arguments)
    absent = set(values) - {match["name"] for match in _ARGUMENT.finditer(text)}
    if absent:
        raise ConfigError(
            f"{docker_dir() / recipe.file} has no argument {', '.join(sorted(absent))}",
            "It is not the file that came with this bevrepro.",
            "Install bevrepro again.",
        )
    filled = _ARGUMENT.sub(lambda match: _argument(match, values), text)
    head = (f"Made by `bevrepro env docker --target {recipe.target}`.", "How far that target was taken:")
    lines = [f"# {line}\n" for line in (*head, *(f"  {each}" for each in recipe.evidence))]
    return "".join(lines) + "#\n" + filled


def dockerfile(recipe: Recipe) -> Path:
    """The file it is made from."""
    return docker_dir() / recipe.file


def _evidence(target: Target) -> tuple[str, ...]:
    lines = [f"{each.level} {each.date}: {each.command} ({each.on})" for each in in_order(target)]
    absent = missing(target)
    lines += [f"never: {', '.join(absent)}"] if absent else []
    return tuple(" ".join(line.split()) for line in lines)  # a line break would begin an instruction


def _argument(match: "re.Match[str]", values: dict[str, str]) -> str:
    name = match["name"]
    return f"ARG {name}={_quoted(values[name])}" if name in values else match[0]


def _quoted(value: str) -> str:
    """A word of a Dockerfile in which nothing is expanded."""
    if re.fullmatch(r"[\w./:@+-]+", value, re.ASCII):
        return value
    escaped = re.sub(r'([\\"$])', r"\\\1", " ".join(value.split()))
    return f'"{escaped}"'
