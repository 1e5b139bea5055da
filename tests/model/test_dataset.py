"""Training queues and test frames from a small set and from the one real keyframe."""

import dataclasses
import pickle
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from bevformer import boxes
from bevformer.config import bevformer_micro, override
from bevformer.data import prepare
from bevformer.data.dataset import NuScenesQueue, ground_truth
from bevformer.data.infos import from_object, load_infos
from bevformer.data.store import open_store
from bevformer.errors import DataError
from bevformer.talk import Talk
from bevformer.types import CAMERAS, CLASSES

sys.path.insert(0, str(Path(__file__).parent))
import small_nuscenes  # noqa: E402


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return small_nuscenes.write(tmp_path_factory.mktemp("nusc"))


@pytest.fixture(scope="module")
def store(root):
    return open_store([root])


@pytest.fixture(scope="module")
def both_scenes(root, tmp_path_factory):
    """Five frames of one scene, then three of another; each with one car in front."""
    folder = tmp_path_factory.mktemp("infos")
    prepare.main(["--data-root", root, "--out", str(folder)], Talk(events=False))
    data = dict(infos=[], metadata=dict(version="v1.0-mini", bevrepro_tables_digest=""))
    for path in sorted(folder.glob("*.pkl")):
        data["infos"] += pickle.loads(path.read_bytes())["infos"]
    for info in data["infos"]:
        info.update(
            gt_boxes=np.array([[3.0, 9.0, 0.0, 2.0, 4.5, 1.5, -np.pi]]),
            gt_names=np.array(["car"]),
            gt_velocity=np.array([[0.0, 2.0]]),
            valid_flag=np.array([True]),
        )
    return pickle.dumps(data)


@pytest.fixture
def infos(both_scenes):
    return from_object(pickle.loads(both_scenes), "x.pkl")


def test_what_a_frame_is_known_by_does_not_depend_on_numpy(infos, store):
    """A run began on NumPy 1.26 and could not go on with 1.23, whose products differ in the last bit."""
    data = NuScenesQueue(infos, store, bevformer_micro(), training=True)
    before = data.parts_of(0)
    data._lidar2img_FN44 = np.nextafter(data._lidar2img_FN44, np.inf)
    assert data.parts_of(0) == before
    infos.infos[0]["cams"]["CAM_BACK"]["cam_intrinsic"][0][0] += 1e-9
    moved = NuScenesQueue(infos, store, bevformer_micro(), training=True).parts_of(0)
    assert moved["poses"] != before["poses"] and moved["boxes"] == before["boxes"]


@pytest.fixture
def queue(infos, store):
    return NuScenesQueue(infos, store, bevformer_micro(), training=True)


def with_options(*options):
    return override(bevformer_micro(), options)


def rng(seed=0):
    return np.random.RandomState(seed)


def test_a_sample_has_the_presets_queue_of_padded_normalised_images(queue):
    sample = queue.train_sample(4, rng())
    assert len(queue) == 8 and len(sample.frames) == 2
    images = sample.frames[-1].images_NCHW
    assert images.shape == (6, 3, 64, 96) and images.dtype == torch.float32 and images.is_contiguous()
    assert sample.frames[-1].meta.img_shape_hw == (64, 96) and not images[:, :, 54:].any()
    assert sample.truth.boxes_G9.tolist()[0][:6] == [3, 9, 0, 2, 4.5, 1.5]


def test_images_are_rgb_normalised_in_the_cameras_order(queue, root):
    frame, info = queue.test_frame(0), queue.infos.infos[0]
    data = queue.config.data
    for images, channel in zip(frame.images_NCHW.numpy(), CAMERAS):
        rgb = cv2.imread("%s/%s" % (root, info["cams"][channel]["data_path"]))[..., ::-1]
        expected = ((rgb - np.float64(data.mean)) / data.std).transpose(2, 0, 1)
        np.testing.assert_allclose(images[:, :54], expected, atol=1e-5)


@pytest.mark.parametrize("length", (1, 2, 3, 4))
def test_a_queue_drops_one_of_the_earlier_indices_at_random(infos, store, length):
    queue = NuScenesQueue(infos, store, with_options("data.queue_length=%d" % length), True)
    drawn = rng()
    seen = Counter(tuple(queue.queue_indices(5, drawn)) for _ in range(400))
    earlier = range(5 - length, 5)
    assert set(seen) == {tuple(i for i in earlier if i != gone) + (5,) for gone in earlier}
    assert min(seen.values()) > 400 / length * 0.7


