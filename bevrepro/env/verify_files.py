"""Installed files against the RECORD of their packages: what was edited, is gone, or belongs to nobody.

Pure: everything that was read is an argument.
"""

import os.path
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from bevrepro.env.bytecode import Header, wrong_with
from bevrepro.env.record_file import Record, Row
from bevrepro.env.tree import Entry

# What makers of virtual environments put into site-packages; the environment's digest holds their content.
OF_THE_VENV = ("_virtualenv.py", "_virtualenv.pth")


@dataclass(frozen=True)
class Patched:
    """What a patch set makes of one installed file."""

    by: str
    sha256: str


@dataclass(frozen=True)
class FileSeen:
    """One file that is not as its RECORD says. `owner` is the dist-info folder's name, or empty.

    `kind`: edited, gone, unreadable, extra, bytecode, clash, slip, link, odd, patched,
    patch-edited, unpatched.
    """

    kind: str
    path: str
    owner: str
    said: str


@dataclass(frozen=True)
class Files:
    """An environment's files as they lie there. `other` holds digests that are no sha256."""

    entries: Mapping[str, Entry]
    records: tuple[Record, ...]
    sites: tuple[str, ...]  # lib/python3.11/site-packages
    headers: Mapping[str, Header | None]
    patched: Mapping[str, Patched]
    other: Mapping[tuple[str, str], str | None]  # (path, algorithm)
    slips: Mapping[str, str] = field(default_factory=dict)  # unlike their RECORD since the build: sha256


def judge_files(files: Files) -> tuple[FileSeen, ...]:
    """Everything that is not as it was installed, by path."""
    found: list[FileSeen] = []
    owners = _owners(files.records)
    for path, claims in owners.items():
        found += _owned(path, claims, files)
    found += _unowned(files, owners)
    found += _odd(files.entries)
    return tuple(sorted(found, key=lambda each: (each.path, each.kind)))


def _owners(records: Iterable[Record]) -> dict[str, list[tuple[Record, Row]]]:
    owners: dict[str, list[tuple[Record, Row]]] = {}
    for record in records:
        for row in record.rows:
            owners.setdefault(row.path, []).append((record, row))
    return owners


def _owned(path: str, claims: list[tuple[Record, Row]], files: Files) -> Iterator[FileSeen]:
    entry, owner = files.entries.get(path), claims[0][0].name
    hashed = [(record, row) for record, row in claims if row.digest is not None]
    if entry is None:
        if hashed:  # bytecode comes and goes
            yield FileSeen("gone", path, owner, "it is not there any more")
    elif entry.compiled or not hashed:
        return  # bytecode is judged with all other bytecode; RECORD does not hash itself
    elif not stat.S_ISREG(entry.mode):
        yield FileSeen("edited", path, owner, "it is no plain file any more")
    elif entry.sha256 is None:
        yield FileSeen("unreadable", path, owner, "it cannot be read")
    elif path in files.patched:
        yield _patched(path, entry, hashed, files)
    elif files.slips.get(path) == entry.sha256:
        yield FileSeen("slip", path, owner, "its makers' RECORD names another hash")
    else:
        yield from _compared(path, entry, hashed, files)


def _patched(path: str, entry: Entry, claims: list[tuple[Record, Row]], files: Files) -> FileSeen:
    patch, owner = files.patched[path], claims[0][0].name
    if entry.sha256 == patch.sha256:
        return FileSeen("patched", path, owner, f"patched by {patch.by}")
    if any(_agrees(entry, row, files) for _, row in claims):
        return FileSeen("unpatched", path, owner, f"{patch.by} is not applied to it")
    return FileSeen("patch-edited", path, owner, f"it is not what {patch.by} makes of it")


def _compared(path: str, entry: Entry, claims: list[tuple[Record, Row]], files: Files) -> Iterator[FileSeen]:
    right = [record.name for record, row in claims if _agrees(entry, row, files)]
    other = [record.name for record, row in claims if not _agrees(entry, row, files)]
    if not right:
        row = claims[0][1]
        sizes = "" if row.size_b in (None, entry.size_b) else f", {row.size_b} bytes then {entry.size_b}"
        yield FileSeen("edited", path, other[0], f"its hash is not RECORD's{sizes}")
    elif other:
        yield FileSeen("clash", path, right[0], f"{other[0]} installed another file at the same place")


def _agrees(entry: Entry, row: Row, files: Files) -> bool:
    if row.size_b is not None and row.size_b != entry.size_b:
        return False
    if row.algorithm == "sha256":
        return row.digest == entry.sha256
    return row.digest == files.other.get((row.path, str(row.algorithm)))


def _unowned(files: Files, owners: Mapping[str, object]) -> Iterator[FileSeen]:
    """Files of site-packages that no RECORD names; bytecode wherever it lies."""
    within = _within(files.sites)
    for path, entry in files.entries.items():
        if entry.compiled:
            wrong = wrong_with(path, files.headers.get(path), files.entries)
            # A package may ship bytecode alone; then its RECORD names it, and there is nothing to compare.
            if wrong:
                yield FileSeen("bytecode", path, "", wrong)
        elif path not in owners and within(path) and os.path.basename(path) not in OF_THE_VENV:
            yield FileSeen("extra", path, "", "no package owns it")


def _within(sites: tuple[str, ...]) -> Callable[[str], bool]:
    starts = tuple(f"{site}/" for site in sites)
    return lambda path: path.startswith(starts)


def _odd(entries: Mapping[str, Entry]) -> Iterator[FileSeen]:
    for path, entry in entries.items():
        if not stat.S_ISREG(entry.mode) and entry.link is None:
            yield FileSeen("odd", path, "", "it is neither a file nor a link (a socket, pipe or device)")
