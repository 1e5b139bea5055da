"""The one real nuScenes keyframe (shared/data, never in the repository): learnt by heart, and drawn."""

import json

import pytest
import torch

from bevformer import evaluate, train, viz
from bevformer.config import override, preset
from bevformer.data.dataset import NuScenesQueue
from bevformer.data.infos import load_infos
from bevformer.data.store import open_store
from bevformer.detector import build_model

SCALE = "data.scale=0.16"  # 1600x900 -> 256x144, what the micro preset is made for


@pytest.fixture(scope="module")
def keyframe(shared):
    folder = shared / "data" / "nuscenes_keyframe"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}: the real keyframe is not here")
    return str(folder), str(next(folder.glob("*.pkl")))


def learn(keyframe, work_dir, steps, heard):
    root, infos = keyframe
    train.main(
        ["bevformer_micro", "--data-root", root, "--infos", infos, "--work-dir", str(work_dir), "--gpus", "0"]
        + ["--cfg-options", SCALE, f"schedule.max_steps={steps}", "schedule.warmup_steps=5"],
        heard,
    )
    return heard.results[-1]


def test_its_info_pickle_is_read_as_it_is_and_trained_on(keyframe, tmp_path, heard):
    result = learn(keyframe, tmp_path / "work", 12, heard)
    lines = [json.loads(line) for log in (tmp_path / "work").glob("*.log.json") for line in log.open()]
    first = next(line["loss"] for line in lines if line.get("mode") == "train")
    assert result["losses"]["loss"] < 0.8 * first
    assert any("mmdet3d >= 1.1" in note for note in heard.notes)


def test_it_is_drawn_with_its_true_boxes(keyframe, tmp_path, heard):
    root, infos = keyframe
    viz.main(["--data-root", root, "--infos", infos, "--out", str(tmp_path)], heard)
    (picture,) = heard.results[-1]["pictures"]
    assert picture["true_boxes"] >= 50 and (tmp_path / picture["path"]).stat().st_size > 100_000


def recall(detections, truth, score):
    """Share of true boxes with a prediction of their class within 2 m and above `score`."""
    near = torch.cdist(truth.boxes_G9[:, :2], detections.boxes_K9[:, :2]) < 2
    same = truth.labels_G[:, None] == detections.labels_K[None]
    return float((near & same & (detections.scores_K > score)[None]).any(1).float().mean())


@pytest.mark.slow
def test_it_is_learnt_by_heart(keyframe, tmp_path, heard):
    result = learn(keyframe, tmp_path / "work", 400, heard)
    root, infos = keyframe
    config = override(preset("bevformer_micro"), [SCALE])
    frames = NuScenesQueue(load_infos(infos), open_store([root]), config, training=False)
    model = build_model(config)
    model.load_state_dict(torch.load(result["checkpoint"], weights_only=True)["state_dict"])
    detections, _ = model.eval().step(frames.test_frame(0))
    assert recall(detections, frames.truth(0), score=0.3) > 0.9
    argv = ["bevformer_micro", result["checkpoint"], "--data-root", root, "--infos", infos]
    evaluate.main(argv + ["--format-only", "--out", str(tmp_path / "out"), "--cfg-options", SCALE], heard)
    assert len(json.loads((tmp_path / "out" / "results_nusc.json").read_text())["results"]) == 1
