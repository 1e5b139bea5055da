"""The devkit's NuScenes object, with its tables read through our store: archives work without a mount.

Importing this file imports nuscenes-devkit (2-4 s, with matplotlib and scikit-learn); only
`bevformer.devkit` does so, when something is to be scored.
"""

import copy
import json
import re
from typing import Any, Collection, Dict, Iterator, List, Optional, Sequence, Set

from nuscenes.nuscenes import NuScenes

from .data.json_rows import MAX_ROW, text_blocks
from .data.store import Store
from .errors import DataError

TABLES = (
    "category",
    "attribute",
    "visibility",
    "instance",
    "sensor",
    "calibrated_sensor",
    "ego_pose",
    "log",
    "scene",
    "sample",
    "sample_data",
    "sample_annotation",
    "map",
)


_BETWEEN = re.compile(r"[ \t\r\n\[,]*")
_BIG = ("ego_pose", "sample_data", "sample_annotation")
_LIDAR_FIELDS = ("token", "sample_token", "ego_pose_token", "calibrated_sensor_token", "is_key_frame")

Row = Dict[str, Any]


class StoreNuScenes(NuScenes):
    """What DetectionEval asks for: tables, `get`, `box_velocity`; no map masks, images or explorer.

    The three big tables are read row by row. Of sample_data only the lidar keyframes are kept, of ego_pose
    only their poses: 34 thousand rows instead of 2.6 million each in trainval, and all that scoring reads.
    Of sample_annotation those of the scenes of `sample_tokens`; all where it is None.
    """

    def __init__(
        self, store: Store, version: str, sample_tokens: Optional[Collection[str]] = None
    ) -> None:  # no super().__init__(): it opens files
        self.version = version
        self.dataroot = ", ".join(root.path for root in store.roots)
        self.verbose = False
        self.table_names = list(TABLES)
        self._store = store
        for name in TABLES:
            if name not in _BIG:
                setattr(self, name, self.__load_table__(name))
        try:
            self._read_big_tables(sample_tokens)
            self._rows = {name: {row["token"]: row for row in getattr(self, name)} for name in TABLES}
            self.__make_reverse_index__(False)
        except KeyError as error:
            raise DataError(
                "the tables of %s do not fit together: no row or field %s" % (version, error),
                "They were mixed from different data sets, or one file is cut short.",
            ) from None

    def _read_big_tables(self, sample_tokens: Optional[Collection[str]]) -> None:
        self.sample_data = list(self._lidar_keyframes())
        poses = {row["ego_pose_token"] for row in self.sample_data}
        self.ego_pose = [row for row in self._rows_of("ego_pose") if row["token"] in poses]
        samples = self._samples_beside(sample_tokens)
        self.sample_annotation = [
            row for row in self._rows_of("sample_annotation") if row["sample_token"] in samples
        ]

    def __load_table__(self, table_name: str) -> List[Dict[str, Any]]:
        name = "%s/%s.json" % (self.version, table_name)
        try:
            rows: List[Dict[str, Any]] = json.loads(self._store.read(name).decode("utf-8"))
        except ValueError as error:
            raise DataError(
                "%s in %s is broken (%s)" % (name, self.dataroot, error),
                do="Get the archive again; `bevrepro doctor` knows its checksum.",
            ) from None
        return rows

    def _rows_of(self, table: str) -> Iterator[Row]:
        """Row by row: the memory of one block of the file, not of the table."""
        name = "%s/%s.json" % (self.version, table)
        decode, text, at, rows = json.JSONDecoder().raw_decode, "", 0, 0
        for block in text_blocks(self._store, name):
            text, at = text[at:] + block, 0
            if len(text) - len(block) > MAX_ROW:
                break
            while True:
                start = _BETWEEN.match(text, at).end()  # type: ignore[union-attr]
                if start == len(text) or text[start] == "]":
                    break
                try:
                    row, end = decode(text, start)
                except ValueError:
                    break
                if not isinstance(row, dict):
                    break
                at, rows = end, rows + 1
                yield row
        rest = text[at:].strip()
        if rest != "]" and not (not rows and re.fullmatch(r"\[\s*\]", rest)):
            raise DataError(
                "%s in %s is broken after row %d (%.40r)" % (name, self.dataroot, rows, rest),
                do="Get the archive again; `bevrepro doctor` knows its checksum.",
            )

    def _lidar_keyframes(self) -> Iterator[Row]:
        sensors = {row["token"] for row in self.sensor if row["channel"] == "LIDAR_TOP"}
        lidars = {row["token"] for row in self.calibrated_sensor if row["sensor_token"] in sensors}
        for row in self._rows_of("sample_data"):
            if row["is_key_frame"] and row["calibrated_sensor_token"] in lidars:
                yield {key: row[key] for key in _LIDAR_FIELDS}

    def _samples_beside(self, sample_tokens: Optional[Collection[str]]) -> Set[str]:
        """All samples of the scenes of these: velocities come from the frames before and after."""
        scenes = {
            row["scene_token"]
            for row in self.sample
            if sample_tokens is None or row["token"] in sample_tokens
        }
        return {row["token"] for row in self.sample if row["scene_token"] in scenes}

    def get(self, table_name: str, token: str) -> Dict[str, Any]:
        """By token, not by position: `sample` may be restricted while its neighbours stay readable."""
        return self._rows[table_name][token]

    def restricted_to(self, sample_tokens: Sequence[str]) -> "StoreNuScenes":
        """The same tables, but DetectionEval finds ground truth for these samples only.

        Velocities still come from the frames before and after, whether they are scored or not.
        """
        wanted = set(sample_tokens)
        view = copy.copy(self)
        view.sample = [row for row in self.sample if row["token"] in wanted]
        return view
