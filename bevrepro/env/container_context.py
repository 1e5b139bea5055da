"""The folder that an image is built from: the Dockerfile, bevrepro's own sources, wheels that no index has.

It has the layout of a checkout, whether bevrepro runs from one or is installed, and the same modes
everywhere, so that equal inputs make equal layers.
What gives access to a private index is no part of it (see `secrets`).
"""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from bevrepro.core.errors import ConfigError, DiskError
from bevrepro.core.paths import PACKAGE_DIR, docker_dir, envs_dir, model_dir, patches_dir
from bevrepro.env.index import CERTIFICATES, Index
from bevrepro.env.lockfile import LockFile, Pin, read_lock
from bevrepro.env.tree import sha256_of

MARKER = ".bevrepro-context.json"
WHEELS = "docker/wheels"
INSIDE = "/run/bevrepro"  # where docker/ and the secrets appear during a step
CERTIFICATE = f"{INSIDE}/ca.pem"


@dataclass(frozen=True)
class Entry:
    """One file of the context: a copy of `source`, or `content`. `path` is relative, with slashes."""

    path: str
    source: Path | None = None
    content: bytes = b""
    executable: bool = False


@dataclass(frozen=True)
class Secrets:
    """What a step needs and the image must not hold: file contents by id, and what could not be handed in."""

    contents: Mapping[str, bytes]
    notes: tuple[str, ...]


def entries(dockerfile: str, wheels: Sequence[Path]) -> tuple[Entry, ...]:
    """Every file of the context, by path."""
    found = [Entry("Dockerfile", content=dockerfile.encode("utf-8"))]
    for name, folder in (
        ("bevrepro", PACKAGE_DIR),
        ("model/bevformer", model_dir() / "bevformer"),
        ("envs", envs_dir()),
        ("patches", patches_dir()),
        ("docker", docker_dir()),
    ):
        found += [
            Entry(f"{name}/{path.relative_to(folder).as_posix()}", path, executable=os.access(path, os.X_OK))
            for path in _files(folder)
            if not (name == "docker" and path.parent.name == "wheels" and path.suffix != ".md")
        ]
    found += [Entry(f"{WHEELS}/{path.name}", path) for path in wheels]
    return tuple(sorted(found, key=lambda each: each.path))


def local_packages(folders: Iterable[Path], locks: Sequence[LockFile]) -> tuple[Path, ...]:
    """Files in these folders that the locks name with that very sha256; one of each name."""
    pins = [pin for lock in locks for pin in lock.pins]
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.name not in found and _wanted(path, pins):
                found[path.name] = path
    return tuple(found[name] for name in sorted(found))


def refuse_absent(folders: Iterable[Path]) -> None:
    """ConfigError for a folder of --wheels that is not there."""
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(
                f"{folder} is no folder", "Locked packages were to come from it.", "Check --wheels."
            )


def control_lock() -> LockFile:
    """What bevrepro itself needs inside the image."""
    return read_lock(docker_dir() / "control.txt")


def secrets(index: Index, environ: Mapping[str, str], sources: Path | None = None) -> Secrets:
    """pip.conf, certificates and apt's sources for the steps that install. ConfigError for a missing file."""
    contents, notes = {}, []
    cert = index.cert or next((environ[name] for name in CERTIFICATES if environ.get(name)), None)
    if cert and Path(cert).is_file():
        contents["ca"] = Path(cert).read_bytes()
    elif cert:
        notes.append(f"{cert} is no single file of certificates: not handed in")
    lines, unseen = _pip_conf(index, "ca" in contents)
    notes += [f"{place} is a folder of this machine: not handed in" for place in unseen]
    if lines:
        contents["pip"] = "\n".join(["[global]", *lines, ""]).encode("utf-8")
    if sources is not None:
        try:
            contents["sources"] = sources.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{sources} cannot be read: {error.strerror}", do="Check --apt-sources."
            ) from error
    return Secrets(contents, tuple(notes))


def local_folders(index: Index) -> tuple[Path, ...]:
    """The folders of this machine among the places where pip looks for files."""
    return tuple(Path(urlsplit(each).path) for each in index.find_links if not _remote(each))


