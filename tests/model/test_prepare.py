"""The prepared files against upstream's converter, spelled out with the devkit and pyquaternion."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bevformer.data import prepare, splits
from bevformer.data.infos import load_infos
from bevformer.errors import DataError, DiskError
from bevformer.talk import Talk
from bevformer.types import CAMERAS

sys.path.insert(0, str(Path(__file__).parent))
import small_nuscenes  # noqa: E402


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return small_nuscenes.write(tmp_path_factory.mktemp("nusc"))


@pytest.fixture(scope="module")
def out(root, tmp_path_factory):
    """The folder that `prepare` has written."""
    folder = tmp_path_factory.mktemp("infos")
    assert prepare.main(["--data-root", root, "--out", str(folder)], Talk(events=False)) == 0
    return folder


@pytest.fixture
def copy(root, tmp_path):
    shutil.copytree(root, tmp_path / "nusc")
    return tmp_path / "nusc"


def contents(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def infos_of(folder):
    return [info for split in ("train", "val") for info in load_infos(split_file(folder, split)).infos]


def split_file(folder, split):
    return str(folder / ("nuscenes_infos_temporal_%s.pkl" % split))


def converter(root):
    """Upstream's `_fill_trainval_infos`, kept close to its text; token -> info."""
    from nuscenes.nuscenes import NuScenes
    from pyquaternion import Quaternion

    nusc, found = NuScenes("v1.0-mini", root, verbose=False), {}

    def to_top(token, kind, l2e_t, l2e, e2g_t, e2g):
        row = nusc.get("sample_data", token)
        cal = nusc.get("calibrated_sensor", row["calibrated_sensor_token"])
        ego = nusc.get("ego_pose", row["ego_pose_token"])
        s2e, s2g = Quaternion(cal["rotation"]).rotation_matrix, Quaternion(ego["rotation"]).rotation_matrix
        back = np.linalg.inv(e2g).T @ np.linalg.inv(l2e).T
        turn = (s2e.T @ s2g.T) @ back
        move = (np.array(cal["translation"]) @ s2g.T + ego["translation"]) @ back
        move -= e2g_t @ back + l2e_t @ np.linalg.inv(l2e).T
        return dict(
            data_path=os.path.relpath(nusc.get_sample_data_path(token), root),
            type=kind,
            sample_data_token=token,
            sensor2ego_translation=cal["translation"],
            sensor2ego_rotation=cal["rotation"],
            ego2global_translation=ego["translation"],
            ego2global_rotation=ego["rotation"],
            timestamp=row["timestamp"],
            sensor2lidar_rotation=turn.T,
            sensor2lidar_translation=move,
        )

    frame_idx = 0
    for sample in nusc.sample:
        token = sample["data"]["LIDAR_TOP"]
        row = nusc.get("sample_data", token)
        cal = nusc.get("calibrated_sensor", row["calibrated_sensor_token"])
        ego = nusc.get("ego_pose", row["ego_pose_token"])
        path, boxes, _ = nusc.get_sample_data(token)
        info = dict(
            lidar_path=os.path.relpath(path, root),
            token=sample["token"],
            prev=sample["prev"],
            next=sample["next"],
            frame_idx=frame_idx,
            sweeps=[],
            cams={},
            scene_token=sample["scene_token"],
            lidar2ego_translation=cal["translation"],
            lidar2ego_rotation=cal["rotation"],
            ego2global_translation=ego["translation"],
            ego2global_rotation=ego["rotation"],
            timestamp=sample["timestamp"],
        )
        frame_idx = 0 if sample["next"] == "" else frame_idx + 1
        l2e, e2g = (Quaternion(one["rotation"]).rotation_matrix for one in (cal, ego))
        frame = (np.array(cal["translation"]), l2e, np.array(ego["translation"]), e2g)
        for cam in CAMERAS:
            _, _, intrinsic = nusc.get_sample_data(sample["data"][cam])
            info["cams"][cam] = dict(to_top(sample["data"][cam], cam, *frame), cam_intrinsic=intrinsic)
        while len(info["sweeps"]) < 10 and row["prev"]:
            info["sweeps"].append(to_top(row["prev"], "lidar", *frame))
            row = nusc.get("sample_data", row["prev"])
        annotations = [nusc.get("sample_annotation", one) for one in sample["anns"]]
        yaws = np.array([box.orientation.yaw_pitch_roll[0] for box in boxes]).reshape(-1, 1)
        velocity = np.array([nusc.box_velocity(one)[:2] for one in sample["anns"]])
        for i in range(len(boxes)):
            velocity[i] = ([*velocity[i], 0.0] @ np.linalg.inv(e2g).T @ np.linalg.inv(l2e).T)[:2]
        centres, sizes = ([getattr(box, name) for box in boxes] for name in ("center", "wlh"))
        info["gt_boxes"] = np.concatenate([centres, sizes, -yaws - np.pi / 2], axis=1)
        names = {"vehicle.car": "car", "vehicle.bus.bendy": "bus", "human.pedestrian.adult": "pedestrian"}
        names.update({"movable_object.barrier": "barrier"})
        info["gt_names"] = np.array([names.get(box.name, box.name) for box in boxes])
        info["gt_velocity"] = velocity.reshape(-1, 2)
        info["num_lidar_pts"] = np.array([one["num_lidar_pts"] for one in annotations])
        info["num_radar_pts"] = np.array([one["num_radar_pts"] for one in annotations])
        info["valid_flag"] = info["num_lidar_pts"] + info["num_radar_pts"] > 0
        found[sample["token"]] = info
    return found


