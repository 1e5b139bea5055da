"""Putting a patch set on a tree and taking it off: all or nothing, on the very lines it was made for.

How far each file has come is read from its hash, so an interrupted run needs no journal: the next apply or
revert finishes it. CRLF files stay CRLF. What the tree is, `patchset.PatchSet.stage` says.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bevrepro.core.errors import ConfigError
from bevrepro.env import udiff
from bevrepro.env.patch_tree import Content, Write, locked, read_file, sweep, write_all
from bevrepro.env.patchset import Link, PatchSet

APPLIED, ABSENT, HALF, FOREIGN = "applied", "absent", "half", "foreign"
SHOWN = 5  # files that a refusal names; `patch check` names all
Chains = Mapping[str, tuple[Link, ...]]


@dataclass(frozen=True)
class Applied:
    """What an apply or revert did, or with `dry_run` would do. `already`: patches that needed nothing."""

    set: str
    tree: Path
    patches: tuple[str, ...]
    already: tuple[str, ...]
    files: tuple[str, ...]
    dry_run: bool


@dataclass(frozen=True)
class Standing:
    """How far a file has come: `position` patches of its chain are applied; None where it is not known.

    `edited`: known by its hunks only, other lines differ. `reason`: what is odd about it, or empty.
    """

    path: str
    position: int | None
    edited: bool
    reason: str
    content: Content | None


def apply(
    patch_set: PatchSet,
    tree: Path,
    only: tuple[str, ...] | None = None,
    *,
    edited: bool = False,
    dry_run: bool = False,
) -> Applied:
    """Apply the set's patches, or only some; what is applied already is left as it is.

    Everything is checked before the first write. `edited` takes a file with other changes, where every
    hunk fits at its exact line. ConfigError names the file and hunk that does not fit; DiskError.
    """
    return _move(patch_set, tree, only, edited, dry_run, forward=True)


def revert(
    patch_set: PatchSet,
    tree: Path,
    only: tuple[str, ...] | None = None,
    *,
    edited: bool = False,
    dry_run: bool = False,
) -> Applied:
    """Take patches off: the files are then byte for byte what they were before. As `apply` otherwise."""
    return _move(patch_set, tree, only, edited, dry_run, forward=False)


def state(patch_set: PatchSet, tree: Path) -> dict[str, str]:
    """Each patch by its file: applied, absent, half (some of its files), foreign (a file is not known).

    ConfigError where the tree holds none of the package's files.
    """
    standings = inspect(patch_set, tree)
    return {patch.file: _state(patch_set.chains, standings, patch.file) for patch in patch_set.patches}


def inspect(patch_set: PatchSet, tree: Path) -> dict[str, Standing]:
    """How far every file of the set has come. ConfigError where the tree holds none of them."""
    root = _root(patch_set, tree)
    return {path: _standing(patch_set, root, path) for path in patch_set.chains}


def is_commit(version: str) -> bool:
    """Whether a set is for a commit, and not for a release."""
    return re.fullmatch(r"[0-9a-f]{7,40}", version) is not None


def patched_files(patch_set: PatchSet) -> dict[str, str]:
    """The files that the whole set changes, relative to its tree, and their sha256 afterwards."""
    return {path: links[-1].change.after for path, links in patch_set.chains.items()}


def _move(
    patch_set: PatchSet, tree: Path, only: tuple[str, ...] | None, edited: bool, dry_run: bool, forward: bool
) -> Applied:
    chosen = tuple(patch.file for patch in patch_set.choose(only))
    root = _root(patch_set, tree)
    chains = {
        path: links for path, links in patch_set.chains.items() if any(each.patch in chosen for each in links)
    }
    with locked(root):
        standings = {path: _standing(patch_set, root, path) for path in chains}
        _refuse_unknown(patch_set, standings, edited)
        moves = ((links, standings[path]) for path, links in chains.items())
        writes = [write for move in moves if (write := _write(*move, chosen, forward)) is not None]
        if not dry_run:
            sweep(root, chains)
        write_all(root, writes, dry_run)
    wanted = APPLIED if forward else ABSENT
    already = tuple(file for file in chosen if _state(chains, standings, file) == wanted)
    moved = tuple(file for file in chosen if file not in already)
    return Applied(patch_set.name, tree, moved, already, tuple(write.path for write in writes), dry_run)


def _root(patch_set: PatchSet, tree: Path) -> Path:
    """The tree, resolved. ConfigError where it holds none of the set's files, naming a folder that does."""
    meant = f"The set {patch_set.name} is for {patch_set.tree}."
    if not tree.is_dir():
        raise ConfigError(f"{tree} is no folder", meant, "Name the folder with --tree.")
    root = tree.resolve()
    if any((root / path).is_file() for path in patch_set.chains):
        return root
    first = next(iter(patch_set.chains))
    globs = ("*", "lib/python3*/site-packages", "*/lib/python3*/site-packages")
    places = (place for glob in globs for place in sorted(root.glob(glob)) if (place / first).is_file())
    near = next(places, None)
    raise ConfigError(
        f"{tree} holds none of the files of {patch_set.package} {patch_set.version}, such as {first}",
        meant,
        f"Is it --tree '{near}'?" if near else f"Name the folder in which {first} lies with --tree.",
    )