def write_context(files: Sequence[Entry], out: Path) -> str:
    """The whole folder or nothing; a digest of its content. A folder that is not all ours stays as it is.

    Raises ConfigError for foreign or edited files in it, DiskError where it cannot be written.
    """
    out = Path(os.path.abspath(out))
    refuse_foreign(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        try:
            digests = {each.path: _write(each, new) for each in files}
            _write(Entry(MARKER, content=_marker(digests)), new)
            new.chmod(0o755)
            _swap(new, out)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    except OSError as error:
        raise DiskError(
            f"could not write {out}: {error.strerror}",
            "What was there before is as it was.",
            "Free some space, or name another --out.",
        ) from error
    return hashlib.sha256(_marker(digests)).hexdigest()


def refuse_foreign(out: Path) -> None:
    """ConfigError where `out` is a file, the folder one is in, or holds what no earlier run put there."""
    here = Path.cwd().resolve()
    if out.is_dir() and out.resolve() in (here, *here.parents):
        raise ConfigError(
            f"{out} is the folder that you are in, or above it",
            "The whole folder is exchanged for a new one.",
            "Name a folder below it, for example --out image.",
        )
    foreign = _foreign(out)
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise ConfigError(
            f"{out} holds what bevrepro did not write there: {', '.join(foreign[:3])}{more}",
            "Nothing of yours is overwritten.",
            "Name a new or empty folder with --out.",
        )


def _foreign(out: Path) -> list[str]:
    if not os.path.lexists(out):
        return []
    if out.is_symlink() or not out.is_dir():
        return ["it is no folder"]
    ours = _recorded(out)
    folders = {parent.as_posix() for name in ours for parent in Path(name).parents}
    found = {path.relative_to(out).as_posix(): path for path in out.rglob("*")}
    return [name for name, path in sorted(found.items()) if not _is_ours(name, path, ours, folders)]


def _is_ours(name: str, path: Path, ours: Mapping[str, str], folders: set[str]) -> bool:
    if path.is_symlink():
        return False
    if path.is_dir():
        return name in folders
    return name == MARKER or (name in ours and ours[name] == sha256_of(path))


def _files(folder: Path) -> Iterator[Path]:
    """Sources, without bytecode, hidden files, and what an installed wheel carries beside the package."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "__pycache__" or path.suffix == ".pyc":
            continue
        if path.is_dir():
            carried = folder == PACKAGE_DIR and path.name in ("_model", "_envs", "_docker", "_patches")
            yield from () if carried else _files(path)
        elif path.is_file():
            yield path


def _wanted(path: Path, pins: Sequence[Pin]) -> bool:
    try:
        if path.suffix == ".whl":
            name, version = parse_wheel_filename(path.name)[:2]
        else:
            name, version = parse_sdist_filename(path.name)
    except (InvalidWheelFilename, InvalidSdistFilename):
        return False
    hashes = {
        each
        for pin in pins
        if pin.name == canonicalize_name(name) and pin.version == str(version)
        for each in pin.hashes
    }
    return bool(hashes) and sha256_of(path) in hashes


def _pip_conf(index: Index, certified: bool) -> tuple[list[str], list[str]]:
    """(lines of the section, local places that a step cannot see)."""
    links = [place for place in index.find_links if _remote(place)]
    extra = [url for url in index.extra if _remote(url)]
    unseen = [url for url in index.extra if not _remote(url)]
    main = index.index_url if index.index_url and _remote(index.index_url) else None
    unseen += [index.index_url] if index.index_url and main is None else []
    values = {
        "index-url": main,
        "extra-index-url": " ".join(extra),
        "trusted-host": " ".join(index.trusted),
        "proxy": index.proxy,
        "timeout": index.timeout_s,
        "no-index": "true" if index.no_index else None,
        "cert": CERTIFICATE if certified else None,
    }
    lines = [f"{key} = {value}" for key, value in values.items() if value]
    lines += [f"find-links = {' '.join([f'{INSIDE}/{WHEELS}', *links])}"] if lines or links else []
    return lines, unseen


def _remote(place: str) -> bool:
    return urlsplit(place).scheme in ("http", "https")


def _write(each: Entry, folder: Path) -> str:
    path = folder / each.path
    path.parent.mkdir(parents=True, exist_ok=True)
    if each.source is None:
        path.write_bytes(each.content)
    else:
        shutil.copyfile(each.source, path)
    path.chmod(0o755 if each.executable else 0o644)
    digest = sha256_of(path)
    if digest is None:
        raise OSError(errno.EIO, "what was written cannot be read back", str(path))
    return digest


def _marker(digests: Mapping[str, str]) -> bytes:
    return (json.dumps({"schema": 1, "files": dict(digests)}, indent=1, sort_keys=True) + "\n").encode()


def _recorded(out: Path) -> dict[str, str]:
    try:
        return dict(json.loads((out / MARKER).read_text(encoding="utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _swap(new: Path, out: Path) -> None:
    if not out.exists():
        new.rename(out)
        return
    old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old."))
    out.rename(old)  # onto an empty folder, which rename() replaces
    try:
        new.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
