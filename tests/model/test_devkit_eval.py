import gc
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from bevformer import devkit, devkit_tables, results_read
from bevformer.data import json_rows
from bevformer.data.store import open_store
from bevformer.errors import DataError
from bevformer.results import ResultsWriter, format_sample
from bevformer.types import CLASSES, Detections


def truth_of(info):
    boxes = np.concatenate([info["gt_boxes"], info["gt_velocity"]], axis=1)
    labels = [CLASSES.index(name) for name in info["gt_names"]]
    return Detections(torch.tensor(boxes).float(), torch.ones(len(boxes)), torch.tensor(labels))


def write(path, infos, detections_of=truth_of):
    with ResultsWriter(str(path)) as writer:
        for info in infos:
            writer.add(info["token"], format_sample(detections_of(info), info))
    return str(path)


def tokens_of(infos):
    return [info["token"] for info in infos.infos]


@pytest.fixture
def truth(tiny, heard):
    return devkit.load_ground_truth(open_store([tiny.root]), "v1.0-mini", heard)


def test_ground_truth_as_predictions_scores_one(tiny, truth, heard, tmp_path):
    path = write(tmp_path / "r.json", tiny.val.infos)
    scores = devkit.score(truth, path, tokens_of(tiny.val), "mini_val", str(tmp_path / "m"), heard)
    assert scores["mAP"] > 0.99 and scores["NDS"] > 0.99 and scores["num_samples"] == 5
    assert scores["detail"]["pts_bbox_NuScenes/NDS"] == scores["NDS"]
    assert scores["detail"]["pts_bbox_NuScenes/mAP"] == scores["mAP"]
    assert scores["detail"]["pts_bbox_NuScenes/car_AP_dist_0.5"] == 1.0
    assert scores["detail"]["pts_bbox_NuScenes/traffic_cone_orient_err"] is None
    assert sorted(os.listdir(tmp_path / "m")) == ["metrics_details.json", "metrics_summary.json"]
    assert json.loads((tmp_path / "m" / "metrics_summary.json").read_text())["nd_score"] == scores["NDS"]


def test_the_devkits_table_is_told_and_its_chatter_is_not(tiny, truth, heard, tmp_path, capfd):
    path = write(tmp_path / "r.json", tiny.val.infos)
    devkit.score(truth, path, tokens_of(tiny.val), "mini_val", str(tmp_path / "m"), heard)
    assert capfd.readouterr() == ("", "")
    assert heard.notes[-1].startswith("mAP: ") and "Per-class results:" in heard.notes[-1]


