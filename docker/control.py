"""Writes control.txt, the lock of bevrepro's own environment in an image; `make lock` calls it.

It is the part of envs/locks/cpu.txt that pyproject.toml's dependencies need, line by line: one lock decides.
Exits with 1 under --check where control.txt is not that part.
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bevrepro.facts import tomllib

HERE = Path(__file__).parent
LOCK = HERE.parent / "envs/locks/cpu.txt"
HEADER = "# Made by docker/control.py from envs/locks/cpu.txt: what bevrepro itself needs. Do not edit.\n"


def blocks(lock: str) -> dict[str, list[str]]:
    """The lock's entries with their hashes, by name; one name may have several, by marker."""
    found: dict[str, list[str]] = {}
    for entry in re.findall(r"^[a-z0-9].*?[^\\]\n", lock, re.MULTILINE | re.DOTALL):
        found.setdefault(canonicalize_name(entry.split("==")[0]), []).append(entry)
    return found


def needed(names: list[str], locked: dict[str, list[str]]) -> set[str]:
    """These and all that they require, whatever the platform; optional extras left out."""
    todo, seen = [canonicalize_name(name) for name in names], set[str]()
    while todo:
        name = todo.pop()
        if name in seen or name not in locked:
            continue
        seen.add(name)
        try:
            wanted = [Requirement(line) for line in requires(name) or []]
        except PackageNotFoundError:  # another platform's or Python's
            wanted = []
        todo += [canonicalize_name(each.name) for each in wanted if "extra" not in str(each.marker or "")]
    return seen


def control() -> str:
    locked = blocks(LOCK.read_text(encoding="utf-8"))
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = needed([Requirement(line).name for line in project["dependencies"]], locked)
    return HEADER + "".join(entry for name in sorted(names) for entry in locked[name])


if __name__ == "__main__":
    place, text = HERE / "control.txt", control()
    if "--check" not in sys.argv:
        place.write_text(text, encoding="utf-8")
    elif place.read_text(encoding="utf-8") != text:
        sys.exit(f"{place} is not the part of {LOCK} that it should be: make lock")
