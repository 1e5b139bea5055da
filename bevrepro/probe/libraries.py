"""Shared libraries of the system, by their names."""

import os
import re
from pathlib import Path

FOLDERS = (
    "usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "lib64",
    "usr/lib", "lib", "usr/local/lib",
)  # fmt: skip
# What torch brings along or loads by name: another one in front is used instead.
SHADOWED = re.compile(
    r"lib(cudart|cublas|cublasLt|cudnn\w*|cufft|curand|cusparse|nccl|stdc\+\+|c10|torch)\.so[.\d]*"
)


def cached_names(root: Path = Path("/")) -> bytes:
    """/etc/ld.so.cache as it is; empty where there is none (musl)."""
    try:
        return (root / "etc/ld.so.cache").read_bytes()
    except OSError:
        return b""


def has_library(name: str, root: Path = Path("/")) -> bool:
    """Whether the dynamic linker would find it without help."""
    in_cache = b"\0" + name.encode() + b"\0" in cached_names(root)
    return in_cache or any(os.path.exists(root / folder / name) for folder in FOLDERS)


def shadowing(library_path: str | None) -> tuple[str, ...]:
    """Libraries in the folders of LD_LIBRARY_PATH that would be loaded instead of torch's own."""
    found = []
    for folder in (library_path or "").split(":"):
        try:
            names = sorted(path.name for path in Path(folder).iterdir()) if folder else []
        except OSError:
            continue
        families = {match[1]: name for name in names if (match := SHADOWED.fullmatch(name))}
        found += [f"{folder.rstrip('/')}/{name}" for name in families.values()]
    return tuple(dict.fromkeys(found))
