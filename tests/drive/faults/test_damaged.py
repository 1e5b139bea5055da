"""What a power loss or a wrong copy leaves: files that are cut, full of zeros, changed, gone, or foreign."""

import json
import os
import shutil

import pytest
from small_training import proof

pytestmark = pytest.mark.slow


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def zeros(path):
    """The right length and no content: what some file systems leave of a file that was not on the disk."""
    size = path.stat().st_size
    path.write_bytes(bytes(size))


def empty(path):
    os.truncate(path, 0)


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def gone(path):
    path.unlink()


@pytest.fixture
def stopped(whole, tmp_path):
    """A folder as a run leaves it that lost its power after the fifth of six epochs."""
    folder = tmp_path / "w"
    shutil.copytree(whole(), folder, symlinks=True, ignore=shutil.ignore_patterns("epoch_6.pth"))
    (folder / "latest.pth").unlink()
    (folder / "latest.pth").symlink_to("epoch_5.pth")
    return folder


@pytest.mark.parametrize("damage", [cut, zeros, empty, flipped, gone])
def test_a_run_goes_on_from_the_newest_whole_checkpoint(training, whole, stopped, damage):
    damage(stopped / "epoch_5.pth")
    code, err = training.says(stopped, "--resume", "auto")
    assert code == 0 and "Going on from the newest whole checkpoint" in err and "epoch_4.pth" in err
    assert "epoch_5.pth" in err or damage is gone
    assert proof(stopped) == proof(whole()) == proof(stopped, "epoch_6.pth")


@pytest.mark.parametrize("damage", [zeros, cut, empty, gone])
def test_the_other_files_of_a_folder_may_be_damaged(training, whole, stopped, damage):
    """run.json and the logs are reports; config.json, frames.txt and the claim are written again."""
    for path in [stopped / "run.json", stopped / "config.json", stopped / "frames.txt", stopped / ".lock",
                 *stopped.glob("*.log"), *stopped.glob("*.log.json")]:  # fmt: skip
        damage(path)
    assert training.says(stopped, "--resume", "auto")[0] == 0 and proof(stopped) == proof(whole())
    record = json.loads((stopped / "run.json").read_text())
    assert record["status"] == "finished" and record["losses"]["loss"] > 0
    assert (stopped / "frames.txt").read_bytes() == (whole() / "frames.txt").read_bytes()


def test_a_run_without_any_whole_checkpoint_is_a_sentence(training, stopped):
    for path in stopped.glob("*_?.pth"):
        zeros(path)
    code, err = training.says(stopped, "--resume", "auto")
    assert code == 7 and "No other checkpoint in" in err and "--work-dir" in err


def foreign(folder, kind):
    """A file that is no checkpoint of this program."""
    path = folder / "foreign.pth"
    if kind == "picture":
        path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(5000))
        return path
    torch = pytest.importorskip("torch")
    if kind == "weights":
        torch.save({"state_dict": {"img_backbone.conv1.weight": torch.zeros(3)}, "meta": {}}, str(path))
    elif kind == "mmcv":
        meta = {"iter": 6, "epoch": 1, "config": "model = dict(type='BEVFormer')", "mmcv_version": "1.4.0"}
        torch.save({"state_dict": {"a": torch.zeros(3)}, "meta": meta, "optimizer": {}}, str(path))
    else:
        torch.save([1, 2, 3], str(path))
    return path


@pytest.mark.parametrize(
    "kind, said",
    [
        ("picture", "foreign.pth"),
        ("weights", "holds weights, but not where its training stood"),
        ("mmcv", "the checkpoint's configuration cannot be read"),
        ("list", "holds a list, not a checkpoint"),
    ],
)
def test_a_foreign_file_is_not_gone_on_from(training, tmp_path, kind, said):
    code, err = training.says(tmp_path / "w", "--resume-from", str(foreign(tmp_path, kind)))
    assert code == 7 and said in err and not list(tmp_path.glob("w/*.pth"))


def test_a_named_file_that_is_cut_is_not_replaced_by_another(training, stopped):
    cut(stopped / "epoch_5.pth")
    code, err = training.says(stopped, "--resume-from", str(stopped / "epoch_5.pth"))
    assert code == 7 and "epoch_5.pth" in err and "Going on" not in err
