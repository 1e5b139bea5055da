"""The synthetic set as nuscenes-devkit sees it."""

import json
from pathlib import Path

import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.can_bus.can_bus_api import NuScenesCanBus
from nuscenes.eval.detection.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import points_in_box
from nuscenes.utils.splits import create_splits_scenes

from bevformer.data.synth.layout import BOXES_PER_FRAME, RECIPES
from bevformer.data.synth.sets import MINI_SCENES as SCENES
from bevformer.data.synth.write_tables import attribute_of


@pytest.fixture(scope="module")
def nusc(synth):
    return NuScenes("v1.0-mini", dataroot=synth.root, verbose=False)


def chain(nusc, table, token):
    rows = []
    while token:
        rows.append(nusc.get(table, token))
        token = rows[-1]["next"]
    return rows


def predictions(nusc, split, noise_m):
    """The ground truth as a submission, each box moved by `noise_m` in x and y."""
    names, rng, results = create_splits_scenes()[split], np.random.RandomState(0), {}
    for sample in nusc.sample:
        if nusc.get("scene", sample["scene_token"])["name"] in names:
            annotations = [nusc.get("sample_annotation", token) for token in sample["anns"]]
            results[sample["token"]] = [
                dict(
                    sample_token=sample["token"],
                    translation=(a["translation"] + rng.normal(0, 1, 3) * [noise_m, noise_m, 0]).tolist(),
                    size=a["size"],
                    rotation=a["rotation"],
                    velocity=nusc.box_velocity(a["token"])[:2].tolist(),
                    detection_name=category_to_detection_name(a["category_name"]),
                    detection_score=float(rng.uniform(0.5, 1.0)),
                    attribute_name="".join(nusc.get("attribute", t)["name"] for t in a["attribute_tokens"]),
                )
                for a in annotations
            ]
    return results


def score(nusc, split, folder, noise_m=0.0):
    meta = {"use_" + kind: kind == "camera" for kind in ("camera", "lidar", "radar", "map", "external")}
    path = folder / "results.json"
    path.write_text(json.dumps(dict(meta=meta, results=predictions(nusc, split, noise_m))))
    config = config_factory("detection_cvpr_2019")
    metrics, _ = DetectionEval(nusc, config, str(path), split, str(folder), verbose=False).evaluate()
    return metrics.serialize()["mean_ap"], metrics.serialize()["nd_score"]


def test_the_ten_scenes_are_those_of_the_mini_splits():
    splits = create_splits_scenes()
    assert sorted(SCENES) == sorted(splits["mini_train"] + splits["mini_val"])


def test_the_devkit_loads_all_tables_and_files(nusc, synth):
    assert (len(nusc.scene), len(nusc.sample), len(nusc.sample_data)) == (2, 6, 42)
    assert len(list((Path(synth.root) / "v1.0-mini").iterdir())) == 13
    for row in nusc.sample_data:
        assert (Path(synth.root) / row["filename"]).stat().st_size > 500


def test_every_frame_has_every_class(nusc):
    for sample in nusc.sample:
        names = [nusc.get("sample_annotation", t)["category_name"] for t in sample["anns"]]
        assert {category_to_detection_name(name) for name in names} == set(RECIPES)
        assert len(names) == BOXES_PER_FRAME


@pytest.mark.parametrize("split", ["mini_train", "mini_val"])
def test_perfect_predictions_score_one(nusc, split, tmp_path):
    assert score(nusc, split, tmp_path) == pytest.approx((1.0, 1.0))


def test_half_a_metre_of_noise_costs(nusc, tmp_path):
    mean_ap, nds = score(nusc, "mini_val", tmp_path, noise_m=0.5)
    assert 0.4 < mean_ap < 0.9 and 0.5 < nds < 0.95


def test_chains_run_through_scenes_and_instances(nusc):
    for scene in nusc.scene:
        samples = chain(nusc, "sample", scene["first_sample_token"])
        assert [s["token"] for s in samples][-1] == scene["last_sample_token"] and len(samples) == 3
        assert np.diff([s["timestamp"] for s in samples]).tolist() == [500000, 500000]
    for instance in nusc.instance:
        rows = chain(nusc, "sample_annotation", instance["first_annotation_token"])
        assert rows[-1]["token"] == instance["last_annotation_token"]
        assert len(rows) == instance["nbr_annotations"] == 3
    for row in nusc.sample_data:
        assert not row["prev"] or nusc.get("sample_data", row["prev"])["next"] == row["token"]


def test_the_attribute_follows_from_the_motion(nusc):
    for row in nusc.sample_annotation:
        speed = float(np.linalg.norm(nusc.box_velocity(row["token"])[:2]))
        names = [nusc.get("attribute", token)["name"] for token in row["attribute_tokens"]]
        expected = attribute_of(category_to_detection_name(row["category_name"]), speed)
        assert names == ([expected] if expected else [])


def test_lidar_points_in_boxes_are_as_many_as_the_table_says(nusc):
    for sample in nusc.sample:
        path, boxes, _ = nusc.get_sample_data(sample["data"]["LIDAR_TOP"])
        points = LidarPointCloud.from_file(path).points[:3]
        counts = [int(points_in_box(box, points).sum()) for box in boxes]
        assert counts == [nusc.get("sample_annotation", box.token)["num_lidar_pts"] for box in boxes]
        assert min(counts) >= 2


def test_the_lidar_sees_the_ground_where_it_is(nusc):
    path = nusc.get_sample_data_path(nusc.sample[0]["data"]["LIDAR_TOP"])
    cloud = np.fromfile(path, np.float32).reshape(-1, 5)
    assert np.abs(cloud[:, 2] + 1.84).min() < 0.01 and cloud[:, 2].min() > -1.9
    assert set(np.unique(cloud[:, 4])) <= set(range(32)) and len(cloud) > 8000


def test_the_can_bus_tells_the_ego_motion(nusc, synth):
    can = NuScenesCanBus(dataroot=synth.root)
    for scene in nusc.scene:
        pose = can.get_messages(scene["name"], "pose")
        times = [message["utime"] for message in pose]
        assert np.median(np.diff(times)) == pytest.approx(20000, abs=1)
        for sample in chain(nusc, "sample", scene["first_sample_token"]):
            assert times[0] < sample["timestamp"] < times[-1]
            ego = nusc.get("ego_pose", nusc.get("sample_data", sample["data"]["LIDAR_TOP"])["ego_pose_token"])
            near = pose[int(np.argmin(np.abs(np.array(times) - sample["timestamp"])))]
            assert np.allclose(near["pos"], ego["translation"], atol=0.05)
            assert np.allclose(near["orientation"], ego["rotation"], atol=1e-3)


def test_every_can_message_is_there(nusc, synth):
    can = NuScenesCanBus(dataroot=synth.root)
    for message in can.all_messages:
        assert can.get_messages("scene-0061", message, print_warnings=False)
    assert can.list_misaligned_routes() == []
    assert set(can.get_messages("scene-0061", "meta")) >= {"pose", "ms_imu", "zoe_veh_info"}


def test_the_ego_drives_on_the_drivable_part_of_the_map(nusc):
    for scene in nusc.scene:
        log = nusc.get("log", scene["log_token"])
        mask = nusc.get("map", log["map_token"])["mask"]
        for sample in chain(nusc, "sample", scene["first_sample_token"]):
            ego = nusc.get("ego_pose", nusc.get("sample_data", sample["data"]["CAM_BACK"])["ego_pose_token"])
            assert mask.is_on_mask(*ego["translation"][:2]).all()
