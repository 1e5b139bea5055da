"""Every file of a folder with its sha256: one walk, hashed by all cores.

Nothing is remembered between two calls: a cache of hashes would be the first place to hide an edit.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PIECE_B = 1 << 20
BATCH = 32  # small files per task: the pool's own work would outweigh theirs


@dataclass(frozen=True)
class Entry:
    """One file or symbolic link. `path` is relative to the folder, with slashes.

    `sha256` is None for links, for what is neither (a socket) and for files that cannot be read;
    `link` is the text of a link, None for all else.
    """

    path: str
    mode: int
    size_b: int
    mtime_s: int
    sha256: str | None = None
    link: str | None = None

    @property
    def compiled(self) -> bool:
        """Whether it is bytecode, which Python writes whenever it likes."""
        return self.path.endswith(".pyc")


def scan(root: Path) -> list[Entry]:
    """Everything below `root` but folders, sorted by path; no link is followed, nothing hashed yet.

    Raises OSError where a folder cannot be read.
    """
    return sorted(_walk(str(root), ""), key=lambda entry: entry.path)


def hash_tree(root: Path, threads: int | None = None) -> dict[str, Entry]:
    """By path; bytecode is listed and not hashed. Raises OSError where a folder cannot be read."""
    entries = scan(root)
    wanted = [each.path for each in entries if stat.S_ISREG(each.mode) and not each.compiled]
    digests = hash_files(root, wanted, threads)
    return {
        each.path: Entry(
            each.path, each.mode, each.size_b, each.mtime_s, digests.get(each.path, each.sha256), each.link
        )
        for each in entries
    }


def hash_files(root: Path, paths: Iterable[str], threads: int | None = None) -> dict[str, str | None]:
    """sha256 in hex of files under `root`; None where one cannot be read."""
    every = list(paths)
    batches = [every[start : start + BATCH] for start in range(0, len(every), BATCH)]
    base = str(root)
    with ThreadPoolExecutor(threads or _threads()) as pool:
        found = pool.map(lambda batch: [(each, sha256_of(f"{base}/{each}")) for each in batch], batches)
        return {path: digest for batch in found for path, digest in batch}


def sha256_of(path: str | Path, algorithm: str = "sha256") -> str | None:
    """In hex; None where the file cannot be read. Memory is bounded."""
    digest = hashlib.new(algorithm)
    try:
        with open(path, "rb", buffering=0) as file:
            while piece := file.read(PIECE_B):
                digest.update(piece)
    except OSError:
        return None
    return digest.hexdigest()


def _threads() -> int:
    return 2 * len(os.sched_getaffinity(0))  # half of them wait for the disk where the cache is cold


def _walk(folder: str, prefix: str) -> Iterator[Entry]:
    with os.scandir(folder) as found:
        for each in found:
            if each.is_dir(follow_symlinks=False):
                yield from _walk(each.path, f"{prefix}{each.name}/")
                continue
            told = each.stat(follow_symlinks=False)
            link = os.readlink(each.path) if each.is_symlink() else None
            yield Entry(f"{prefix}{each.name}", told.st_mode, told.st_size, int(told.st_mtime), link=link)
