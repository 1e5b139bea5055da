"""The tables against the devkit's reading of the same folder, and what is said about broken ones."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from bevformer.data.annotations import load_annotations
from bevformer.data.columns import as_text
from bevformer.data.sensor_data import CHANNELS, load_sensor_data
from bevformer.data.store import open_store
from bevformer.data.table_set import Tables, load_scenes
from bevformer.data.tables import check_version, only_version, tokens_digest
from bevformer.errors import DataError

sys.path.insert(0, str(Path(__file__).parent))
import small_nuscenes  # noqa: E402


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return small_nuscenes.write(tmp_path_factory.mktemp("nusc"))


def load_tables(store, version):
    """All that `prepare` reads."""
    scenes = load_scenes(store, version)
    data = load_sensor_data(store, version, scenes.place, scenes.calibrated, True, lambda rows: None)
    return Tables(scenes, data, load_annotations(store, version, scenes.place, scenes.timestamp_us))


@pytest.fixture(scope="module")
def tables(root):
    return load_tables(open_store([root]), "v1.0-mini")


@pytest.fixture
def copy(root, tmp_path):
    """A set of tables to break."""
    shutil.copytree(Path(root) / "v1.0-mini", tmp_path / "v1.0-mini")
    return tmp_path


@pytest.fixture(scope="module")
def devkit(root):
    from nuscenes.nuscenes import NuScenes

    return NuScenes("v1.0-mini", root, verbose=False)


def test_keyframes_are_the_devkits(tables, devkit):
    for position, sample in enumerate(devkit.sample):
        rows = tables.data.keyframe_SK[position]
        ours = {channel: as_text(tables.data.token[row]) for channel, row in zip(CHANNELS, rows)}
        assert ours == {channel: sample["data"][channel] for channel in CHANNELS}


def test_annotations_are_the_devkits_in_its_order_with_its_velocities(tables, devkit):
    found, velocities = tables.annotations, []
    for position, sample in enumerate(devkit.sample):
        rows = range(found.ends[position], found.ends[position + 1])
        theirs = [devkit.get("sample_annotation", token) for token in sample["anns"]]
        assert found.translation_A3[rows].tolist() == [row["translation"] for row in theirs]
        assert [found.names[code] for code in found.category_A[rows]] == [
            row["category_name"] for row in theirs
        ]
        velocities.append([devkit.box_velocity(token) for token in sample["anns"]])
        np.testing.assert_array_equal(found.velocity_A3[rows], velocities[-1])
    assert np.isnan(np.concatenate(velocities)).any() and np.isfinite(np.concatenate(velocities)).any()


def test_sweeps_are_the_lidars_before_the_keyframe_newest_first(tables, devkit):
    keys = tables.data.keyframe_SK[:, 0]
    for sample, rows in zip(devkit.sample, tables.data.lidar_sweeps(keys, 4)):
        row, theirs = devkit.get("sample_data", sample["data"]["LIDAR_TOP"]), []
        while row["prev"] and len(theirs) < 4:
            row = devkit.get("sample_data", row["prev"])
            theirs.append(row["token"])
        assert [as_text(tables.data.token[one]) for one in rows if one >= 0] == theirs


def test_samples_of_a_scene_are_in_time_order(tables):
    positions = tables.scenes.by_scene()["scene-0061-token"]
    assert [tables.scenes.samples[i]["token"] for i in positions] == ["scene-0061-%d" % i for i in range(5)]


def test_the_digest_depends_on_the_tokens_and_not_on_their_order(tables):
    tokens = list(tables.scenes.place)
    assert tables.scenes.digest == tokens_digest(reversed(tokens)) != tokens_digest(tokens[1:])


def test_another_version_is_refused_naming_what_is_there(root):
    with pytest.raises(DataError, match="(?s)v1.0-trainval.*There is v1.0-mini.*--version v1.0-mini"):
        check_version(open_store([root]), "v1.0-trainval")
    assert only_version(open_store([root])) == "v1.0-mini"


def test_two_versions_have_to_be_told_apart(copy):
    shutil.copytree(copy / "v1.0-mini", copy / "v1.0-test")
    with pytest.raises(DataError, match="(?s)v1.0-mini and v1.0-test.*--version"):
        only_version(open_store([str(copy)]))


def test_the_folder_of_the_tables_itself_is_a_recognised_mistake(copy):
    with pytest.raises(DataError, match="Name its parent"):
        only_version(open_store([str(copy / "v1.0-mini")]))


def test_a_folder_without_tables_is_said_to_have_none(tmp_path):
    with pytest.raises(DataError, match="no nuScenes tables"):
        load_tables(open_store([str(tmp_path)]), "v1.0-mini")


def test_the_partial_real_tables_are_refused_by_the_name_of_the_first_missing_one(shared, tmp_path):
    shutil.copytree(shared / "data/v1.0-mini-partial", tmp_path / "v1.0-mini")
    with pytest.raises(DataError, match="missing table: v1.0-mini/sample_data.json"):
        load_tables(open_store([str(tmp_path)]), "v1.0-mini")


@pytest.mark.parametrize("name", ("sample", "ego_pose", "instance"))
def test_a_missing_table_is_named(copy, name):
    (copy / "v1.0-mini" / (name + ".json")).unlink()
    with pytest.raises(DataError, match="missing table: v1.0-mini/%s.json" % name):
        load_tables(open_store([str(copy)]), "v1.0-mini")


def test_tables_that_nothing_here_reads_may_be_missing(copy):
    (copy / "v1.0-mini/visibility.json").unlink()
    assert load_tables(open_store([str(copy)]), "v1.0-mini").scenes.samples


@pytest.mark.parametrize("text", ('[{"token": ', "", "\xff\xfe", '{"a": 1}', "[1, 2]", '[{"name": "x"}]'))
def test_a_broken_table_is_named(copy, text):
    (copy / "v1.0-mini/category.json").write_bytes(text.encode("latin1"))
    with pytest.raises(DataError, match="v1.0-mini/category.json"):
        load_tables(open_store([str(copy)]), "v1.0-mini")


def test_a_row_without_a_field_is_named(copy):
    path = copy / "v1.0-mini/ego_pose.json"
    rows = json.loads(path.read_text())
    del rows[3]["rotation"]
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match="(?s)ego_pose.json: row %s has no rotation" % rows[3]["token"]):
        load_tables(open_store([str(copy)]), "v1.0-mini")


def test_a_reference_into_nothing_names_table_and_token(copy):
    path = copy / "v1.0-mini/calibrated_sensor.json"
    path.write_text(json.dumps(json.loads(path.read_text())[1:]))
    with pytest.raises(DataError, match="(?s)calibrated_sensor.json has no row 'cal-CAM_FRONT'"):
        load_tables(open_store([str(copy)]), "v1.0-mini")


def changed(copy, table, change):
    """The error that a change of a table's rows leads to, from loading or from following the sweeps."""
    path = copy / ("v1.0-mini/%s.json" % table)
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows, indent=0))
    with pytest.raises(DataError) as caught:
        tables = load_tables(open_store([str(copy)]), "v1.0-mini")
        tables.data.lidar_sweeps(tables.data.keyframe_SK[:, 0], 10)
    return str(caught.value)


