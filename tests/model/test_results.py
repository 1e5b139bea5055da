import json
import math

import numpy as np
import pytest
import torch

from bevformer import results
from bevformer.errors import CheckpointError
from bevformer.types import CLASSES, Detections


def detections_of(boxes, labels, scores=None):
    boxes = torch.as_tensor(np.asarray(boxes), dtype=torch.float32).reshape(-1, 9)
    scores = torch.ones(len(boxes)) if scores is None else torch.as_tensor(scores)
    return Detections(boxes, scores, torch.as_tensor(labels))


def random_detections(count, seed=0):
    rng = np.random.RandomState(seed)
    boxes = np.concatenate(
        [
            rng.uniform(-40, 40, (count, 3)),
            rng.uniform(0.5, 5, (count, 3)),
            rng.uniform(-4, 4, (count, 1)),
            rng.uniform(-3, 3, (count, 2)),
        ],
        axis=1,
    )
    return detections_of(boxes, rng.randint(0, 10, count), rng.rand(count).astype(np.float32))


def upstream(detections, info):
    """mmdet3d 0.17's box by box conversion with the devkit's Box, the oracle of this test."""
    from nuscenes.utils.data_classes import Box
    from pyquaternion import Quaternion

    kept = []
    boxes, scores, labels = detections.boxes_K9, detections.scores_K, detections.labels_K
    for box, score, label in zip(boxes.numpy(), scores.numpy(), labels.numpy()):
        box = Box(
            box[:3],
            box[3:6],
            Quaternion(axis=[0, 0, 1], radians=-box[6] - np.pi / 2),
            velocity=(*box[7:9], 0.0),
            label=label,
            score=score,
        )
        box.rotate(Quaternion(info["lidar2ego_rotation"]))
        box.translate(np.array(info["lidar2ego_translation"]))
        if np.linalg.norm(box.center[:2], 2) > results.CLASS_RANGE_M[CLASSES[label]]:
            continue
        box.rotate(Quaternion(info["ego2global_rotation"]))
        box.translate(np.array(info["ego2global_translation"]))
        kept.append(box)
    return kept


def test_entries_equal_upstreams_conversion_box_by_box(tiny):
    info, detections = tiny.val.infos[1], random_detections(200)
    entries, boxes = results.format_sample(detections, info), upstream(detections, info)
    assert 0 < len(entries) == len(boxes) < 200
    for entry, box in zip(entries, boxes):
        np.testing.assert_allclose(entry["translation"], box.center, atol=1e-9)
        np.testing.assert_allclose(entry["rotation"], box.orientation.elements, atol=1e-7)
        np.testing.assert_allclose(entry["velocity"], box.velocity[:2], atol=1e-9)
        assert entry["size"] == box.wlh.tolist() and entry["detection_name"] == CLASSES[box.label]


def test_class_ranges_are_the_devkits():
    from nuscenes.eval.common.config import config_factory

    config = config_factory("detection_cvpr_2019")
    assert config.class_range == results.CLASS_RANGE_M
    assert config.max_boxes_per_sample == results.MAX_BOXES_PER_SAMPLE


@pytest.mark.parametrize(
    "name, at_rest, moving",
    [
        ("car", "vehicle.parked", "vehicle.moving"),
        ("truck", "vehicle.parked", "vehicle.moving"),
        ("trailer", "vehicle.parked", "vehicle.moving"),
        ("construction_vehicle", "vehicle.parked", "vehicle.moving"),
        ("bus", "vehicle.stopped", "vehicle.moving"),
        ("bicycle", "cycle.without_rider", "cycle.with_rider"),
        ("motorcycle", "cycle.without_rider", "cycle.with_rider"),
        ("pedestrian", "pedestrian.standing", "pedestrian.moving"),
        ("barrier", "", ""),
        ("traffic_cone", "", ""),
    ],
)
def test_attribute_follows_the_speed(name, at_rest, moving):
    assert results.attribute_of(name, 0.2) == at_rest
    assert results.attribute_of(name, 0.201) == moving


def test_boxes_return_from_the_global_frame(tiny):
    info, detections = tiny.val.infos[0], random_detections(50, seed=1)
    near = detections.boxes_K9[:, :2].norm(dim=1) < 25
    detections = Detections(detections.boxes_K9[near], detections.scores_K[near], detections.labels_K[near])
    back = results.to_detections(results.format_sample(detections, info), info)
    turns = (back.boxes_K9[:, 6] - detections.boxes_K9[:, 6]) / (2 * math.pi)
    # the lidar is tilted by 1.4 degrees: yaw is not quite additive, and v_z is lost
    assert (turns - turns.round()).abs().max() < 2e-4
    np.testing.assert_allclose(back.boxes_K9[:, :6], detections.boxes_K9[:, :6], atol=1e-4)
    np.testing.assert_allclose(back.boxes_K9[:, 7:], detections.boxes_K9[:, 7:], atol=5e-3)
    assert torch.equal(back.labels_K, detections.labels_K)


def test_only_the_best_500_are_kept_and_scores_are_python_floats(tiny):
    boxes = np.tile([5.0, 5, 0, 1, 1, 1, 0, 0, 0], (600, 1))
    scores = np.random.RandomState(0).permutation(600).astype(np.float32) / 600
    entries = results.format_sample(detections_of(boxes, [0] * 600, scores), tiny.val.infos[0])
    assert len(entries) == 500 and min(e["detection_score"] for e in entries) > 99 / 600
    assert type(entries[0]["detection_score"]) is float
    json.dumps(entries)


def test_no_detections_give_an_empty_list(tiny):
    empty = Detections(torch.zeros(0, 9), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    assert results.format_sample(empty, tiny.val.infos[0]) == []
    assert len(results.to_detections([], tiny.val.infos[0]).scores_K) == 0


def test_boxes_that_are_not_finite_are_refused(tiny):
    with pytest.raises(CheckpointError, match="scene-0103-0 are not finite"):
        results.format_sample(detections_of([[np.nan] * 9], [0]), tiny.val.infos[0])


def test_an_interrupted_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "results_nusc.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), results.ResultsWriter(str(path)) as writer:
        writer.add("a", [])
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
