"""What a version's tables promise: counts, and the files that have to be there.  Read in blocks."""

import codecs
import re
from dataclasses import dataclass, field
from typing import Dict, Iterator, List, Optional, Sequence, Set

from bevformer.errors import DataError

from .json_rows import FLAG, Field, rows_of_text

NAME = re.compile(r"^(v1\.0-[\w.-]+)/(\w+)\.json$")
TABLES = (
    "attribute", "calibrated_sensor", "category", "ego_pose", "instance", "log", "map", "sample",
    "sample_annotation", "sample_data", "scene", "sensor", "visibility",
)  # fmt: skip


@dataclass
class Census:
    """`rows` by table, None where only its two ends were looked at.  `keyframes`: channel -> keyframes in
    sample_data.  `files`: what the wanted channels need; a set, since a file is needed once."""

    version: str
    rows: Dict[str, Optional[int]] = field(default_factory=dict)
    scenes: List[str] = field(default_factory=list)
    keyframes: Dict[str, int] = field(default_factory=dict)
    sweeps: int = 0
    files: Set[str] = field(default_factory=set)
    maps: List[str] = field(default_factory=list)
    broken: List[str] = field(default_factory=list)
    unsafe: List[str] = field(default_factory=list)


@dataclass(frozen=True)
class Want:
    """Channels whose keyframes and whose sweeps have to be there; `all_rows`: read every table to its end."""

    keyframes: Sequence[str]
    sweeps: Sequence[str] = ()
    all_rows: bool = False


class Censuses:
    """By version; tables are handed in as they pass by."""

    def __init__(self, want: Want) -> None:
        self.want = want
        self.by_version: Dict[str, Census] = {}

    def matches(self, name: str) -> bool:
        found = NAME.match(name)
        return bool(found and found.group(2) in TABLES)

    def take(self, name: str, blocks: Iterator[bytes]) -> None:
        """One table.  What is wrong with it is kept in `broken`; the rest of the pass goes on."""
        found = NAME.match(name)
        if found is None:
            return
        version, table = found.groups()
        census = self.by_version.setdefault(version, Census(version))
        try:
            census.rows[table] = self._read(census, table, name, _text(name, blocks))
        except DataError as error:
            census.rows[table] = None
            census.broken.append(error.seen)

    def _read(self, census: Census, table: str, name: str, text: Iterator[str]) -> Optional[int]:
        if table == "sample_data":
            return self._sample_data(census, name, text)
        if table == "scene":
            census.scenes = [row[0] for rows in rows_of_text(name, [Field("name")], text) for row in rows]
            return len(census.scenes)
        if table == "map":
            census.maps = [row[0] for rows in rows_of_text(name, [Field("filename")], text) for row in rows]
            return len(census.maps)
        if table == "sample" or self.want.all_rows:
            return sum(len(rows) for rows in rows_of_text(name, [Field("token")], text))
        _check_ends(name, text)
        return None

    def _sample_data(self, census: Census, name: str, text: Iterator[str]) -> int:
        """The channel is the folder of the file: samples/CAM_FRONT/..., in every set that was published."""
        count, keyframes, sweeps = 0, set(self.want.keyframes), set(self.want.sweeps)
        for rows in rows_of_text(name, [Field("filename"), Field("is_key_frame", FLAG)], text):
            count += len(rows)
            for filename, is_keyframe in rows:
                parts = filename.split("/")
                channel = parts[1] if len(parts) == 3 else ""
                if is_keyframe == "true":
                    census.keyframes[channel] = census.keyframes.get(channel, 0) + 1
                else:
                    census.sweeps += 1
                if channel in (keyframes if is_keyframe == "true" else sweeps):
                    _keep(census, filename, parts)
        return count


def _keep(census: Census, filename: str, parts: List[str]) -> None:
    if ".." in parts or "" in parts or "\\" in filename:
        census.unsafe.append(filename)
    else:
        census.files.add(filename)


def _text(name: str, blocks: Iterator[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogatepass")
    try:
        for block in blocks:
            yield decoder.decode(block)
        yield decoder.decode(b"", True)
    except UnicodeDecodeError as error:
        raise DataError("%s is not valid JSON: %s" % (name, error)) from error


def _check_ends(name: str, text: Iterator[str]) -> None:
    """For tables that nothing here reads: a list from its first character to its last."""
    first, last = "", ""
    for block in text:
        stripped = block.strip()
        if stripped:
            first, last = first or stripped[0], stripped[-1]
    if first != "[" or last != "]":
        raise DataError("%s is not a whole list of rows: from %r to %r" % (name, first, last))
