"""mmdet3d's test loop over the bundled model, and the score of what it finds."""

import json

import numpy as np
import pytest
import torch
from mmcv.parallel import MMDataParallel
from mmdet.datasets import build_dataloader
from mmdet3d.apis import single_gpu_test

import mm_case
from bevformer.results import format_sample


@pytest.fixture(scope="module")
def case(tmp_path_factory, synth):
    torch.manual_seed(1)
    found = mm_case.both(tmp_path_factory.mktemp("config"), synth)
    found.theirs.model.eval()
    found.ours.model.eval()
    loader = build_dataloader(found.theirs.test, 1, 0, num_gpus=1, dist=False, shuffle=False)
    found.results = single_gpu_test(MMDataParallel(found.theirs.model, device_ids=[]), loader)
    return found


def test_the_results_file_is_that_of_our_evaluation(case, tmp_path):
    paths, _ = case.theirs.test.format_results(case.results, str(tmp_path))
    found = json.load(open(paths["pts_bbox"]))["results"]
    memory, ours = None, case.ours
    for index, info in enumerate(ours.test.infos.infos):
        detections, memory = ours.model.step(ours.test.test_frame(index), memory)
        wanted = format_sample(detections, info)
        assert len(found[info["token"]]) == len(wanted) > 0
        for one, other in zip(found[info["token"]], wanted):
            assert one["detection_name"] == other["detection_name"]
            assert one["attribute_name"] == other["attribute_name"]
            for key in ("translation", "size", "rotation", "velocity"):
                assert np.allclose(one[key], other[key], atol=1e-4), key


def test_the_score_has_upstreams_names(case, tmp_path):
    scores = case.theirs.test.evaluate(case.results, jsonfile_prefix=str(tmp_path))
    assert 0 <= scores["pts_bbox_NuScenes/NDS"] <= 1
    assert "pts_bbox_NuScenes/car_AP_dist_0.5" in scores and "pts_bbox_NuScenes/mATE" in scores