def assert_same(ours, theirs, where):
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs), where
        for key in theirs:
            assert_same(ours[key], theirs[key], where + "/" + key)
    elif isinstance(theirs, list) and theirs and isinstance(theirs[0], dict):
        assert len(ours) == len(theirs), where
        for i, (a, b) in enumerate(zip(ours, theirs)):
            assert_same(a, b, "%s/%d" % (where, i))
    elif isinstance(theirs, np.ndarray) and theirs.dtype.kind == "f":
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, where
        np.testing.assert_allclose(ours, theirs, atol=1e-10, err_msg=where)
    elif isinstance(theirs, np.ndarray):
        assert ours.tolist() == theirs.tolist() and ours.dtype.kind == theirs.dtype.kind, where
    else:
        assert ours == theirs and type(ours) is type(theirs), where


def test_every_number_is_the_converters(root, out):
    theirs = converter(root)
    ours = {info["token"]: info for info in infos_of(out)}
    assert set(ours) == set(theirs)
    for token, info in ours.items():
        info = dict(info)
        assert info.pop("can_bus").shape == (18,)
        assert_same(info, theirs[token], token)
    assert max(len(info["sweeps"]) for info in ours.values()) == 10
    assert "animal" in np.concatenate([info["gt_names"] for info in ours.values()])


def test_the_keys_are_in_the_order_of_the_converters(out):
    keys = list(infos_of(out)[0])
    assert keys[:9] == "lidar_path token prev next can_bus frame_idx sweeps cams scene_token".split()


def test_scenes_are_split_by_their_official_names(out):
    for split, scene in (("train", "scene-0061-token"), ("val", "scene-0103-token")):
        assert {info["scene_token"] for info in load_infos(split_file(out, split)).infos} == {scene}


def test_the_mini_split_is_the_devkits_and_the_full_one_comes_from_it():
    from nuscenes.utils import splits as devkit

    assert splits.scene_names("v1.0-mini") == (set(devkit.mini_train), set(devkit.mini_val))
    assert [len(names) for names in splits.scene_names("v1.0-trainval")] == [700, 150]
    assert splits.scene_names("v1.0-trainval") == (set(devkit.train), set(devkit.val))
    assert splits.scene_names("v1.0-test") == (set(devkit.test), set())


def test_without_the_devkit_the_full_split_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install nuscenes-devkit"):
        splits.scene_names("v1.0-trainval")


def test_scenes_without_can_data_are_zero_counted_and_named(root, out, capsys):
    val = load_infos(split_file(out, "val"))
    assert val.metadata["zero_can_scenes"] == ["scene-0103"] and not val.infos[0]["can_bus"].any()
    assert load_infos(split_file(out, "train")).infos[0]["can_bus"].any()
    assert prepare.main(["--data-root", root, "--out", str(out)], Talk(events=True)) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert any("1 of 2 scenes have no CAN data" in event.get("text", "") for event in said)
    assert said[-1]["event"] == "result" and said[-1]["zero_can_scenes"] == ["scene-0103"]


