"""Unified diffs, read and applied strictly: exact lines at exact places, no fuzz, no offset.

Only the change of a text file that exists is known; a new, deleted, renamed or binary file, a free line
between two files and a path that leaves the tree are refused. Bytes are never decoded.
"""

import re
from dataclasses import dataclass

_RANGE = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@(?: [^\n]*)?\n")
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_PLAIN = re.compile(r"[A-Za-z0-9_.+ -]+(?:/[A-Za-z0-9_.+ -]+)*")
NO_NEWLINE = b"\\ No newline at end of file\n"


class DiffError(ValueError):
    """A diff that cannot be read; the message names the line."""


class Misfit(ValueError):
    """A hunk whose lines are not where it says. `line` is counted from 1 in the file."""

    def __init__(self, path: str, hunk: int, line: int, wanted: bytes | None, found: bytes | None) -> None:
        self.path, self.hunk, self.line = path, hunk, line
        where = f"{path}, hunk {hunk}, line {line}"
        super().__init__(f"{where}: {_shown(found)} stands where {_shown(wanted)} is wanted")


@dataclass(frozen=True)
class Hunk:
    """Lines, each with its newline, that stand at `old_at` before and at `new_at` after (counted from 0)."""

    number: int
    old_at: int
    old: tuple[bytes, ...]
    new_at: int
    new: tuple[bytes, ...]


@dataclass(frozen=True)
class FileDiff:
    """The change of one file; `path` is relative to the tree."""

    path: str
    hunks: tuple[Hunk, ...]

    def reversed(self) -> "FileDiff":
        """The diff that takes this one back."""
        turned = (Hunk(hunk.number, hunk.new_at, hunk.new, hunk.old_at, hunk.old) for hunk in self.hunks)
        return FileDiff(self.path, tuple(turned))


def parse(diff: bytes) -> tuple[FileDiff, ...]:
    """Every file's change, in order. DiffError for anything that is not exactly a unified diff."""
    lines = split_lines(diff)
    found: list[FileDiff] = []
    at = 0
    while at < len(lines):
        path = _path(lines, at)
        if path in {each.path for each in found}:
            raise DiffError(f"line {at + 1}: {path} is changed twice")
        hunks, at = _hunks(lines, at + 2)
        found.append(FileDiff(path, hunks))
    if not found:
        raise DiffError("it is empty")
    return tuple(found)


def apply(content: bytes, change: FileDiff) -> bytes:
    """The file after the change. Misfit for the first hunk that does not fit at its exact line."""
    lines = split_lines(content)
    result: list[bytes] = []
    at = 0
    for hunk in change.hunks:
        _check(lines, hunk, change.path)
        result += lines[at : hunk.old_at]
        result += hunk.new
        at = hunk.old_at + len(hunk.old)
    return b"".join(result + lines[at:])


def split_lines(content: bytes) -> list[bytes]:
    """Lines with their newline; only \\n ends a line, as diff counts."""
    return _LINE.findall(content)


def check_path(path: str) -> str | None:
    """Why a path may not stand in a diff, or None: it has to be plain, relative, and stay in the tree."""
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        return "is absolute"
    if not _PLAIN.fullmatch(path):
        return "holds an empty part or a character that no file here has"
    if any(part in (".", "..") for part in path.split("/")):
        return "leaves the tree"
    return None


def _check(lines: list[bytes], hunk: Hunk, path: str) -> None:
    for offset, wanted in enumerate(hunk.old):
        at = hunk.old_at + offset
        found = lines[at] if at < len(lines) else None
        if found != wanted:
            raise Misfit(path, hunk.number, at + 1, wanted, found)
    if hunk.old_at > len(lines):  # an insertion beyond the end
        raise Misfit(path, hunk.number, len(lines) + 1, b"\n", None)
    last = hunk.new[-1] if hunk.new else b"\n"
    end = hunk.old_at + len(hunk.old)
    if not last.endswith(b"\n") and end < len(lines):
        raise Misfit(path, hunk.number, end + 1, None, lines[end])


def _path(lines: list[bytes], at: int) -> str:
    names = []
    for line, mark, side in zip(lines[at : at + 2], (b"--- ", b"+++ "), ("a/", "b/")):
        name = line[len(mark) :].rstrip(b"\n").decode("ascii", "replace")
        if not line.startswith(mark) or not name.startswith(side):
            break
        names.append(name[2:])
    if len(names) < 2:
        raise DiffError(f"line {at + 1}: '--- a/PATH' and '+++ b/PATH' have to stand here")
    if names[0] != names[1]:
        raise DiffError(f"line {at + 1}: it renames {names[0]} to {names[1]}")
    if reason := check_path(names[0]):
        raise DiffError(f"line {at + 1}: the path {names[0]!r} {reason}")
    return names[0]


def _hunks(lines: list[bytes], at: int) -> tuple[tuple[Hunk, ...], int]:
    hunks: list[Hunk] = []
    shift, end = 0, 0  # lines gained so far; where the hunk before ends in the old file
    while at < len(lines) and lines[at].startswith(b"@@"):
        match = _RANGE.fullmatch(lines[at])
        if not match:
            raise DiffError(f"line {at + 1}: not a hunk's first line")
        old_at, old_count = _place(match[1], match[2])
        new_at, new_count = _place(match[3], match[4])
        if old_at < end or new_at != old_at + shift:
            raise DiffError(f"line {at + 1}: the hunk's line numbers contradict those before it")
        old, new, at = _body(lines, at + 1, old_count, new_count)
        hunks.append(Hunk(len(hunks) + 1, old_at, old, new_at, new))
        shift, end = shift + new_count - old_count, old_at + old_count
    if not hunks:
        raise DiffError(f"line {at + 1}: a hunk ('@@ -1,3 +1,3 @@') has to stand here")
    return tuple(hunks), at


def _place(start: bytes, count: bytes | None) -> tuple[int, int]:
    """(index from 0, number of lines); a range of no lines names the line before it."""
    number = 1 if count is None else int(count)
    at = int(start) - (1 if number else 0)
    if at < 0:
        raise DiffError("a hunk starts before the first line")
    return at, number


def _body(
    lines: list[bytes], at: int, old_count: int, new_count: int
) -> tuple[tuple[bytes, ...], tuple[bytes, ...], int]:
    old: list[bytes] = []
    new: list[bytes] = []
    first = at
    while len(old) < old_count or len(new) < new_count:
        line = lines[at] if at < len(lines) else b""
        sides = _sides(line[:1], old, new)
        if sides is None or not line.endswith(b"\n"):
            raise DiffError(f"line {at + 1}: the hunk ends before its {old_count} and {new_count} lines")
        at += 1
        text = line[1:]
        if at < len(lines) and lines[at] == NO_NEWLINE:
            text, at = text[:-1], at + 1
        for side in sides:
            side.append(text)
    if len(old) != old_count or len(new) != new_count or old == new:
        raise DiffError(f"line {first}: the hunk's lines are not the number that it says, or change nothing")
    if any(not line.endswith(b"\n") for side in (old, new) for line in side[:-1]):
        raise DiffError(f"line {first}: a line without its newline stands before the end")
    return tuple(old), tuple(new), at


def _sides(mark: bytes, old: list[bytes], new: list[bytes]) -> tuple[list[bytes], ...] | None:
    return {b" ": (old, new), b"-": (old,), b"+": (new,)}.get(mark)


def _shown(line: bytes | None) -> str:
    if line is None:
        return "the end of the file"
    text = line.decode("utf-8", "replace").strip()
    return repr(text if len(text) <= 60 else text[:57] + "...")
