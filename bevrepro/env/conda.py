"""Python and compilers from a conda, mamba or micromamba that is there, for machines that have neither.

Packages are fetched first, into a cache of our own, and each archive is compared with the sha256 of its
channel before anything of it is linked or run; afterwards every linked file is compared with its package.
Which builds are taken is conda's choice: this part of an environment is not locked.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bevrepro.core import proc
from bevrepro.core.errors import DataError, MachineError
from bevrepro.core.paths import atomic_write_text, cache_dir
from bevrepro.env.layout import data_dir
from bevrepro.env.tree import sha256_of

PROGRAMS = ("micromamba", "mamba", "conda")
VARIABLES = ("MAMBA_EXE", "CONDA_EXE")
CHANNELS = ("conda-forge",)
RECEIPT = "bevrepro-conda.json"
COMPILERS = ("gxx", "sysroot_linux-64>=2.17", "ninja")
FETCH_S = 3600.0


@dataclass(frozen=True)
class Provided:
    """A Python of conda's, and the variables that make builds use conda's compilers (CC, CXX)."""

    program: str
    prefix: Path
    python: Path
    environment: Mapping[str, str]
    packages: tuple[str, ...]  # name=version=build


@dataclass(frozen=True)
class Wish:
    """What is asked of conda: `specs` as it reads them, from `channels`, into `prefix`."""

    program: Path
    specs: tuple[str, ...]
    channels: tuple[str, ...]
    prefix: Path
    python: str

    def argv(self, *options: str) -> list[str | Path]:
        """The command, for all three programs alike."""
        words: list[str | Path] = [
            self.program,
            "create",
            "--yes",
            "--prefix",
            self.prefix,
            "--override-channels",
        ]
        for channel in self.channels:
            words += ["--channel", channel]
        return [*words, *options, *self.specs]


def find(environ: Mapping[str, str] = os.environ) -> Path:
    """The program: what $MAMBA_EXE or $CONDA_EXE name, else the first on PATH. MachineError where none is."""
    for name in VARIABLES:
        path = Path(environ.get(name) or "/nowhere")
        if path.is_file() and os.access(path, os.X_OK):
            return path
    for program in PROGRAMS:
        found = proc.which(program)
        if found is not None:
            return found
    raise MachineError(
        "there is no conda, mamba or micromamba here",
        f"Looked at {', '.join('$' + name for name in VARIABLES)} and for {', '.join(PROGRAMS)} on PATH.",
        "Leave --conda out: Python is then found here or fetched by uv. Or install one of them.",
    )


def wish(
    version: str,
    compilers: bool,
    newest_gcc: int | None = None,
    channels: Sequence[str] = CHANNELS,
    program: Path | None = None,
) -> Wish:
    """What to ask for Python `version` (3.8); `newest_gcc` is the newest that nvcc takes."""
    bound = f"<{newest_gcc + 1}" if newest_gcc else ""
    gcc = (f"gxx{bound}", f"gcc{bound}", *COMPILERS[1:]) if compilers else ()
    specs = (f"python={version}", *gcc)
    named = hashlib.sha256(json.dumps([specs, list(channels)]).encode()).hexdigest()[:12]
    prefix = data_dir() / "conda" / f"python{version}-{named}"
    return Wish(program or find(), specs, tuple(channels), prefix, version)


def provide(wanted: Wish) -> Provided:
    """The Python of a wish: at once where it was made before and is whole, else created.

    Raises MachineError where conda fails (its own words), DataError where an archive or a file is not what
    its channel says; nothing that failed a check is left behind.
    """
    there = _there(wanted)
    if there is not None:
        return there
    packages = cache_dir() / "conda" / "pkgs"
    packages.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(wanted.prefix, ignore_errors=True)
    wanted.prefix.parent.mkdir(parents=True, exist_ok=True)
    try:
        _run(wanted, packages, "--download-only")
        check_archives(packages)
        shutil.rmtree(wanted.prefix, ignore_errors=True)
        _run(wanted, packages, "--offline")
        provided = _provided(wanted)
    except BaseException:
        shutil.rmtree(wanted.prefix, ignore_errors=True)
        raise
    told = {"specs": wanted.specs, "channels": wanted.channels, "packages": provided.packages}
    atomic_write_text(wanted.prefix / RECEIPT, json.dumps(told, indent=1) + "\n")
    return provided


def check_archives(packages: Path) -> int:
    """Compare every fetched archive with the sha256 of its channel; how many there are.

    conda keeps the channel's word as info/repodata_record.json beside what it unpacked. DataError names the
    first that differs, is gone or has no sha256, after it was removed.
    """
    records = sorted(packages.glob("*/info/repodata_record.json"))
    for path in records:
        record = _json(path)
        archive = packages / str(record.get("fn"))
        wanted = record.get("sha256")
        found = sha256_of(archive)
        if not wanted or found != wanted:
            shutil.rmtree(path.parent.parent, ignore_errors=True)
            archive.unlink(missing_ok=True)
            raise DataError(
                f"{archive.name} is not the package that its channel lists",
                f"Its sha256 is {found or 'not known'}, not {wanted or 'known to the channel'}. "
                "Nothing of it was run, and it was removed from the cache.",
                "Run the same command again, or name another channel with --conda-channel.",
            )
    if not records:
        raise DataError(
            f"conda fetched nothing into {packages}",
            "What it installed elsewhere could not be checked.",
            "Unset CONDA_PKGS_DIRS in its configuration, then run the same command again.",
        )
    return len(records)


def check_prefix(prefix: Path) -> tuple[str, ...]:
    """Compare every linked file with what its package says; name=version=build of each package.

    Paths that conda writes the prefix into have a hash of their own. DataError names the first that differs.
    """
    records = [_json(path) for path in sorted((prefix / "conda-meta").glob("*.json"))]
    for record in records:
        for row in (record.get("paths_data") or {}).get("paths", ()):
            _check_file(prefix, row, str(record.get("name")))
    return tuple(f"{each['name']}={each['version']}={each['build']}" for each in records)


def _check_file(prefix: Path, row: Mapping[str, Any], package: str) -> None:
    path = prefix / str(row.get("_path"))
    wanted = row.get("sha256_in_prefix") or row.get("sha256")
    if row.get("path_type") == "softlink" or str(row.get("_path")).endswith(".pyc") or not wanted:
        return
    if row.get("file_mode") and not row.get("sha256_in_prefix"):
        return  # the prefix was written into it, and this program does not say what it became
    if sha256_of(path) != wanted:
        raise DataError(
            f"{path} is not the file that conda's package {package} has",
            "It was changed after it was linked, or another package overwrote it.",
            f"rm -r {prefix}, then run the same command again.",
        )


def _there(wanted: Wish) -> Provided | None:
    if not (wanted.prefix / RECEIPT).is_file():
        return None
    told = _json(wanted.prefix / RECEIPT)
    try:
        provided = _provided(wanted)
    except DataError:
        return None  # made anew
    return provided if list(provided.packages) == told.get("packages") else None


def _provided(wanted: Wish) -> Provided:
    packages = check_prefix(wanted.prefix)
    python = wanted.prefix / "bin" / "python"
    if not any(name.startswith(f"python={wanted.python}.") for name in packages) or not python.exists():
        raise DataError(
            f"conda made {wanted.prefix} without Python {wanted.python}",
            f"It has: {', '.join(packages) or 'nothing'}.",
            "Name another channel with --conda-channel.",
        )
    return Provided(wanted.program.name, wanted.prefix, python, _compilers(wanted.prefix), packages)


def _compilers(prefix: Path) -> dict[str, str]:
    """CC and CXX, where conda's compilers are there."""
    found = {}
    for variable, name in (("CC", "gcc"), ("CXX", "g++")):
        paths = sorted((prefix / "bin").glob(f"*-conda-linux-gnu-{name}"))
        if paths:
            found[variable] = str(paths[0])
    return found


def _run(wanted: Wish, packages: Path, *options: str) -> None:
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    env.update(CONDA_PKGS_DIRS=str(packages), CONDA_ALWAYS_COPY="1", CONDA_SAFETY_CHECKS="enabled")
    env.update(CONDA_EXTRA_SAFETY_CHECKS="true", MAMBA_NO_BANNER="1", CONDA_AUTO_UPDATE_CONDA="false")
    done = proc.run(wanted.argv(*options), env=env, timeout_s=FETCH_S)
    if not done.ok:
        tail = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()][-8:]
        raise MachineError(
            f"{wanted.program.name} could not make Python {wanted.python}: "
            + ("\n| ".join(tail) or "it said nothing"),
            f"Asked: {', '.join(wanted.channels)} for {', '.join(wanted.specs)}.",
            "Check the network, or name a mirror: --conda-channel URL",
        )


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}", "What conda installed cannot be checked."
        ) from error
    if not isinstance(told, dict):
        raise DataError(f"{path} is no JSON object", "What conda installed cannot be checked.")
    return told
