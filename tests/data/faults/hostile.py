"""Archives made to harm whoever unpacks them, and a picture of a tree to see whether one did."""

import hashlib
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

GOOD = {f"samples/CAM_FRONT/{number:02d}.jpg": bytes([number]) * 700 for number in range(5)}
BOMB_BYTES = 300_000_000  # from 300 kB
DEEP = "../" * 12


def _entry(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.mode = kind, 0o4777
    for key, value in more.items():
        setattr(made, key, value)
    return made


Members = Iterator[tuple[tarfile.TarInfo, bytes]]


def parents(victim: Path) -> Members:
    yield _entry(DEEP + str(victim / "evil").lstrip("/")), b"evil"
    yield _entry("samples/../../evil"), b"evil"


def absolute(victim: Path) -> Members:
    yield _entry(str(victim / "evil")), b"evil"
    yield _entry(str(victim / "treasure")), b"evil"


def symlink(victim: Path) -> Members:
    """A link out of the tree, then a file through it, and one that replaces what it points to."""
    yield _entry("samples/out", tarfile.SYMTYPE, linkname=str(victim)), b""
    yield _entry("samples/out/evil"), b"evil"
    yield _entry("maps", tarfile.SYMTYPE, linkname=DEEP + str(victim).lstrip("/")), b""
    yield _entry("maps/treasure"), b"evil"


def hardlink(victim: Path) -> Members:
    yield _entry("samples/same", tarfile.LNKTYPE, linkname=str(victim / "treasure")), b""
    yield _entry("samples/same"), b"evil"


def devices(victim: Path) -> Members:
    yield _entry("samples/zero", tarfile.CHRTYPE, devmajor=1, devminor=5), b""
    yield _entry("samples/disk", tarfile.BLKTYPE, devmajor=254, devminor=0), b""
    yield _entry("samples/pipe", tarfile.FIFOTYPE), b""


def strange_names(victim: Path) -> Members:
    for name in ("samples/\n\x1b[31mred.jpg", "samples/" + "x" * 300, "samples/--force", "samples/a\\..\\b"):
        yield _entry(name), b"evil"


def file_and_folder(victim: Path) -> Members:
    """One name is a file and the folder of another."""
    yield _entry("samples/both"), b"evil"
    yield _entry("samples/both/inside"), b"evil"


KINDS: dict[str, Callable[[Path], Members]] = {
    maker.__name__: maker
    for maker in (parents, absolute, symlink, hardlink, devices, strange_names, file_and_folder)
}


def many() -> Members:
    """Pictures of a size that `data bench` measures."""
    for number in range(110):
        yield _entry(f"samples/CAM_BACK/{number:03d}.jpg"), bytes([number]) * 12_000


def write_tar(path: Path, members: Members) -> Path:
    """A .tar or .tgz of good pictures, a map, a table and the hostile members."""
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        for name, data in {**GOOD, "v1.0-mini/sample.json": b"[]"}.items():
            tar.addfile(_entry(name, size=len(data)), io.BytesIO(data))
        for entry, data in members:
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def write_zip(path: Path, members: Members) -> Path:
    """The same as a zip; a link is a file whose mode says so, as Info-ZIP writes it."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in GOOD.items():
            archive.writestr(name, data)
        for entry, data in members:
            info = zipfile.ZipInfo(entry.name)
            info.create_system = 3
            link = entry.issym()
            info.external_attr = (stat.S_IFLNK | 0o777 if link else stat.S_IFREG | 0o4777) << 16
            archive.writestr(info, entry.linkname if link else data)
    return path


def write_bomb(path: Path) -> Path:
    """A table of 300 MB zeros; in a .zip, three that share the same 300 kB."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            with archive.open("can_bus/scene-0061_pose.json", "w") as out:
                for _ in range(BOMB_BYTES // 1_000_000):
                    out.write(bytes(1_000_000))
        return path
    with tarfile.open(path, "w:gz", compresslevel=9) as tar:
        tar.addfile(_entry("v1.0-mini/sample.json", size=BOMB_BYTES), _Zeros(BOMB_BYTES))
    return path


class _Zeros(io.RawIOBase):
    def __init__(self, left: int) -> None:
        self.left = left

    def read(self, size: int = -1) -> bytes:
        given = min(self.left, size if size >= 0 else self.left)
        self.left -= given
        return bytes(given)


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a folder: kind, mode, owner, size, date and content; nothing is followed."""
    seen: dict[str, tuple[object, ...]] = {}
    for base, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(base, name)
            found = path.lstat()
            content = ""
            if stat.S_ISLNK(found.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(found.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            seen[str(path.relative_to(folder))] = (found.st_mode, found.st_uid, found.st_mtime_ns, content)
    return seen
