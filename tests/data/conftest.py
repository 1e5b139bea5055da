"""Small archives, folders of their own for cache and state, and a system that only pretends to mount."""

import io
import json
import os
import sqlite3
import stat
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from bevrepro.core import proc
from bevrepro.data import fuse, index, mountinfo

FILES = {f"samples/CAM_FRONT/{number:02d}.jpg": bytes([number]) * (900 + number) for number in range(30)}


def write_tar(path: Path, files: dict[str, bytes] = FILES) -> Path:
    """.tar or .tgz by the ending."""
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Cache and state of this test alone."""
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "home/cache"))
    monkeypatch.setenv("BEVREPRO_STATE", str(tmp_path / "home/state"))
    return tmp_path / "home"


@pytest.fixture
def tgz(tmp_path):
    return write_tar(tmp_path / "v1.0-mini.tgz")


@pytest.fixture
def tar(tmp_path):
    return write_tar(tmp_path / "v1.0-mini.tar")


@pytest.fixture
def zipped(tmp_path):
    return write_zip(tmp_path / "can_bus.zip", {"can_bus/scene-0001_pose.json": b"[]"})


class FakeSystem:
    """Answers for ratarmount, fusermount and the probe; `mounted` is its mountinfo."""

    def __init__(self, folder: Path) -> None:
        self.mountinfo = folder / "mountinfo"
        self.calls: list[list[str]] = []
        self.mount_says = proc.Done(0, "", "")  # a failing rc: nothing is mounted
        self.umount_says = proc.Done(0, "", "")
        self.probe_says: str | None = None
        self.mounted: list[str] = []
        self._save()

    def _save(self) -> None:
        line = "40 27 0:39 / {} ro,nosuid,nodev - fuse.ratarmount bevrepro ro,user_id=0\n"
        self.mountinfo.write_text("".join(line.format(place) for place in self.mounted))

    def add_mount(self, place: Path) -> None:
        self.mounted.append(str(place))
        self._save()

    def run(self, argv, **options):
        self.calls.append([str(part) for part in argv])
        program = Path(argv[0]).name
        if program == "ratarmount":
            return self._index(argv) if "--no-mount" in argv else self._mount(argv[-1])
        if program in ("umount", "fusermount", "fusermount3"):
            return self._umount(str(argv[-1]))
        return proc.Done(0, (self.probe_says or self._size(argv[-1])) + "\n", "")

    def _size(self, path: str) -> str:
        return str(len(FILES["samples/CAM_FRONT/29.jpg"]) if path.endswith(".jpg") else 2)

    def _index(self, argv) -> proc.Done:
        folder = Path(json.loads(argv[argv.index("--index-folders") + 1])[0])
        fake_index(Path(argv[-1]), folder / (str(argv[-1]).replace("/", "_") + ".index.sqlite"))
        return proc.Done(0, "", "")

    def _mount(self, place: str) -> proc.Done:
        if self.mount_says.ok and place not in self.mounted:
            self.add_mount(Path(place))
        return self.mount_says

    def _umount(self, place: str) -> proc.Done:
        if self.umount_says.ok and place in self.mounted:
            self.mounted.remove(place)
            self._save()
        return self.umount_says

    def programs(self) -> list[str]:
        return [Path(call[0]).name for call in self.calls]


def fake_index(archive: Path, path: Path) -> None:
    """As ratarmount writes it, of what tarfile can read."""
    found = archive.stat()
    with sqlite3.connect(path) as database:
        database.execute('CREATE TABLE files (path, name, "offset", size, type, mode, linkname)')
        database.execute("CREATE TABLE metadata (key, value)")
        stats = json.dumps({"st_size": found.st_size, "st_mtime_ns": found.st_mtime_ns})
        database.execute("INSERT INTO metadata VALUES ('tarstats', ?)", (stats,))
        with tarfile.open(archive) as tar:
            for entry in tar:
                folder, name = os.path.split("/" + entry.name)
                kind = stat.S_IFLNK if entry.issym() else stat.S_IFREG
                row = (folder, name, entry.offset_data, entry.size, entry.type, kind, entry.linkname)
                database.execute("INSERT INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    database.close()


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Nothing is really mounted or started."""
    fake = FakeSystem(tmp_path)
    monkeypatch.setattr(proc, "run", fake.run)
    monkeypatch.setattr(mountinfo, "MOUNTINFO", fake.mountinfo)
    monkeypatch.setattr(fuse, "missing", lambda: ())
    monkeypatch.setattr(index, "find_ratarmount", lambda: Path(sys.executable).parent / "ratarmount")
    return fake
