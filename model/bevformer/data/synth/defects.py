"""Defects on demand: what goes wrong with downloads and disks, done on purpose and written down.

Each one leaves a record in the set's synth.json that says exactly what was done to which file, so that a test
can compare a finding with it.  Which file is hit depends on the seed and the kind alone.
"""

import os
import tarfile
from dataclasses import dataclass, field
from typing import Any, Dict, List, Sequence

from .archive import Parcel, write_parcel, write_zip
from .recording import random_stream

# to the set itself, so that folders and archives agree
IN_THE_SET = ("missing-file", "empty-file", "cut-image", "missing-table", "cut-table", "no-can")
# to one archive of pictures; the folders stay whole
IN_AN_ARCHIVE = ("broken-header", "flipped-bytes", "truncated-archive", "missing-part")
DEFECTS = tuple(sorted(IN_THE_SET + IN_AN_ARCHIVE))
KEPT_SHARE = 0.6  # of an archive that is cut short
FLIPPED_BYTES = 64
BLOCK = 512


@dataclass
class Damage:
    """The defects of one set; `records` grows as they are made."""

    kinds: Sequence[str]
    seed: int
    records: List[Dict[str, Any]] = field(default_factory=list)

    def _one_of(self, kind: str, names: Sequence[str]) -> str:
        return names[random_stream(self.seed, "defect", kind).randint(len(names))]

    def _record(self, kind: str, **what: Any) -> None:
        self.records.append({"kind": kind, **what})

    def to_set(self, root: str, version: str, scenes: Sequence[str]) -> None:
        """Breaks files below `root`."""
        for kind in IN_THE_SET:
            if kind in self.kinds:
                getattr(self, "_" + kind.replace("-", "_"))(root, version, scenes)

    def _image(self, root: str, kind: str) -> str:
        taken = {record.get("file") for record in self.records}
        names = [
            "samples/%s/%s" % (channel, name)
            for channel in sorted(os.listdir(os.path.join(root, "samples")))
            for name in sorted(os.listdir(os.path.join(root, "samples", channel)))
            if channel.startswith("CAM")
        ]
        return self._one_of(kind, [name for name in names if name not in taken])

    def _missing_file(self, root: str, version: str, scenes: Sequence[str]) -> None:
        name = self._image(root, "missing-file")
        os.unlink(os.path.join(root, name))
        self._record("missing-file", file=name)

    def _empty_file(self, root: str, version: str, scenes: Sequence[str]) -> None:
        name = self._image(root, "empty-file")
        os.truncate(os.path.join(root, name), 0)
        self._record("empty-file", file=name)

    def _cut_image(self, root: str, version: str, scenes: Sequence[str]) -> None:
        name = self._image(root, "cut-image")
        self._record("cut-image", file=name, **_cut(os.path.join(root, name), 0.5))

    def _missing_table(self, root: str, version: str, scenes: Sequence[str]) -> None:
        name = version + "/ego_pose.json"
        os.unlink(os.path.join(root, name))
        self._record("missing-table", file=name)

    def _cut_table(self, root: str, version: str, scenes: Sequence[str]) -> None:
        name = version + "/sample_annotation.json"
        self._record("cut-table", file=name, **_cut(os.path.join(root, name), 0.5))

    def _no_can(self, root: str, version: str, scenes: Sequence[str]) -> None:
        scene = self._one_of("no-can", scenes)
        folder = os.path.join(root, "can_bus")
        names = [name for name in sorted(os.listdir(folder)) if name.startswith(scene + "_")]
        for name in names:
            os.unlink(os.path.join(folder, name))
        self._record("no-can", scene=scene, files=["can_bus/" + name for name in names])

    def write_archives(self, root: str, parcels: Sequence[Parcel], folder: str) -> List[str]:
        """All archives and can_bus.zip, the first part broken as asked; returns their names."""
        blobs = [parcel for parcel in parcels if parcel.part is not None]
        out: List[str] = []
        for parcel in parcels:
            if "missing-part" in self.kinds and parcel.part == blobs[-1].part:
                self._record("missing-part", archive=parcel.stem + ".tgz")
            elif parcel is blobs[0]:
                out += self._write_broken(root, parcel, folder)
            else:
                out += write_parcel(root, parcel, folder)
        write_zip(root, "can_bus", os.path.join(folder, "can_bus.zip"))
        return out + ["can_bus.zip"]

    def _write_broken(self, root: str, parcel: Parcel, folder: str) -> List[str]:
        def after_tar(path: str) -> None:
            if "broken-header" in self.kinds:
                self._break_header(path, parcel)

        names = write_parcel(root, parcel, folder, after_tar)
        for name in names:
            path = os.path.join(folder, name)
            if "flipped-bytes" in self.kinds:
                self._flip(path, name)
            if "truncated-archive" in self.kinds:
                self._record("truncated-archive", archive=name, **_cut(path, KEPT_SHARE))
        return names

    def _break_header(self, path: str, parcel: Parcel) -> None:
        """One byte of the checksum field, so that no reader takes the header for one."""
        with tarfile.open(path) as tar:
            members = [member for member in tar.getmembers() if member.isfile()]
        member = members[len(members) // 2]
        _xor(path, member.offset + 148, b"\x07")
        names = [parcel.stem + ".tgz"] + ([parcel.stem + ".tar"] if parcel.keep_tar else [])
        for name in names:
            self._record("broken-header", archive=name, member=member.name, offset_in_tar=member.offset)

    def _flip(self, path: str, name: str) -> None:
        """In the middle of the file: of a .tar in the content of a member, headers stay whole."""
        offset, member = os.path.getsize(path) * 2 // 5, ""
        if name.endswith(".tar"):
            with tarfile.open(path) as tar:
                big = [one for one in tar.getmembers() if one.isfile() and one.size >= 2 * FLIPPED_BYTES]
            chosen = next((one for one in big if one.offset_data >= offset), big[-1])
            offset, member = chosen.offset_data + FLIPPED_BYTES // 2, chosen.name
        _xor(path, offset, b"\xff" * FLIPPED_BYTES)
        where = {"member": member} if member else {}
        self._record("flipped-bytes", archive=name, offset=offset, bytes=FLIPPED_BYTES, **where)


def _cut(path: str, share: float) -> Dict[str, int]:
    size = os.path.getsize(path)
    kept = int(size * share)
    os.truncate(path, kept)
    return {"size": size, "kept": kept}


def _xor(path: str, offset: int, mask: bytes) -> None:
    with open(path, "r+b") as stream:
        stream.seek(offset)
        old = stream.read(len(mask))
        stream.seek(offset)
        stream.write(bytes(a ^ b for a, b in zip(old, mask)))
