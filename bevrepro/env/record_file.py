"""RECORD of an installed distribution: the files it owns and what they should hash to (PEP 376, PEP 627)."""

import base64
import binascii
import csv
import io
import os.path
from dataclasses import dataclass
from pathlib import Path

from bevrepro.core.paths import atomic_write_text

ALGORITHMS = ("sha256", "sha384", "sha512")
ORIGIN = "uv_cache.json"
# What the installers' rules leave without a hash: the list itself, its signatures, and bytecode.
UNHASHED = ("RECORD", "RECORD.jws", "RECORD.p7s")


@dataclass(frozen=True)
class Row:
    """One owned file. `path` is relative to the environment; `digest` in hex; None: RECORD does not say."""

    path: str
    algorithm: str | None
    digest: str | None
    size_b: int | None


@dataclass(frozen=True)
class Record:
    """The RECORD of one distribution. `wrong` says of each line that cannot be used why not."""

    name: str  # numpy-1.26.4.dist-info
    path: str  # relative to the environment
    rows: tuple[Row, ...]
    wrong: tuple[str, ...]


def read_record(environment: Path, path: str) -> Record:
    """The rows of a RECORD file at `path` under the environment; a file that is no text is all `wrong`.

    Raises OSError where it cannot be read.
    """
    folder, site = os.path.split(path)[0], os.path.dirname(os.path.dirname(path))
    name = os.path.basename(folder)
    try:
        text = (environment / path).read_bytes().decode("utf-8")
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        return Record(name, path, (), (f"it is no list of files: {error}",))
    rows: dict[str, Row] = {}
    wrong = []
    for number, line in enumerate(lines, 1):
        row = _row(line, site)
        if isinstance(row, str):
            wrong.append(f"line {number}: {row}")
            continue
        if (
            row.digest is None
            and not row.path.endswith(".pyc")
            and os.path.basename(row.path) not in UNHASHED
        ):
            wrong.append(f"line {number}: {line[0]} has no hash")
        if rows.setdefault(row.path, row) != row and not row.path.endswith(".pyc"):  # pip lists some twice
            wrong.append(f"line {number}: {row.path} a second time, with another hash")
    return Record(name, path, tuple(rows.values()), tuple(wrong))


def forget_origin(environment: Path) -> None:
    """Remove what uv notes of a wheel's file: its time of change, so that no two builds would be alike.

    RECORD first: a run that is killed in between is finished by the next. DiskError where it cannot write.
    """
    for note in sorted(environment.glob(f"lib/python3*/site-packages/*.dist-info/{ORIGIN}")):
        record = note.with_name("RECORD")
        lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(f"{note.parent.name}/{ORIGIN},")]
        if kept != lines:
            atomic_write_text(record, "".join(kept))
        note.unlink()


def _row(line: list[str], site: str) -> Row | str:
    """The row, or why it is none."""
    if len(line) != 3 or not line[0]:
        return f"not PATH,HASH,SIZE: {','.join(line)[:80]!r}"
    path = os.path.normpath(os.path.join(site, line[0]))
    if os.path.isabs(line[0]) or path.startswith(".."):
        return f"{line[0]} lies outside of the environment"
    hashed = _hash(line[1])
    if isinstance(hashed, str):
        return f"{line[0]} has {hashed}"
    if line[2] and not line[2].isdigit():
        return f"{line[0]} has the size {line[2]!r}"
    return Row(path, *hashed, int(line[2]) if line[2] else None)


def _hash(text: str) -> tuple[str | None, str | None] | str:
    """(algorithm, digest in hex) of `sha256=<urlsafe base64 without padding>`, or what is wrong with it."""
    if not text:
        return None, None
    algorithm, _, encoded = text.partition("=")
    if algorithm not in ALGORITHMS:
        return f"a hash of the kind {algorithm!r}"
    try:
        digest = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return f"the hash {text!r}"
    # Several texts decode to one digest (spare bits): only the one an installer writes is let pass.
    if base64.urlsafe_b64encode(digest).decode().rstrip("=") != encoded:
        return f"the hash {text!r}"
    return algorithm, digest.hex()
