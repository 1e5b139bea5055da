"""Which checkpoints are kept, and which one a run goes on from when some are damaged."""

import errno
import os
import shutil
from dataclasses import replace

import pytest
import torch
from test_train import SHORT, play, press

from bevformer import __main__, atomic, checkpoint, trainlog
from bevformer.checkpoint import load_checkpoint
from bevformer.errors import CheckpointError, DiskError
from bevformer.loop import Interrupted
from bevformer.saving import Saver, keep_last_of
from bevformer.trainlog import read_losses

EPOCHS = replace(SHORT, schedule=replace(SHORT.schedule, max_steps=0, max_epochs=4))  # 5 steps each


def files(folder):
    return sorted(name for name in os.listdir(folder) if name.endswith(".pth"))


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-300])


def test_the_last_k_epochs_are_kept_and_the_initial_weights(tmp_path):
    play(tmp_path, EPOCHS, keep_last=2)
    assert files(tmp_path) == ["epoch_3.pth", "epoch_4.pth", "iter_0.pth", "latest.pth"]


def test_a_kill_between_the_last_file_and_the_deletion_leaves_none_too_many(tmp_path, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(Saver, "thin_out", lambda saver, latest: None)
        play(tmp_path / "a", EPOCHS, keep_last=2)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    play(tmp_path / "a", EPOCHS, keep_last=2, resume="auto")
    assert files(tmp_path / "a") == ["epoch_3.pth", "epoch_4.pth", "iter_0.pth", "latest.pth"]
    play(tmp_path / "b", EPOCHS, keep_last=1, resume=str(tmp_path / "a" / "epoch_4.pth"))
    assert len(files(tmp_path / "b")) == 6  # it goes on from another folder's file: these are somebody's


def test_all_epochs_are_kept_by_default_and_five_of_a_recipe_of_steps(tmp_path):
    play(tmp_path, EPOCHS)
    assert files(tmp_path)[:4] == ["epoch_%d.pth" % n for n in (1, 2, 3, 4)]
    assert [keep_last_of(asked, False) for asked in (None, 0, 2)] == [5, None, 2]


def test_nothing_is_deleted_while_the_newest_file_cannot_be_read_back(tmp_path, monkeypatch):
    def broken(path):
        raise CheckpointError("%s is broken" % path)

    monkeypatch.setattr("bevformer.saving.load_checkpoint", broken)
    play(tmp_path, EPOCHS, keep_last=1)
    assert len(files(tmp_path)) == 6


@pytest.mark.parametrize(
    "damage", [cut_short, lambda path: path.write_bytes(b""), lambda path: path.unlink()]
)
def test_a_damaged_latest_falls_back_to_the_newest_whole_one(tmp_path, capsys, damage):
    whole = play(tmp_path / "whole", EPOCHS)["weights_digest"]
    with pytest.raises(Interrupted):
        play(tmp_path / "cut", EPOCHS, spoil={17: press(15)})
    damage(tmp_path / "cut" / "iter_17.pth")
    assert play(tmp_path / "cut", EPOCHS, resume="auto")["weights_digest"] == whole
    assert "Going on from the newest whole checkpoint" in capsys.readouterr().err
    assert (tmp_path / "cut" / "epoch_3.pth").exists()


def test_a_missing_latest_is_no_fresh_start(tmp_path, capsys):
    play(tmp_path, EPOCHS)
    (tmp_path / "latest.pth").unlink()
    play(tmp_path, EPOCHS, resume="auto")
    assert "latest.pth is missing. Going on from" in capsys.readouterr().err


def test_a_run_without_any_whole_checkpoint_is_not_started_over(tmp_path):
    play(tmp_path)
    for name in files(tmp_path):
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(CheckpointError) as caught:
        play(tmp_path, resume="auto")
    assert "truncated" in caught.value.seen and "No other checkpoint" in caught.value.why


def test_a_full_disk_stops_with_a_sentence_and_the_last_checkpoint(tmp_path, monkeypatch):
    written = []

    def fill(content, stream):
        written.append(1)
        if len(written) == 3:
            stream.write(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(content, stream)

    plain = checkpoint.torch.save
    monkeypatch.setattr(checkpoint.torch, "save", fill)
    with pytest.raises(DiskError, match="epoch_2.pth: No space left"):
        play(tmp_path, EPOCHS)
    assert files(tmp_path) == ["epoch_1.pth", "iter_0.pth", "latest.pth"]
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".epoch")]
    monkeypatch.undo()
    shutil.copytree(str(tmp_path), str(tmp_path / "copy"), symlinks=True)
    assert play(tmp_path / "copy", EPOCHS, resume="auto")["steps"] == 20


