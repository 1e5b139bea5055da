"""Going on with a run: everything that counts comes back, and nobody else is in its folder."""

import json
import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_train import SHORT, FakeData, FakeModel, play, press

from bevformer import amp, evaluate, saving, train
from bevformer.amp import Precision
from bevformer.checkpoint_read import read_file
from bevformer.errors import ConfigError, UserError
from bevformer.loop import Interrupted
from bevformer.runstate import Options
from bevformer.saving import open_work_dir
from bevformer.talk import Talk
from bevformer.validation import Validator

HERE = Path(__file__).parent
EPOCHS = replace(SHORT, schedule=replace(SHORT.schedule, max_steps=0, max_epochs=4))  # 5 steps each


class Infinite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 0

    @staticmethod
    def backward(ctx, grad):
        return grad * float("inf")


def overflow(loss):
    return loss + Infinite.apply(loss)


def test_the_loss_scale_and_its_history_come_back(tmp_path, monkeypatch):
    """fp16's bookkeeping on a CPU; the scale grows three good steps after the overflow, behind the stop."""
    monkeypatch.setattr(amp, "GROW_AFTER", 3)
    monkeypatch.setattr(train, "choose_precision", lambda *args: Precision("fp16"))
    monkeypatch.setattr(Precision, "autocast", lambda self, device: nullcontext())
    play(tmp_path / "whole", spoil={4: overflow})
    with pytest.raises(Interrupted):
        play(tmp_path / "cut", spoil={4: overflow, 6: press(signal.SIGTERM)})
    assert read_file(str(tmp_path / "cut" / "latest.pth"))["scaler"] == {
        "scale": 2.0**16, "good_steps": 2.0, "overflows": 0.0}  # fmt: skip
    play(tmp_path / "cut", resume="auto")
    whole, cut = (read_file(str(tmp_path / name / "latest.pth")) for name in ("whole", "cut"))
    assert whole["meta"]["digest"] == cut["meta"]["digest"] and set(whole["meta"]["digest"]) >= {"scaler"}
    assert whole["scaler"]["scale"] == 2.0**18


def test_the_optimiser_comes_back_and_not_the_weights_alone(tmp_path):
    """The test of the test: without AdamW's moments the end is another."""
    play(tmp_path / "whole")
    with pytest.raises(Interrupted):
        play(tmp_path / "cut", spoil={6: press(signal.SIGTERM)})
    content = read_file(str(tmp_path / "cut" / "iter_6.pth"))
    content["optimizer"]["state"] = {}
    del content["meta"]["digest"]
    torch.save(content, str(tmp_path / "without.pth"))
    digests = [
        read_file(str(tmp_path / name / "latest.pth"))["meta"]["digest"]
        for name, resume in (("whole", ""), ("cut", "auto"), ("other", str(tmp_path / "without.pth")))
        if not resume or play(tmp_path / name, resume=resume)
    ]
    assert digests[0] == digests[1] and digests[1]["state_dict"] != digests[2]["state_dict"]


def test_refusals_name_the_file_and_not_the_word_auto(tmp_path):
    play(tmp_path, seed=1)
    other = replace(SHORT, schedule=replace(SHORT.schedule, lr=0.5))
    for config, options in ((other, {}), (SHORT, {"seed": 2}), (SHORT, {"emulate_gpus": 2})):
        with pytest.raises(ConfigError, match=r"iter_12\.pth") as caught:
            play(tmp_path, config, resume="auto", **options)
        assert " auto " not in caught.value.seen


def test_a_session_that_was_killed_before_its_first_checkpoint_stays_in_the_record(tmp_path):
    with pytest.raises(Interrupted):
        play(tmp_path, EPOCHS, spoil={3: press(signal.SIGTERM)})
    (tmp_path / "iter_3.pth").unlink()
    play(tmp_path, EPOCHS, resume="auto")
    sessions = json.loads((tmp_path / "run.json").read_text())["sessions"]
    assert [(each["first_step"], each["status"]) for each in sessions] == [
        (0, "interrupted"),
        (0, "finished"),
    ]


def test_a_folder_belongs_to_one_training_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(saving.time, "sleep", lambda s: None)
    reading, writing = os.pipe()
    other = os.fork()
    if other == 0:
        claim = open_work_dir(str(tmp_path))
        os.write(writing, b"held" if claim else b"free")
        signal.pause()
    try:
        assert os.read(reading, 4) == b"held"
        with pytest.raises(UserError, match="a training that still runs: process %d" % other) as caught:
            play(tmp_path)
        assert "--work-dir" in caught.value.do and not list(tmp_path.glob("*.pth"))
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    assert play(tmp_path)["steps"] == 12


def test_a_file_system_without_locks_is_no_obstacle(tmp_path, monkeypatch):
    import errno
    import fcntl

    def refuse(*args):
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    assert open_work_dir(str(tmp_path)) is None and play(tmp_path)["steps"] == 12


def test_what_a_killed_run_left_half_written_is_cleared_away_and_nothing_else(tmp_path):
    left = [".epoch_2.pth.abc", ".iter_5.pth.x1", ".run.json.q", ".latest.pth.new", ".frames.txt.z"]
    others = [".hidden", "mine.pth", "epoch_9.pth.bak", ".notes.txt.swp"]
    for name in left + others:
        (tmp_path / name).write_bytes(b"1")
    play(tmp_path)
    assert not set(left) & set(os.listdir(tmp_path)) and set(others) <= set(os.listdir(tmp_path))


@pytest.mark.slow
def test_killed_before_any_operation_on_a_file_it_ends_the_same():
    """Every place between two steps of saving, linking, thinning out and recording: crash_points.py."""
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(HERE.parents[1] / "model"), str(HERE)]))
    done = subprocess.run(
        [sys.executable, str(HERE / "crash_points.py")],
        env=dict(env, OMP_NUM_THREADS="1"), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    killed, distinct = map(int, done.stdout.split()[-2:])
    assert killed > 40 and distinct == 1


def test_a_validation_that_was_cut_off_is_done_on_resume_and_once(tmp_path, monkeypatch):
    """Ended between a checkpoint and its score: the checkpoint is there, so nothing would come back to it."""
    scored = []

    def score(args, talk):
        scored.append(os.path.basename(args.checkpoint))
        if len(scored) == 2:
            raise KeyboardInterrupt
        talk.result(metrics={})
        return 0

    monkeypatch.setattr(evaluate, "_main", score)
    validator = Validator(1, ["--infos", "v", "--data-root", "d"], by_epoch=True)

    def go(**options):
        chosen = Options(str(tmp_path), **options)
        build = lambda config: FakeModel()
        return train.run(EPOCHS, FakeData(), chosen, Talk(False), build, validator=validator)

    with pytest.raises(KeyboardInterrupt):
        go()
    for _ in range(2):  # the second time there is nothing left to do
        go(resume="auto")
    assert scored == ["epoch_%d.pth" % epoch for epoch in (1, 2, 2, 3, 4)]
    validations = json.loads((tmp_path / "run.json").read_text())["validations"]
    assert [each["step"] for each in validations] == [5, 10, 15, 20]
