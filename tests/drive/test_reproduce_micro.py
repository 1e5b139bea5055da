"""`reproduce micro_synth` as a person runs it: data, training, devkit; then mistakes on purpose.

Every mistake is made for real, with the commands and files that people make it with, and `reproduce` has to
name it first. What is wrong only at the evaluation takes the healthy training's checkpoint.
"""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bevrepro import cli
from bevrepro.drive.recipes import recipe

pytestmark = pytest.mark.slow
TRAIN, VAL = "nuscenes_infos_temporal_train.pkl", "nuscenes_infos_temporal_val.pkl"
RECIPE = recipe("micro_synth")
START_S = 600


def logged(folder):
    return sum(path.read_text().count('"loss"') for path in folder.glob("run/*.log.json"))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """The work folder of a whole reproduction, interrupted once in its training: two minutes on free cores.

    $BEVREPRO_MICRO names one that was made before, to look at one mistake without training first.
    """
    if os.environ.get("BEVREPRO_MICRO"):
        yield Path(os.environ["BEVREPRO_MICRO"])
        return
    folder = tmp_path_factory.mktemp("micro")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEVREPRO_STATE", str(folder / "state"))
        patch.setenv("BEVREPRO_CACHE", str(folder / "cache"))
        work = folder / "healthy"
        words = ["reproduce", "micro_synth", "--work-dir", str(work), "--gpus", "0"]
        command = [sys.executable, "-m", "bevrepro", *words]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + START_S
        while logged(work) < 3 and child.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=60) == 130 and not (work / "verdict.json").exists()
        assert cli.main(words) == 0
        yield work


@pytest.fixture
def work(healthy, tmp_path):
    """A new work folder with the same data and frames, nothing trained yet."""
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copytree(healthy / "data", folder / "data", copy_function=os.link)
    shutil.copytree(healthy / "infos", folder / "infos")
    return folder


@pytest.fixture
def reproduce(work, capsys):
    """Run it; returns (verdict.json, what was printed), and asserts that it is no pass."""

    def run(*words):
        capsys.readouterr()
        where = ["--work-dir", str(work), "--gpus", "0"]
        code = cli.main(["reproduce", "micro_synth", *where, *map(str, words)])
        verdict, printed = json.loads((work / "verdict.json").read_text()), capsys.readouterr().out
        assert code == 1 and not verdict["passed"] and printed.startswith(verdict["word"].upper() + ": ")
        assert verdict["next"].startswith("bevrepro ") and printed.endswith(f"Next: {verdict['next']}\n")
        assert f"Cause: {verdict['causes'][0]['name']} (from " in printed
        page = (work / "report.html").read_text()
        assert verdict["word"].upper() in page and verdict["causes"][0]["name"] in page
        return verdict, printed

    return run


def named(verdict):
    """The causes that were recorded, the first one first."""
    return [cause["name"] for cause in verdict["causes"] if cause["sure"]]


def where(work):
    return ["--data-root", str(work / "data" / "nuscenes"), "--infos", str(work / "infos"), "--gpus", "0"]


def train(work, *options):
    """The recipe's training with other options, by the user's own hand."""
    words = ["train", RECIPE.config, *where(work), "--work-dir", str(work / "run"), "--no-validate"]
    assert cli.main([*words, "--cfg-options", *RECIPE.cfg_options, *options]) == 0


def evaluate(work, checkpoint, *options):
    """By hand, where `reproduce --checkpoint` looks for it."""
    words = ["eval", RECIPE.config, str(checkpoint), *where(work), "--out", str(work / "eval")]
    assert cli.main([*words, *options]) == 0


def change(work, edit, *names):
    """Edit the frames of prepared files, and leave no twin behind."""
    for name in names or (TRAIN,):
        path = work / "infos" / name
        content = pickle.loads(path.read_bytes())
        edit(content["infos"])
        path.write_bytes(pickle.dumps(content))
        shutil.rmtree(path.with_suffix(".bev"))


def rename_keys(healthy, path, rename):
    torch = pytest.importorskip("torch")
    content = torch.load(healthy / "run" / "latest.pth", map_location="cpu", weights_only=False)
    content["state_dict"] = {rename(key): value for key, value in content["state_dict"].items()}
    torch.save(content, path)
    return path


def test_the_healthy_run_passes_although_it_was_interrupted(healthy):
    verdict = json.loads((healthy / "verdict.json").read_text())
    assert verdict["word"] == "pass" and verdict["causes"] == []
    page = (healthy / "report.html").read_text()
    assert "PASS" in page and "micro_synth" in page and "wanted 0.1680 to 0.3034" in page
    done = json.loads((healthy / "reproduce.json").read_text())["done"]
    assert done == ["doctor", "env", "data", "train", "eval"]
    assert len(json.loads((healthy / "run" / "run.json").read_text())["sessions"]) == 2


def test_the_first_steps_replay_to_the_last_digit(healthy, capsys):
    assert cli.main(["replay", str(healthy / "run"), "--steps", "20"]) == 0
    assert capsys.readouterr().out.startswith("equal: 20 steps")