def test_negative_indices_become_the_first_frame_as_history_that_does_not_move(infos, store):
    queue = NuScenesQueue(infos, store, with_options("data.queue_length=4"), True)
    assert set(map(tuple, (queue.queue_indices(0, rng(seed)) for seed in range(9)))) == {(0, 0, 0, 0)}
    metas = [frame.meta for frame in queue.train_sample(0, rng()).frames]
    assert [meta.prev_bev_exists for meta in metas] == [False, True, True, True]
    for meta in metas:
        assert not meta.can_bus_18[[0, 1, 2, 17]].any() and meta.can_bus_18[3:7].any()


def test_motion_is_relative_to_the_frame_before_in_the_queue(queue):
    index, drawn = 3, rng(1)
    before = queue.queue_indices(index, rng(1))[0]
    first, last = (frame.meta for frame in queue.train_sample(index, drawn).frames)
    a, b = (queue.test_frame(i).meta.can_bus_18 for i in (before, index))
    np.testing.assert_allclose(last.can_bus_18[:3], b[:3] - a[:3])
    np.testing.assert_allclose(last.can_bus_18[17], b[17] - a[17])
    np.testing.assert_array_equal(last.can_bus_18[3:17], b[3:17])
    assert last.prev_bev_exists and not first.prev_bev_exists and not first.can_bus_18[[0, 1, 2, 17]].any()


def test_a_queue_across_scenes_starts_history_anew(infos, store):
    queue = NuScenesQueue(infos, store, with_options("data.queue_length=3"), True)
    metas = [frame.meta for frame in queue.train_sample(5, rng()).frames]  # 5 is the first of its scene
    assert [meta.prev_bev_exists for meta in metas] == [False, True, False]
    assert not metas[2].can_bus_18[[0, 1, 2, 17]].any() and metas[2].can_bus_18[16] > 0


def test_test_frames_are_absolute_and_not_touched_by_training(queue):
    before = queue.test_frame(3).meta.can_bus_18
    info = queue.infos.infos[3]
    np.testing.assert_array_equal(before[:7], info["ego2global_translation"] + info["ego2global_rotation"])
    assert 0 <= before[17] < 360 and np.isclose(np.radians(before[17]), before[16])
    before[:] = 0
    queue.train_sample(3, rng())
    assert queue.test_frame(3).meta.can_bus_18[0] == info["ego2global_translation"][0]
    assert queue.test_frame(3).meta.timestamp_s == info["timestamp"] / 1e6


def test_a_frame_without_valid_boxes_makes_the_sample_be_redrawn(infos, store):
    infos.infos[2]["valid_flag"][:] = False
    queue = NuScenesQueue(infos, store, bevformer_micro(), True)
    assert queue.train_sample(2, rng()) is None
    drawn = [queue.train_sample(3, rng(seed)) is None for seed in range(12)]  # its history may be frame 2
    assert True in drawn and False in drawn


def test_labelled_frames_are_every_second_of_each_scene_and_the_rest_lies_between(queue, infos, store):
    assert queue.labelled_indices() == [1, 3, 6] and queue.between_indices() == [0, 2, 4, 5, 7]
    everything = NuScenesQueue(infos, store, with_options("data.label_every=1"), True)
    assert everything.labelled_indices() == list(range(8)) and everything.between_indices() == []
    third = NuScenesQueue(infos, store, with_options("data.label_every=3"), True)
    assert third.labelled_indices() == [2, 7]
    short = NuScenesQueue(infos, store, with_options("data.label_every=4"), True)
    assert short.labelled_indices() == [3, 7]  # a scene of three frames keeps its last


def _truth(boxes9, names=None, valid=None):
    boxes9 = np.array(boxes9, dtype=float)
    names = names or ["car"] * len(boxes9)
    info = dict(
        gt_boxes=boxes9[:, :7],
        gt_velocity=boxes9[:, 7:],
        gt_names=np.array(names),
        valid_flag=np.array(valid or [True] * len(boxes9)),
    )
    return ground_truth(info, bevformer_micro().head.pc_range_m)


@pytest.mark.parametrize(
    "x, y, kept",
    (
        (51.1, 0, True),
        (51.2, 0, False),
        (-51.2, 0, False),
        (0, 51.3, False),
        (0, -51.19, True),
        (60, 60, False),
    ),
)
def test_boxes_count_when_their_centre_is_strictly_inside_the_bev_range(x, y, kept):
    found, _ = _truth([[x, y, 40.0, 2, 4, 1, 0, 0, 0]])  # z does not matter
    assert len(found) == kept


