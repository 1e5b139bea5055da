"""Reading the kernel's files: a missing or forbidden one is unknown, not an error."""

import errno
import stat
from pathlib import Path
from typing import BinaryIO

SHOWN = 4096  # of what a broken program printed
READ = 1 << 20  # characters of what any program printed: a broken one may have no end


def open_plain(path: Path) -> BinaryIO:
    """Open an ordinary file; OSError for anything else: a pipe would be waited for."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "no ordinary file", str(path))
    return path.open("rb")


def read_text(path: Path) -> str | None:
    """The file's text, None where it cannot be read (decoded leniently)."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return None


def globbed(folder: Path, pattern: str) -> list[Path]:
    """What `pattern` matches below the folder, sorted; nothing where that may not be looked at."""
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def read_int(path: Path) -> int | None:
    """The file's content as an integer, None where it is none (`max` in a control group)."""
    return integer((read_text(path) or "").strip())


def integer(text: str | None, base: int = 10) -> int | None:
    """What a file or a program says is a number; None where it is none, or one of thousands of digits."""
    try:
        return int(text or "", base)
    except ValueError:
        return None


def key_values(text: str | None, separator: str = ":") -> dict[str, str]:
    """`name: value` lines as a dict; the first of a name counts."""
    pairs: dict[str, str] = {}
    for line in (text or "").splitlines():
        name, found, value = line.partition(separator)
        if found:
            pairs.setdefault(name.strip(), value.strip())
    return pairs


def first_lines(text: str) -> str:
    """For a report: the beginning; control characters must not reach a terminal."""
    lines = map(printable, text[:SHOWN].strip().splitlines()[:3])
    return " ".join(" ".join(lines).split())[:300]


def printable(text: str) -> str:
    """With blanks for control characters."""
    return "".join(each if each.isprintable() else " " for each in text)
