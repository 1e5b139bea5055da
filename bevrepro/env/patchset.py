"""Patch sets: patches/<package>-<version>/ with `series.toml` and numbered unified diffs.

`series.toml` gives each patch its class, when it is needed, its reason, links, the sha256 of its file, and
of every file that it changes the sha256 before and after (with \\n line ends). Patches of one file form a
chain: what one leaves is what the next one starts from, so how far a file has come is told by its hash.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from bevrepro.core.errors import ConfigError
from bevrepro.core.paths import patches_dir
from bevrepro.env import udiff
from bevrepro.facts import tomllib

CLASSES = ("portability", "bugfix", "semantic", "performance")
STAGES = ("source", "installed")
SERIES = "series.toml"
AGAIN = "Install bevrepro again, or take the folder from the repository."


@dataclass(frozen=True)
class Change:
    """A file that a patch changes, relative to the tree; sha256 before and after, in hex."""

    path: str
    before: str
    after: str


@dataclass(frozen=True)
class Known:
    """What a file is at another commit or release, so that it can be named; no patch fits it."""

    commit: str
    path: str
    sha256: str


@dataclass(frozen=True)
class Patch:
    """One patch. `when` it is needed, and its `effect` on results."""

    file: str
    klass: str
    when: str
    reason: str
    effect: str
    links: tuple[str, ...]
    sha256: str
    changes: tuple[Change, ...]
    diffs: tuple[udiff.FileDiff, ...]


@dataclass(frozen=True)
class Link:
    """One step of a file's chain: the patch, its change, its diff."""

    patch: str
    change: Change
    diff: udiff.FileDiff


@dataclass(frozen=True)
class PatchSet:
    """Patches in their order. `stage`: the tree is an sdist or checkout (source), or site-packages."""

    name: str
    package: str
    version: str
    stage: str
    tree: str
    origin: str  # the archive or commit that the hashes were taken from
    checked: str
    patches: tuple[Patch, ...]
    known: tuple[Known, ...]
    series_sha256: str

    @cached_property
    def chains(self) -> Mapping[str, tuple[Link, ...]]:
        """The changes of each file, in order."""
        found: dict[str, list[Link]] = {}
        for patch in self.patches:
            for change, diff in zip(patch.changes, patch.diffs):
                found.setdefault(change.path, []).append(Link(patch.file, change, diff))
        return {path: tuple(links) for path, links in found.items()}

    def applied_to(self, path: str, sha256: str) -> tuple[str, ...]:
        """The patches that made a file of this hash from the original; none for any other file."""
        links = self.chains.get(path, ())
        hashes = [link.change.after for link in links]
        return tuple(link.patch for link in links[: hashes.index(sha256) + 1]) if sha256 in hashes else ()

    def commits(self, path: str, sha256: str) -> tuple[str, ...]:
        """The other commits at which that file is this one, as far as the series knows."""
        return tuple(each.commit for each in self.known if (each.path, each.sha256) == (path, sha256))

    def choose(self, only: tuple[str, ...] | None) -> tuple[Patch, ...]:
        """The patches named (0001, 1, or the file's name), all for None. ConfigError for any other name."""
        if only is None:
            return self.patches
        return tuple(sorted({self._named(word) for word in only}, key=self.patches.index))

    def _named(self, word: str) -> Patch:
        for patch in self.patches:
            number = patch.file[:4]
            if word in (patch.file, patch.file[: -len(".patch")], number, str(int(number))):
                return patch
        raise ConfigError(
            f"the set {self.name} has no patch {word!r}",
            f"It has {', '.join(patch.file for patch in self.patches)}.",
            f"bevrepro patch list {self.name}",
        )


def names() -> tuple[str, ...]:
    """Every set there is."""
    return tuple(sorted(path.parent.name for path in patches_dir().glob(f"*/{SERIES}")))


def load(name: str) -> PatchSet:
    """The set of that name, every byte of it checked. ConfigError names the nearest for any other name."""
    known = names()
    if name not in known:
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        raise ConfigError(
            f"there is no patch set {name!r}" + (f"; is {near[0]!r} meant?" if near else ""),
            f"The sets are: {', '.join(known)}.",
            "bevrepro patch list",
        )
    return read(patches_dir() / name)