def test_only_valid_boxes_of_the_ten_classes_count_and_labels_follow_the_classes_order():
    names = ["bus", "animal", "traffic_cone", "car"]
    _, labels = _truth([[0, 0, 0, 1, 1, 1, 0, 0, 0]] * 4, names, [True, True, True, False])
    assert labels.tolist() == [CLASSES.index("bus"), CLASSES.index("traffic_cone")]
    assert labels.dtype == np.int64


def test_an_unknown_velocity_becomes_zero_without_touching_the_infos():
    rows = [[0, 0, 0, 1, 1, 1, 0, np.nan, np.nan], [0, 0, 0, 1, 1, 1, 4.0, 1.0, 2.0]]
    found, _ = _truth(rows)
    assert found.dtype == np.float32 and found[:, 7:].tolist() == [[0, 0], [1, 2]]
    np.testing.assert_allclose(
        found[1, 6], 4.0 - 2 * np.pi, rtol=1e-6
    )  # yaw wrapped as upstream's filter does


def test_no_boxes_at_all_are_an_empty_truth(queue):
    info = queue.infos.infos[0]
    info.update(gt_boxes=np.zeros((0, 7)), gt_names=np.array([]), gt_velocity=np.zeros((0, 2)))
    info.update(valid_flag=np.zeros(0, bool))
    truth = queue.truth(0)
    assert truth.boxes_G9.shape == (0, 9) and truth.labels_G.shape == (0,)
    assert queue.test_frame(0).images_NCHW.shape[0] == 6


def test_a_point_lands_where_the_camera_model_says(queue):
    info = queue.infos.infos[2]
    cam = info["cams"]["CAM_BACK_LEFT"]
    point = np.array([1.0, -20.0, 0.5])
    in_camera = np.linalg.inv(cam["sensor2lidar_rotation"]) @ (point - cam["sensor2lidar_translation"])
    expected = cam["cam_intrinsic"] @ in_camera
    for scale in (1.0, 0.5):
        config = with_options("data.scale=%s" % scale)
        meta = NuScenesQueue(queue.infos, queue.store, config, False).test_frame(2).meta
        found = meta.lidar2img_N44[CAMERAS.index("CAM_BACK_LEFT")] @ [*point, 1.0]
        np.testing.assert_allclose(found[:2] / found[2], scale * expected[:2] / expected[2])
        assert meta.lidar2img_N44.dtype == np.float64


@pytest.mark.parametrize("scale", ("1.0", "0.25"))
def test_kept_frames_are_the_same_and_are_read_once(infos, store, scale):
    class Counting:
        reads = 0

        def __getattr__(self, name):
            return getattr(store, name)

        def view(self, name):
            self.reads += 1
            return store.view(name)

    config, counting = with_options("data.scale=" + scale), Counting()
    kept = NuScenesQueue(infos, counting, config, True, cache_frames=True)
    plain = NuScenesQueue(infos, store, config, True).test_frame(1).images_NCHW
    for _ in range(3):
        images = kept.test_frame(1).images_NCHW
        assert torch.equal(images, plain)
        images.zero_()  # a caller that writes does not spoil the next
    assert counting.reads == 6


def test_colours_are_distorted_in_training_only_and_repeat_with_the_seed(infos, store):
    queue = NuScenesQueue(infos, store, with_options("data.photometric=True"), True)
    one, two = (queue.train_sample(3, rng(2)).frames[-1].images_NCHW for _ in range(2))
    assert torch.equal(one, two) and not torch.equal(one, queue.test_frame(3).images_NCHW)
    plain = NuScenesQueue(infos, store, bevformer_micro(), False).test_frame(3).images_NCHW
    assert torch.equal(queue.test_frame(3).images_NCHW, plain)


def test_it_travels_to_a_worker(queue):
    again = pickle.loads(pickle.dumps(queue))
    assert torch.equal(again.test_frame(0).images_NCHW, queue.test_frame(0).images_NCHW)


def test_a_number_that_is_not_finite_names_sample_and_camera(infos, store):
    infos.infos[6]["cams"]["CAM_BACK"]["sensor2lidar_translation"][1] = np.nan
    with pytest.raises(DataError, match="sample scene-0103-1, CAM_BACK: lidar2img"):
        NuScenesQueue(infos, store, bevformer_micro(), False)


def test_a_pose_that_is_not_finite_names_the_sample(infos, store):
    infos.infos[2]["ego2global_rotation"] = [0.0, 0.0, 0.0, 0.0]
    with pytest.raises(DataError, match="sample scene-0061-2: its ego pose"):
        NuScenesQueue(infos, store, bevformer_micro(), False)


