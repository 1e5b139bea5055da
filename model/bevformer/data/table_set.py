"""All that the prepared files draw on, of one version: the small tables and the columns of the big ones."""

from dataclasses import dataclass
from typing import Dict, List, Optional

import numpy as np

from bevformer.errors import DataError

from .annotations import Annotations
from .sensor_data import Calibrations, SensorData, load_calibrations
from .store import Store
from .tables import (
    DO,
    Row,
    check_tables,
    check_version,
    missing_row,
    rows_by_token,
    table_path,
    tokens_digest,
)


@dataclass(frozen=True)
class Scenes:
    """The small tables: scenes and samples as rows in the order of their files, and what follows from them.

    digest: `tokens_digest` of the samples.  place: sample token -> position in `samples`.
    """

    version: str
    digest: str
    scenes: List[Row]
    samples: List[Row]
    place: Dict[str, int]
    timestamp_us: np.ndarray
    calibrated: Calibrations

    def by_scene(self) -> Dict[str, List[int]]:
        """scene token -> positions in `samples`, in time order."""
        found: Dict[str, List[int]] = {}
        for position in np.argsort(self.timestamp_us, kind="stable").tolist():
            found.setdefault(self.samples[position]["scene_token"], []).append(position)
        return found


@dataclass(frozen=True)
class Tables:
    """`annotations` is None where boxes are not wanted."""

    scenes: Scenes
    data: SensorData
    annotations: Optional[Annotations]


def load_scenes(store: Store, version: str) -> Scenes:
    """DataError names a missing or broken table and what is there."""
    check_version(store, version)
    check_tables(store, version)
    scenes = rows_by_token(store, version, "scene")
    samples = rows_by_token(store, version, "sample")
    for row in samples.values():
        if row["scene_token"] not in scenes:
            raise missing_row(version, "scene", row["scene_token"])
        if type(row["timestamp"]) is not int or not 0 <= row["timestamp"] < 2**63:
            raise DataError(
                "%s: row %s: timestamp is %.60r, not microseconds"
                % (table_path(version, "sample"), row["token"], row["timestamp"]),
                do=DO,
            )
    return Scenes(
        version,
        tokens_digest(samples),
        list(scenes.values()),
        list(samples.values()),
        {token: i for i, token in enumerate(samples)},
        np.array([row["timestamp"] for row in samples.values()], dtype=np.int64),
        load_calibrations(store, version),
    )
