"""`reproduce micro_synth` as a person runs it: data, training, devkit; then five mistakes on purpose."""

import json
import pickle
import shutil

import numpy as np
import pytest

from bevrepro import cli
from bevrepro.drive.recipes import recipe

pytestmark = pytest.mark.slow
TRAIN = "nuscenes_infos_temporal_train.pkl"


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """The work folder of a whole reproduction: about two minutes on two free cores."""
    folder = tmp_path_factory.mktemp("micro")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEVREPRO_STATE", str(folder / "state"))
        patch.setenv("BEVREPRO_CACHE", str(folder / "cache"))
        work = folder / "healthy"
        words = ["reproduce", "micro_synth", "--work-dir", str(work), "--gpus", "0"]
        assert cli.main(words) == 0
        yield work


@pytest.fixture
def work(healthy, tmp_path):
    """A new work folder with the same data and frames, nothing trained yet."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "data").symlink_to(healthy / "data")
    shutil.copytree(healthy / "infos", folder / "infos")
    return folder


@pytest.fixture
def reproduce(work, capsys):
    """Run it; returns (exit code, verdict.json, what was printed)."""

    def run(*words):
        capsys.readouterr()
        code = cli.main(
            ["reproduce", "micro_synth", "--work-dir", str(work), "--gpus", "0", *map(str, words)]
        )
        return code, json.loads((work / "verdict.json").read_text()), capsys.readouterr().out

    return run


def train(work, *options):
    """The recipe's training with other options, by the user's own hand."""
    known = recipe("micro_synth")
    where = ["--data-root", str(work / "data" / "nuscenes"), "--infos", str(work / "infos")]
    words = ["train", known.config, *where, "--work-dir", str(work / "run"), "--gpus", "0", "--no-validate"]
    assert cli.main([*words, "--cfg-options", *known.cfg_options, *options]) == 0


def change(work, edit):
    path = work / "infos" / TRAIN
    content = pickle.loads(path.read_bytes())
    edit(content["infos"])
    path.write_bytes(pickle.dumps(content))


def test_the_healthy_run_passes_and_its_page_says_so(healthy):
    verdict = json.loads((healthy / "verdict.json").read_text())
    assert verdict["word"] == "pass" and verdict["causes"] == []
    page = (healthy / "report.html").read_text()
    assert "PASS" in page and "micro_synth" in page
    done = json.loads((healthy / "reproduce.json").read_text())["done"]
    assert done == ["doctor", "env", "data", "train", "eval"]


def test_the_first_steps_replay_to_the_last_digit(healthy, capsys):
    assert cli.main(["replay", str(healthy / "run"), "--steps", "20"]) == 0
    assert capsys.readouterr().out.startswith("equal: 20 steps")


def test_boxes_of_the_other_convention_are_named_before_training(work, reproduce):
    def swap(infos):
        for info in infos:
            boxes = np.array(info["gt_boxes"])
            boxes[:, [3, 4]] = boxes[:, [4, 3]]
            boxes[:, 6] = -boxes[:, 6] - np.pi / 2
            info["gt_boxes"] = boxes

    change(work, swap)
    code, verdict, printed = reproduce()
    assert code == 1 and verdict["causes"][0]["name"] == "box convention"
    assert "NOT REACHED" in printed and not (work / "run" / "latest.pth").exists()


def test_half_the_data_is_named_before_training(work, reproduce):
    change(work, lambda infos: infos.__delitem__(slice(len(infos) // 2, None)))
    code, verdict, printed = reproduce()
    assert code == 1 and verdict["causes"][0]["name"] == "incomplete data"
    assert "40 frames instead of 80" in printed


def test_keys_that_do_not_match_are_the_verdict(healthy, work, reproduce):
    torch = pytest.importorskip("torch")
    content = torch.load(healthy / "run" / "latest.pth", map_location="cpu", weights_only=False)
    content["state_dict"] = {
        key.replace("pts_bbox_head", "head"): v for key, v in content["state_dict"].items()
    }
    torch.save(content, work / "renamed.pth")
    code, verdict, printed = reproduce("--checkpoint", work / "renamed.pth")
    assert code == 1 and verdict["causes"][0]["name"] == "keys that do not match"
    assert "bevrepro doctor ckpt" in printed


def test_a_run_without_history_is_known_by_its_record(work, reproduce):
    train(work, "data.queue_length=1")
    code, verdict, printed = reproduce("--from", "eval")
    assert [cause["name"] for cause in verdict["causes"] if cause["sure"]] == ["history lost"]
    assert "a queue of frames of length 1 instead of 2" in printed
    assert code == 1 and not verdict["passed"]


def test_a_learning_rate_that_does_not_fit_is_the_cause(work, reproduce):
    train(work, "schedule.lr=1e-5")
    code, verdict, printed = reproduce("--from", "eval")
    assert code == 1 and verdict["word"] == "below"
    assert verdict["causes"][0]["name"] == "batch and learning rate"
    assert "learning rate 1e-05 instead of 0.001" in printed
