"""Synthetic sets beyond the default one: trainval and test, sweeps, weather."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.utils.splits import create_splits_scenes

from bevformer.data.synth import main as synth_main
from bevformer.data.synth import weather
from bevformer.data.synth.lidar import Sweep
from bevformer.data.synth.shot_rows import Tokens
from bevformer.errors import ConfigError

SMALL = ["--samples", "2", "--scale", "0.05"]
PACKS = ("blobs", "keyframes", "camera", "lidar")


@pytest.fixture(scope="module")
def made(tmp_path_factory, request):
    from bevformer.talk import Talk

    class Silent(Talk):
        progress = result = lambda self, *args, **fields: None

    def make(name, *options):
        out = tmp_path_factory.mktemp(name) / "set"
        synth_main.main([str(out), *SMALL, *options], Silent(False))
        return out

    return make


@pytest.fixture(scope="module")
def trainval(made):
    packs = [word for pack in PACKS for word in ("--pack", pack)]
    return made("tv", "--set", "trainval", "--scenes", "3", "--parts", "2", "--sweeps", "2", *packs)


@pytest.fixture(scope="module")
def nusc(trainval):
    return NuScenes("v1.0-trainval", dataroot=str(trainval / "nuscenes"), verbose=False)


def files_of(path):
    with tarfile.open(path) as tar:
        return {member.name for member in tar if member.isfile()}


def test_the_recipe_of_the_default_set_is_what_it_was():
    """Its tokens hang on it: older results files and infos would not fit any more."""
    recipe = synth_main.Options(0, 10, 10, 0.16).recipe
    assert Tokens(json.dumps(recipe, sort_keys=True))("sample", "scene-0061", 0) == (
        "eb66d890fa10c64653102c9ebbc8c8b5"
    )


def test_a_small_trainval_has_scenes_of_both_splits(nusc):
    splits, names = create_splits_scenes(), [scene["name"] for scene in nusc.scene]
    assert [name in splits["val"] for name in names] == [False, True, False]
    assert set(names) <= set(splits["train"] + splits["val"])


def test_sweeps_hang_between_the_key_frames(nusc, trainval):
    for sample in nusc.sample:
        for token in sample["data"].values():
            row = nusc.get("sample_data", token)
            while row["next"]:
                later = nusc.get("sample_data", row["next"])
                assert later["prev"] == row["token"] and later["timestamp"] > row["timestamp"]
                assert later["filename"].startswith("samples/" if later["is_key_frame"] else "sweeps/")
                assert (trainval / "nuscenes" / later["filename"]).stat().st_size > 500
                row = later
    assert len(nusc.sample_data) == 3 * 7 * (2 + 2)


def test_the_archives_are_named_and_filled_like_the_official_ones(trainval):
    folder = trainval / "archives"
    assert {path.name for path in folder.iterdir()} == {"v1.0-trainval_meta.tgz", "can_bus.zip"} | {
        "v1.0-trainval0%d_%s.tgz" % (part, kind)
        for part in (1, 2)
        for kind in ("blobs", "keyframes", "blobs_camera", "blobs_lidar")
    }
    blobs = [files_of(folder / ("v1.0-trainval0%d_blobs.tgz" % part)) for part in (1, 2)]
    root = trainval / "nuscenes"
    on_disk = {str(p.relative_to(root)) for top in ("samples", "sweeps") for p in (root / top).rglob("*.*")}
    assert blobs[0] | blobs[1] == on_disk and not blobs[0] & blobs[1]
    first = [files_of(folder / ("v1.0-trainval01_" + end)) for end in ("blobs_camera.tgz", "blobs_lidar.tgz")]
    assert first[0] | first[1] == blobs[0] and not any("LIDAR" in name for name in first[0])
    keyframes = files_of(folder / "v1.0-trainval01_keyframes.tgz")
    assert keyframes == {name for name in blobs[0] if name.startswith("samples/")}
    meta = files_of(folder / "v1.0-trainval_meta.tgz")
    assert {name.split("/")[0] for name in meta} == {"maps", "v1.0-trainval"}


def test_a_test_set_has_no_boxes(made):
    out = made("test", "--set", "test", "--scenes", "2")
    nusc = NuScenes("v1.0-test", dataroot=str(out / "nuscenes"), verbose=False)
    assert (nusc.instance, nusc.sample_annotation, len(nusc.sample)) == ([], [], 4)
    assert {scene["name"] for scene in nusc.scene} <= set(create_splits_scenes()["test"])
    found = sorted(path.name for path in (out / "archives").iterdir())
    assert found == ["can_bus.zip", "v1.0-test_blobs.tgz", "v1.0-test_meta.tgz"]


@pytest.mark.parametrize("kind", ["rain", "night"])
def test_weather_is_repeatable_and_keeps_the_shape(kind):
    picture = np.full((45, 80, 3), 128, np.uint8)
    one, two = (weather.weathered(kind, picture, "CAM_FRONT", np.random.RandomState(5)) for _ in range(2))
    assert one.shape == picture.shape and one.dtype == np.uint8 and (one == two).all()
    assert (one.mean() < 80) == (kind == "night") and one.std() > 2
    assert weather.weathered("clear", picture, "CAM_FRONT", None) is picture


def test_rain_takes_far_returns_only():
    points = np.zeros((200, 5), np.float32)
    points[:, 0], points[:, 3] = np.arange(200) * 0.35, 50
    wet = weather.weathered_sweep("rain", Sweep(points, np.zeros(0)), np.random.RandomState(0)).points_P5
    near = points[points[:, 0] < weather.FAR_M]
    assert (wet[: len(near), 0] == near[:, 0]).all() and len(near) < len(wet) < 200
    assert wet[:, 3].max() == 35


def test_night_is_said_in_the_scene_and_the_boxes_stay(made):
    rows = {}
    for kind in ("clear", "night"):
        root = made(kind, "--scenes", "2", "--weather", kind) / "nuscenes/v1.0-mini"
        rows[kind] = [
            json.loads((root / (name + ".json")).read_text()) for name in ("scene", "sample_annotation")
        ]
    assert all(row["description"].endswith(", night") for row in rows["night"][0])
    for clear, night in zip(rows["clear"][1], rows["night"][1]):
        same = ("translation", "rotation", "num_lidar_pts", "visibility_token")
        assert [clear[key] for key in same] == [night[key] for key in same]


@pytest.mark.parametrize(
    "options, seen",
    [
        (["--set", "test", "--scenes", "151"], "--scenes 151"),
        (["--set", "test", "--parts", "2"], "--parts 2"),
        (["--set", "trainval", "--scenes", "3", "--parts", "4"], "--parts 4"),
        (["--pack", "camera"], "--pack is for"),
        (["--sweeps", "10"], "--sweeps 10"),
        (["--defect", "missing-part"], "only one part"),
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, heard, options, seen):
    with pytest.raises(ConfigError, match=seen):
        synth_main.main([str(tmp_path / "out"), *options], heard)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_writes_nothing(tmp_path, heard):
    synth_main.main([str(tmp_path / "out"), "--dry-run"], heard)
    assert heard.results[0]["dry_run"] and not list(tmp_path.iterdir())


def test_the_defects_are_in_the_set_s_own_json(made):
    out = made("broken", "--scenes", "2", "--defect", "no-can", "--defect", "truncated-archive")
    told = json.loads((out / "synth.json").read_text())
    assert [one["kind"] for one in told["defects"]] == ["no-can", "truncated-archive", "truncated-archive"]
    for one in told["defects"][1:]:
        assert Path(out / "archives" / one["archive"]).stat().st_size == one["kept"] < one["size"]
