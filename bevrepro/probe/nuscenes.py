"""nuScenes as it lies on disk: a data root, a folder of archives, one archive, or a prepared infos file."""

import gzip
import hashlib
import json
import mmap
import os
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bevrepro.probe import downloads
from bevrepro.probe.files import open_plain, read_text
from bevrepro.probe.host import mount_of
from bevrepro.probe.infos import Infos, probe_infos
from bevrepro.probe.mounts import MountSeen
from bevrepro.probe.paths import Place, probe_place

ARCHIVES = (".tgz", ".tar.gz", ".tar", ".zip")
TABLES = (
    "attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map", "sample",
    "sample_annotation", "sample_data", "scene", "sensor", "visibility",
)  # fmt: skip
ARCHIVE_MOUNTS = (
    "FuseMount",
    "ratarmount",
    "bevrepro",
)  # sources in /proc/self/mounts
SAMPLED = 60  # sensor files looked for without --deep
NAMES_TOLD = 3
CAMERA = "samples/CAM_"
FILENAME = re.compile(rb'"filename"\s*:\s*"(samples/[^"]+)"')


@dataclass(frozen=True)
class Archive:
    """One archive's file."""

    name: str
    size_b: int | None = None
    begins: str | None = None  # "gzip", "tar", "zip", "html", "empty", "text" or "other"
    ends: bool | None = None  # a zip's directory or a tar's last block is there; None: not told
    md5: str | None = None  # only with --deep
    error: str | None = None


@dataclass(frozen=True)
class TableFolder:
    """One `v1.0-*` folder."""

    version: str
    lacking: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    scenes: int | None = None
    samples: int | None = None
    files_looked_for: int | None = None  # keyframes' sensor files
    files_missing: int | None = None
    files_named: tuple[str, ...] = ()
    images_looked_for: int | None = None  # those of them that are a camera's
    images_missing: tuple[str, ...] = ()
    can_missing: tuple[int, ...] | None = None  # numbers of scenes without a pose message


@dataclass(frozen=True)
class DataSet:
    """Everything at one path."""

    place: Place
    filesystem: str | None = None
    archives: tuple[Archive, ...] = ()
    tables: tuple[TableFolder, ...] = ()
    can_bus: bool | None = None  # the folder is there
    maps: bool | None = None
    infos: tuple[Infos, ...] = ()
    unfinished: tuple[str, ...] = ()  # what a downloader left of archives, by name
    entries: int | None = None
    synthetic: bool | None = None  # made by `bevrepro data synth`
    writable: bool | None = None  # by this user
    mount: MountSeen | None = None  # where bevrepro mounted it, or remembers that it did


def probe_data(path: Path, deep: bool = False) -> DataSet:
    """Reads only; never raises for what it finds. `deep` hashes archives and looks for every keyframe."""
    place = probe_place(path)
    source, filesystem = mount_of(path.absolute(), read_text(Path("/proc/self/mounts")))
    if place.kind == "file":
        return DataSet(
            place,
            filesystem,
            archives=(_archive(path, deep),) if path.name.endswith(ARCHIVES) else (),
            infos=(probe_infos(path),) if path.suffix in (".pkl", ".pickle") else (),
        )
    if place.kind != "folder":
        return DataSet(place, filesystem)
    names = sorted(os.listdir(path))
    can_bus = "can_bus" in names
    versions = [each for each in names if re.fullmatch(r"v\d\.\d-\w+", each) and os.path.isdir(path / each)]
    return DataSet(
        place,
        filesystem,
        archives=tuple(_archive(path / each, deep) for each in names if each.endswith(ARCHIVES)),
        unfinished=tuple(each for each in names if _is_unfinished(each)),
        tables=tuple(_tables(path, each, can_bus, deep) for each in versions),
        can_bus=can_bus if versions else None,
        maps="maps" in names if versions else None,
        infos=tuple(probe_infos(path / each) for each in names if re.fullmatch(r".*infos.*\.pkl", each)),
        entries=len(names),
        # ratarmount mounts as if for writing, and refuses only when something is written.
        writable=source not in ARCHIVE_MOUNTS and os.access(path, os.W_OK),
        synthetic="synth.json" in names or os.path.isfile(path.absolute().parent / "synth.json"),
    )