@pytest.mark.parametrize(
    "size, message",
    (
        ((48, 27), "CAM_FRONT_LEFT: the image is 48x27, CAM_FRONT's is 96x54"),
        (None, "CAM_FRONT_LEFT: .*readable"),
    ),
)
def test_an_image_of_another_size_or_none_names_sample_and_camera(infos, store, tmp_path, size, message):
    path = tmp_path / infos.infos[3]["cams"]["CAM_FRONT_LEFT"]["data_path"]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    if size:
        cv2.imwrite(str(path), np.zeros((size[1], size[0], 3), np.uint8))
    laid_over = open_store([store.roots[0].path, str(tmp_path)])
    with pytest.raises(DataError, match="sample scene-0061-3, " + message):
        NuScenesQueue(infos, laid_over, bevformer_micro(), True).test_frame(3)


def test_images_that_were_scaled_without_their_calibration_are_noticed(infos, store, tmp_path):
    for channel in CAMERAS:
        path = tmp_path / infos.infos[0]["cams"][channel]["data_path"]
        path.parent.mkdir(parents=True)
        cv2.imwrite(str(path), np.zeros((43, 77, 3), np.uint8))
    laid_over = open_store([store.roots[0].path, str(tmp_path)])
    with pytest.raises(DataError, match="(?s)scene-0061-0, CAM_FRONT: .* 77x43, .* for about 98x56"):
        NuScenesQueue(infos, laid_over, bevformer_micro(), True).test_frame(0)


def test_a_missing_image_names_sample_camera_and_file(infos, tmp_path):
    with pytest.raises(DataError, match="sample scene-0061-0, CAM_FRONT: samples/CAM_FRONT/scene-0061-0__"):
        NuScenesQueue(infos, open_store([str(tmp_path)]), bevformer_micro(), False).test_frame(0)


def test_training_on_a_file_without_boxes_is_refused(infos, store):
    bare = dataclasses.replace(
        infos, infos=[{k: v for k, v in info.items() if not k.startswith("gt_")} for info in infos.infos]
    )
    NuScenesQueue(bare, store, bevformer_micro(), training=False)
    with pytest.raises(DataError, match="holds no boxes"):
        NuScenesQueue(bare, store, bevformer_micro(), training=True)


@pytest.fixture(scope="module")
def keyframe(shared):
    folder = shared / "data/nuscenes_keyframe"
    infos = load_infos(str(next(folder.glob("*.pkl"))))
    return NuScenesQueue(infos, open_store([str(folder)]), with_options("data.scale=0.16"), True)


def test_the_real_keyframe_trains_alone_without_history(keyframe):
    sample = keyframe.train_sample(0, rng())
    assert [frame.meta.prev_bev_exists for frame in sample.frames] == [False, False]
    assert sample.frames[0].images_NCHW.shape == (6, 3, 144, 256)
    assert keyframe.labelled_indices() == [0] and len(sample.truth.labels_G) == 50
    can_bus = keyframe.test_frame(0).meta.can_bus_18
    assert np.isclose(can_bus[17], 249.783, atol=1e-3) and not can_bus[7:16].any() and can_bus[:7].any()


def test_the_real_keyframes_lidar_points_of_cars_project_into_their_boxes(keyframe, shared):
    """Points inside a box's faces lie inside its outline in the scaled image of every camera that sees it."""
    meta, truth = keyframe.test_frame(0).meta, keyframe.truth(0)
    path = next((shared / "data/nuscenes_keyframe").glob("*.pcd.bin"))
    points = np.fromfile(path, dtype=np.float32).reshape(-1, 5)[:, :3].astype(float)
    checked = 0
    for box, inside in zip(truth.boxes_G9.numpy(), boxes.points_inside(points, truth.boxes_G9)):
        for matrix in meta.lidar2img_N44:
            corners = _pixels(matrix, boxes.corners(box[None])[0])
            if (corners[:, 2] > 1).all() and ((corners[:, :2] > 0) & (corners[:, :2] < [256, 144])).all():
                uv = _pixels(matrix, points[inside])[:, :2]
                assert (uv >= corners[:, :2].min(0) - 1e-6).all()
                assert (uv <= corners[:, :2].max(0) + 1e-6).all()
                checked += len(uv)
    assert checked > 300


def _pixels(matrix, xyz):
    uvd = xyz @ matrix[:3, :3].T + matrix[:3, 3]
    return np.concatenate([uvd[:, :2] / uvd[:, 2:], uvd[:, 2:]], axis=1)
