"""A small patch set and the tree it is for, made for a test."""

import difflib
import hashlib
from pathlib import Path

BEFORE = {
    "pkg/gate.py": "import os\n\nMAXIMUM = '1.7.0'\nMINIMUM = '1.5.2'\n",
    "pkg/names.py": "import numpy as np\nlabels = np.zeros(3, dtype=np.int)\nend = True\n",
}
STEPS = (
    ("0001-gate", {"pkg/gate.py": ("1.7.0", "1.7.2")}),
    ("0002-names", {"pkg/names.py": ("np.int)", "int)"), "pkg/gate.py": ("1.5.2", "1.5.0")}),
    ("0003-end", {"pkg/names.py": ("end = True", "end = False")}),
)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_tree(folder: Path) -> Path:
    """The files as upstream has them."""
    for path, text in BEFORE.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text.encode())
    return folder


def contents(tree: Path) -> dict[str, bytes]:
    """Every file below a folder, temporary ones too."""
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def make_set(folder: Path, steps=STEPS, name: str = "pkg-1.0") -> Path:
    """A set's folder: three patches, of which two change each file."""
    out, texts = folder / name, dict(BEFORE)
    out.mkdir(parents=True)
    series = [
        'package = "pkg"\nversion = "1.0"\nstage = "source"\ntree = "the folder with pkg/"',
        'origin = "a test"\nchecked = "2026-11-21"',
    ]
    for stem, edits in steps:
        diff, changes = "", []
        for path, (old, new) in edits.items():
            before, texts[path] = texts[path], texts[path].replace(old, new)
            diff += unified(path, before, texts[path])
            hashes = f'before = "{sha256(before)}"\nafter = "{sha256(texts[path])}"'
            changes.append(f'[[patch.change]]\npath = "{path}"\n{hashes}')
        (out / f"{stem}.patch").write_bytes(diff.encode())
        series += [
            f'[[patch]]\nfile = "{stem}.patch"\nclass = "portability"\nwhen = "always"\nreason = "it breaks"',
            f'effect = "none"\nlinks = []\nsha256 = "{sha256(diff)}"',
            *changes,
        ]
    (out / "series.toml").write_text("\n".join(series) + "\n")
    return out


def unified(path: str, before: str, after: str) -> str:
    lines = (before.splitlines(True), after.splitlines(True))
    return "".join(difflib.unified_diff(*lines, f"a/{path}", f"b/{path}", n=1))
