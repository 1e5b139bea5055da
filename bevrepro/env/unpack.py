"""Take chosen members out of .deb files, tar archives and wheels, and nothing that would lie elsewhere.

Every member's name is looked at, also of those not taken: an archive with `../` or an absolute path in it is
refused as a whole. A link may point anywhere inside the tree and nowhere else.
"""

import hashlib
import importlib.util
import io
import os
import posixpath
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bevrepro.core import proc
from bevrepro.core.errors import DataError, MachineError
from bevrepro.env.cuda_recipe import Part

# Missing in a Python built without liblzma, as pyenv does where its headers are not there.
HAS_LZMA = importlib.util.find_spec("_lzma") is not None

BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    ValueError,
    KeyError,
    NotImplementedError,
)
AR_MAGIC = b"!<arch>\n"
Readable = IO[bytes] | io.BufferedIOBase


@dataclass(frozen=True)
class Member:
    """One member that is taken. `place` is its path in the tree; `link` is set for symbolic links only."""

    place: str
    executable: bool
    link: str | None
    content: bytes


def take(part: Part, file: Path, root: Path, scratch: Path) -> int:
    """Write what `part.take` names below `root`; how many files. `scratch` is an empty folder of its own.

    Raises DataError for an archive that is damaged, would write elsewhere, lacks a member that the recipe
    names, or holds another content for a file that is already there.
    """
    root = root.resolve()
    found = 0
    unmet = {inside for inside, _ in part.take}
    for name, member in _guarded(part, file, scratch):
        unmet -= {inside for inside in unmet if name == inside or name.startswith(inside + "/")}
        _write(root, member, file)
        found += 1
    if unmet and part.kind != "archive":  # components of NVIDIA's archives need not have every folder
        raise DataError(
            f"{file.name} holds no {sorted(unmet)[0]}",
            "The recipe takes it from there.",
            "Report this with the version of bevrepro.",
        )
    return found


def write_members(root: Path, found: Iterable[Member], part: Part) -> None:
    """Write members that were read before; DataError as `take`."""
    for member in found:
        _write(root.resolve(), member, Path(part.file))


def members(part: Part, archive: zipfile.ZipFile) -> list[Member]:
    """What a wheel holds of `part.take`, by place; DataError for a wheel that would write elsewhere."""
    return sorted((member for _, member in _zip(part, archive)), key=lambda member: member.place)


def members_digest(found: Iterable[Member]) -> str:
    """sha256 over `sha256 of the content, two spaces, place` of each member, a line each, sorted by place."""
    rows = sorted((member.place, hashlib.sha256(member.content).hexdigest()) for member in found)
    return hashlib.sha256("".join(f"{digest}  {place}\n" for place, digest in rows).encode()).hexdigest()


def _guarded(part: Part, file: Path, scratch: Path) -> Iterator[tuple[str, Member]]:
    """(name inside the archive, member), with every way in which an archive can be damaged as a DataError."""
    try:
        if part.kind == "wheel":
            with zipfile.ZipFile(file) as archive:
                yield from _zip(part, archive)
        else:
            with open(file, "rb") as stream:
                packed = _data_of_deb(stream) if part.kind == "deb" else ("xz", stream)
                yield from _tar(part, *_unpacked(*packed, scratch))
    except BROKEN as error:
        raise DataError(
            f"{file} is damaged: {error or type(error).__name__}",
            "Nothing was taken from it into a toolkit.",
            "Remove it and run the same command again.",
        ) from error


def _zip(part: Part, archive: zipfile.ZipFile) -> Iterator[tuple[str, Member]]:
    for info in archive.infolist():
        name = _checked(info.filename, part)
        place = _place(name, part.take)
        # Python packages' markers: several wheels have them at the same place, and no compiler needs them.
        if info.is_dir() or place is None or name.endswith("/__init__.py"):
            continue
        mode = info.external_attr >> 16
        content = archive.read(info)
        link = content.decode() if stat.S_ISLNK(mode) else None
        yield name, Member(place, bool(mode & 0o111), link, b"" if link else content)


def _tar(part: Part, mode: str, stream: Readable) -> Iterator[tuple[str, Member]]:
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for info in archive:
            name = _checked(info.name, part)
            if part.kind == "archive":
                name = name.partition("/")[2]  # its own name, on top of all
            place = _place(name, part.take)
            if place is None or info.isdir():
                continue
            if info.issym():
                yield name, Member(place, False, info.linkname, b"")
            elif info.isreg():
                content = archive.extractfile(info)
                assert content is not None
                yield name, Member(place, bool(info.mode & 0o111), None, content.read())
            else:
                raise _refused(part, info.name, "is neither a file nor a symbolic link")


