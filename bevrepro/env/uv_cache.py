"""uv installs from a cache of unpacked wheels without reading them again: what it gave is compared here.

An editor's slip in another environment whose files are hard links into that cache is enough to change it.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from packaging.utils import canonicalize_name

from bevrepro.core.errors import DataError
from bevrepro.core.paths import envs_dir
from bevrepro.env.index import uv
from bevrepro.env.lockfile import Pin
from bevrepro.env.record_file import Record, read_record
from bevrepro.env.tree import hash_files, sha256_of
from bevrepro.facts import tomllib

Suspects = dict[str, dict[str, str | None]]  # package -> path in the environment -> sha256; None: gone


def suspects(root: Path, records: Iterable[Record]) -> Suspects:
    """Installed files that hold what no RECORD says of them, and packages (with no file) whose RECORD is no
    good. To be asked right after an installation, before patches."""
    wanted: dict[str, dict[str, str]] = {}
    damaged: Suspects = {}
    for record in records:
        if record.wrong:
            damaged[name_of(record)] = {}
        for row in record.rows:
            if row.algorithm == "sha256" and row.digest:
                wanted.setdefault(row.path, {})[name_of(record)] = row.digest
    return {**damaged, **judge(wanted, hash_files(root, wanted))}


def name_of(record: Record) -> str:
    """Normalised, as in a lock."""
    return str(canonicalize_name(record.name.removesuffix(".dist-info").rpartition("-")[0]))


def judge(wanted: Mapping[str, Mapping[str, str]], found: Mapping[str, str | None]) -> Suspects:
    """`wanted`: path -> package -> sha256 of its RECORD. A file of two packages may be either's. Pure."""
    told: Suspects = {}
    for path, claims in wanted.items():
        if found.get(path) not in claims.values():
            for name in claims:
                told.setdefault(name, {})[path] = found.get(path)
    return told


def known_slips() -> frozenset[tuple[str, str, str, str]]:
    """(package, version, file, sha256) of envs/slips.toml: what is known to be unlike its RECORD."""
    table = tomllib.loads((envs_dir() / "slips.toml").read_text(encoding="utf-8"))
    rows = table["slip"]
    return frozenset((row["package"], row["version"], row["file"], row["sha256"]) for row in rows)


def unknown(pin: Pin, seen: Mapping[str, str | None], site: str) -> bool:
    """Whether the wheel has to be asked: a file is none of the known slips, or RECORD itself is no good."""
    known = known_slips()
    rows = ((pin.name, pin.version, path.removeprefix(f"{site}/"), sha) for path, sha in seen.items())
    return not seen or any(row not in known for row in rows)


def refuse_damage(pin: Pin, seen: Mapping[str, str | None], site: str, record: Record, fresh: Path) -> None:
    """DataError where what was installed is not what the wheel holds, which lies unpacked in `fresh`.

    Where it is, the wheel is unlike its own RECORD from the start, as PyTorch's of 2021 are.
    """
    own = read_record(fresh, record.path.removeprefix(f"{site}/"))
    there, right = _digests(record, f"{site}/"), _digests(own, "")
    for path, digest in sorted(seen.items()):
        short = path.removeprefix(f"{site}/")
        if sha256_of(fresh / short) != digest or there.get(short) != right.get(short):
            raise _damaged(pin, path)
    if record.wrong != own.wrong:
        raise _damaged(pin, record.path)


def _digests(record: Record, prefix: str) -> dict[str, str | None]:
    return {row.path.removeprefix(prefix): row.digest for row in record.rows}


def _damaged(pin: Pin, path: str) -> DataError:
    return DataError(
        f"{path} is not what the locked wheel of {pin.name} {pin.version} holds",
        "uv's cache of unpacked wheels was changed: an edit in an environment that shares its files is "
        "enough. Nothing of it is used.",
        f"{uv()} cache clean {pin.name}, then run the same command again.",
    )