def test_no_can_data_at_all_is_refused_unless_asked_for(copy, tmp_path):
    shutil.rmtree(copy / "can_bus")
    argv = ["--data-root", str(copy), "--out", str(tmp_path / "out")]
    with pytest.raises(DataError, match="(?s)no CAN data.*2 scenes.*--no-can-bus"):
        prepare.main(argv, Talk(events=False))
    assert not (tmp_path / "out").exists()
    assert prepare.main(argv + ["--no-can-bus"], Talk(events=False)) == 0


@pytest.mark.parametrize("inside", ("", "infos", "a/../b"))
def test_nothing_is_written_into_the_data(root, inside):
    with pytest.raises(DataError, match="inside the data"):
        prepare.main(["--data-root", root, "--out", os.path.join(root, inside)], Talk(events=False))
    assert not list(Path(root).rglob("*.pkl"))


def test_a_link_into_the_data_is_seen_through(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    with pytest.raises(DataError, match="inside the data"):
        prepare.check_out(str(tmp_path / "link" / "x"), [root])
    prepare.check_out(root + "-beside", [root])


def test_missing_images_are_counted_and_one_is_named(copy, tmp_path):
    for path in sorted((copy / "samples/CAM_BACK").iterdir())[:3]:
        path.unlink()
    with pytest.raises(DataError, match="3 of 48 keyframe images are missing, such as samples/CAM_BACK/"):
        prepare.main(["--data-root", str(copy), "--out", str(tmp_path / "out")], Talk(events=False))


def test_a_sample_without_one_of_its_cameras_is_named(copy, tmp_path):
    path = copy / "v1.0-mini/sample_data.json"
    rows = [
        row for row in json.loads(path.read_text()) if not row["token"].startswith("scene-0061-2/CAM_FRONT/")
    ]
    path.write_text(json.dumps(rows))
    with pytest.raises(DataError, match="scene-0061-2 has no CAM_FRONT"):
        prepare.main(["--data-root", str(copy), "--out", str(tmp_path / "out")], Talk(events=False))


def test_another_version_is_refused(root, tmp_path):
    with pytest.raises(DataError, match="(?s)no tables of v1.0-trainval.*There is v1.0-mini"):
        argv = ["--data-root", root, "--out", str(tmp_path), "--version", "v1.0-trainval"]
        prepare.main(argv, Talk(events=False))


def test_the_test_version_has_one_file_without_boxes(copy, tmp_path):
    (copy / "v1.0-mini").rename(copy / "v1.0-test")
    assert prepare.main(["--data-root", str(copy), "--out", str(tmp_path / "out")], Talk(events=False)) == 0
    infos = load_infos(split_file(tmp_path / "out", "test")).infos
    assert len(infos) == 8 and "gt_boxes" not in infos[0]


def test_a_dry_run_writes_nothing_and_names_the_files(root, tmp_path, capsys):
    argv = ["--data-root", root, "--out", str(tmp_path / "out"), "--dry-run"]
    assert prepare.main(argv, Talk(events=True)) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["frames"] == {"train": 5, "val": 3} and not (tmp_path / "out").exists()
    assert result["files"]["val"] == split_file(tmp_path / "out", "val")


def test_infos_are_made_and_converted_without_torch():
    code = "import sys; sys.modules['torch'] = None; import bevformer.data.prepare, bevformer.data.convert"
    model = str(Path(__file__).parents[2] / "model")
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": model})


def test_a_folder_that_cannot_be_made_is_a_disk_error(root, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="file/out"):
        prepare.main(["--data-root", root, "--out", str(tmp_path / "file/out")], Talk(events=False))


def test_a_failure_while_writing_leaves_the_old_files_and_no_others(root, out, tmp_path, monkeypatch):
    before = contents(out)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match="No space left"):
        prepare.main(["--data-root", root, "--out", str(out)], Talk(events=False))
    assert contents(out) == before


def test_archives_give_the_same_files_as_the_folder(root, out, tmp_path):
    shutil.make_archive(str(tmp_path / "mini"), "gztar", root, ".")
    argv = ["--data-root", str(tmp_path / "mini.tar.gz"), "--out", str(tmp_path / "out")]
    assert prepare.main(argv, Talk(events=False)) == 0
    for split in ("train", "val"):
        assert (
            Path(split_file(tmp_path / "out", split)).read_bytes()
            == Path(split_file(out, split)).read_bytes()
        )
