"""Conversions between layouts: every round trip gives the same bits, and mmdet3d 1.1 finds what it reads."""

import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from bevformer import boxes
from bevformer.data import convert, prepare
from bevformer.data.infos import from_object, load_infos
from bevformer.data.infos_boxes import to_legacy, to_new
from bevformer.errors import ConfigError, DataError, DiskError
from bevformer.talk import Talk

sys.path.insert(0, str(Path(__file__).parent))
import small_nuscenes  # noqa: E402

NAME = "nuscenes_infos_temporal_%s.pkl"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = small_nuscenes.write(tmp_path_factory.mktemp("nusc"))
    folder = tmp_path_factory.mktemp("infos")
    prepare.main(["--data-root", root, "--out", str(folder)], Talk(events=False))
    return folder


def run(source, out, to, *more):
    convert.main([str(source), str(out), "--to", to, *more], Talk(events=True))
    return out


def content(path):
    return pickle.loads(Path(path).read_bytes())


def assert_same(a, b, where=""):
    """Bit for bit, types and order of keys too."""
    if isinstance(b, dict):
        assert list(a) == list(b), where
        for key in b:
            assert_same(a[key], b[key], where + "/" + str(key))
    elif isinstance(b, (list, tuple)):
        assert type(a) is type(b) and len(a) == len(b), where
        for i, (one, other) in enumerate(zip(a, b)):
            assert_same(one, other, "%s/%d" % (where, i))
    elif isinstance(b, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes(), where
    else:
        assert type(a) is type(b) and a == b, where


ROUTES = (
    ("twin", "0.17"),
    ("1.0", "0.17"),
    ("1.1", "0.17"),
    ("1.1", "twin", "1.0", "0.17"),
    ("1.0", "1.1", "1.0", "twin", "0.17"),
    ("twin", "1.1", "0.17"),
)


@pytest.mark.parametrize("route", ROUTES, ids="-".join)
@pytest.mark.parametrize("split", ("train", "val"))
def test_every_way_round_gives_the_same_bits(prepared, tmp_path, route, split):
    path = prepared / (NAME % split)
    for number, to in enumerate(route):
        path = run(path, tmp_path / ("%d%s" % (number, ".bev" if to == "twin" else ".pkl")), to)
    assert_same(content(path)["infos"], content(prepared / (NAME % split))["infos"])
    assert content(path)["metadata"] == content(prepared / (NAME % split))["metadata"]


@pytest.mark.parametrize("to", ("1.0", "1.1", "twin"))
def test_the_data_set_reads_the_same_boxes_from_every_layout(prepared, tmp_path, to):
    before = load_infos(str(prepared / (NAME % "train")))
    after = load_infos(
        str(run(prepared / (NAME % "train"), tmp_path / ("x.bev" if to == "twin" else "x.pkl"), to))
    )
    for a, b in zip(after.infos, before.infos):
        for key in ("gt_boxes", "gt_velocity", "can_bus", "gt_names", "timestamp", "scene_token", "token"):
            assert_same(a[key], b[key], key)
    assert (after.version, after.digest) == (before.version, before.digest)


def test_boxes_in_1_0_are_length_width_height_yaw(prepared, tmp_path):
    old = content(prepared / (NAME % "train"))["infos"]
    new = content(run(prepared / (NAME % "train"), tmp_path / "x.pkl", "1.0"))["infos"]
    for a, b in zip(old, new):
        np.testing.assert_allclose(
            boxes.corners(boxes.new_to_legacy(b["gt_boxes"])), boxes.corners(a["gt_boxes"])
        )
        assert (a["gt_boxes"][:, 3] == b["gt_boxes"][:, 4]).all() and (
            abs(b["gt_boxes"][:, 6]) <= np.pi
        ).all()


def test_angles_that_rounding_would_change_come_back_whatever_they_are():
    rng = np.random.RandomState(0)
    yaws = np.concatenate(
        [rng.uniform(-4.72, 1.58, 3000), 10.0 ** rng.uniform(-300, 0, 500), [0, np.pi, -np.pi, 7.5]]
    )
    rows = np.tile([1.0, 2, 3, 4, 5, 6, 0], (len(yaws), 1))
    rows[:, 6] = yaws
    infos = [dict(gt_boxes=rows[:2000]), dict(gt_boxes=rows[2000:])]
    new, metadata = to_new(infos, dict(version="x"))
    back, said = to_legacy(new, metadata)
    assert_same(back, infos)
    assert metadata["bevrepro_boxes"] == "1.0" and len(metadata["bevrepro_kept_yaws"]) > 100
    again, _ = to_new(back, said)
    assert_same(again, new)


def test_a_box_that_was_turned_since_keeps_its_new_angle():
    new, metadata = to_new([dict(gt_boxes=np.array([[0, 0, 0, 1, 2, 3, 1e-30]]))], {})
    assert metadata["bevrepro_kept_yaws"] == [[0, 0, 1e-30]]
    new[0]["gt_boxes"][0, 6] += 0.5
    assert abs(to_legacy(new, metadata)[0][0]["gt_boxes"][0, 6] + 0.5) < 1e-12


def test_the_layout_of_1_1_has_what_its_loader_reads(prepared, tmp_path):
    data = content(run(prepared / (NAME % "train"), tmp_path / "x.pkl", "1.1"))
    assert data["metainfo"]["categories"]["barrier"] == 9 and data["metainfo"]["info_version"] == "1.1"
    frame, info = data["data_list"][0], content(prepared / (NAME % "train"))["infos"][0]
    assert frame["sample_idx"] == 0 and frame["timestamp"] == info["timestamp"] / 1e6
    assert frame["images"]["CAM_BACK"]["img_path"] == info["cams"]["CAM_BACK"]["data_path"].rsplit("/", 1)[1]
    lidar2cam = np.array(frame["images"]["CAM_BACK"]["lidar2cam"])
    point = lidar2cam[:3, :3] @ info["cams"]["CAM_BACK"]["sensor2lidar_translation"] + lidar2cam[:3, 3]
    np.testing.assert_allclose(point, 0, atol=1e-9)
    assert [one["bbox_label_3d"] for one in frame["instances"] if one["num_lidar_pts"] >= 0].count(
        -1
    ) == 1  # animal
    assert len(frame["lidar_sweeps"]) == len(info["sweeps"])


def test_a_frame_of_1_1_that_was_edited_is_read_as_it_is_now(prepared, tmp_path):
    path = run(prepared / (NAME % "train"), tmp_path / "x.pkl", "1.1")
    data = content(path)
    data["data_list"][0]["instances"][0]["bbox_3d"][0] += 1.0
    data["data_list"][0]["ego2global"][0][3] += 5.0
    infos = from_object(data, "x").infos
    before = content(prepared / (NAME % "train"))["infos"][0]
    np.testing.assert_allclose(infos[0]["gt_boxes"][0, 0], before["gt_boxes"][0, 0] + 1.0)
    np.testing.assert_allclose(
        infos[0]["ego2global_translation"][0], before["ego2global_translation"][0] + 5.0
    )
    np.testing.assert_array_equal(infos[0]["can_bus"], before["can_bus"])


def test_the_real_keyframe_keeps_its_boxes_through_every_layout(shared, tmp_path):
    source = next((shared / "data/nuscenes_keyframe").glob("*.pkl"))
    old = run(source, tmp_path / "a.pkl", "0.17")
    for number, to in enumerate(("1.0", "1.1", "twin")):
        run(old, tmp_path / ("%d%s" % (number, ".bev" if to == "twin" else ".pkl")), to)
    again = content(run(tmp_path / "1.pkl", tmp_path / "b.pkl", "0.17"))
    assert_same(again["infos"], content(old)["infos"])
    theirs, ours = (content(path)["data_list"][0] for path in (source, tmp_path / "1.pkl"))
    for name in ("token", "timestamp", "sample_idx"):
        assert ours[name] == theirs[name]
    for a, b in zip(ours["instances"], theirs["instances"]):
        np.testing.assert_allclose(a["bbox_3d"], b["bbox_3d"], atol=1e-12)
        assert a["bbox_label_3d"] == b["bbox_label_3d"]
    cam = content(old)["infos"][0]["cams"]["CAM_BACK"]
    assert abs(cam["ego2global_translation"][2]) < 0.2  # the map lies at 0; the car does not fly
    for channel, image in theirs["images"].items():
        for name in ("lidar2cam", "cam2ego", "cam2img"):
            # The file's rotations are rounded to 32 bits, so theirs are not exactly rotations.
            np.testing.assert_allclose(ours["images"][channel][name], image[name], atol=2e-6)


def test_boxes_of_a_foreign_file_are_told_by_its_cars_or_by_the_user(prepared, tmp_path):
    data = content(prepared / (NAME % "train"))
    del data["metadata"]["bevrepro_tables_digest"]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(data, 2))  # its cars are of random size
    for info in data["infos"]:
        info["gt_names"] = np.array(["bus"] * len(info["gt_names"]))
    (tmp_path / "y.pkl").write_bytes(pickle.dumps(data, 2))
    with pytest.raises(DataError, match="(?s)does not show the convention.*--from 0.17"):
        run(tmp_path / "y.pkl", tmp_path / "z.pkl", "1.0")
    back = run(
        run(tmp_path / "y.pkl", tmp_path / "z.pkl", "1.0", "--from", "0.17"), tmp_path / "w.pkl", "0.17"
    )
    assert_same(content(back)["infos"], data["infos"])


