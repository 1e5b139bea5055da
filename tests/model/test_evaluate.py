import dataclasses
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bevformer import evaluate
from bevformer.checkpoint import save_checkpoint
from bevformer.config import override, preset, to_dict
from bevformer.data.dataset import ground_truth
from bevformer.data.infos import load_infos
from bevformer.data.store import open_store
from bevformer.detector import build_model
from bevformer.errors import CheckpointError, ConfigError, DataError, DiskError
from bevformer.types import Detections, VideoMemory

SMALL = ["head.num_query=20", "head.max_per_img=20", "encoder.bev_h=10", "encoder.bev_w=10"]


def arguments(synth, out, *more, checkpoint="weights.pth"):
    head = [
        "bevformer_micro",
        str(checkpoint),
        "--data-root",
        synth.root,
        "--infos",
        synth.infos,
        "--gpus",
        "0",
    ]
    return [*head, "--out", str(out), *more]


@pytest.fixture
def perfect(synth, monkeypatch):
    """A model that knows the answers; its .seen lists (sample, scene of the memory it was given)."""
    infos = {}
    for split in ("train", "val"):
        for info in load_infos(os.path.join(synth.infos, f"nuscenes_infos_temporal_{split}.pkl")).infos:
            infos[info["token"]] = info
    seen = []

    def step(frame, memory):
        boxes, labels = ground_truth(infos[frame.meta.sample_token], (-61.2, -61.2, -10, 61.2, 61.2, 10))
        seen.append((frame.meta.sample_token, memory and memory.scene_token))
        found = Detections(torch.tensor(boxes), torch.ones(len(boxes)), torch.tensor(labels))
        return found, VideoMemory(frame.meta.scene_token, None, np.zeros(3), 0.0)

    step.seen = seen
    monkeypatch.setattr(evaluate, "load_model", lambda *given: step)
    return step


def test_right_answers_score_one(synth, perfect, heard, tmp_path):
    assert evaluate.main(arguments(synth, tmp_path), heard) == 0
    written = json.loads((tmp_path / "eval.json").read_text())
    assert written["all"]["mAP"] >= 0.99 and written["all"]["NDS"] >= 0.99
    assert written["all"]["split"] == "mini_val" and written["all"]["complete"] is True
    assert (tmp_path / "metrics" / "all" / "metrics_summary.json").is_file()
    assert json.loads(json.dumps(heard.results[0]["metrics"])) == written and heard.done == 3


def test_one_pass_is_scored_on_several_subsets(synth, perfect, heard, tmp_path):
    subsets = ["--split", "train", "--subset", "labelled", "--subset", "between"]
    evaluate.main(arguments(synth, tmp_path, *subsets), heard)
    written = json.loads((tmp_path / "eval.json").read_text())
    assert len(perfect.seen) == 3
    assert [(name, part["num_samples"], part["mAP"] > 0.99) for name, part in written.items()] == [
        ("labelled", 1, True),
        ("between", 2, True),
    ]
    results = json.loads((tmp_path / "results_nusc.json").read_text())["results"]
    assert list(results) == [token for token, _ in perfect.seen]


def test_the_memory_of_one_frame_reaches_the_next(synth, perfect, heard, tmp_path):
    evaluate.main(arguments(synth, tmp_path, "--format-only"), heard)
    infos = load_infos(os.path.join(synth.infos, "nuscenes_infos_temporal_val.pkl")).infos
    scene = infos[0]["scene_token"]
    assert perfect.seen == [(infos[0]["token"], None), (infos[1]["token"], scene), (infos[2]["token"], scene)]


def test_format_only_writes_results_and_no_score(synth, perfect, heard, tmp_path):
    evaluate.main(arguments(synth, tmp_path, "--format-only"), heard)
    assert os.listdir(tmp_path) == ["results_nusc.json"]


def test_what_a_killed_evaluation_left_is_swept(synth, perfect, heard, tmp_path):
    for name in ("part0", "part1.4404.tmp", "4403.tmp"):
        (tmp_path / ("results_nusc.json." + name)).write_text("")
    (tmp_path / "results_nusc.json.bak").write_text("mine")
    assert evaluate.main(arguments(synth, tmp_path, "--format-only"), heard) == 0
    assert sorted(os.listdir(tmp_path)) == ["results_nusc.json", "results_nusc.json.bak"]