def _checked(name: str, part: Part) -> str:
    bare = name[2:] if name.startswith("./") else name
    if bare.startswith("/") or "\\" in bare or "\0" in bare or ".." in bare.split("/"):
        raise _refused(part, name, "would lie outside the folder it is unpacked to")
    return bare.rstrip("/")


def _place(name: str, wanted: tuple[tuple[str, str], ...]) -> str | None:
    for inside, place in wanted:
        if name == inside:
            return place
        if name.startswith(inside + "/"):
            return place + name[len(inside) :]
    return None


def _write(root: Path, member: Member, file: Path) -> None:
    target = root / member.place
    target.parent.mkdir(parents=True, exist_ok=True)
    # A link in between would lead elsewhere, even if every single link stays inside by its text.
    if target.parent.resolve() != target.parent:
        raise _refused_file(file, member.place, "lies behind a symbolic link")
    if member.link is not None:
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(member.place), member.link))
        if member.link.startswith("/") or inside.split("/")[0] == "..":
            raise _refused_file(file, member.place, f"points out of the tree, to {member.link}")
        if not target.is_symlink() or os.readlink(target) != member.link:
            os.symlink(member.link, target)
        return
    if target.is_symlink() or target.is_file():
        if target.is_symlink() or target.read_bytes() != member.content:
            raise _refused_file(file, member.place, "is there already, with another content")
        return
    target.write_bytes(member.content)
    target.chmod(0o755 if member.executable else 0o644)


def _refused(part: Part, member: str, what: str) -> DataError:
    return _refused_file(Path(part.file), member, what)


def _refused_file(file: Path, member: str, what: str) -> DataError:
    return DataError(
        f"{file.name}: {member!r} {what}",
        "No package that was measured holds such a thing; nothing of it is used.",
        "Remove the file and take it from another mirror.",
    )


def _data_of_deb(stream: IO[bytes]) -> tuple[str, Readable]:
    """(compression, the member data.tar of a .deb), read without dpkg."""
    if stream.read(len(AR_MAGIC)) != AR_MAGIC:
        raise tarfile.ReadError("it is no .deb")
    while header := stream.read(60):
        name, length = header[:16].decode("ascii", "replace").strip().rstrip("/"), int(header[48:58])
        if name.startswith("data.tar"):
            return name[len("data.tar") :].lstrip("."), _Slice(stream, stream.tell(), length)
        stream.seek(length + length % 2, io.SEEK_CUR)
    raise tarfile.ReadError("it is a .deb without data")


def _unpacked(compression: str, stream: Readable, scratch: Path) -> tuple[str, Readable]:
    """(tarfile's mode, a stream): what this Python unpacks itself, else by the program xz."""
    if compression in ("", "gz", "bz2"):
        return f"r|{compression}", stream
    if compression != "xz":
        raise tarfile.ReadError(f"it is compressed with {compression}, which is not known here")
    return ("r|xz", stream) if HAS_LZMA else ("r|", _by_program(stream, scratch))


def _by_program(stream: Readable, scratch: Path) -> IO[bytes]:
    program = proc.which("xz")
    if program is None:
        raise MachineError(
            "neither this Python nor a program can unpack .xz",
            "This Python was built without the module lzma, and there is no xz on PATH.",
            "Install xz (Debian and Ubuntu: xz-utils), or run bevrepro with another Python.",
        )
    packed = scratch / "data.tar.xz"
    with open(packed, "wb") as file:
        _copy(stream.read, file)
    done = proc.run([program, "-d", packed])
    if not done.ok:
        raise tarfile.ReadError(done.stderr.strip() or f"xz ended with {done.rc}")
    return open(scratch / "data.tar", "rb")


def _copy(read: Callable[[int], bytes], file: IO[bytes]) -> None:
    while piece := read(1 << 20):
        file.write(piece)


class _Slice(io.BufferedIOBase):
    """`length` bytes of a file from `start`, forwards only."""

    def __init__(self, stream: IO[bytes], start: int, length: int) -> None:
        stream.seek(start)
        self._stream, self._left = stream, length

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = self._left if size is None or size < 0 else min(size, self._left)
        piece = self._stream.read(wanted)
        if len(piece) < wanted:
            raise EOFError("it ends early")
        self._left -= len(piece)
        return piece
