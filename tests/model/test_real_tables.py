"""The real tables and CAN messages of v1.0-mini that are at hand (10 of 13 tables, one scene's CAN bus).

They parse to the values in their files; they never enter the repository.
"""

import hashlib
import json

import numpy as np
import pytest

from bevformer.data import prepare
from bevformer.data.can_bus import can_bus_at, can_bus_of_scene, pose_messages
from bevformer.data.json_rows import Field, columns, row_batches
from bevformer.data.sensor_data import load_calibrations
from bevformer.data.splits import scene_names
from bevformer.data.store import open_store
from bevformer.data.tables import FIELDS, only_version, read_table, rows_by_token
from bevformer.errors import DataError

VERSION, SCENE = "v1.0-mini", "scene-0103"
TABLES = ("attribute", "calibrated_sensor", "category", "instance", "log", "map", "sample", "scene", "sensor")


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory):
    """A data root of links to the real tables and messages."""
    tables, can = shared / "data/v1.0-mini-partial", shared / "data/can_bus"
    if not (tables.is_dir() and can.is_dir()):
        pytest.skip(f"no folders {tables} and {can}: the real tables are not here")
    root = tmp_path_factory.mktemp("real")
    (root / VERSION).symlink_to(tables)
    (root / "maps").symlink_to(tables / "maps")
    (root / "can_bus").symlink_to(can)
    return root


@pytest.fixture(scope="module")
def store(real):
    return open_store([str(real)])


def plain(real, name):
    return json.loads((real / name).read_text())


def test_the_files_are_the_published_ones(real, shared):
    lines = (shared / "facts/v1.0-mini_sha256.tsv").read_text().splitlines()
    known = {path: (digest, int(size)) for digest, size, path in (line.split("\t") for line in lines)}
    found = [real / VERSION / (table + ".json") for table in TABLES]
    for path in found:
        data = path.read_bytes()
        assert known[str(path.relative_to(real))] == (hashlib.sha256(data).hexdigest(), len(data)), path


@pytest.mark.parametrize("table", TABLES)
def test_a_table_reads_as_its_file(real, store, table):
    assert read_table(store, VERSION, table) == plain(real, f"{VERSION}/{table}.json")
    if table in FIELDS:
        rows = plain(real, f"{VERSION}/{table}.json")
        assert rows_by_token(store, VERSION, table) == {row["token"]: row for row in rows}


@pytest.mark.parametrize(
    "table, fields",
    [
        ("sample", ("token", "prev", "next", "scene_token")),
        ("instance", ("token", "category_token", "first_annotation_token")),
        ("calibrated_sensor", ("token", "sensor_token")),
    ],
)
def test_the_reader_of_big_tables_reads_them_too(real, store, table, fields):
    path, wanted = f"{VERSION}/{table}.json", [Field(name) for name in fields]
    rows = [row for batch in row_batches(store, path, wanted) for row in batch]
    found = columns(path, wanted, rows)
    for name in fields:
        values = [found[name][at] for at in range(len(rows))]
        values = [value.decode() if isinstance(value, bytes) else str(value) for value in values]
        assert values == [row[name] for row in plain(real, path)]


def test_calibrations_are_the_numbers_of_the_file(real, store):
    rows = plain(real, f"{VERSION}/calibrated_sensor.json")
    found = load_calibrations(store, VERSION)
    assert found.rotation_C4.tolist() == [row["rotation"] for row in rows]
    assert found.translation_C3.tolist() == [row["translation"] for row in rows]
    assert len(rows) == 120 and sum(at >= 0 for at in found.channel) == 10 * 7  # radars have no place


def test_scenes_and_samples_are_those_of_the_two_splits(real, store):
    train, val = scene_names(only_version(store))
    scenes = plain(real, f"{VERSION}/scene.json")
    assert {scene["name"] for scene in scenes} == train | val and not train & val
    samples = plain(real, f"{VERSION}/sample.json")
    assert sum(scene["nbr_samples"] for scene in scenes) == len(samples) == 404


def samples_of(real):
    token = next(s["token"] for s in plain(real, f"{VERSION}/scene.json") if s["name"] == SCENE)
    stamps = [s["timestamp"] for s in plain(real, f"{VERSION}/sample.json") if s["scene_token"] == token]
    return sorted(stamps)


def test_can_messages_are_those_of_the_file(real, store):
    messages = plain(real, f"can_bus/{SCENE}_pose.json")
    assert pose_messages(store, SCENE) == messages and len(messages) > 900
    assert pose_messages(store, "scene-0061") is None  # none at hand


def test_each_sample_gets_the_messages_around_it(real, store):
    """Place and rotation of the last message not after the sample, the rest of the one behind it."""
    messages, stamps = plain(real, f"can_bus/{SCENE}_pose.json"), samples_of(real)
    times = np.array([message["utime"] for message in messages])
    numbers = can_bus_of_scene(store, SCENE, stamps)
    assert numbers.shape == (40, 18)
    for stamp, row in zip(stamps, numbers):
        before = max(int(np.searchsorted(times, stamp, side="right")) - 1, 0)
        near, after = messages[before], messages[min(before + 1, len(messages) - 1)]
        if times[0] > stamp:
            after = messages[0]
        expected = near["pos"] + near["orientation"] + after["accel"] + after["rotation_rate"] + after["vel"]
        assert row.tolist() == [*expected, 0.0, 0.0]
        assert can_bus_at(messages, stamp).tolist() == row.tolist()


def test_the_devkit_s_can_api_reads_the_same(real, store):
    from nuscenes.can_bus.can_bus_api import NuScenesCanBus

    can = NuScenesCanBus(dataroot=str(real))
    assert can.get_messages(SCENE, "pose") == pose_messages(store, SCENE)


def test_prepare_names_the_tables_that_are_not_there(real, heard, tmp_path):
    with pytest.raises(DataError) as caught:
        prepare.main(["--data-root", str(real), "--out", str(tmp_path / "out")], heard)
    assert any(name in str(caught.value) for name in ("sample_data", "ego_pose", "sample_annotation"))
    assert not (tmp_path / "out").exists()