def test_a_work_folder_that_cannot_be_written_is_said_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "w"):
        with pytest.raises(DiskError, match="cannot write into the work folder"):
            play(folder)


def test_logs_stay_in_order_when_the_clock_is_set_back(tmp_path, monkeypatch):
    clock = ["20260102_000000", "20260101_000000", "20260101_000000"]
    monkeypatch.setattr(trainlog.time, "strftime", lambda form: clock.pop(0))
    paths = []
    for _ in range(3):
        paths.append(trainlog._fresh_path(str(tmp_path)))
        open(paths[-1], "w").close()
    assert [os.path.basename(path) for path in paths] == [
        "20260102_000000.log", "20260102_000000_1.log", "20260102_000000_2.log"]  # fmt: skip


def test_of_two_sessions_that_log_a_step_the_later_counts(tmp_path):
    for number, name in enumerate(("20260101_000000", "20260101_000000_2", "20260101_000000_10")):
        (tmp_path / (name + ".log.json")).write_text('{"mode": "train", "step": 10, "loss": %d}\n' % number)
    assert [line["loss"] for line in read_losses(str(tmp_path))] == [2]


def test_a_link_that_cannot_be_made_is_a_copy(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(atomic.os, "symlink", refuse)
    play(tmp_path, EPOCHS, keep_last=1)
    assert not (tmp_path / "latest.pth").is_symlink()
    assert (tmp_path / "latest.pth").read_bytes() == (tmp_path / "epoch_4.pth").read_bytes()


def of_mmcv(folder):
    """What mmcv's runner leaves: its config is Python text, and there is no digest."""
    content = torch.load(str(folder / "latest.pth"))
    meta = {"iter": 10, "epoch": 2, "config": "model = dict(type='BEVFormer')", "mmcv_version": "1.4.0"}
    torch.save(dict(content, meta=meta), str(folder / "foreign.pth"))
    return folder / "foreign.pth"


def test_a_checkpoint_of_mmcv_is_read_but_no_run_goes_on_from_it(tmp_path):
    play(tmp_path / "a", EPOCHS)
    path = of_mmcv(tmp_path / "a")
    assert load_checkpoint(str(path))["meta"]["mmcv_version"] == "1.4.0"
    with pytest.raises(CheckpointError, match="configuration cannot be read"):
        play(tmp_path / "b", EPOCHS, resume=str(path))


def test_a_named_checkpoint_that_is_cut_short_is_never_replaced_by_another(tmp_path):
    play(tmp_path, EPOCHS)
    cut_short(tmp_path / "epoch_4.pth")
    with pytest.raises(CheckpointError, match="epoch_4.pth"):
        play(tmp_path, EPOCHS, resume=str(tmp_path / "epoch_4.pth"))


def test_a_disk_that_is_full_for_the_log_is_a_sentence(tmp_path, monkeypatch, capfd):
    """The real errno: /dev/full takes the log's lines."""
    for name in ("full", "full.json"):
        (tmp_path / name).symlink_to("/dev/full")
    monkeypatch.setattr(trainlog, "_fresh_path", lambda folder: str(tmp_path / "full"))
    monkeypatch.setattr(__main__, "run", lambda argv, talk: play(tmp_path / "w"))
    assert __main__.main(["train"]) == 8
    assert "No space left" in capfd.readouterr().err


def test_a_folder_that_loses_its_rights_is_a_sentence(tmp_path, monkeypatch):
    """The temporary file cannot be removed either; what could not be written is what counts."""

    def refuse(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(DiskError, match="could not write .*run.json: Permission denied"):
        atomic.write_atomically(str(tmp_path / "run.json"), "{}")
