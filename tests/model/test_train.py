"""The loop, its files and what happens when it is stopped: with a tiny model and a data set of numbers."""

import json
import os
import signal
from dataclasses import replace

import pytest
import small_frames
import torch
from torch import nn

from bevformer import train
from bevformer.checkpoint import load_checkpoint
from bevformer.config import preset
from bevformer.detector import build_model
from bevformer.errors import CheckpointError, ConfigError, DataError
from bevformer.loop import Diverged, Interrupted
from bevformer.resume import config_difference
from bevformer.runstate import DataOrder, Options
from bevformer.talk import Talk
from bevformer.trainlog import read_losses
from bevformer.types import GroundTruth

MICRO = preset("bevformer_micro")
SHORT = replace(MICRO, schedule=replace(MICRO.schedule, max_steps=12, warmup_steps=3))


class FakeModel(nn.Module):
    """Uses every stream of random numbers; `spoil` maps a count of calls to what happens to the loss."""

    def __init__(self, spoil=None):
        super().__init__()
        self.img_backbone = nn.Linear(3, 4)
        self.pts_bbox_head = nn.Linear(4, 1)
        self.spoil, self.calls = spoil or {}, 0

    def loss(self, sample, rng, mean_positives):
        self.calls += 1
        noise = torch.nn.functional.dropout(torch.ones(3)) * float(rng.rand())
        out = self.pts_bbox_head(self.img_backbone(sample + noise)).square().mean()
        return {"loss_cls": self.spoil.get(self.calls, lambda x: x)(out), "loss_bbox": out * 0.5}


class FakeData:
    """Frame i is a vector of i; frames in `empty` have no boxes."""

    def __init__(self, count=5, empty=()):
        self.count, self.empty, self.drawn = count, empty, []

    def labelled_indices(self):
        return list(range(self.count))

    def draw_queue(self, index, rng):
        self.drawn.append(index)
        return None if index in self.empty else [index]

    def load_queue(self, queue, rng):
        return torch.full((3,), float(queue[-1])) + float(rng.rand())

    def truth(self, index):
        return GroundTruth(torch.zeros(index, 9), torch.zeros(index, dtype=torch.long))


def play(folder, config=SHORT, data=None, spoil=None, **options):
    options = Options(str(folder), **options)
    return train.run(config, data or FakeData(), options, Talk(False), lambda config: FakeModel(spoil))


def press(number):
    def spoiled(loss):
        os.kill(os.getpid(), number)
        return loss

    return spoiled


def test_work_folder_holds_what_people_expect(tmp_path):
    result = play(tmp_path, seed=3)
    names = os.listdir(tmp_path)
    assert {"config.json", "iter_0.pth", "iter_12.pth", "latest.pth", "run.json"} <= set(names)
    assert sorted(name.split(".", 1)[1] for name in names if ".log" in name) == ["log", "log.json"]
    assert result["steps"] == 12 and os.path.samefile(result["checkpoint"], tmp_path / "latest.pth")


def test_epoch_recipe_saves_each_epoch_under_upstreams_name(tmp_path):
    schedule = replace(SHORT.schedule, max_steps=0, max_epochs=2, samples_per_gpu=1)
    play(tmp_path, replace(SHORT, schedule=schedule))
    assert {"epoch_1.pth", "epoch_2.pth"} <= set(os.listdir(tmp_path))
    meta = load_checkpoint(str(tmp_path / "epoch_2.pth"))["meta"]
    assert (meta["epoch"], meta["iter"]) == (2, 10)


def test_record_says_what_ran(tmp_path):
    play(tmp_path, seed=3, infos_digest="abc", command=["train", "x"])
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["status"], record["seed"], record["infos_digest"]) == ("finished", 3, "abc")
    assert record["config"]["schedule"]["max_steps"] == 12 and record["ledger"] == []
    assert record["sessions"][0]["versions"]["torch"] == torch.__version__
    assert record["losses"]["loss"] > 0 and len(record["weights_digest"]) == 64


def test_log_has_mmcvs_fields(tmp_path):
    play(tmp_path)
    lines = read_losses(str(tmp_path))
    assert [line["step"] for line in lines] == [10, 12]
    assert {"mode", "epoch", "iter", "lr", "loss", "loss_cls", "grad_norm", "time", "data_time"} <= set(
        lines[0]
    )


def test_same_seed_same_bits_and_another_seed_others(tmp_path):
    digests = [play(tmp_path / str(n), seed=seed)["weights_digest"] for n, seed in enumerate((1, 1, 2))]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_finishes_the_step_saves_and_resumes_bit_for_bit(tmp_path, number, code):
    whole = play(tmp_path / "whole", seed=1)
    with pytest.raises(Interrupted) as caught:
        play(tmp_path / "cut", seed=1, spoil={5: press(number)})
    assert caught.value.exit_code == code and "after step 5 of 12" in caught.value.seen
    assert "--resume auto" in caught.value.do
    resumed = play(tmp_path / "cut", resume="auto")
    assert resumed["weights_digest"] == whole["weights_digest"]
    record = json.loads((tmp_path / "cut" / "run.json").read_text())
    assert [session["status"] for session in record["sessions"]] == ["interrupted", "finished"]


def test_resume_from_a_named_file_is_exact_too(tmp_path):
    whole = play(tmp_path / "a")
    with pytest.raises(Interrupted):
        play(tmp_path / "b", spoil={7: press(signal.SIGINT)})
    resumed = play(tmp_path / "c", resume=str(tmp_path / "b" / "iter_7.pth"))
    assert resumed["weights_digest"] == whole["weights_digest"]


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    first = play(tmp_path)
    again = play(tmp_path, resume="auto")
    assert again["weights_digest"] == first["weights_digest"] and again["losses"] == first["losses"]


