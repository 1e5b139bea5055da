"""A training that scores itself now and then, profiles itself, and shows up in TensorBoard."""

import importlib.util
import json
import sys
import types
from dataclasses import replace

import pytest
from test_train import SHORT, play

from bevformer import evaluate, train
from bevformer.config import preset
from bevformer.errors import DataError
from bevformer.loop import Diverged
from bevformer.runstate import DataOrder
from bevformer.trainlog import read_losses
from bevformer.validation import Validator

EPOCHS = replace(SHORT, schedule=replace(SHORT.schedule, max_steps=0, max_epochs=4))  # 5 steps each


@pytest.fixture
def scored(monkeypatch):
    """What `eval` was asked to score; it says NDS 0.5, or that data is missing."""
    asked = []

    def fake(args, talk):
        asked.append((args.checkpoint[-11:], args.infos))
        talk.progress("eval", 1, 1)
        if len(asked) == 2:
            raise DataError("no tables")
        talk.result(metrics={"all": {"NDS": 0.5, "mAP": 0.25, "num_samples": 3}})
        return 0

    monkeypatch.setattr(evaluate, "_main", fake)
    return asked


def lines(folder):
    (path,) = folder.glob("*.log.json")
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_scores_stand_in_the_log_and_the_record_and_change_nothing(tmp_path, scored):
    validator = Validator(2, ["--infos", "val.pkl", "--data-root", "d"], by_epoch=True)
    plain = play(tmp_path / "plain", EPOCHS)["weights_digest"]
    result = train.run(EPOCHS, *_arguments(tmp_path / "w"), validator=validator)
    assert result["weights_digest"] == plain
    assert scored == [("epoch_2.pth", "val.pkl"), ("epoch_4.pth", "val.pkl")]
    (first, second) = json.loads((tmp_path / "w" / "run.json").read_text())["validations"]
    assert (first["step"], first["metrics"]["all"]["NDS"], second["failed"]) == (10, 0.5, "no tables")
    (line,) = [line for line in lines(tmp_path / "w") if line.get("mode") == "val"]
    assert (line["epoch"], line["pts_bbox_NuScenes/NDS"], line["pts_bbox_NuScenes/mAP"]) == (2, 0.5, 0.25)
    assert all(line["mode"] == "train" for line in read_losses(str(tmp_path / "w")))


def test_memory_that_runs_out_while_scoring_does_not_end_the_training(tmp_path, monkeypatch):
    def full(args, talk):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(evaluate, "_main", full)
    train.run(
        EPOCHS,
        *_arguments(tmp_path / "w"),
        validator=Validator(4, ["--infos", "v", "--data-root", "d"], True),
    )
    (found,) = json.loads((tmp_path / "w" / "run.json").read_text())["validations"]
    assert found["failed"] == "out of memory: 2.00 GiB more could not be had"


def _arguments(folder):
    from test_train import FakeData, FakeModel

    from bevformer.runstate import Options
    from bevformer.talk import Talk

    return FakeData(), Options(str(folder)), Talk(False), lambda config: FakeModel()


@pytest.mark.parametrize(
    "every, by_epoch, steps",
    [(1, True, [10, 20, 25]), (2, True, [20, 25]), (0, True, []), (600, False, [1000, 1500, 2000])],
)
def test_when_it_is_due(every, by_epoch, steps):
    order = DataOrder(tuple(range(10)), 1, 0)
    saves, total = ([10, 20, 25], 25) if by_epoch else ([500, 1000, 1500, 2000], 2000)
    validator = Validator(every, [], by_epoch)
    assert [done for done in saves if validator.due(done, total, order)] == steps


def test_missing_val_infos_are_noticed_before_the_training(tmp_path):
    words = [
        "bevformer_micro",
        "--data-root",
        "d",
        "--infos",
        str(tmp_path),
        "--work-dir",
        "w",
        "--validate-every",
        "1",
    ]
    with pytest.raises(DataError, match="no nuscenes_infos_temporal_val.pkl in"):
        train._validator(train.parse(words), preset("bevformer_micro"))


def test_profile_leaves_a_trace_and_a_table(tmp_path):
    play(tmp_path, profile=True)
    assert json.loads((tmp_path / "profile" / "trace.json").read_text())["traceEvents"]
    assert "Self CPU" in (tmp_path / "profile" / "table.txt").read_text()


def test_profiling_changes_no_bit(tmp_path):
    digests = {play(tmp_path / str(on), profile=on)["weights_digest"] for on in (True, False)}
    assert len(digests) == 1


def test_tensorboard_is_written_where_it_is_installed(tmp_path, monkeypatch):
    plotted = []

    class Writer:
        def __init__(self, folder, purge_step=None):
            plotted.append((folder, purge_step))

        def add_scalar(self, key, value, step):
            plotted.append((key, step))

        def close(self):
            plotted.append("closed")

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "tensorboard" or real(name))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    play(tmp_path)
    assert plotted[0] == (str(tmp_path / "tf_logs"), None) and plotted[-1] == "closed"
    assert {("train/loss", 10), ("train/lr", 12), ("train/grad_norm", 12)} <= set(plotted)


def test_divergence_after_resume_from_names_a_file_that_exists(tmp_path):
    play(tmp_path / "a", EPOCHS)
    start = str(tmp_path / "a" / "epoch_2.pth")
    with pytest.raises(Diverged) as caught:
        play(tmp_path / "b", EPOCHS, resume=start, spoil={2: lambda loss: loss * float("nan")})
    assert start in caught.value.why
