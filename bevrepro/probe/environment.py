"""The distributions of one environment, the lock of its target, and files that were edited since."""

import base64
import csv
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import InvalidMarker, Marker

from bevrepro.core.errors import MachineError
from bevrepro.core.paths import envs_dir
from bevrepro.probe.files import globbed, key_values, open_plain, read_text
from bevrepro.probe.paths import Place, probe_place

DEFAULT_TARGET = "cpu"
NOTE = "bevrepro-env.json"
# mmcv_full-1.4.0-py3.8.egg-info, and what `setup.py install` makes: mmdet3d-0.17.1-py3.8-linux-x86_64.egg
DIST = re.compile(
    r"(?P<name>.+?)-(?P<version>[^-]+)(?:\.dist-info|(?:-py[\d.]+)?\.egg-info|-py[\d.]+(?:-.+)?\.egg)"
)
LOCKED = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)\s*(?:;\s*([^\\]*))?", re.MULTILINE)
ALGORITHMS = ("sha256", "sha384", "sha512")


@dataclass(frozen=True)
class Environment:
    """One environment; None where it could not be told."""

    place: Place
    python: str | None = None  # "3.11.7"
    target: str | None = None  # of its own note, else the default
    noted: bool | None = None  # bevrepro made it and wrote down its target
    installed: Mapping[str, str] | None = None  # normalised name -> version
    twice: tuple[str, ...] | None = None  # distributions with two metadata folders
    locked: Mapping[str, str] | None = None  # for this Python; None: there is no such lock
    edited: tuple[str, ...] | None = None  # files whose hash is not RECORD's; only with --deep
    gone: tuple[str, ...] | None = None  # files of RECORD that are not there; only with --deep
    patched: tuple[str, ...] | None = None  # files that bevrepro patched itself, by its note


def probe_env(path: Path, deep: bool = False) -> Environment:
    """`path` is a venv or conda prefix. `deep` hashes every file that RECORD lists (seconds)."""
    place = probe_place(path)
    if place.kind != "folder":
        return Environment(place)
    sites = globbed(path, "lib/python3*/site-packages")
    python = _python(path, sites)
    note = _note(path)
    target = note.get("target") if isinstance(note.get("target"), str) else None
    patches = note.get("patched_files")
    pairs = [pair for site in sites for pair in _installed(site)]
    names = [name for name, _ in pairs]
    edited, gone = _changed(sites) if deep else (None, None)
    return Environment(
        place,
        python=python,
        target=str(target or DEFAULT_TARGET),
        noted=bool(note),
        installed=dict(pairs) if sites else None,
        twice=tuple(sorted({name for name in names if names.count(name) > 1})),
        locked=_locked(str(target or DEFAULT_TARGET), python),
        edited=edited,
        gone=gone,
        patched=tuple(map(str, patches)) if isinstance(patches, list) else None,
    )


def _python(path: Path, sites: list[Path]) -> str | None:
    version = key_values(read_text(path / "pyvenv.cfg"), "=")
    told = version.get("version_info") or version.get("version")
    if told:
        return ".".join(told.split(".")[:3])
    return sites[0].parent.name.removeprefix("python") if sites else None


def _note(path: Path) -> dict[str, object]:
    try:
        note = json.loads(read_text(path / NOTE) or "{}")
    except ValueError:
        return {}
    return note if isinstance(note, dict) else {}


def _installed(site: Path) -> Iterator[tuple[str, str]]:
    for entry in sorted((*globbed(site, "*-info"), *globbed(site, "*.egg"))):
        match = DIST.fullmatch(entry.name)
        if match:
            yield normalised(match["name"]), match["version"]
    for link in globbed(site, "*.egg-link"):  # of `setup.py develop`: the sources' folder
        folder = Path((read_text(link) or "").partition("\n")[0])
        told = key_values(read_text(folder / f"{link.stem.replace('-', '_')}.egg-info/PKG-INFO"))
        if told.get("Version"):
            yield normalised(link.stem), told["Version"]


def normalised(name: str) -> str:
    """`opencv-python` of `opencv_python`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _locked(target: str, python: str | None) -> dict[str, str] | None:
    try:
        folder = envs_dir() / "locks"
    except MachineError:
        return None
    texts = [read_text(folder / f"{target}{part}.txt") for part in ("", ".torch")]
    if texts[0] is None or not re.fullmatch(r"[\w.-]+", target):
        return None
    found = {}
    for name, version, marker in LOCKED.findall("\n".join(text or "" for text in texts)):
        if _holds(marker.strip(), python):
            found[normalised(name)] = version
    return found


def _holds(marker: str, python: str | None) -> bool:
    if not marker or python is None:
        return not marker
    short = ".".join(python.split(".")[:2])
    try:
        return Marker(marker).evaluate({"python_full_version": python, "python_version": short})
    except (InvalidMarker, ValueError):
        return False


def _changed(sites: list[Path]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    edited, gone = [], []
    for site in sites:
        for record in globbed(site, "*.dist-info/RECORD"):
            for name, wanted in _rows(record):
                found = _digest(site / name, wanted.partition("=")[0])
                if found is None:
                    gone.append(name)
                elif found != wanted.partition("=")[2]:
                    edited.append(name)
    return tuple(sorted(edited)), tuple(sorted(gone))


def _rows(record: Path) -> Iterator[tuple[str, str]]:
    """(name, "sha256=...") of every file with a hash."""
    text = read_text(record) or ""
    for row in csv.reader(text.splitlines()):
        if len(row) == 3 and row[1].partition("=")[0] in ALGORITHMS and not row[0].endswith(".pyc"):
            yield row[0], row[1]


def _digest(path: Path, algorithm: str) -> str | None:
    """As RECORD writes it (PEP 376): urlsafe base64 without padding; None where the file is gone."""
    digest = hashlib.new(algorithm)
    try:
        with open_plain(path) as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError:
        return None
    return base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")
