"""What packages get wrong themselves: files unlike their RECORD, and two packages with one file's name.

PyTorch's wheels of 2021 name another version in METADATA than when RECORD was written; jupyter and
jupyter_core both bring jupyter.py. Neither is an edit, and which of two files stays must not be chance.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from packaging.utils import canonicalize_name

from bevrepro.env.record_file import Record, read_record
from bevrepro.env.tree import Entry


def records_in(root: Path) -> tuple[Record, ...]:
    """The RECORD of every installed package, by name. OSError where one cannot be read."""
    found = sorted(root.glob("lib/python3*/site-packages/*.dist-info/RECORD"))
    return tuple(read_record(root, str(path.relative_to(root))) for path in found)


def find_slips(
    entries: Mapping[str, Entry], records: Iterable[Record], patched: Collection[str]
) -> dict[str, str]:
    """Files that differ from a RECORD that names them, with the sha256 that they have. Pure.

    Right after the installation that is their makers' doing; `patched` files are ours.
    """
    found: dict[str, str] = {}
    for row in (row for record in records for row in record.rows if row.algorithm == "sha256"):
        entry = entries.get(row.path)
        if entry and entry.sha256 and row.digest != entry.sha256 and row.path not in patched:
            found[row.path] = entry.sha256
    return dict(sorted(found.items()))


def winners(records: Iterable[Record]) -> tuple[str, ...]:
    """Of packages that share a file with unlike contents, the last by name of each: normalised. Pure."""
    claims: dict[str, dict[str, str | None]] = {}
    for record in records:
        name = str(canonicalize_name(record.name.removesuffix(".dist-info").rpartition("-")[0]))
        for row in record.rows:
            if row.digest is not None:
                claims.setdefault(row.path, {})[name] = row.digest
    shared = (named for named in claims.values() if len(set(named.values())) > 1)
    return tuple(sorted({max(named) for named in shared}))