def test_a_replay_with_other_threads_keeps_to_its_tolerance(healthy, capsys, monkeypatch):
    recorded = json.loads((healthy / "run" / "run.json").read_text())["sessions"][0]["host"]["threads"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1" if recorded > 1 else "2")
    assert cli.main(["replay", str(healthy / "run"), "--steps", "20"]) == 0
    printed = capsys.readouterr().out
    assert "compared within 0.01 up to step 10, 0.1 up to step 20" in printed
    assert f"threads: {recorded} then" in printed


def test_boxes_of_the_other_convention_are_named_before_training(work, reproduce):
    def swap(infos):
        for info in infos:
            boxes = np.array(info["gt_boxes"])
            boxes[:, [3, 4]] = boxes[:, [4, 3]]
            boxes[:, 6] = -boxes[:, 6] - np.pi / 2
            info["gt_boxes"] = boxes

    change(work, swap)
    verdict, printed = reproduce()
    assert named(verdict)[0] == "box convention" and verdict["next"].startswith("bevrepro data prepare")
    assert verdict["word"] == "not reached" and not (work / "run" / "latest.pth").exists()


def test_half_the_frames_are_missed_before_training(work, reproduce):
    change(work, lambda infos: infos.__delitem__(slice(len(infos) // 2, None)))
    verdict, printed = reproduce()
    assert named(verdict)[0] == "incomplete data" and verdict["next"].startswith("bevrepro data verify")
    assert "40 frames instead of 80" in printed and not (work / "run" / "latest.pth").exists()


@pytest.mark.parametrize("prepared", [True, False])
def test_half_the_images_are_missed_before_training(work, reproduce, prepared):
    for image in sorted((work / "data" / "nuscenes" / "samples").glob("CAM_*/*"))[::2]:
        image.unlink()
    if not prepared:
        shutil.rmtree(work / "infos")
    verdict, printed = reproduce()
    assert named(verdict)[0] == "incomplete data" and "CAM_" in printed
    assert verdict["next"].startswith("bevrepro data verify") and not (work / "run" / "latest.pth").exists()


def test_history_that_ends_with_every_frame_is_named_before_training(work, reproduce):
    change(work, lambda infos: [info.update(scene_token=info["token"]) for info in infos])
    verdict, printed = reproduce()
    assert named(verdict)[0] == "history lost" and "80 scenes instead of 8" in printed
    assert not (work / "run" / "latest.pth").exists()


def test_can_data_of_zeros_is_named(healthy, work, reproduce):
    change(work, lambda infos: [info.update(can_bus=np.zeros(18)) for info in infos], TRAIN, VAL)
    verdict, _ = reproduce("--checkpoint", healthy / "run" / "latest.pth")
    assert named(verdict)[0] == "history without CAN data" and verdict["map"] is not None


@pytest.mark.parametrize("rename, cause", [
    (lambda key: key.replace("pts_bbox_head", "head"), "keys that do not match"),
    (lambda key: "ema_" + key.replace(".", "_"), "a moving average alone (EMA)"),
])  # fmt: skip
def test_keys_that_do_not_match_are_the_verdict(healthy, work, reproduce, rename, cause):
    path = rename_keys(healthy, work / "renamed.pth", rename)
    verdict, _ = reproduce("--checkpoint", path)
    assert named(verdict) == [cause] and verdict["next"] == f"bevrepro doctor ckpt {path}"
    assert verdict["word"] == "not reached"


def test_red_and_blue_exchanged_at_the_evaluation_are_named(healthy, work, reproduce):
    checkpoint = healthy / "run" / "latest.pth"
    evaluate(
        work, checkpoint, "--split", "train", "--subset", "labelled", "--cfg-options", "data.to_rgb=False"
    )
    verdict, printed = reproduce("--checkpoint", checkpoint, "--from", "compare")
    assert named(verdict)[0] == "colours of the images" and "data.to_rgb = false instead of true" in printed


def test_another_split_is_named(healthy, work, reproduce):
    checkpoint = healthy / "run" / "latest.pth"
    evaluate(work, checkpoint, "--split", "val")
    verdict, printed = reproduce("--checkpoint", checkpoint, "--from", "compare")
    assert named(verdict)[0] == "another split" and verdict["word"] == "not comparable"
    assert "scored on mini_val" in printed and "--split train --subset labelled" in verdict["next"]


def test_a_training_without_history_is_known_by_its_record(work, reproduce):
    train(work, "data.queue_length=1")
    verdict, printed = reproduce("--from", "eval")
    assert named(verdict) == ["history lost"]
    assert "a queue of frames of length 1 instead of 2" in printed


def test_a_learning_rate_that_does_not_fit_is_the_cause(work, reproduce):
    train(work, "schedule.lr=1e-5")
    verdict, printed = reproduce("--from", "eval")
    assert verdict["word"] == "below" and named(verdict) == ["batch and learning rate"]
    assert "learning rate 1e-05 instead of 0.001" in printed
    assert verdict["next"] == f"bevrepro reproduce micro_synth --work-dir {Path(work)}_again"