def test_a_limited_run_says_that_it_is_not_complete(synth, perfect, heard, tmp_path):
    evaluate.main(arguments(synth, tmp_path, "--limit", "2"), heard)
    entry = json.loads((tmp_path / "eval.json").read_text())["all"]
    assert entry["num_samples"] == 2 and entry["complete"] is False


def test_loading_in_other_processes_changes_nothing(synth, perfect, heard, tmp_path):
    evaluate.main(arguments(synth, tmp_path / "a", "--format-only"), heard)
    evaluate.main(arguments(synth, tmp_path / "b", "--format-only", "--workers", "1"), heard)
    a, b = (tmp_path / name / "results_nusc.json" for name in "ab")
    assert a.read_bytes() == b.read_bytes()


def test_a_model_is_evaluated_from_archives_as_from_folders(synth, heard, tmp_path):
    torch.manual_seed(0)
    model = build_model(override(preset("bevformer_micro"), SMALL))
    save_checkpoint(str(tmp_path / "iter_0.pth"), model)
    roots = [word for path in synth.archives for word in ("--data-root", path)]
    for name, more in (("folder", []), ("archives", roots)):
        argv = arguments(synth, tmp_path / name, *more, checkpoint=tmp_path / "iter_0.pth")
        if more:
            argv.remove("--data-root"), argv.remove(synth.root)
        evaluate.main([*argv, "--limit", "1", "--cfg-options", *SMALL], heard)
    folder, archives = (tmp_path / name / "results_nusc.json" for name in ("folder", "archives"))
    assert folder.read_bytes() == archives.read_bytes()
    assert heard.results[0]["metrics"]["all"]["mAP"] < 0.05


def test_a_diverged_checkpoint_is_refused(synth, heard, tmp_path):
    model = build_model(override(preset("bevformer_micro"), SMALL))
    torch.nn.init.constant_(model.pts_bbox_head.bev_embedding.weight, float("nan"))
    save_checkpoint(str(tmp_path / "broken.pth"), model)
    argv = arguments(synth, tmp_path / "out", "--cfg-options", *SMALL, checkpoint=tmp_path / "broken.pth")
    with pytest.raises(CheckpointError, match="1 weights of .* are not finite .*bev_embedding"):
        evaluate.main(argv, heard)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content, seen", [(None, "no such checkpoint"), (b"PK\3\4", "truncated"), (b"", "is empty")]
)
def test_a_broken_checkpoint_is_refused_by_name(synth, heard, tmp_path, content, seen):
    path = tmp_path / "epoch_1.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=seen):
        evaluate.main(arguments(synth, tmp_path / "out", checkpoint=path), heard)


def test_fresh_weights_are_not_made_up(synth, heard, tmp_path):
    with pytest.raises(CheckpointError, match="iter_0.pth"):
        evaluate.main(arguments(synth, tmp_path, checkpoint="none"), heard)


def test_infos_that_miss_frames_are_refused_before_the_model_runs(
    synth, tiny, perfect, heard, tmp_path, monkeypatch
):
    import bevformer.data.infos as module

    whole = module.load_infos

    def part(path):
        infos = whole(path)
        return dataclasses.replace(infos, infos=list(infos.infos)[:-1])

    monkeypatch.setattr(module, "load_infos", part)
    with pytest.raises(DataError, match="the infos hold 2 of the 3 samples of mini_val"):
        evaluate.main(arguments(synth, tmp_path), heard)
    assert perfect.seen == []


def test_infos_of_other_data_are_refused(synth, tiny, perfect, heard, tmp_path):
    argv = arguments(synth, tmp_path)
    argv[argv.index(synth.root)] = tiny.root
    with pytest.raises(DataError, match="made from other data"):
        evaluate.main(argv, heard)


def test_an_empty_subset_is_refused(synth, perfect, heard, tmp_path):
    argv = arguments(synth, tmp_path, "--subset", "between", "--cfg-options", "data.label_every=1")
    with pytest.raises(DataError, match="no frames in the subset 'between'"):
        evaluate.main(argv, heard)


def test_configurations_come_from_presets_and_work_folders(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_dict(preset("bevformer_base"))))
    assert evaluate.read_config(str(tmp_path / "config.json")) == preset("bevformer_base")
    assert evaluate.read_config("bevformer_tiny") == preset("bevformer_tiny")


@pytest.mark.parametrize(
    "name, text", [("bevformer_huge", None), ("a.json", None), ("b.json", "{"), ("c.json", "3")]
)
def test_unknown_configurations_are_refused(tmp_path, monkeypatch, name, text):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError):
        evaluate.read_config(name)


