"""Installed versions against the lock, against the receipt, and against each other. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from bevrepro.core.finding import Finding, Severity
from bevrepro.env.lockfile import Pin
from bevrepro.env.tree import Entry
from bevrepro.probe.environment import DIST

TOLD = 5


@dataclass(frozen=True)
class Dist:
    """One installed distribution. `path`: its metadata, relative to the environment."""

    name: str
    version: str
    path: str
    recorded: bool


@dataclass(frozen=True)
class Locked:
    """The lock of a target for one Python. `build`: what only builds sdists and may stay behind."""

    target: str
    pins: Mapping[str, Pin]
    build: Mapping[str, Pin]


def installed(entries: Mapping[str, Entry], sites: tuple[str, ...]) -> tuple[Dist, ...]:
    """Every distribution directly in a site-packages folder, by name."""
    folders = {
        path[: len(site) + 1 + path[len(site) + 1 :].index("/")]
        for site in sites
        for path in entries
        if path.startswith(f"{site}/") and "/" in path[len(site) + 1 :]
    }
    files = {path for path in entries if path.rpartition("/")[0] in sites}
    found = []
    for path in sorted(folders | files):
        match = DIST.fullmatch(path.rpartition("/")[2])
        if match:
            name = str(canonicalize_name(match["name"]))
            found.append(Dist(name, match["version"], path, f"{path}/RECORD" in entries))
    return tuple(found)


def judge_packages(
    dists: tuple[Dist, ...], locked: Locked | None, received: Mapping[str, str] | None
) -> Iterator[Finding]:
    """Findings about packages; `received`: what the receipt says was installed."""
    yield from _unrecorded(dists)
    yield from _twice(dists)
    versions = {each.name: each.version for each in dists}
    if locked is not None:
        yield from _against_lock(versions, locked)
    if received is not None:
        yield from _against_receipt(versions, received)


def _unrecorded(dists: tuple[Dist, ...]) -> Iterator[Finding]:
    names = [each.path.rpartition("/")[2] for each in dists if not each.recorded]
    if names:
        yield _fail("no-record", f"{some(names)} {'has' if len(names) == 1 else 'have'} no RECORD",
                    "Nobody can tell whether their files are as they were installed.")  # fmt: skip


def _twice(dists: tuple[Dist, ...]) -> Iterator[Finding]:
    names = [each.name for each in dists]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        yield _fail("twice", f"{some(twice)} {'is' if len(twice) == 1 else 'are'} installed twice",
                    "Which of the two is imported is chance.")  # fmt: skip


def _against_lock(versions: Mapping[str, str], locked: Locked) -> Iterator[Finding]:
    other = [
        f"{name} {versions[name]} (locked: {pin.version})"
        for name, pin in sorted(locked.pins.items())
        if name in versions and not same_version(versions[name], pin.version)
    ]
    missing = sorted(set(locked.pins) - set(versions))
    extra = sorted(
        f"{name} {version}"
        for name, version in versions.items()
        if name not in locked.pins
        and not (name in locked.build and same_version(version, locked.build[name].version))
    )
    if other:
        yield _fail("version", f"not as in the lock of {locked.target}: {some(other)}",
                    "A result of other versions is another result.")  # fmt: skip
    if missing:
        yield _fail("missing", f"in the lock of {locked.target} and not installed: {some(missing)}",
                    "An import will fail.")  # fmt: skip
    if extra:
        yield _fail("beside", f"installed and not in the lock of {locked.target}: {some(extra)}",
                    "They may shadow or change what is locked.")  # fmt: skip


def _against_receipt(versions: Mapping[str, str], received: Mapping[str, str]) -> Iterator[Finding]:
    told = {str(canonicalize_name(name)): version for name, version in received.items()}
    differ = [
        f"{name} {versions.get(name, 'is not there')} (receipt: {told.get(name, 'not there')})"
        for name in sorted(set(told) | set(versions))
        if not same_version(versions.get(name, ""), told.get(name, ""))
    ]
    if differ:
        yield _fail("receipt-packages", f"packages are not those of the receipt: {some(differ)}",
                    "Something was installed or removed since, or the receipt was edited.")  # fmt: skip


def same_version(one: str, other: str) -> bool:
    """1.0 and 1.0.0, 1.0+cu113 and 1.0+CU113; metadata folders write `-` as `_`."""
    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return re.sub(r"[-_]", "_", one) == re.sub(r"[-_]", "_", other)


def some(names: list[str]) -> str:
    """The first few and how many more."""
    return ", ".join(names[:TOLD]) + (f" and {len(names) - TOLD} more" if len(names) > TOLD else "")


def _fail(kind: str, seen: str, why: str) -> Finding:
    return Finding(f"verify-{kind}", "verify", Severity.FAIL, seen, why, "Build the environment again.")