def lidar(rows):
    return next(row for row in rows if "LIDAR_TOP" in row["token"] and row["prev"])


HOSTILE = {
    "a ring of sweeps": (
        "sample_data",
        lambda rows: lidar(rows).update(prev=lidar(rows)["token"]),
        "not before it",
    ),
    "a sweep that is not there": (
        "sample_data",
        lambda rows: lidar(rows).update(prev="no"),
        "no row of the lidar",
    ),
    "a ring of boxes": (
        "sample_annotation",
        lambda rows: rows[0].update(prev=rows[0]["token"], next=rows[0]["token"]),
        "do not follow each other in time",
    ),
    "a box that is not there": ("sample_annotation", lambda rows: rows[3].update(next="no"), "no row 'no'"),
    "a token twice": ("sample_annotation", lambda rows: rows.append(rows[0]), "two rows with token"),
    "a sample twice": ("sample", lambda rows: rows.append(rows[0]), "two rows with token"),
    "NaN": (
        "ego_pose",
        lambda rows: rows[0].update(translation=[float("nan"), 0, 0]),
        "translation is .*NaN",
    ),
    "infinity": ("sample_annotation", lambda rows: rows[0].update(size=[1, 2, 1e999]), "size is .*Infinity"),
    "a huge integer": (
        "sample_data",
        lambda rows: rows[0].update(timestamp=10**30),
        "timestamp is .*64 bits",
    ),
    "a huge count": ("sample_annotation", lambda rows: rows[0].update(num_lidar_pts=2**70), "num_lidar_pts"),
    "a time before all times": ("sample", lambda rows: rows[0].update(timestamp=-5), "timestamp is -5"),
    "a time of text": ("sample", lambda rows: rows[0].update(timestamp="noon"), "timestamp is 'noon'"),
    "two numbers for three": ("ego_pose", lambda rows: rows[0].update(translation=[1, 2]), "not 3 numbers"),
    "a camera matrix of text": (
        "calibrated_sensor",
        lambda rows: rows[0].update(camera_intrinsic="x"),
        "camera_intrinsic is 'x', not 3 x 3",
    ),
    "a scene that is not there": ("sample", lambda rows: rows[0].update(scene_token="no"), "no row 'no'"),
    "an object that is not there": (
        "sample_annotation",
        lambda rows: rows[0].update(instance_token="x"),
        "instance",
    ),
    "a token with a NUL": ("sample_data", lambda rows: rows[0].update(token="a\0"), "NUL"),
    "a token of a megabyte": ("sample_data", lambda rows: rows[0].update(token="a" * 2**20), "too long"),
    "a list for a token": ("scene", lambda rows: rows[0].update(token=["a"]), "token is .* not a text"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tables_are_refused_naming_table_and_row(copy, name):
    table, change, said = HOSTILE[name]
    message = changed(copy, table, change)
    assert re.search(said, message) and "v1.0-mini/" in message