def _is_unfinished(name: str) -> bool:
    """`v1.0-mini.tgz.crdownload`; a nameless one (`Unconfirmed 123.crdownload`) may be anything."""
    parsed = downloads.parse(name)
    return parsed.state == "unfinished" and parsed.plain.endswith(ARCHIVES)


def _archive(path: Path, deep: bool) -> Archive:
    try:
        size_b = path.stat().st_size
        with open_plain(path) as file:
            head = file.read(1024)
        begins = _kind(head)
        return Archive(
            path.name, size_b, begins, _ends(path, begins, size_b, deep), _md5(path) if deep else None
        )
    except OSError as error:
        return Archive(path.name, error=error.strerror)


def _kind(head: bytes) -> str:
    if not head:
        return "empty"
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    if head[257:262] == b"ustar":
        return "tar"
    if re.match(rb"\s*<(!doctype|html|\?xml)", head, re.IGNORECASE):
        return "html"
    return "text" if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head[:200]) else "other"


def _ends(path: Path, begins: str, size_b: int, deep: bool) -> bool | None:
    """Whether the end is there. Of a gzip only reading it all tells (`deep`)."""
    if begins == "zip":
        return zipfile.is_zipfile(path)
    if begins == "tar":
        with path.open("rb") as file:
            file.seek(max(size_b - 1024, 0))
            return not any(file.read(1024))
    if begins == "gzip" and deep:
        try:
            with gzip.open(path) as stream:
                while stream.read(1 << 22):
                    pass
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return False
        return True
    return None


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def _tables(root: Path, version: str, can_bus: bool, deep: bool) -> TableFolder:
    folder = root / version
    lacking = tuple(f"{name}.json" for name in TABLES if not os.path.isfile(folder / f"{name}.json"))
    scenes, broken_scene = _rows(folder / "scene.json")
    samples, broken_sample = _rows(folder / "sample.json")
    looked, missing = _look_for(root, _sensor_files(folder / "sample_data.json", deep))
    images = [each for each in looked if each.startswith(CAMERA)]
    return TableFolder(
        version,
        lacking,
        tuple(each for each in (broken_scene, broken_sample) if each),
        None if scenes is None else len(scenes),
        None if samples is None else len(samples),
        len(looked),
        len(missing),
        tuple(missing[:NAMES_TOLD]),
        len(images),
        tuple(each for each in missing if each.startswith(CAMERA)),
        can_missing=_can_missing(root, scenes) if can_bus and scenes is not None else None,
    )


def _rows(path: Path) -> tuple[list[dict[str, object]] | None, str | None]:
    """(rows, None), (None, None) where there is no file, (None, what is wrong)."""
    try:
        with open_plain(path) as file:
            rows = json.load(file)
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError, RecursionError) as error:
        return None, f"{path.name}: {error}"[:200]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return None, f"{path.name}: no list of rows"
    return rows, None


def _sensor_files(table: Path, deep: bool) -> Iterator[str]:
    """Names of keyframes' files: all of them, or some spread over the table (it may have gigabytes)."""
    try:
        with open_plain(table) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if deep:
                yield from (match[1].decode("utf-8", "replace") for match in FILENAME.finditer(text))
                return
            for step in range(SAMPLED):
                match = FILENAME.search(text, len(text) * step // SAMPLED)
                if match:
                    yield match[1].decode("utf-8", "replace")
    except (OSError, ValueError):  # absent, empty
        return


def _look_for(root: Path, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """(all, those that are not there)."""
    unique = list(dict.fromkeys(names))
    return unique, [name for name in unique if not os.path.exists(root / name)]


def _can_missing(root: Path, scenes: list[dict[str, object]]) -> tuple[int, ...]:
    try:
        there = set(os.listdir(root / "can_bus"))
    except OSError:
        there = set()
    names = (str(scene.get("name", "")) for scene in scenes)
    missing = (name for name in names if f"{name}_pose.json" not in there)
    return tuple(sorted(int(name[6:]) for name in missing if re.fullmatch(r"scene-\d{4}", name)))
