"""The tables against the devkit's reading of the same folder, and what is said about broken ones."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from bevformer.data.store import open_store
from bevformer.data.tables import check_version, load_tables, only_version, tokens_digest
from bevformer.errors import DataError

sys.path.insert(0, str(Path(__file__).parent))
import small_nuscenes  # noqa: E402


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return small_nuscenes.write(tmp_path_factory.mktemp("nusc"))


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


def test_keyframes_and_annotations_are_the_devkits_in_its_order(tables, devkit):
    for sample in devkit.sample:
        ours = {channel: row["token"] for channel, row in tables.data_of(sample["token"]).items()}
        assert ours == sample["data"]
        assert [row["token"] for row in tables.annotations_of(sample["token"])] == sample["anns"]


def test_velocities_are_the_devkits_with_nan_where_it_has_none(tables, devkit):
    found = np.array([tables.velocity(row) for row in tables.rows["sample_annotation"].values()])
    expected = np.array([devkit.box_velocity(row["token"]) for row in devkit.sample_annotation])
    np.testing.assert_array_equal(found, expected)
    assert np.isnan(found).any() and np.isfinite(found).any()


def test_samples_of_a_scene_are_in_time_order_and_categories_have_full_names(tables):
    tokens = [row["token"] for row in tables.samples_of(tables.scenes[0])]
    assert tokens == ["scene-0061-%d" % i for i in range(5)]
    annotation = tables.annotations_of(tokens[0])[0]
    assert (
        tables.category_of(annotation)
        == tables.get("instance", annotation["instance_token"])["category_token"]
    )


def test_the_digest_depends_on_the_tokens_and_not_on_their_order(tables):
    tokens = [row["token"] for row in tables.samples]
    assert tables.digest == tokens_digest(reversed(tokens)) != tokens_digest(tokens[1:])


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
    assert "visibility" not in load_tables(open_store([str(copy)]), "v1.0-mini").rows


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
