"""Recipes of CUDA toolkits, envs/cuda/<version>.toml: the files of packages that make one, with their sha256.

A recipe names one or more sources (`redist`, `deb`, `wheels`), best first; each is a list of parts that
together give a toolkit. envs/cuda/compilers/<name>.toml is the same for a host compiler.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bevrepro.core.errors import ConfigError
from bevrepro.core.paths import envs_dir
from bevrepro.facts import tomllib

KINDS = ("redist", "deb", "wheels")
SCHEMA = 1  # of the assembled tree: raise it when the same recipe gives another tree


@dataclass(frozen=True)
class Part:
    """One file to fetch. `take` maps folders or files inside it to places in the toolkit.

    `path` is below the mirror for an archive or a .deb, the file's name for a wheel. Where `members_sha256`
    is known (see unpack.members_digest), the members may be read out of a remote wheel without the rest.
    """

    kind: str  # archive, deb or wheel
    name: str
    version: str
    path: str
    sha256: str
    size: int
    take: tuple[tuple[str, str], ...]
    members_sha256: str | None = None

    @property
    def file(self) -> str:
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Source:
    """One way to the whole toolkit. `url` and `manifest` are of NVIDIA's redistributable archives."""

    kind: str
    parts: tuple[Part, ...]
    url: str | None = None
    manifest: str | None = None

    @property
    def size(self) -> int:
        """Bytes of all its files; wheels of which only a few members are taken are not counted."""
        return sum(part.size for part in self.parts if part.members_sha256 is None)


@dataclass(frozen=True)
class Recipe:
    """`newest_gcc`: what this nvcc takes at most; `compiler` is fetched where no such gcc is found."""

    version: str
    nvcc: str
    title: str
    platform: str
    newest_gcc: int
    compiler: str
    architectures: tuple[str, ...]
    links: tuple[tuple[str, str], ...]  # (place, what it points to, relative to it)
    sources: tuple[Source, ...]
    source: str
    checked: str


@dataclass(frozen=True)
class CompilerRecipe:
    """A gcc that can be unpacked without root; `major` is its version as nvcc counts them.

    `glibc` is the oldest that its programs run with.
    """

    name: str
    major: int
    triplet: str
    glibc: str
    parts: tuple[Part, ...]
    source: str
    checked: str


def versions() -> tuple[str, ...]:
    """Every toolkit there is a recipe for, oldest first."""
    found = [path.stem for path in (envs_dir() / "cuda").glob("*.toml")]
    return tuple(sorted(found, key=lambda name: tuple(int(part) for part in name.split("."))))


def load(version: str) -> Recipe:
    """The recipe of that version. ConfigError listing the known ones for any other."""
    if version not in versions():
        near = get_close_matches(version, versions(), n=1, cutoff=0.6)
        raise ConfigError(
            f"there is no recipe for CUDA {version!r}" + (f"; is {near[0]} meant?" if near else ""),
            f"The known toolkits are: {', '.join(versions())}.",
            "bevrepro env cuda",
        )
    return read(envs_dir() / "cuda" / f"{version}.toml")


def load_compiler(name: str) -> CompilerRecipe:
    """The recipe of a host compiler that the toolkits' recipes name."""
    path = envs_dir() / "cuda" / "compilers" / f"{name}.toml"
    table = _table(path)
    try:
        parts = tuple(_part("deb", row) for row in table["package"])
        words = {key: table[key] for key in ("name", "major", "triplet", "glibc", "source", "checked")}
        return CompilerRecipe(**words, parts=parts)
    except (KeyError, TypeError, ValueError) as error:
        raise _bad(path, error) from error


def read(path: Path) -> Recipe:
    """A recipe's file. ConfigError naming the file where it does not hold to the format."""
    table = _table(path)
    try:
        wheels = {row["name"]: _part("wheel", row) for row in table.get("wheel", ())}
        return Recipe(
            version=table["version"],
            nvcc=table["nvcc"],
            title=table["title"],
            platform=table["platform"],
            newest_gcc=table["host"]["newest_gcc"],
            compiler=table["host"]["compiler"],
            architectures=tuple(table["architectures"]["list"]),
            links=tuple((place, to) for place, to in table["links"].items()),
            sources=tuple(_source(kind, table[kind], wheels) for kind in table["sources"]),
            source=table["source"],
            checked=table["checked"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _bad(path, error) from error


def check_arch(version: str, arch: str) -> None:
    """ConfigError for an architecture that the toolkit's nvcc does not compile for."""
    known = load(version).architectures
    if arch not in known:
        raise ConfigError(
            f"CUDA {version} does not compile for {arch!r}",
            f"It knows {', '.join(known)}.",
            f"bevrepro env cuda {version} --arch {known[-1]}",
        )


def summary(recipe: Recipe) -> dict[str, Any]:
    """One row of the list of known toolkits; `size_b` by source."""
    return {
        "version": recipe.version,
        "nvcc": recipe.nvcc,
        "architectures": list(recipe.architectures),
        "newest_gcc": recipe.newest_gcc,
        "size_b": {source.kind: source.size for source in recipe.sources},
        "source": recipe.source,
        "checked": recipe.checked,
    }


def recipe_digest(version: str) -> str:
    """sha256 over all that decides what the toolkit becomes: its recipe, nvcc.profile, the compiler's."""
    recipe = load(version)
    content = [asdict(recipe), asdict(load_compiler(recipe.compiler)), profile(), SCHEMA]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def profile() -> str:
    """The text of bin/nvcc.profile: every path in it is relative, so a toolkit may lie anywhere."""
    return (envs_dir() / "cuda" / "nvcc.profile").read_text(encoding="utf-8")


def _source(kind: str, table: dict[str, Any], wheels: dict[str, Part]) -> Source:
    if kind not in KINDS:
        raise ValueError(f"unknown source {kind!r}")
    own = "archive" if kind == "redist" else "deb"
    parts = [_part(own, row) for row in table.get("archive", table.get("package", ()))]
    parts += [wheels[name] for name in table.get("wheels", ())]
    return Source(kind, tuple(parts), table.get("url"), table.get("manifest"))


def _part(kind: str, row: dict[str, Any]) -> Part:
    take = tuple((str(inside), str(place)) for inside, place in row["take"])
    return Part(kind, **{**row, "take": take})


def _table(path: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return table
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _bad(path, error) from error


def _bad(path: Path, error: Exception) -> ConfigError:
    what = f"the key {error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
    return ConfigError(f"{path}: {what}", "It is no recipe of a toolkit.", "Install bevrepro again.")