def _standing(patch_set: PatchSet, root: Path, path: str) -> Standing:
    links, content = patch_set.chains[path], read_file(root, path)
    if content is None:
        return Standing(path, None, False, f"{path} is missing", None)
    hashes = [links[0].change.before, *(link.change.after for link in links)]
    if content.sha256 in hashes:
        return Standing(path, hashes.index(content.sha256), False, "", content)
    if commits := patch_set.commits(path, content.sha256):
        reason = f"{path} is the one of {' and '.join(commits)}, not of {patch_set.version}"
        return Standing(path, None, False, reason, content)
    fitting = [position for position in range(len(hashes)) if _fits(content.text, links, position)]
    if len(fitting) == 1:
        return Standing(path, fitting[0], True, f"{path} has changes of its own", content)
    return Standing(path, None, True, _misfit(content.text, links), content)


def _fits(text: bytes, links: tuple[Link, ...], position: int) -> bool:
    """Whether the first `position` patches can be taken off and all of them put on again."""
    try:
        for link in reversed(links[:position]):
            text = udiff.apply(text, link.diff.reversed())
        for link in links:
            text = udiff.apply(text, link.diff)
    except udiff.Misfit:
        return False
    return True


def _misfit(text: bytes, links: tuple[Link, ...]) -> str:
    try:
        for link in links:
            text = udiff.apply(text, link.diff)
    except udiff.Misfit as error:
        return str(error)
    return f"{links[0].change.path} fits both with and without the patches"


def _state(chains: Chains, standings: Mapping[str, Standing], file: str) -> str:
    found = set()
    for path, links in chains.items():
        position = standings[path].position
        for index, link in enumerate(links):
            if link.patch == file:
                found.add(FOREIGN if position is None else APPLIED if position > index else ABSENT)
    return FOREIGN if FOREIGN in found else found.pop() if len(found) == 1 else HALF


def _refuse_unknown(patch_set: PatchSet, standings: Mapping[str, Standing], edited: bool) -> None:
    unknown = [each for each in standings.values() if each.position is None]
    changed = [each for each in standings.values() if each.edited and each.position is not None]
    if unknown:
        more = f"; and {len(unknown) - SHOWN} files more" if len(unknown) > SHOWN else ""
        raise ConfigError(
            f"{patch_set.name} does not fit: {'; '.join(each.reason for each in unknown[:SHOWN])}{more}",
            f"Nothing was written. The set is for {patch_set.tree}: {patch_set.origin}.",
            _advice(patch_set, standings),
        )
    if changed and not edited:
        raise ConfigError(
            f"{changed[0].reason}, though every hunk fits at its line",
            "Nothing was written: what your changes and the patch do together is not known.",
            "Say --edited to go on with these files as they are.",
        )


def _advice(patch_set: PatchSet, standings: Mapping[str, Standing]) -> str:
    """An installed package lacks setup.py and sources: name the patches that need only what is there."""
    fitting = " ".join(f"--only {file[:4]}" for file in _fitting(patch_set, standings))
    if fitting and all(each.content is None for each in standings.values() if each.position is None):
        return f"To apply what fits: {fitting}"
    version = "Give the tree of that very version, without changes of your own in these files"
    if is_commit(patch_set.version):
        made = f"git worktree add ../{patch_set.name} {patch_set.version}"
        version = f"{version} (in a git checkout, {made} makes one)"
    return f"{version}; or apply what fits: {fitting}" if fitting else f"{version}."


def _fitting(patch_set: PatchSet, standings: Mapping[str, Standing]) -> tuple[str, ...]:
    """The patches whose files are all known, and that stand on no other one."""
    paths = {patch.file: {each.path for each in patch.changes} for patch in patch_set.patches}
    barred = {path for path, each in standings.items() if each.position is None}
    fitting = []
    for file, changed in paths.items():
        if barred & changed:
            barred |= changed
        elif changed <= set(standings):
            fitting.append(file)
    return tuple(fitting)


def _write(
    links: tuple[Link, ...], standing: Standing, chosen: tuple[str, ...], forward: bool
) -> Write | None:
    """The file with the chosen patches on (or off). ConfigError where one between them is not chosen."""
    position, content = standing.position, standing.content
    assert position is not None and content is not None
    indices = [index for index, link in enumerate(links) if link.patch in chosen]
    todo = range(position, indices[-1] + 1) if forward else range(indices[0], position)
    for index in todo:
        if index not in indices:
            other, word = links[indices[-1] if forward else indices[0]].patch, "first" if forward else "too"
            raise ConfigError(
                f"{other} needs {links[index].patch} {'applied' if forward else 'reverted'} {word}",
                f"Both change {standing.path}. Nothing was written.",
                f"Name both: --only {links[index].patch[:4]} --only {other[:4]}",
            )
    text = content.text
    for index in todo if forward else reversed(todo):
        diff = links[index].diff
        text = udiff.apply(text, diff if forward else diff.reversed())
        _check_result(links[index], text, standing, forward)
    return Write(standing.path, content.raw, content.with_text(text)) if todo else None


def _check_result(link: Link, text: bytes, standing: Standing, forward: bool) -> None:
    wanted = link.change.after if forward else link.change.before
    if not standing.edited and Content(text, crlf=False).sha256 != wanted:
        raise ConfigError(
            f"{link.patch} does not make of {standing.path} what its series says",
            "Nothing was written: patch and series contradict each other.",
            "Install bevrepro again, or take the folder patches/ from the repository.",
        )
