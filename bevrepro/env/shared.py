"""Which files of an environment may be the same file as in uv's cache: large libraries and headers.

Making 24,000 files takes nine of the eighteen seconds that the smallest target took; 9,400 of them are
PyTorch's headers, 0.8 of 1.3 GB its libraries (2026-11-21, ext4; benchmarks/env_build.json). Whatever people
edit, patch or compile anew - every source, script and small extension - is a file of its own, so that no such
edit reaches another environment. Every build compares all of it with the wheels' hashes (uv_cache).
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LEAST_B = 1 << 20
HEADERS = (".h", ".hpp", ".cuh", ".inl", ".pyi")
BATCH = 64


def part_from_cache(root: Path) -> int:
    """Files below `root` that share an inode get one of their own, unless they may; how many did.

    Raises OSError where one cannot be written; a file is then either the shared one or its whole copy.
    """
    linked = ((each, each.stat(follow_symlinks=False)) for each in _files(str(root)))
    paths = [
        each.path for each, told in linked if told.st_nlink > 1 and not may_be_shared(each.name, told.st_size)
    ]
    batches = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(_own, batches):
            pass
    return len(paths)


def may_be_shared(name: str, size_b: int) -> bool:
    """A header, a type stub, or a compiled library of 1 MiB or more. Pure."""
    library = name.endswith((".so", ".a")) or ".so." in name
    return name.endswith(HEADERS) or (library and size_b >= LEAST_B)


def _files(folder: str) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as found:
        for each in found:
            if each.is_dir(follow_symlinks=False):
                yield from _files(each.path)
            elif each.is_file(follow_symlinks=False):
                yield each


def _own(paths: Iterable[str]) -> None:
    for path in paths:
        beside = f"{path}.own"
        shutil.copy2(path, beside)
        os.replace(beside, path)
