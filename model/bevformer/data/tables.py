"""Which nuScenes tables a store holds (a folder or the archives themselves), and the small ones as dicts.

The three big ones are read in blocks: sensor_data.py, annotations.py.
"""

import hashlib
import json
from typing import Any, Dict, Iterable, List, Tuple

from bevformer.errors import DataError

from .store import Store

Row = Dict[str, Any]
# What is read of the small tables; a row that lacks one of its fields is refused on load.
FIELDS: Dict[str, Tuple[str, ...]] = {
    "scene": ("name",),
    "sample": ("timestamp", "scene_token", "prev", "next"),
    "instance": ("category_token",),
    "category": ("name",),
    "calibrated_sensor": ("sensor_token", "translation", "rotation", "camera_intrinsic"),
    "sensor": ("channel",),
}
REQUIRED = (
    "scene",
    "sample",
    "sample_data",
    "sample_annotation",
    "instance",
    "category",
    "calibrated_sensor",
    "sensor",
    "ego_pose",
)
NUMBERS = ("timestamp", "translation", "rotation", "camera_intrinsic")
DO = "Download the metadata archive again and compare its checksum."
VERSIONS = ("v1.0-mini", "v1.0-trainval", "v1.0-test")


def tokens_digest(tokens: Iterable[str]) -> str:
    """sha256 over the sorted sample tokens, one a line: which set (or part of it) this is."""
    return hashlib.sha256("\n".join(sorted(tokens)).encode()).hexdigest()


def versions_in(store: Store) -> List[str]:
    """The known versions whose tables are in the store."""
    return [version for version in VERSIONS if store.exists(table_path(version, "sample"))]


def check_version(store: Store, version: str) -> None:
    """DataError when the store has no tables of this version; it names those that are there."""
    if any(store.exists(table_path(version, table)) for table in REQUIRED):
        return
    there = versions_in(store)
    if not there:
        raise _no_tables(store)
    raise DataError(
        "no tables of %s in the data" % version,
        "There is %s." % " and ".join(there),
        "Say --version %s, or add the metadata archive of %s as another --data-root." % (there[0], version),
    )


def only_version(store: Store) -> str:
    """The one version that is there.  DataError for none or several."""
    there = versions_in(store)
    if not there:
        raise _no_tables(store)
    if len(there) > 1:
        raise DataError("the data holds %s" % " and ".join(there), do="Say which one with --version.")
    return there[0]


def _no_tables(store: Store) -> DataError:
    if store.exists("sample.json"):
        return DataError(
            "the data root is the folder of the tables itself",
            do="Name its parent as --data-root: the folder that contains samples/ and v1.0-....",
        )
    return DataError(
        "no nuScenes tables in the data",
        "None of %s is there." % ", ".join(VERSIONS),
        "--data-root has to be the folder that contains samples/ and v1.0-..., or the metadata archive.",
    )


def read_table(store: Store, version: str, name: str) -> List[Row]:
    """One table as a list of rows.  DataError when it is missing or not JSON."""
    path = table_path(version, name)
    if not store.exists(path):
        raise _missing_table(version, name)
    rows = read_json(store, path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError("%s is not a list of rows" % path, do=DO)
    return rows


def read_json(store: Store, path: str) -> Any:
    """DataError that names the file and the place when it is not JSON."""
    try:
        return json.loads(store.read(path))
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError
        raise DataError(
            "%s is not valid JSON: %s" % (path, error),
            "It was probably cut while it was copied.",
            "Fetch it again and compare its checksum.",
        ) from error


def table_path(version: str, table: str) -> str:
    return "%s/%s.json" % (version, table)


def check_tables(store: Store, version: str) -> None:
    """DataError that names the first table that is needed and not there."""
    for name in REQUIRED:
        if not store.exists(table_path(version, name)):
            raise _missing_table(version, name)


def _missing_table(version: str, name: str) -> DataError:
    return DataError(
        "missing table: %s" % table_path(version, name),
        "The set is not complete without it.",
        "Add the archive that holds it (the metadata of %s) as another --data-root." % version,
    )


def missing_row(version: str, table: str, token: str) -> DataError:
    return DataError(
        "%s has no row %r" % (table_path(version, table), token),
        "Another table refers to it, so the tables are of different sets or were cut.",
        DO,
    )


def rows_by_token(store: Store, version: str, name: str) -> Dict[str, Row]:
    """A small table by token.  DataError names a row without one of its FIELDS, or a token of two rows."""
    path, found = table_path(version, name), {}
    rows = read_table(store, version, name)
    for row in rows:
        for field in ("token",) + FIELDS[name]:
            if field not in row:
                raise DataError("%s: row %s has no %s" % (path, row.get("token", "?"), field), do=DO)
            if field not in NUMBERS and not isinstance(row[field], str):
                raise DataError(
                    "%s: row %s: %s is %.60r, not a text" % (path, row["token"], field, row[field]), do=DO
                )
        if row["token"] in found:
            raise DataError("%s has two rows with token %s" % (path, row["token"]), do=DO)
        found[row["token"]] = row
    return found
