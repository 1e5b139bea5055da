"""What a tree is: which patch set is for it, how far each file has come, and where it differs.

Files are told by their sha256. In a git checkout that holds the commit which a set is for, git says which
lines differ; elsewhere the first line that does not fit has to do.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bevrepro.core import proc
from bevrepro.core.errors import ConfigError
from bevrepro.env import patching, patchset
from bevrepro.env.patching import Standing
from bevrepro.env.patchset import PatchSet

GIT_S = 20.0  # git on a network file system is slow; a check does not wait for ever
_HUNK = re.compile(r"^@@ -\d+(?:,\d+)? \+(\d+)(?:,(\d+))? @@", re.MULTILINE)


@dataclass(frozen=True)
class File:
    """One file of a set in the tree. `known`: as it came, or with the first `patches` of its chain."""

    path: str
    known: bool
    edited: bool
    patches: tuple[str, ...]
    said: str


@dataclass(frozen=True)
class Check:
    """A set, and its files in a tree."""

    set: str
    applied: tuple[str, ...]
    patches: int
    files: tuple[File, ...]

    @property
    def fits(self) -> bool:
        """Whether `patch apply` takes the tree."""
        return all(each.known and not each.edited for each in self.files)


@dataclass(frozen=True)
class Tree:
    """A tree: the commit that is checked out (None where git knows of none), and the sets that are for it."""

    tree: Path
    commit: str | None
    checks: tuple[Check, ...]


def check(tree: Path) -> Tree:
    """What the tree is: of each package the set that knows most of its files.

    ConfigError where it is no folder, or holds files of no set.
    """
    sets = [patchset.load(name) for name in patchset.names()]
    if not tree.is_dir():
        raise ConfigError(f"{tree} is no folder", do="Name the folder of a checkout, or site-packages.")
    present = [each for each in sets if any((tree / path).is_file() for path in each.chains)]
    if not present:
        places = "; ".join(sorted({f"{each.name}: {each.tree}" for each in sets}))
        raise ConfigError(
            f"{tree} holds no file that a patch set is for", f"The sets are for these folders. {places}."
        )
    commit = _commit(tree)
    return Tree(tree, commit, tuple(_check(each, tree, commit) for each in _best(present, tree)))


def _best(sets: Iterable[PatchSet], tree: Path) -> tuple[PatchSet, ...]:
    ranks: dict[str, tuple[int, int, PatchSet]] = {}
    for each in sets:
        standings = patching.inspect(each, tree).values()
        known = sum(standing.position is not None for standing in standings)
        there = sum(standing.content is not None for standing in standings)
        if each.package not in ranks or (known, there) > ranks[each.package][:2]:
            ranks[each.package] = (known, there, each)
    return tuple(each for _, _, each in ranks.values())


def _check(found: PatchSet, tree: Path, commit: str | None) -> Check:
    standings = patching.inspect(found, tree)
    states = patching.state(found, tree)
    applied = tuple(file for file, state in states.items() if state == patching.APPLIED)
    files = tuple(_file(found, tree, each, commit) for each in standings.values())
    return Check(found.name, applied, len(found.patches), files)


def _file(found: PatchSet, tree: Path, standing: Standing, commit: str | None) -> File:
    links = found.chains[standing.path]
    known = standing.position is not None
    done = tuple(link.patch for link in links[: standing.position or 0])
    said = f"with {', '.join(file[:4] for file in done)}" if done else f"as in {found.version}"
    if not known or standing.edited:
        lines = None
        if commit and standing.content and patching.is_commit(found.version):
            lines = _lines(tree, found.version, standing.path)
        said = f"{lines} differ from {found.version}" if lines else standing.reason
    return File(standing.path, known, standing.edited, done, said)


def _commit(tree: Path) -> str | None:
    """The commit that is checked out; None without git, or where it refuses."""
    said = _git(tree, "rev-parse", "--verify", "HEAD")
    return said.strip() if said else None


def _lines(tree: Path, version: str, path: str) -> str | None:
    """The lines of the file that are not those of that commit; None where git does not know the commit."""
    said = _git(tree, "diff", "--no-ext-diff", "--no-textconv", "--no-color", "-U0", version, "--", path)
    ranges = [(int(start), int(count or 1)) for start, count in _HUNK.findall(said or "")]
    if not ranges:
        return None
    shown = ", ".join(str(at) if count < 2 else f"{at}-{at + count - 1}" for at, count in ranges[:8])
    more = f" and {len(ranges) - 8} places more" if len(ranges) > 8 else ""
    return f"lines {shown}{more}" if len(ranges) > 1 or ranges[0][1] > 1 else f"line {shown}"


def _git(tree: Path, *words: str) -> str | None:
    program = proc.which("git")
    if program is None:
        return None
    calm = ("-c", "core.fsmonitor=false")  # a program that the checkout names
    done = proc.run([program, *calm, "-C", str(tree.resolve()), *words], timeout_s=GIT_S)
    return done.stdout if done.ok and not done.left_out_b else None
