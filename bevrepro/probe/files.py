"""Reading the kernel's files: a missing or forbidden one is unknown, not an error."""

from pathlib import Path


def read_text(path: Path) -> str | None:
    """The file's text, None where it cannot be read (decoded leniently)."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return None


def read_int(path: Path) -> int | None:
    """The file's content as an integer, None where it is none (`max` in a control group)."""
    text = (read_text(path) or "").strip()
    return int(text) if text.lstrip("-").isdigit() else None


def key_values(text: str | None, separator: str = ":") -> dict[str, str]:
    """`name: value` lines as a dict; the first of a name counts."""
    pairs: dict[str, str] = {}
    for line in (text or "").splitlines():
        name, found, value = line.partition(separator)
        if found:
            pairs.setdefault(name.strip(), value.strip())
    return pairs
