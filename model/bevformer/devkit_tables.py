"""The devkit's NuScenes object, with its tables read through our store: archives work without a mount.

Importing this file imports nuscenes-devkit (2-4 s, with matplotlib and scikit-learn); only
`bevformer.devkit` does so, when something is to be scored.
"""

import copy
import json
from typing import Any, Dict, List, Sequence

from nuscenes.nuscenes import NuScenes

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


class StoreNuScenes(NuScenes):
    """What DetectionEval asks for: tables, `get`, `box_velocity`; no map masks, images or explorer.

    Of sample_data only the lidar keyframes are kept, of ego_pose only their poses: 34 thousand rows instead
    of 2.6 million each in trainval, and all that scoring reads.
    """

    def __init__(self, store: Store, version: str) -> None:  # no super().__init__(): it opens files
        self.version = version
        self.dataroot = ", ".join(root.path for root in store.roots)
        self.verbose = False
        self.table_names = list(TABLES)
        self._store = store
        for name in TABLES:
            setattr(self, name, self.__load_table__(name))
            if name == "sample_data":
                self._keep_lidar_keyframes()
        self._rows = {name: {row["token"]: row for row in getattr(self, name)} for name in TABLES}
        try:
            self.__make_reverse_index__(False)
        except KeyError as error:
            raise DataError(
                "the tables of %s do not fit together: no row %s" % (version, error),
                "They were mixed from different data sets, or one file is cut short.",
            ) from None

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

    def _keep_lidar_keyframes(self) -> None:
        sensors = {row["token"] for row in self.sensor if row["channel"] == "LIDAR_TOP"}
        lidars = {row["token"] for row in self.calibrated_sensor if row["sensor_token"] in sensors}
        self.sample_data = [
            row
            for row in self.sample_data
            if row["is_key_frame"] and row["calibrated_sensor_token"] in lidars
        ]
        poses = {row["ego_pose_token"] for row in self.sample_data}
        self.ego_pose = [row for row in self.ego_pose if row["token"] in poses]

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
