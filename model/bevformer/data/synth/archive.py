"""The archives, laid out as the official ones; the same files give the same bytes.

Dates, owners and modes are fixed, names sorted, and gzip carries neither a name nor a date.
"""

import gzip
import os
import shutil
import tarfile
import zipfile
from typing import List

DATE = 1546300800  # 2019-01-01, for every member
_ZIP_DATE = (2019, 1, 1, 0, 0, 0)
GZIP_LEVEL = 1
SET_PARTS = ("maps", "samples", "sweeps")


def _names(root: str, part: str) -> List[str]:
    """Folders and files below root/part, relative to root, sorted, a folder before its content."""
    found = [part]
    for folder, folders, files in os.walk(os.path.join(root, part)):
        found += [os.path.relpath(os.path.join(folder, name), root) for name in folders + files]
    return sorted(name.replace(os.sep, "/") for name in found)


def write_tar(root: str, parts: List[str], target: str) -> None:
    """The folders `parts` of `root` as an uncompressed archive."""
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for part in parts:
            for name in _names(root, part):
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
        for name in _names(root, part):
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


def write_archives(nuscenes: str, version: str, folder: str) -> List[str]:
    """VERSION.tar, VERSION.tgz and can_bus.zip in `folder`; returns their names."""
    tar_path = os.path.join(folder, version + ".tar")
    write_tar(nuscenes, list(SET_PARTS) + [version], tar_path)
    write_tgz(tar_path, os.path.join(folder, version + ".tgz"))
    write_zip(nuscenes, "can_bus", os.path.join(folder, "can_bus.zip"))
    return [version + ".tgz", version + ".tar", "can_bus.zip"]
