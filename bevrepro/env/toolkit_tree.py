"""Trees in the cache: a toolkit or a host compiler, unpacked once, never changed once it has its name.

    cache/cuda/files/   what was downloaded, kept until the tree is whole
    cache/cuda/trees/   one folder for each list of parts

A tree is built beside under another name and renamed, so a killed command leaves either a whole one or none.
Its digest is compared before every use; so nothing is forced to the disk, and a power cut costs a download.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bevrepro.core.errors import DiskError
from bevrepro.core.paths import atomic_write_text, cache_dir
from bevrepro.env import cuda_recipe
from bevrepro.env.cuda_recipe import Part, Source
from bevrepro.env.fetch import OnEvent
from bevrepro.env.obtain import Obtained, Sources, obtain
from bevrepro.env.tree import Entry, hash_tree
from bevrepro.env.unpack import take, write_members

RECEIPT = "bevrepro-cuda.json"
HOST = "host"  # the g++ of a toolkit, which is this machine's and no part of its digest
UNPACKED = 4  # a tree takes at most about this many times its packed files


def tree_digest(home: Path) -> str:
    """sha256 over path, executable bits and content of every file but `host/` and the receipt.

    Raises OSError where a folder cannot be read.
    """
    return digest_of(hash_tree(home))


def digest_of(entries: Mapping[str, Entry]) -> str:
    """The same over files that are hashed already, by their path in the tree."""
    rows = []
    for path, entry in entries.items():
        if path != RECEIPT and not path.startswith(HOST + "/"):
            bits = 0 if entry.link is not None else entry.mode & 0o111
            rows.append(json.dumps([path, bits, entry.sha256, entry.link]) + "\n")
    return hashlib.sha256("".join(sorted(rows)).encode()).hexdigest()


def receipt_of(home: Path) -> dict[str, Any] | None:
    """What a tree's receipt says; None where there is none, or none of ours."""
    try:
        receipt = json.loads((home / RECEIPT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(receipt, dict) and {"version", "digest", "source", "recipe"} <= set(receipt)
    return receipt if known else None


def is_whole(tree: Path) -> bool:
    """Whether a tree is as it was made."""
    receipt = receipt_of(tree)
    return receipt is not None and tree_digest(tree) == receipt["digest"]


def place_of(cache: Path, name: str, source: Source) -> Path:
    """Where the tree of these parts lies, or will."""
    words = [[part.file, part.sha256, part.take] for part in source.parts]
    own = hashlib.sha256(json.dumps([words, cuda_recipe.profile()]).encode()).hexdigest()
    return cache / "trees" / f"{name}-{source.kind}-{own[:16]}"


def cached(cache: Path, name: str, source: Source) -> Path | None:
    """The whole tree of these parts; one that was changed (its files are hard links elsewhere) is removed."""
    tree = place_of(cache, name, source)
    if is_whole(tree):
        return tree
    if tree.exists():
        shutil.rmtree(tree)
    return None


def assemble(
    cache: Path,
    name: str,
    source: Source,
    sources: Sources,
    recipe: str,
    complete: Callable[[Path], None],
    on_event: OnEvent,
) -> Path:
    """Fetch the parts, unpack them, let `complete` add what is no part, and give the tree its name.

    Raises NotFetched, DataError for a damaged part, DiskError where there is no room, OSError.
    """
    _room(cache, source.size)
    files = cache / "files"
    parts = [obtain(part, source, sources, files, on_event) for part in source.parts]
    with _beside(cache) as (tree, scratch):
        _unpack(parts, tree, scratch, on_event)
        complete(tree)
        rows = [{"name": part.name, "version": part.version, "sha256": part.sha256} for part in source.parts]
        receipt = {"schema": 1, "version": name, "source": source.kind, "recipe": recipe}
        write_receipt(tree, {**receipt, "digest": tree_digest(tree), "parts": rows})
        target = place_of(cache, name, source)
        os.rename(tree, target)
    _forget(source.parts, files)
    return target


def write_receipt(home: Path, receipt: dict[str, Any]) -> None:
    """The last file of a tree."""
    atomic_write_text(home / RECEIPT, json.dumps(receipt, indent=1) + "\n")


@contextmanager
def locked_cache(on_event: OnEvent) -> Iterator[Path]:
    """The cache's folder for toolkits, for this process alone. DiskError where it cannot be written."""
    cache = cache_dir() / "cuda"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        handle = os.open(cache / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise DiskError(
            f"the cache {cache} cannot be written: {error.strerror}",
            "A toolkit is assembled there first.",
            "Name another folder: export BEVREPRO_CACHE=...",
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_event({"event": "note", "text": "Another command assembles a toolkit; waiting for it."})
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield cache
    finally:
        os.close(handle)


def _unpack(parts: Sequence[Obtained], tree: Path, scratch: Path, on_event: OnEvent) -> None:
    for number, each in enumerate(parts, 1):
        if each.file is None:
            write_members(tree, each.members, each.part)
        else:
            folder = Path(tempfile.mkdtemp(dir=scratch))
            take(each.part, each.file, tree, folder)
            shutil.rmtree(folder)
        on_event({"event": "progress", "task": "unpack", "done": number, "total": len(parts)})


@contextmanager
def _beside(cache: Path) -> Iterator[tuple[Path, Path]]:
    """(an empty tree, a folder for scratch); what is not renamed meanwhile is removed."""
    (cache / "trees").mkdir(parents=True, exist_ok=True)
    for left in (cache / "trees").glob(".new-*"):  # of a killed command: the lock is ours
        shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=".new-", dir=cache / "trees"))
    try:
        for name in ("tree", "scratch"):
            (folder / name).mkdir()
        yield folder / "tree", folder / "scratch"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _forget(parts: Sequence[Part], files: Path) -> None:
    """The tree is whole: its packed files would only take up space."""
    for part in parts:
        for file in files.glob(f"*-{part.file}*"):
            file.unlink()


def _room(cache: Path, packed_b: int) -> None:
    free_b = shutil.disk_usage(cache).free
    needed_b = packed_b * (1 + UNPACKED)
    if free_b < needed_b:
        raise DiskError(
            f"{cache} has {free_b / 2**20:.0f} MiB free, and {needed_b / 2**20:.0f} MiB are needed",
            "Packed files and the tree lie there together for a while.",
            "Free some space, or name another folder: export BEVREPRO_CACHE=...",
        )
