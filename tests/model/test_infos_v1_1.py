"""The one real keyframe, in mmdet3d 1.1's layout: do the converted boxes lie where the scene shows them?"""

import numpy as np
import pytest

from bevformer import boxes
from bevformer.data import infos_v1_1, safe_pickle
from bevformer.data.geometry import apply, rigid, rigid_inverse, rigid_of
from bevformer.data.infos import check_infos, from_object, load_infos
from bevformer.data.store import open_store
from bevformer.errors import DataError


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "data/nuscenes_keyframe"


@pytest.fixture(scope="module")
def raw(folder):
    """The file's own object."""
    path = next(folder.glob("*.pkl"))
    return safe_pickle.loads(path.read_bytes(), str(path))


@pytest.fixture(scope="module")
def info(folder):
    return load_infos(str(next(folder.glob("*.pkl")))).infos[0]


@pytest.fixture(scope="module")
def points(folder):
    return np.fromfile(next(folder.glob("*.pcd.bin")), dtype=np.float32).reshape(-1, 5)[:, :3]


def lidar2cam(cam):
    return rigid_inverse(rigid_of(cam["sensor2lidar_rotation"], cam["sensor2lidar_translation"]))


def test_the_points_that_nuscenes_counted_lie_inside_the_boxes(info, points):
    found = boxes.points_inside(points, info["gt_boxes"]).sum(1)
    assert (
        np.abs(found - info["num_lidar_pts"]).mean() < 0.5 and (found == info["num_lidar_pts"]).mean() > 0.85
    )


@pytest.mark.parametrize("change", ("bottom centre", "not converted", "yaw mirrored"))
def test_any_other_reading_of_the_boxes_loses_points(info, points, change):
    wrong = {
        "bottom centre": boxes.bottom_to_gravity,
        "not converted": boxes.legacy_to_new,
        "yaw mirrored": lambda b: np.concatenate([b[:, :6], -b[:, 6:]], axis=1),
    }[change](info["gt_boxes"])
    right = boxes.points_inside(points, info["gt_boxes"]).sum(1)
    assert (boxes.points_inside(points, wrong).sum(1) != right).sum() >= 5


def test_every_projected_box_of_the_file_is_one_of_ours(info, raw):
    off = []
    for channel, instances in raw["data_list"][0]["cam_instances"].items():
        cam = info["cams"][channel]
        centres = apply(lidar2cam(cam), info["gt_boxes"][:, :3])
        uv = centres @ cam["cam_intrinsic"].T
        uvd = np.concatenate([uv[:, :2] / uv[:, 2:], centres[:, 2:]], axis=1)
        for one in instances:
            distance = np.abs(uvd - [*one["center_2d"], one["depth"]]).max(1)
            nearest = distance.argmin()
            assert distance[nearest] < 1e-3  # pixels and metres
            off.append(_box_distance(info["gt_boxes"][nearest], cam, one["bbox"]))
    # The file's rectangles come from tilted boxes, ours stand upright, and cut boxes are cut otherwise.
    assert len(off) == 84 and np.median(off) < 1.5 and np.mean(np.array(off) < 5) > 0.9


def _box_distance(box, cam, rectangle):
    corners = apply(lidar2cam(cam), boxes.corners(box[None])[0])
    uv = corners[corners[:, 2] > 0.1] @ cam["cam_intrinsic"].T
    uv = uv[:, :2] / uv[:, 2:]
    ours = np.concatenate([uv.min(0).clip(0, [1600, 900]), uv.max(0).clip(0, [1600, 900])])
    return np.abs(ours - rectangle).max()


def test_moving_cars_face_where_they_go(info):
    speed = np.linalg.norm(info["gt_velocity"], axis=1)
    moving = (info["gt_names"] == "car") & (speed > 2)
    velocity = info["gt_velocity"][moving]
    course = np.arctan2(velocity[:, 1], velocity[:, 0])
    turn = boxes.wrap_angle(boxes.heading_of(info["gt_boxes"][moving]) - course)
    assert moving.sum() >= 1 and np.abs(turn).max() < 0.2


def test_names_follow_the_files_own_order_of_classes(info, raw):
    names = {label: name for name, label in raw["metainfo"]["categories"].items()}
    assert names[2] == "trailer"  # BEVFormer's third class is construction_vehicle
    names[-1] = "ignore"  # what is no class of the task
    expected = [names[one["bbox_label_3d"]] for one in raw["data_list"][0]["instances"]]
    assert info["gt_names"].tolist() == expected and "pedestrian" in expected


def test_quaternions_and_inverses_give_the_files_matrices_back(info, raw):
    frame = raw["data_list"][0]
    ego2global = rigid(info["ego2global_rotation"], info["ego2global_translation"])
    np.testing.assert_allclose(ego2global, frame["ego2global"], atol=1e-6)
    lidar2ego = rigid(info["lidar2ego_rotation"], info["lidar2ego_translation"])
    np.testing.assert_allclose(lidar2ego, frame["lidar_points"]["lidar2ego"], atol=1e-6)
    for channel, cam in info["cams"].items():
        np.testing.assert_allclose(lidar2cam(cam), frame["images"][channel]["lidar2cam"], atol=1e-6)


def test_the_keyframe_fits_its_folder_and_says_what_was_done(folder):
    infos = load_infos(str(next(folder.glob("*.pkl"))))
    check_infos(infos, open_store([str(folder)]))
    assert infos.version == "v1.0-mini" and infos.infos[0]["timestamp"] == 1532402927647951
    assert "mmdet3d >= 1.1" in infos.notes[0] and "no CAN data" in infos.notes[1]
    assert infos.infos[0]["valid_flag"].sum() < 69


def _frame(token, seconds, recording="n015-2018__LIDAR_TOP__1.bin"):
    camera = dict(
        img_path="x.jpg", cam2img=np.eye(3), cam2ego=np.eye(4), lidar2cam=np.eye(4), timestamp=seconds
    )
    names = "CAM_FRONT CAM_FRONT_RIGHT CAM_FRONT_LEFT CAM_BACK CAM_BACK_LEFT CAM_BACK_RIGHT".split()
    return dict(
        token=token,
        timestamp=seconds,
        ego2global=np.eye(4),
        instances=[],
        images=dict.fromkeys(names, camera),
        lidar_points=dict(lidar_path=recording, lidar2ego=np.eye(4)),
    )


def test_scenes_are_told_by_recording_and_gap_and_frames_are_chained():
    frames = [_frame("b", 10.5), _frame("a", 10.0), _frame("c", 13.0), _frame("d", 13.4, "n008__L__1.bin")]
    infos = infos_v1_1.convert(dict(metainfo=dict(classes=["car"]), data_list=frames))
    assert [info["token"] for info in infos] == ["a", "b", "c", "d"]
    assert [info["prev"] for info in infos] == ["", "a", "", ""]
    assert len({info["scene_token"] for info in infos}) == 3 and infos[1]["frame_idx"] == 1
    assert infos[0]["gt_boxes"].shape == (0, 7) and infos[0]["gt_names"].dtype.kind == "U"


def test_a_file_that_does_not_name_its_classes_is_refused():
    with pytest.raises(DataError, match="categories"):
        from_object(dict(metainfo={}, data_list=[_frame("a", 1.0)]), "x.pkl")
