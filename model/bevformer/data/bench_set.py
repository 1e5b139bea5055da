"""What `data bench` reads: files of the sizes of camera images, as a folder, a .tar and a .tgz."""

import io
import os
import random
import tarfile
from typing import Callable, Iterator, Tuple

CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
BIG, SMALL = (100_000, 200_000), (10_000, 40_000)  # bytes of an image; of a scaled one
SMALL_SHARE = 0.2
# Of 256 byte values 32 come twice as often: gzip saves 3 % and has to decode every byte, as with JPEGs.
SKEW = bytes(value if value < 224 else value - 224 for value in range(256))
OnFile = Callable[[int, int], None]


def make(folder: str, size_gb: float, seed: int, on_file: OnFile) -> None:
    """folder/extracted, folder/bench.tar and folder/bench.tgz with the same files."""
    os.makedirs(os.path.join(folder, "extracted"))
    total, done = int(size_gb * 1e9), 0
    with tarfile.open(os.path.join(folder, "bench.tar"), "w") as tar, tarfile.open(
        os.path.join(folder, "bench.tgz"), "w:gz", compresslevel=1
    ) as tgz:
        for name, data in _files(total, random.Random(seed)):
            _write(os.path.join(folder, "extracted", name), data)
            for archive in (tar, tgz):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
            done += len(data)
            on_file(min(done, total), total)
    os.sync()  # what is not on the disk yet cannot be dropped from memory for the cold reads


def _files(total: int, rng: random.Random) -> Iterator[Tuple[str, bytes]]:
    """Both sizes all over the archive: a reader that keeps a part of it in memory shall not be lucky."""
    done, number = {"samples": 0, "scaled": 0}, 0
    while sum(done.values()) < total:
        folder = "scaled" if done["scaled"] <= SMALL_SHARE * sum(done.values()) else "samples"
        camera, size = CAMERAS[number % 6], rng.randint(*(SMALL if folder == "scaled" else BIG))
        name = "n015-2018-07-18-11-07-57+0800__%s__%d.jpg" % (camera, 1531883530412470 + number * 83333)
        yield "%s/%s/%s" % (folder, camera, name), os.urandom(size).translate(SKEW)
        done[folder] += size
        number += 1


def _write(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def make_many(path: str, count: int) -> None:
    """A .tar of `count` empty files with names as long as nuScenes': what an index has to cope with."""
    with open(path, "wb") as out:
        for number in range(count):
            camera = CAMERAS[number % 6]
            stem = "n015-2018-07-18-11-07-57+0800__%s__%d.jpg" % (camera, 1531883530412470 + number * 83333)
            out.write(tarfile.TarInfo("samples/%s/%s" % (camera, stem)).tobuf(tarfile.GNU_FORMAT))
        out.write(bytes(10240))