def test_what_the_twin_has_no_column_for_is_refused_not_dropped(prepared, tmp_path):
    data = content(prepared / (NAME % "train"))
    data["infos"][3]["map_mask"] = 1
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(data, 2))
    with pytest.raises(DataError, match="sample scene-0061-3 holds also map_mask"):
        run(tmp_path / "x.pkl", tmp_path / "x.bev", "twin")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.pkl"]


@pytest.mark.parametrize(
    "out, to, said",
    (
        ("x.pkl", "twin", "does not end in .bev"),
        ("x.bev", "1.0", "does not end in .pkl"),
        ("there.pkl", "1.0", "is there"),
        ("folder.bev", "twin", "something else"),
        ("in.pkl", "1.0", "is the input"),
    ),
)
def test_outputs_that_cannot_be_are_refused_before_anything_is_read(tmp_path, out, to, said):
    (tmp_path / "in.pkl").write_bytes(b"x")
    (tmp_path / "there.pkl").write_bytes(b"y")
    (tmp_path / "folder.bev").mkdir()
    with pytest.raises((ConfigError, DataError), match=said):
        run(tmp_path / "in.pkl", tmp_path / out, to)
    assert (tmp_path / "there.pkl").read_bytes() == b"y"


def test_a_dry_run_writes_nothing_and_force_replaces(prepared, tmp_path):
    source = prepared / (NAME % "train")
    run(source, tmp_path / "x.bev", "twin", "--dry-run")
    assert not list(tmp_path.iterdir())
    for _ in range(2):
        run(source, tmp_path / "x.bev", "twin", "--force")
    assert [path.name for path in tmp_path.iterdir()] == ["x.bev"] and len(
        load_infos(str(tmp_path / "x.bev"))
    ) == 5


def test_a_twin_made_beside_its_pickle_is_used(prepared, tmp_path):
    shutil.copy(prepared / (NAME % "train"), tmp_path / "x.pkl")
    run(tmp_path / "x.pkl", tmp_path / "x.bev", "twin")
    assert type(load_infos(str(tmp_path / "x.pkl")).infos).__name__ == "Frames"


def test_a_hostile_pickle_is_refused_and_never_run(tmp_path, capsys):
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02cbuiltins\nprint\nX\x03\x00\x00\x00ran\x85R.")
    with pytest.raises(DataError, match="builtins.print"):
        run(tmp_path / "x.pkl", tmp_path / "y.pkl", "1.0")
    assert "ran" not in capsys.readouterr().out and not (tmp_path / "y.pkl").exists()


def test_a_full_disk_leaves_what_was_there(prepared, tmp_path, monkeypatch):
    run(prepared / (NAME % "train"), tmp_path / "x.bev", "twin")
    before = {path.name: path.read_bytes() for path in (tmp_path / "x.bev").iterdir()}

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskError, match="No space left"):
        run(prepared / (NAME % "val"), tmp_path / "x.bev", "twin", "--force")
    assert {path.name: path.read_bytes() for path in (tmp_path / "x.bev").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.bev"]