def test_resume_auto_without_a_checkpoint_starts_afresh(tmp_path):
    assert play(tmp_path, resume="auto")["steps"] == 12


def test_named_resume_file_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        play(tmp_path, resume=str(tmp_path / "iter_9.pth"))


def test_other_config_seed_or_data_is_refused_with_the_difference(tmp_path):
    play(tmp_path, seed=1, infos_digest="a")
    other = replace(SHORT, schedule=replace(SHORT.schedule, lr=0.5))
    with pytest.raises(ConfigError, match=r"schedule\.lr: 0\.001 -> 0\.5"):
        play(tmp_path, other, resume="auto")
    with pytest.raises(ConfigError, match="seed 1"):
        play(tmp_path, seed=2, resume="auto")
    with pytest.raises(DataError, match="frames differ"):
        play(tmp_path, infos_digest="b", resume="auto")


def test_weights_without_a_training_state_cannot_be_resumed(tmp_path):
    torch.save({"state_dict": FakeModel().state_dict(), "meta": {}}, str(tmp_path / "published.pth"))
    with pytest.raises(CheckpointError, match="not where its training stood"):
        play(tmp_path / "new", resume=str(tmp_path / "published.pth"))


def test_fresh_start_never_overwrites_a_run(tmp_path):
    play(tmp_path)
    with pytest.raises(ConfigError, match="already holds a run"):
        play(tmp_path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_stops_with_the_last_good_checkpoint(tmp_path, bad):
    with pytest.raises(Diverged) as caught:
        play(tmp_path, spoil={4: lambda loss: loss * bad})
    assert caught.value.exit_code == 1 and "step 4" in caught.value.seen and "iter_0.pth" in caught.value.why
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "diverged"
    state = load_checkpoint(str(tmp_path / "latest.pth"))["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values())


def test_frame_without_boxes_is_redrawn(tmp_path):
    data = FakeData(count=4, empty=(1, 2))
    assert play(tmp_path, data=data)["steps"] == 12
    assert len(data.drawn) > 12


def test_set_without_any_box_is_a_sentence(tmp_path):
    with pytest.raises(DataError, match="no frame of the training set has a valid box"):
        play(tmp_path, data=FakeData(count=2, empty=(0, 1)))


def test_recipe_for_eight_devices_is_entered_in_the_ledger(tmp_path):
    schedule = replace(SHORT.schedule, world_size=8)
    play(tmp_path / "eight", replace(SHORT, schedule=schedule))
    (entry,) = json.loads((tmp_path / "eight/run.json").read_text())["ledger"]
    assert entry["what"].startswith("8 ranks one after another") and entry["effect"] == "equal up to rounding"
    play(tmp_path / "one", replace(SHORT, schedule=schedule), emulate_gpus=1)
    (entry,) = json.loads((tmp_path / "one/run.json").read_text())["ledger"]
    assert entry["what"] == "batch of 1 instead of 8" and entry["effect"] == "changes the result"


@pytest.mark.parametrize("gpus, words", [(800, "--gpus 800, but torch"), (-1, "not a number")])
def test_number_of_devices_that_cannot_be_honoured(gpus, words):
    with pytest.raises(ConfigError, match=words):
        train.check_gpus(gpus)


def test_each_epoch_sees_every_frame_once_in_another_order():
    order = DataOrder((10, 11, 12, 13, 14), batch=2, seed=0)
    epochs = [[index for step in range(3) for index in order.at(3 * epoch + step)] for epoch in range(4)]
    assert all(sorted(set(epoch)) == [10, 11, 12, 13, 14] and len(epoch) == 6 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_difference_names_the_leaf():
    assert config_difference({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == ["a.c: 2 -> 3"]


def test_command_line_resume_forms():
    base = ["bevformer_micro", "--data-root", "d", "--infos", "i", "--work-dir", "w"]
    assert train.parse([*base, "--resume"]).resume == "auto"
    assert train.parse([*base, "--resume=auto"]).resume == "auto"
    assert train.parse([*base, "--cfg-options", "a=1", "b=2", "--cfg-options", "c=3"]).cfg_options == [
        "a=1",
        "b=2",
        "c=3",
    ]


def test_checkpoint_holds_plain_data_only(tmp_path):
    play(tmp_path)
    content = torch.load(str(tmp_path / "latest.pth"), weights_only=True)
    assert set(content) == {"meta", "state_dict", "optimizer"}


def test_decoded_size_follows_from_the_calibration():
    cam = {"cam_intrinsic": [[1000.0, 0, 800.0], [0, 1000.0, 450.0], [0, 0, 1]]}
    assert train.decoded_mib([{"cams": {"A": cam, "B": cam}}]) == pytest.approx(2 * 1600 * 900 * 3 / 2**20)


def test_real_model_resumes_bit_for_bit_with_dropout_and_grid_mask(tmp_path):
    config = small_frames.config(steps=6)

    def go(name, resume=None, stop_after=None):
        def build(config):
            model = build_model(config)
            plain, calls = model.loss, []

            def loss(samples, rng, mean_positives):
                calls.append(1)
                if len(calls) == stop_after:
                    os.kill(os.getpid(), signal.SIGTERM)
                return plain(samples, rng, mean_positives)

            model.loss = loss
            return model

        options = Options(str(tmp_path / name), seed=4, resume=resume)
        return train.run(config, small_frames.SmallFrames(), options, Talk(False), build)

    whole = go("whole")
    with pytest.raises(Interrupted):
        go("cut", stop_after=3)
    assert go("cut", resume="auto")["weights_digest"] == whole["weights_digest"]
