"""Source archives of a lock: found in folders and on index pages, checked by hash, unpacked."""

import os
import shutil
import tarfile
import urllib.parse
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from packaging.utils import InvalidSdistFilename, parse_sdist_filename
from packaging.version import Version

from bevrepro.core.errors import DataError, MachineError
from bevrepro.core.paths import cache_dir
from bevrepro.env import index_wheels
from bevrepro.env.fetch import NETWORK, Via, is_local, opened, plain, reason
from bevrepro.env.index import Index
from bevrepro.env.index_page import links
from bevrepro.env.lockfile import Pin
from bevrepro.env.tree import sha256_of
from bevrepro.env.uv_trouble import MIRROR

BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, KeyError, NotImplementedError)
MOST_B = 1 << 30


def obtain(pin: Pin, index: Index) -> Path:
    """The sdist of a pin, from the cache or wherever packages come from. It is one of the pin's hashes.

    Raises MachineError with what each place said where none has it.
    """
    kept = _kept(pin)
    if kept is not None:
        return kept
    tried: list[str] = []
    altered = False
    for url in _candidates(pin, index, tried):
        name = urllib.parse.unquote(url.rsplit("/", 1)[-1])
        try:
            content = _read(url, index.via)
        except (*NETWORK, OSError) as error:
            tried.append(f"{plain(url)}: {reason(error)}")
            continue
        found = _keep(pin, name, content)
        if found is not None:
            return found
        altered = True
        tried.append(f"{plain(url)}: its sha256 is none of those that were locked")
    what = f"{pin.name}=={pin.version}"
    raise MachineError(
        f"the sdist of {what} is not the file that was locked" if altered
        else f"the sdist of {what} is not to be had from here",
        "\n".join(["Tried:", *(f"  {line}" for line in tried or ["nothing: no index is set up"])]),
        MIRROR,
    )  # fmt: skip


def unpack(archive: Path, folder: Path) -> Path:
    """The archive's only top folder, unpacked below `folder`, which is emptied first.

    DataError for a damaged archive and for one that would write elsewhere.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        if archive.suffix == ".zip":
            _unzip(archive, folder)
        else:
            _untar(archive, folder)
    except BROKEN as error:
        raise DataError(
            f"{archive} cannot be unpacked: {error}",
            "Nothing is built from it.",
            "Remove it, then run the same command again.",
        ) from error
    tops = [each for each in folder.iterdir() if each.is_dir()]
    if len(tops) != 1:
        raise DataError(f"{archive.name} has {len(tops)} folders on top, not one", "It is no sdist.")
    return tops[0]


def _folder(pin: Pin) -> Path:
    return cache_dir() / "sdists" / pin.name


def _kept(pin: Pin) -> Path | None:
    folder = _folder(pin)
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if _is(path.name, pin) and sha256_of(path) in pin.hashes:
            return path
    return None


def _keep(pin: Pin, name: str, content: bytes) -> Path | None:
    """Under its name in the cache; None where it is another file."""
    folder = _folder(pin)
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / name, folder / f".{name}.{os.getpid()}"
    try:
        part.write_bytes(content)
        if sha256_of(part) not in pin.hashes:
            return None
        os.replace(part, path)
        return path
    finally:
        part.unlink(missing_ok=True)


def _read(url: str, via: Via) -> bytes:
    with opened(url, via=via) as response:
        content = response.read(MOST_B + 1)
    if len(content) > MOST_B:
        raise OSError(f"it is larger than {MOST_B >> 30} GiB")
    return content


def _is(name: str, pin: Pin) -> bool:
    try:
        return parse_sdist_filename(name) == (pin.name, Version(pin.version))
    except InvalidSdistFilename:
        return False


def _candidates(pin: Pin, index: Index, tried: list[str]) -> Iterator[str]:
    """Addresses, folders first; one index after another, each only when those before did not do."""
    for place in index.find_links:
        folder = Path(place.removeprefix("file://"))
        if folder.is_dir():
            yield from (path.absolute().as_uri() for path in sorted(folder.iterdir()) if _is(path.name, pin))
        elif "://" in place and not is_local(place):
            yield from _on_page(place, pin, index.via, tried)
    if index.no_index:
        return
    simple = (index.index_url, *index.extra) if index.index_url else index_wheels.configured().simple
    for base in simple:
        yield from _on_page(base.rstrip("/") + f"/{pin.name}/", pin, index.via, tried)


def _on_page(page: str, pin: Pin, via: Via, tried: list[str]) -> list[str]:
    try:
        found = [each.address for each in links(page, via) if _is(each.name, pin)]
    except (*NETWORK, OSError, ValueError) as error:
        tried.append(f"{plain(page)}: {reason(error)}")
        return []
    if not found:
        tried.append(f"{plain(page)}: it lists no sdist of that version")
    return found


def _inside(name: str) -> str:
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name:
        raise ValueError(f"{name!r} would lie outside of it")
    return name


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        for info in packed.infolist():
            _inside(info.filename)
        packed.extractall(folder)


def _untar(archive: Path, folder: Path) -> None:
    """Files and folders only: an sdist needs no links, and without them nothing can lie elsewhere."""
    with tarfile.open(archive) as packed:
        for info in packed:
            target = folder / _inside(info.name)
            if info.isdir():
                target.mkdir(parents=True, exist_ok=True)
            elif info.isreg():
                target.parent.mkdir(parents=True, exist_ok=True)
                source = packed.extractfile(info)
                assert source is not None
                with open(target, "wb") as file:
                    shutil.copyfileobj(source, file)
                target.chmod(0o755 if info.mode & 0o100 else 0o644)
                os.utime(target, (info.mtime, info.mtime))
