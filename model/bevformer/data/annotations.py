"""The boxes of all samples as columns: sample_annotation, with instance and category looked up.

Source of the meaning: nuscenes-devkit's reverse index and `box_velocity`.
"""

from dataclasses import dataclass, replace
from typing import Dict, List, Sequence, Tuple

import numpy as np

from bevformer.errors import DataError

from .columns import INTEGERS, TOKENS, Growing, TokenIndex, as_text, ends_of, native, numbers, token_column
from .json_rows import INT, NUMBERS, Field, columns, row_batches
from .store import Store
from .tables import DO, missing_row, rows_by_token, table_path

FIELDS = (
    Field("token"),
    Field("sample_token"),
    Field("instance_token"),
    Field("translation", NUMBERS, 3),
    Field("size", NUMBERS, 3),
    Field("rotation", NUMBERS, 4),
    Field("prev"),
    Field("next"),
    Field("num_lidar_pts", INT),
    Field("num_radar_pts", INT),
)
_EMPTY = {field.name: numbers(field.width) for field in FIELDS if field.kind == NUMBERS}
_EMPTY.update(num_lidar_pts=INTEGERS, num_radar_pts=INTEGERS)
MAX_VELOCITY_GAP_S = 1.5


@dataclass(frozen=True)
class Annotations:
    """Those of sample s are rows `ends[s]` to `ends[s + 1]`, in the order of sample_annotation.json.

    Global frame; metres, metres per second (NaN when unknown), quaternions (w, x, y, z).  category: place in
    `names`.
    """

    ends: np.ndarray
    translation_A3: np.ndarray
    size_A3: np.ndarray
    rotation_A4: np.ndarray
    velocity_A3: np.ndarray
    lidar_pts_A: np.ndarray
    radar_pts_A: np.ndarray
    category_A: np.ndarray
    names: List[str]

    def native(self) -> "Annotations":
        """See `columns.native`."""
        arrays = {name: native(value) for name, value in vars(self).items() if name != "names"}
        return replace(self, **arrays)


def load_annotations(
    store: Store, version: str, samples: Dict[str, int], timestamp_us: np.ndarray
) -> Annotations:
    """`samples`: token -> place in `timestamp_us`.  DataError names a row that is broken or leads nowhere."""
    path = table_path(version, "sample_annotation")
    names, category_of = _categories(store, version)
    growing = Growing(token=TOKENS, prev=TOKENS, next=TOKENS, sample=INTEGERS, category=INTEGERS, **_EMPTY)
    for batch in row_batches(store, path, FIELDS):
        found = columns(path, FIELDS, batch)
        growing.add(
            sample=np.array([samples.get(one, -1) for one in found["sample_token"]], dtype=np.int64),
            category=_codes(version, category_of, found["instance_token"]),
            **{name: token_column(found[name], path) for name in ("token", "prev", "next")},
            **{name: np.asarray(found[name]) for name in _EMPTY},
        )
    whole = growing.whole()
    velocity = _velocities(path, whole, timestamp_us)
    order = np.argsort(whole["sample"], kind="stable")[np.count_nonzero(whole["sample"] < 0) :]
    return Annotations(
        ends_of(np.bincount(whole["sample"][order], minlength=len(samples)).tolist()),
        whole["translation"][order],
        whole["size"][order],
        whole["rotation"][order],
        velocity[order],
        whole["num_lidar_pts"][order],
        whole["num_radar_pts"][order],
        whole["category"][order],
        names,
    )


def _categories(store: Store, version: str) -> Tuple[List[str], Dict[str, int]]:
    """Category names, and instance token -> place of its category among them."""
    categories = rows_by_token(store, version, "category")
    place = {token: i for i, token in enumerate(categories)}
    instances = rows_by_token(store, version, "instance")
    for row in instances.values():
        if row["category_token"] not in place:
            raise missing_row(version, "category", row["category_token"])
    return (
        [row["name"] for row in categories.values()],
        {token: place[row["category_token"]] for token, row in instances.items()},
    )


def _codes(version: str, category_of: Dict[str, int], instances: Sequence[str]) -> np.ndarray:
    try:
        return np.array([category_of[token] for token in instances], dtype=np.int64)
    except KeyError as error:
        raise missing_row(version, "instance", error.args[0]) from None


def _velocities(path: str, whole: Dict[str, np.ndarray], timestamp_us: np.ndarray) -> np.ndarray:
    """(A, 3) from the neighbours in the other samples, as devkit's `box_velocity`."""
    index, here = TokenIndex(whole["token"], path), np.arange(len(whole["token"]))
    first, last = (_neighbours(path, index, whole["token"], whole[name]) for name in ("prev", "next"))
    known = (first >= 0) | (last >= 0)
    both = (first >= 0) & (last >= 0)
    first, last = np.where(first >= 0, first, here), np.where(last >= 0, last, here)
    lost = known & ((whole["sample"][first] < 0) | (whole["sample"][last] < 0))
    if lost.any():
        raise DataError(
            "%s: row %s or a neighbour of it is of a sample that is not there"
            % (path, as_text(whole["token"][np.argmax(lost)])),
            "The tables are of different sets or were cut.",
            DO,
        )
    stamps = np.append(timestamp_us, 0)  # for the rows of no sample, which are not known
    gap_us = stamps[whole["sample"][last]] - stamps[whole["sample"][first]]
    ring = known & (gap_us <= 0)
    if ring.any():
        raise DataError(
            "%s: the neighbours of row %s do not follow each other in time"
            % (path, as_text(whole["token"][np.argmax(ring)])),
            "prev and next go round in a ring, or backwards; its speed would be nonsense.",
            DO,
        )
    gap_s = 1e-6 * gap_us
    known &= gap_s <= MAX_VELOCITY_GAP_S * np.where(both, 2, 1)
    velocity = np.full((len(here), 3), np.nan)
    moved = whole["translation"][last[known]] - whole["translation"][first[known]]
    velocity[known] = moved / gap_s[known, None]
    return velocity


def _neighbours(path: str, index: TokenIndex, tokens: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Rows; -1 where no neighbour is named."""
    found = index.find(wanted)
    lost = np.flatnonzero((found < 0) & (wanted != b""))
    if len(lost):
        raise DataError(
            "%s has no row %r, which row %s names"
            % (path, as_text(wanted[lost[0]]), as_text(tokens[lost[0]])),
            "The table was cut or mixed from different sets.",
            DO,
        )
    return found
