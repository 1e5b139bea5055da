"""One number for an environment: sha256 over every file but bytecode and what the builder notes.

Two builds of one target at one prefix have the same. Links count with what they point to.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from bevrepro.env.layout import LOG, RECEIPT, STEPS
from bevrepro.env.tree import Entry, hash_tree

EXECUTABLE = 0o111


def digest_of(entries: Mapping[str, Entry]) -> str:
    """Over sorted lines of path, executable bits and sha256 (a link's text instead), in hex."""
    total = hashlib.sha256()
    for path in sorted(entries):
        entry = entries[path]
        if _counts(path):
            bits = 0 if entry.link is not None else entry.mode & EXECUTABLE
            total.update(json.dumps([path, bits, entry.sha256, entry.link]).encode() + b"\n")
    return total.hexdigest()


def digest_at(root: Path) -> str:
    """The digest of what lies at `root` now. OSError where a folder cannot be read."""
    return digest_of(hash_tree(root))


def _counts(path: str) -> bool:
    parts = path.split("/")
    noted = parts[0] in (RECEIPT, LOG, STEPS)
    return not (noted or path.endswith(".pyc") or "__pycache__" in parts)
