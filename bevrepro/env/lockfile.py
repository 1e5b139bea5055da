"""Hashed requirements: the form of every lock under envs/locks, read without pip or uv.

    numpy==1.26.4 ; python_full_version < '3.13' \\
        --hash=sha256:...

No line names an index, so any mirror serves a lock.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from bevrepro.core.errors import ConfigError

_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})$")
# What env/locking.py writes above the pins: digests of what was asked for, and of all that follows.
HEADER = re.compile(
    r"# Locked for target (?P<target>\S+) by `bevrepro env lock`; not to be edited\.\n"
    r"# asked sha256:(?P<asked>[0-9a-f]{64})\n"
    r"# pins sha256:(?P<pins>[0-9a-f]{64})\n"
)


@dataclass(frozen=True)
class Pin:
    """One locked package. `name` is normalised; `hashes` are sha256 of its files, in hex."""

    name: str
    version: str
    marker: str | None
    hashes: tuple[str, ...]

    def wanted(self, environment: dict[str, str]) -> bool:
        """Whether the pin holds in a marker environment (packaging.markers.default_environment)."""
        return self.marker is None or Marker(self.marker).evaluate(environment)


@dataclass(frozen=True)
class LockFile:
    """A lock as it lies on disk; `sha256` of its bytes."""

    path: Path
    pins: tuple[Pin, ...]
    sha256: str

    def for_environment(self, environment: dict[str, str]) -> dict[str, Pin]:
        """The pins that hold there, by name. ConfigError where two of one name do."""
        chosen: dict[str, Pin] = {}
        for pin in self.pins:
            if pin.wanted(environment):
                if pin.name in chosen:
                    raise ConfigError(
                        f"{self.path} pins {pin.name} twice: {chosen[pin.name].version} and {pin.version}",
                        "An installer would take either, or stop.",
                        "bevrepro env lock --check",
                    )
                chosen[pin.name] = pin
        return chosen


def read_lock(path: Path) -> LockFile:
    """Every pin of a lock. ConfigError naming the line that is no hashed requirement, or for an edit."""
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the lock {path} cannot be read: {error}", do="bevrepro env lock makes it again."
        ) from error
    lock = parse_lock(text, path)
    if edited(text):
        raise ConfigError(
            f"the lock {path} was edited by hand: its pins are not those that were locked",
            "What it would install was resolved by nobody.",
            f"Undo the edit, or change the target, then: bevrepro env lock {path.name.partition('.')[0]}",
        )
    return lock


def edited(text: str) -> bool:
    """Whether what stands below a lock's header is something else than when it was locked."""
    header = HEADER.match(text)
    return header is not None and header["pins"] != sha256(text[header.end() :])


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def parse_lock(text: str, path: Path) -> LockFile:
    """The same for a text that lies, or will lie, at `path`."""
    pins = tuple(_pin(words, path, number) for number, words in _logical_lines(text))
    return LockFile(path, pins, sha256(text))


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """(number of its first line, the line with its continuations), comments and empty ones left out."""
    found: list[tuple[int, str]] = []
    start, whole = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if not whole and (not bare or bare.startswith("#")):
            continue
        start = start or number
        if bare.endswith("\\"):
            whole += bare[:-1] + " "
            continue
        found.append((start, whole + bare))
        start, whole = 0, ""
    return [*found, (start, whole)] if whole else found


def _pin(line: str, path: Path, number: int) -> Pin:
    words, hashes = line.split(), []
    while words and (hashed := _HASH.match(words[-1])):
        hashes.append(hashed.group(1))
        words.pop()
    try:
        wanted = Requirement(" ".join(words))
        (only,) = wanted.specifier
        version = str(Version(only.version)) if only.operator == "==" else ""
    except (InvalidRequirement, InvalidVersion, InvalidMarker, ValueError):
        version = ""
    if not version or wanted.url or not hashes:
        raise ConfigError(
            f"{path}, line {number}: not NAME==VERSION with a sha256: {' '.join(words)[:80]!r}",
            "Only hashed pins install the same files everywhere.",
            "Undo the edit, or make the lock again: bevrepro env lock",
        )
    marker = str(wanted.marker) if wanted.marker else None
    return Pin(canonicalize_name(wanted.name), only.version, marker, tuple(reversed(hashes)))
