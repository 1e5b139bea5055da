"""Bytecode beside its source: which .pyc Python would load, and whether it may load it unasked (PEP 552)."""

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bevrepro.env.tree import Entry

HEADER_B = 16
_NAME = re.compile(
    r"(?P<folder>(?:.*/)?)__pycache__/(?P<name>[^/]+?)\.(?:cpython|pypy)[^./]*(?:\.opt-[12])?\.pyc"
)


@dataclass(frozen=True)
class Header:
    """The start of a .pyc. `unchecked`: Python loads it without a look at the source."""

    unchecked: bool
    hashed: bool
    mtime_s: int
    size_b: int


def source_of(path: str) -> str | None:
    """`a/b.py` of `a/__pycache__/b.cpython-311.pyc`; None for bytecode that stands alone."""
    match = _NAME.fullmatch(path)
    return f"{match['folder']}{match['name']}.py" if match else None


def read_headers(root: Path, paths: Iterable[str]) -> dict[str, Header | None]:
    """By path; None where a file is too short or cannot be read."""
    return {path: _header(f"{root}/{path}") for path in paths}


def _header(path: str) -> Header | None:
    try:
        with open(path, "rb", buffering=0) as file:
            start = file.read(HEADER_B)
    except OSError:
        return None
    if len(start) < HEADER_B:
        return None
    flags, mtime_s, size_b = struct.unpack("<4xIII", start)
    return Header(flags & 3 == 1, bool(flags & 1), mtime_s, size_b)


def wrong_with(path: str, header: Header | None, entries: Mapping[str, Entry]) -> str | None:
    """Why this .pyc is suspect; None where Python checks it against a source that is there.

    One whose source was changed since is stale: Python makes it anew, so there is nothing to say.
    """
    source = source_of(path)
    if source is None:
        return "it is bytecode without a source, which Python loads as a module"
    if source not in entries:
        return f"its source {source} is not there"
    if header is None:
        return None  # Python makes it anew
    if header.unchecked:
        return "it tells Python to load it without comparing it with its source"
    return None


def loadable(path: str, header: Header | None, entries: Mapping[str, Entry]) -> bool:
    """Whether Python would run it in place of its source."""
    source = entries.get(source_of(path) or "")
    if source is None or header is None:
        return False
    same = header.mtime_s == source.mtime_s & 0xFFFFFFFF and header.size_b == source.size_b & 0xFFFFFFFF
    return header.hashed or same