def test_a_subset_is_scored_alone(tiny, truth, heard, tmp_path):
    """Right boxes in the scored frames, none elsewhere: one for the subset, less for the whole split."""
    nothing = Detections(torch.zeros(0, 9), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    scored = tokens_of(tiny.val)[1::2]
    path = write(
        tmp_path / "r.json",
        tiny.val.infos,
        lambda info: truth_of(info) if info["token"] in scored else nothing,
    )
    part = devkit.score(truth, path, scored, "mini_val", str(tmp_path / "part"), heard)
    whole = devkit.score(truth, path, tokens_of(tiny.val), "mini_val", str(tmp_path / "all"), heard)
    assert part["mAP"] > 0.99 and part["num_samples"] == 2
    assert whole["mAP"] < 0.5


def test_archives_give_the_same_ground_truth(tiny, truth, heard, tmp_path):
    with tarfile.open(tmp_path / "v1.0-mini.tgz", "w:gz") as archive:
        archive.add(os.path.join(tiny.root, "v1.0-mini"), "v1.0-mini")
    other = devkit.load_ground_truth(open_store([str(tmp_path / "v1.0-mini.tgz")]), "v1.0-mini", heard)
    assert other.sample == truth.sample and other.sample_annotation == truth.sample_annotation


def test_no_detection_at_all_scores_zero(tiny, truth, heard, tmp_path):
    path = write(
        tmp_path / "r.json",
        tiny.val.infos,
        lambda info: Detections(torch.zeros(0, 9), torch.zeros(0), torch.zeros(0, dtype=torch.int64)),
    )
    scores = devkit.score(truth, path, tokens_of(tiny.val), "mini_val", str(tmp_path / "m"), heard)
    assert scores["mAP"] == 0 and scores["NDS"] == 0
    assert any("every score is 0" in note for note in heard.notes)


def test_streamed_reading_gives_the_boxes_that_the_devkits_own_reader_gives(tiny, tmp_path):
    from nuscenes.eval.common import loaders
    from nuscenes.eval.detection.data_classes import DetectionBox

    path = write(tmp_path / "r.json", tiny.val.infos)
    mine, theirs = (
        read(path, 500, DetectionBox) for read in (devkit.load_prediction, loaders.load_prediction)
    )
    assert mine[1] == theirs[1] and mine[0].sample_tokens == theirs[0].sample_tokens
    assert mine[0].serialize() == theirs[0].serialize() and len(mine[0].all) > 20


def test_the_devkit_is_left_as_it_was(tiny, truth, heard, tmp_path):
    from nuscenes.eval.detection import evaluate

    its_own = evaluate.load_prediction
    path = write(tmp_path / "r.json", tiny.val.infos)
    devkit.score(truth, path, tokens_of(tiny.val), "mini_val", str(tmp_path / "m"), heard)
    assert evaluate.load_prediction is its_own and gc.isenabled()


def test_a_missing_token_is_named(tiny, truth, heard, tmp_path):
    path = write(tmp_path / "r.json", tiny.val.infos[:-1])
    with pytest.raises(DataError, match="no entry for 1 of 5 samples, first scene-0916-1"):
        devkit.score(truth, path, tokens_of(tiny.val), "mini_val", str(tmp_path / "m"), heard)


def test_frames_without_annotations_are_refused(tiny, truth, heard, tmp_path):
    for sample in truth.sample:
        sample["anns"] = []
    path = write(tmp_path / "r.json", tiny.val.infos)
    with pytest.raises(DataError, match="none of the 5 samples has an annotated box"):
        devkit.score(truth, path, tokens_of(tiny.val), "mini_val", str(tmp_path / "m"), heard)


def test_the_split_is_found_from_the_tokens(tiny, truth):
    assert devkit.split_of(truth, tokens_of(tiny.val)[:2]) == ("mini_val", tokens_of(tiny.val))
    assert devkit.split_of(truth, tokens_of(tiny.train))[0] == "mini_train"


@pytest.mark.parametrize(
    "tokens, seen",
    [
        (["scene-0103-0", "other"], "1 of 2 samples are not in v1.0-mini"),
        (["scene-0103-0", "scene-0061-0"], "not all in one of the splits mini_train, mini_val"),
    ],
)
def test_tokens_of_other_data_are_refused(truth, tokens, seen):
    with pytest.raises(DataError, match=seen):
        devkit.split_of(truth, tokens)


def test_another_version_is_refused_with_what_is_there(tiny, heard):
    with pytest.raises(DataError, match="no tables of v1.0-trainval .*\n.*v1.0-mini"):
        devkit.load_ground_truth(open_store([tiny.root]), "v1.0-trainval", heard)


@pytest.mark.parametrize(
    "name, text, seen",
    [
        ("sample", "[{", "sample.json in .* is broken"),
        ("category", "[]", "do not fit together"),
        (
            "sample_annotation",
            '[{"sample_token": "a"}, {"b',
            "sample_annotation.json in .* is broken after row 1",
        ),
        ("sample_data", '[{"token": "a"}]', "do not fit together: no row or field 'is_key_frame'"),
        ("sample_data", "[3]", "sample_data.json in .* is broken after row 0"),
        ("ego_pose", "", "ego_pose.json in .* is broken after row 0"),
        ("ego_pose", '[{"token": 3 4}' + " " * (48 << 20), "ego_pose.json in .* is broken after row 0"),
    ],
)
def test_broken_tables_are_refused(tiny, heard, tmp_path, name, text, seen):
    shutil.copytree(os.path.join(tiny.root, "v1.0-mini"), tmp_path / "v1.0-mini")
    (tmp_path / "v1.0-mini" / (name + ".json")).write_text(text)
    with pytest.raises(DataError, match=seen):
        devkit.load_ground_truth(open_store([str(tmp_path)]), "v1.0-mini", heard)


def test_the_file_is_read_once_for_several_subsets(tiny, truth, heard, tmp_path, monkeypatch):
    path = write(tmp_path / "r.json", tiny.val.infos)
    passes, samples = [], results_read.Results.samples
    monkeypatch.setattr(
        results_read.Results,
        "samples",
        lambda self, *given: passes.append(self.path) or samples(self, *given),
    )
    tokens = tokens_of(tiny.val)
    subsets = {str(tmp_path / "m" / name): tokens[i::2] for i, name in enumerate(("even", "odd"))}
    scores = devkit.score_all(truth, path, subsets, "mini_val", heard)
    assert passes.count(path) == 1 and [one["num_samples"] for one in scores.values()] == [3, 2]
    assert all(one["mAP"] > 0.99 for one in scores.values())
    assert sorted(os.listdir(tmp_path / "m" / "odd")) == ["metrics_details.json", "metrics_summary.json"]


def test_results_of_another_split_are_told_by_its_name(tiny, truth, heard, tmp_path):
    path = write(tmp_path / "r.json", tiny.train.infos)
    with pytest.raises(DataError, match="of other samples: they are of mini_train\n.*5 .* it has 0"):
        devkit.score(truth, path, tokens_of(tiny.val), "mini_val", str(tmp_path / "m"), heard)
    assert os.listdir(tmp_path / "m") == []


def test_results_of_other_data_are_refused(tiny, truth, heard, tmp_path):
    path = write(tmp_path / "r.json", [*tiny.val.infos, dict(tiny.val.infos[0], token="stranger")])
    with pytest.raises(DataError, match="1 of its 6 are not in v1.0-mini, such as stranger"):
        devkit.score(truth, path, tokens_of(tiny.val), "mini_val", str(tmp_path / "m"), heard)


@pytest.mark.parametrize("text", ["[]", "[\n\n]\n"])
def test_a_test_split_without_annotations_is_told_as_such(tiny, heard, tmp_path, text):
    shutil.copytree(os.path.join(tiny.root, "v1.0-mini"), tmp_path / "v1.0-mini")
    for name in ("sample_annotation", "instance"):
        (tmp_path / "v1.0-mini" / (name + ".json")).write_text(text)
    truth = devkit.load_ground_truth(open_store([str(tmp_path)]), "v1.0-mini", heard)
    with pytest.raises(DataError, match="has an annotated box") as caught:
        devkit.check_ground_truth(truth)
    assert "--format-only" in caught.value.do


@pytest.mark.parametrize("block", [13, 1 << 20])
def test_big_tables_are_read_row_by_row_as_json_reads_them(tiny, heard, monkeypatch, block):
    whole = json_rows.text_blocks
    monkeypatch.setattr(devkit_tables, "text_blocks", lambda store, path: whole(store, path, block))
    truth = devkit.load_ground_truth(open_store([tiny.root]), "v1.0-mini", heard)
    folder = Path(tiny.root) / "v1.0-mini"
    for name in ("sample_annotation", "sample_data", "ego_pose"):
        rows = {row["token"]: row for row in json.loads((folder / (name + ".json")).read_text())}
        mine = getattr(truth, name)
        assert mine and all(rows[row["token"]].get(key, row[key]) == row[key] for row in mine for key in row)
    assert len(truth.sample_annotation) == len(json.loads((folder / "sample_annotation.json").read_text()))


def test_annotations_of_other_scenes_are_left_out_and_change_nothing(tiny, truth, heard, tmp_path):
    tokens = tokens_of(tiny.val)[:1]
    part = devkit.load_ground_truth(open_store([tiny.root]), "v1.0-mini", heard, frozenset(tokens))
    assert len(part.sample_annotation) == 30 < len(truth.sample_annotation)  # ten boxes in three frames
    path = write(tmp_path / "r.json", tiny.val.infos)
    one, all_ = (
        devkit.score(nusc, path, tokens, "mini_val", str(tmp_path / "m"), heard) for nusc in (part, truth)
    )
    assert one == all_ and one["detail"]["pts_bbox_NuScenes/car_vel_err"] is not None
