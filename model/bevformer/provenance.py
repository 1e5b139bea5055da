"""Where a result comes from, for run.json: code, environment and data.  Unknown is None."""

import functools
import hashlib
import json
import os
import subprocess
import sys
from typing import Any, Dict, Mapping, Optional, Sequence

import torch

from .data.infos import Infos, image_name
from .data.store import Store
from .types import CAMERAS

PACKAGE = os.path.dirname(os.path.abspath(__file__))
RECEIPT = "bevrepro-env.json"
DIFF_B = 200_000  # of a longer one only the digest is kept
END_B = 1 << 20  # of an archive: its first and last bytes
SAMPLED = 4  # frames whose images are read


def code_record(folder: str = PACKAGE) -> Optional[Dict[str, Any]]:
    """The commit of the checkout this code runs from, and what was changed since; None outside one or without
    git.

    `diff` is git's, of this package alone, None where it is longer than DIFF_B; `untracked`: name -> sha256.
    """
    if _git(folder, "ls-files", "--error-unmatch", "record.py") is None:
        return None  # installed inside somebody else's repository
    commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "--", ".")
    if commit is None:
        return None
    told: Dict[str, Any] = {"commit": commit, "dirty": None if changes is None else bool(changes)}
    if not changes:
        return told
    diff = _git(folder, "diff", "--no-color", "--no-ext-diff", "HEAD", "--", ".") or ""
    new = (_git(folder, "ls-files", "--others", "--exclude-standard", "--", ".") or "").splitlines()
    told["diff"] = diff if len(diff) <= DIFF_B else None
    told["diff_sha256"] = hashlib.sha256(diff.encode("utf-8")).hexdigest()
    told["untracked"] = {name: _file_digest(os.path.join(folder, name)) for name in sorted(new)}
    return told


def package_digest(folder: str = PACKAGE) -> str:
    """sha256 over names and bytes of all Python files of this package, wherever it is installed."""
    total = hashlib.sha256()
    for base, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(name for name in files if name.endswith(".py")):
            path = os.path.join(base, name)
            total.update(os.path.relpath(path, folder).replace(os.sep, "/").encode() + b"\n")
            with open(path, "rb") as stream:
                total.update(stream.read())
    return total.hexdigest()


def environment_record(prefix: str = sys.prefix) -> Dict[str, Any]:
    """What is installed, and what the environment's own note says it was built from.

    `packages_sha256` is over `name==version` of all distributions; `patches` and `locks` are the note's.
    """
    packages = _packages()
    lines = "\n".join("%s==%s" % item for item in sorted(packages.items()))
    told = {
        "prefix": prefix,
        "packages_sha256": hashlib.sha256(lines.encode("utf-8")).hexdigest(),
        "packages": packages,
    }
    path = os.path.join(prefix, RECEIPT)
    try:
        with open(path, encoding="utf-8") as stream:
            note = json.load(stream)
    except (OSError, ValueError):
        note = {}
    note = note if isinstance(note, dict) else {}
    told.update({key: note.get(key) for key in ("target", "digest", "locks", "patches", "built")})
    told["note_sha256"] = _file_digest(path)
    return told


def data_record(store: Store, infos: Infos) -> Dict[str, Any]:
    """Which infos, which folders and archives, and a digest over the images of a few frames."""
    return {
        "infos": {
            "path": os.path.abspath(infos.source),
            "version": infos.version,
            "tables_digest": infos.digest or None,
            "frames": len(infos),
        },
        "roots": [_root_record(root.path, root.kind) for root in store.roots],
        "images": _sampled_images(store, infos.infos),
    }


def numerics() -> Dict[str, Any]:
    """Switches and variables that the bits depend on besides the libraries."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE")
    return {
        "tf32_matmul": torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "environment": {name: os.environ[name] for name in names if name in os.environ},
    }


@functools.lru_cache(maxsize=1)
def _packages() -> Dict[str, str]:
    from importlib import metadata

    found = {}
    for each in metadata.distributions():
        name = each.metadata["Name"]
        if name:  # half removed ones have none
            found[str(name).lower().replace("_", "-")] = str(each.version)
    return dict(sorted(found.items()))


def _root_record(path: str, kind: str) -> Dict[str, Any]:
    """An archive's size and a sha256 over its first and last MiB; a folder has neither."""
    told: Dict[str, Any] = {"path": os.path.abspath(path), "kind": kind}
    if not os.path.isfile(path):
        return told
    size = os.path.getsize(path)
    with open(path, "rb") as stream:
        total = hashlib.sha256(stream.read(END_B))
        stream.seek(max(0, size - END_B))
        total.update(stream.read(END_B))
    return dict(told, bytes=size, ends_sha256=total.hexdigest())


def _sampled_images(store: Store, infos: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
    """Frames spread over the set: the same bytes give the same digest, however they are stored."""
    count = min(SAMPLED, len(infos))
    places = [round(k * (len(infos) - 1) / max(1, count - 1)) for k in range(count)]
    total, files = hashlib.sha256(), 0
    for info in (infos[place] for place in places):
        for channel in CAMERAS:
            name = image_name(info["cams"][channel], channel, store)
            total.update(("%s\n" % name).encode("utf-8"))
            total.update(store.view(name))
            files += 1
    return {"files": files, "sha256": total.hexdigest()}


def _file_digest(path: str) -> Optional[str]:
    total = hashlib.sha256()
    try:
        with open(path, "rb") as stream:
            for piece in iter(lambda: stream.read(1 << 20), b""):
                total.update(piece)
    except OSError:
        return None
    return total.hexdigest()


def _git(folder: str, *words: str) -> Optional[str]:
    try:
        done = subprocess.run(
            ["git", "-C", folder] + list(words), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None
