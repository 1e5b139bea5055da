"""The archives, laid out as the official ones; the same files give the same bytes.

Dates, owners and modes are fixed, names sorted, and gzip carries neither a name nor a date.
"""

import gzip
import os
import shutil
import tarfile
import zipfile
from dataclasses import dataclass
from typing import Callable, Iterable, List, Optional, Sequence, Set, Tuple

from .sets import Options

DATE = 1546300800  # 2019-01-01, for every member
_ZIP_DATE = (2019, 1, 1, 0, 0, 0)
GZIP_LEVEL = 1
SET_PARTS = ("maps", "samples", "sweeps")


@dataclass(frozen=True)
class Parcel:
    """One tar to be written: its name without an ending, what it holds, whether the .tar stays.

    `part` counts from 0; None for the archive of the tables.
    """

    stem: str
    names: Tuple[str, ...]
    part: Optional[int] = 0
    keep_tar: bool = False


def names_below(root: str, parts: Iterable[str]) -> List[str]:
    """Folders and files below root/part of each part, relative to root, a folder before its content."""
    out = []
    for part in parts:
        found = [part]
        for folder, folders, files in os.walk(os.path.join(root, part)):
            found += [os.path.relpath(os.path.join(folder, name), root) for name in folders + files]
        out += sorted(name.replace(os.sep, "/") for name in found)
    return out


def parcels(root: str, options: Options, files_of_scenes: Sequence[Sequence[str]]) -> List[Parcel]:
    """What the archives of this set hold.  `files_of_scenes`: per scene, the names of its sensor files."""
    version = options.version
    if options.kind == "mini":
        return [Parcel(version, tuple(names_below(root, list(SET_PARTS) + [version])), keep_tar=True)]
    out = [Parcel(version + "_meta", tuple(names_below(root, ["maps", version])), None)]
    blobs = names_below(root, ["samples", "sweeps"])
    if options.kind == "test":
        return out + [Parcel(version + "_blobs", tuple(blobs))]
    for part in range(options.parts):
        mine = {
            name
            for number, files in enumerate(files_of_scenes)
            if options.part_of(number) == part
            for name in files
        }
        for pack in options.packs:
            stem = "%s%02d_%s" % (version, part + 1, ENDINGS[pack])
            out.append(Parcel(stem, tuple(_pick(root, blobs, mine, FITS[pack])), part))
    return out


ENDINGS = {
    "blobs": "blobs",
    "keyframes": "keyframes",
    "camera": "blobs_camera",
    "lidar": "blobs_lidar",
}
FITS = {  # pack -> does it take a file or folder below samples/ or sweeps/
    "blobs": lambda name: True,
    "keyframes": lambda name: name.split("/")[0] == "samples",
    "camera": lambda name: "/" not in name or name.split("/")[1].startswith("CAM"),
    "lidar": lambda name: "/" not in name or name.split("/")[1].startswith("LIDAR"),
}


def _pick(root: str, names: List[str], mine: Set[str], fits: Callable[[str], bool]) -> List[str]:
    return [
        name for name in names if fits(name) and (name in mine or os.path.isdir(os.path.join(root, name)))
    ]


def write_tar(root: str, names: Iterable[str], target: str) -> None:
    """Files and folders of `root` as an uncompressed archive."""
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for name in names:
            _add(tar, root, name)


def _add(tar: tarfile.TarFile, root: str, name: str) -> None:
    path = os.path.join(root, name)
    info = tarfile.TarInfo(name)
    info.mtime, info.uname, info.gname = DATE, "", ""
    if os.path.isdir(path):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)
        return
    info.size, info.mode = os.path.getsize(path), 0o644
    with open(path, "rb") as stream:
        tar.addfile(info, stream)


def write_tgz(tar_path: str, target: str) -> None:
    """The same archive, compressed."""
    with open(tar_path, "rb") as source, open(target, "wb") as raw:
        with gzip.GzipFile("", "wb", GZIP_LEVEL, raw, mtime=0) as packed:
            shutil.copyfileobj(source, packed, 1 << 20)


def write_zip(root: str, part: str, target: str) -> None:
    """The folder `part` of `root` as a zip (can_bus.zip)."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in names_below(root, [part]):
            path = os.path.join(root, name)
            folder = os.path.isdir(path)
            info = zipfile.ZipInfo(name + "/" if folder else name, _ZIP_DATE)
            info.external_attr = (0o40755 if folder else 0o100644) << 16
            info.create_system = 3
            content = b""
            if not folder:
                info.compress_type = zipfile.ZIP_DEFLATED
                with open(path, "rb") as stream:
                    content = stream.read()
            packed.writestr(info, content)


def write_parcel(
    root: str, parcel: Parcel, folder: str, after_tar: Callable[[str], None] = lambda path: None
) -> List[str]:
    """STEM.tgz, and STEM.tar where it is kept; returns their names.  `after_tar` may change the tar first."""
    tar_path = os.path.join(folder, parcel.stem + ".tar")
    write_tar(root, parcel.names, tar_path)
    after_tar(tar_path)
    write_tgz(tar_path, os.path.join(folder, parcel.stem + ".tgz"))
    if parcel.keep_tar:
        return [parcel.stem + ".tgz", parcel.stem + ".tar"]
    os.unlink(tar_path)
    return [parcel.stem + ".tgz"]