def test_gpus_are_not_promised(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert evaluate.choose_device(0).type == "cpu"
    for count in (1, -1):
        with pytest.raises(ConfigError, match=f"--gpus {count}"):
            evaluate.choose_device(count)


def test_several_gpus_need_a_process_each(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    with pytest.raises(ConfigError, match="one of 1 processes"):
        evaluate.choose_device(8)


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(DiskError, match="cannot make the folder"):
        evaluate.make_folder(str(tmp_path / "out"))


def test_upstreams_keys_and_the_speed_with_loading_are_in_the_result(synth, perfect, heard, tmp_path):
    evaluate.main(arguments(synth, tmp_path), heard)
    told, entry = heard.results[0], json.loads((tmp_path / "eval.json").read_text())["all"]
    assert told["pts_bbox_NuScenes/NDS"] == entry["NDS"] and told["pts_bbox_NuScenes/mAP"] == entry["mAP"]
    speed = entry["speed"]
    assert (
        speed["frames_per_second"] == pytest.approx(3 / speed["seconds"], rel=0.5) and speed["processes"] == 1
    )
    assert "loading" in speed["timed"]
    assert {"target", "digest", "python", "torch", "numpy"} <= set(entry["environment"])


def test_the_devkits_loader_takes_what_format_only_writes(synth, perfect, heard, tmp_path):
    from nuscenes.eval.common.loaders import load_prediction
    from nuscenes.eval.detection.data_classes import DetectionBox

    evaluate.main(arguments(synth, tmp_path, "--format-only"), heard)
    boxes, meta = load_prediction(str(tmp_path / "results_nusc.json"), 500, DetectionBox)
    assert list(boxes.sample_tokens) == [token for token, _ in perfect.seen] and len(boxes.all) > 30
    assert set(meta) == {"use_camera", "use_lidar", "use_radar", "use_map", "use_external"}


@pytest.fixture
def written(synth, perfect, heard, tmp_path):
    """Results of the whole split, and the words that score them."""
    evaluate.main(arguments(synth, tmp_path / "one", "--format-only"), heard)
    heard.results.clear()
    path = tmp_path / "one" / "results_nusc.json"
    argv = arguments(synth, tmp_path / "two", "--results", str(path))
    argv.remove("weights.pth")
    return path, argv


def test_a_results_file_is_scored_without_a_checkpoint(written, heard, tmp_path):
    path, argv = written
    assert evaluate.main(argv, heard) == 0
    entry = json.loads((tmp_path / "two" / "eval.json").read_text())["all"]
    assert entry["mAP"] >= 0.99 and entry["complete"] is True and "speed" not in entry
    assert evaluate.main([*argv, "--format-only"], heard) == 0
    assert "is what the test server takes: 3 samples" in heard.notes[-1]


def test_a_submission_needs_every_sample_of_the_test_set(tmp_path):
    (tmp_path / "v1.0-test").mkdir()
    (tmp_path / "v1.0-test" / "sample.json").write_text('[{"token": "a"}, {"token": "b"}]')
    part = [{"token": "a"}]
    for version, wanted in (("v1.0-test", ["a", "b"]), ("v1.0-mini", ["a"])):
        infos = SimpleNamespace(version=version, infos=part)
        assert evaluate.tokens_to_submit(infos, open_store([str(tmp_path)])) == wanted


def test_results_without_a_sample_or_of_the_other_split_are_refused(written, heard):
    path, argv = written
    with pytest.raises(DataError, match="they are of mini_val"):
        evaluate.main([*argv, "--split", "train"], heard)
    whole = json.loads(path.read_text())
    whole["results"].popitem()
    path.write_text(json.dumps(whole))
    with pytest.raises(DataError, match="no entry for 1 of 3 samples"):
        evaluate.main(argv, heard)
    with pytest.raises(DataError, match="lacks 1 of 3"):
        evaluate.main([*argv, "--format-only"], heard)


@pytest.mark.parametrize(
    "words", [[], ["a.pth", "--results", "r.json"], ["--results", "r.json", "--limit", "2"]]
)
def test_a_checkpoint_or_results_have_to_be_given(words, capsys):
    with pytest.raises(SystemExit) as caught:
        evaluate.parse(["bevformer_micro", *words, "--data-root", "r", "--infos", "i"])
    assert caught.value.code == 2 and capsys.readouterr().err