def digest(patch_set: PatchSet) -> str:
    """sha256 over the series and every patch: equal digests patch alike."""
    parts = [f"{SERIES} {patch_set.series_sha256}"]
    parts += [f"{patch.file} {patch.sha256}" for patch in patch_set.patches]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def read(folder: Path) -> PatchSet:
    """A set's folder. ConfigError naming the file that is missing, unknown, changed or contradictory."""
    try:
        series = (folder / SERIES).read_bytes()
        table = tomllib.loads(series.decode("utf-8"))
        known = tuple(_known(row) for row in table.pop("known", ()))
        _exactly(table, {"package", "version", "stage", "tree", "origin", "checked", "patch"}, SERIES)
        patches = tuple(_patch(row, folder) for row in table["patch"])
        _check_files(folder, patches)
        found = PatchSet(
            name=folder.name,
            package=_text(table, "package"),
            version=_text(table, "version"),
            stage=_one_of(table["stage"], STAGES, "stage"),
            tree=_text(table, "tree"),
            origin=_text(table, "origin"),
            checked=_text(table, "checked"),
            patches=patches,
            known=known,
            series_sha256=hashlib.sha256(series).hexdigest(),
        )
        if found.name != f"{found.package}-{found.version}":
            raise ValueError(f"{SERIES} is of {found.package} {found.version}")
        _check_chains(found)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the patch set {folder} cannot be read: {error}", do=AGAIN) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the patch set {folder.name} is not whole: {error}",
            "A patch that is not exactly the known one is never applied.",
            AGAIN,
        ) from error
    return found


def _patch(row: dict[str, Any], folder: Path) -> Patch:
    if not isinstance(row, dict) or "file" not in row:
        raise ValueError(f"{SERIES} holds a patch without a file")
    file = _text(row, "file")
    _exactly(row, {"file", "class", "when", "reason", "effect", "links", "sha256", "change"}, file)
    if "/" in file or not file.endswith(".patch") or not file[:4].isdigit():
        raise ValueError(f"{file!r} is no name of a patch, as 0001-why.patch")
    content = (folder / file).read_bytes()
    if hashlib.sha256(content).hexdigest() != row["sha256"]:
        raise ValueError(f"{file} is not the file that {SERIES} names: its sha256 differs")
    changes = tuple(_change(each, file) for each in row["change"])
    try:
        diffs = udiff.parse(content)
    except udiff.DiffError as error:
        raise ValueError(f"{file}: {error}") from error
    if [each.path for each in diffs] != [each.path for each in changes]:
        raise ValueError(f"{file} does not change the files that {SERIES} names")
    return Patch(
        file=file,
        klass=_one_of(row["class"], CLASSES, f"{file}: class"),
        when=_text(row, "when"),
        reason=_text(row, "reason"),
        effect=_text(row, "effect"),
        links=tuple(str(link) for link in row["links"]),
        sha256=row["sha256"],
        changes=changes,
        diffs=diffs,
    )


def _change(row: dict[str, Any], file: str) -> Change:
    _exactly(row, {"path", "before", "after"}, f"{file}: change")
    for key in ("before", "after"):
        _hash(row, key, f"{file}: {row['path']}")
    return Change(_text(row, "path"), row["before"], row["after"])


def _known(row: dict[str, Any]) -> Known:
    where = f"{SERIES}: known"
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no table")
    _exactly(row, {"commit", "path", "sha256"}, where)
    _hash(row, "sha256", where)
    return Known(_text(row, "commit"), _text(row, "path"), row["sha256"])


def _check_files(folder: Path, patches: tuple[Patch, ...]) -> None:
    listed = [patch.file for patch in patches]
    lying = sorted(path.name for path in folder.glob("*.patch"))
    if listed != sorted(set(listed)) or [int(file[:4]) for file in listed] != [*range(1, len(listed) + 1)]:
        raise ValueError(f"{SERIES} does not number its patches from 0001 on, in order")
    if unknown := sorted(set(lying) - set(listed)):
        raise ValueError(f"{unknown[0]} lies in the folder and is not in {SERIES}")


def _check_chains(patch_set: PatchSet) -> None:
    for path, links in patch_set.chains.items():
        for one, following in zip(links, links[1:]):
            if one.change.after != following.change.before:
                raise ValueError(f"{following.patch} does not start from what {one.patch} makes of {path}")
        states = {links[0].change.before, *(link.change.after for link in links)}
        if len(states) <= len(links) or any(patch_set.commits(path, state) for state in states):
            raise ValueError(f"two states of {path} have one sha256")
    if strange := sorted({each.path for each in patch_set.known} - set(patch_set.chains)):
        raise ValueError(f"{SERIES} knows {strange[0]}, which no patch changes")


def _exactly(table: Mapping[str, Any], keys: set[str], where: str) -> None:
    if set(table) != keys:
        odd = sorted(set(table) ^ keys)[0]
        raise ValueError(f"{where}: the key {odd!r} is {'unknown' if odd in table else 'missing'}")


def _text(table: Mapping[str, Any], key: str) -> str:
    value = table[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key} is empty or no text")
    return value


def _hash(row: Mapping[str, Any], key: str, where: str) -> None:
    if len(_text(row, key)) != 64 or not set(row[key]) <= set("0123456789abcdef"):
        raise ValueError(f"{where}: {key} is no sha256")


def _one_of(value: object, choices: tuple[str, ...], where: str) -> str:
    if value not in choices:
        raise ValueError(f"{where} is {value!r}, not one of {', '.join(choices)}")
    return str(value)
