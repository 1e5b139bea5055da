"""NaN and infinity reach neither the weights nor a checkpoint; in fp16 a step is left out, for a while."""

import json
import math
import os
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from test_amp import _Infinite
from test_train import SHORT, play

from bevformer import train
from bevformer.amp import OVERFLOWS_IN_A_ROW, Precision
from bevformer.checkpoint import load_checkpoint
from bevformer.loop import Diverged
from bevformer.means import Means
from bevformer.trainlog import read_losses

EPOCHS = replace(SHORT, schedule=replace(SHORT.schedule, max_steps=0, max_epochs=3, samples_per_gpu=1))


@pytest.fixture
def fp16(monkeypatch):
    """Its bookkeeping on a CPU."""
    monkeypatch.setattr(train, "choose_precision", lambda *args: Precision("fp16", 512.0))
    monkeypatch.setattr(Precision, "autocast", lambda self, device: nullcontext())


def spoiling_update(monkeypatch, at, where):
    """The optimiser's `at`-th step leaves a NaN in the weights or in the moments."""
    plain, calls = torch.optim.AdamW.step, []

    def step(self, closure=None):
        plain(self, closure)
        calls.append(1)
        if len(calls) == at:
            parameter = self.param_groups[0]["params"][0]
            target = parameter.data if where == "weights" else self.state[parameter]["exp_avg_sq"]
            target.view(-1)[0] = math.nan

    monkeypatch.setattr(torch.optim.AdamW, "step", step)


@pytest.mark.parametrize(
    "where, said", [("moments", "exp_avg_sq of img_backbone"), ("weights", "first img_backbone")]
)
def test_a_checkpoint_is_never_written_from_what_is_not_finite(tmp_path, monkeypatch, where, said):
    # In the last step of the second epoch, so that no loss tells of it first.
    spoiling_update(monkeypatch, 10, where)
    with pytest.raises(Diverged) as caught:
        play(tmp_path, EPOCHS)
    assert "after step 10" in caught.value.seen and said in caught.value.seen
    assert "epoch_1.pth" in caught.value.why and not os.path.exists(tmp_path / "epoch_2.pth")
    assert os.path.samefile(tmp_path / "latest.pth", tmp_path / "epoch_1.pth")
    state = load_checkpoint(str(tmp_path / "latest.pth"))["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values())
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "diverged"


def test_a_gradient_that_is_not_finite_is_named(tmp_path):
    with pytest.raises(Diverged) as caught:
        play(tmp_path, spoil={3: lambda loss: loss + _Infinite.apply(loss)})
    assert "step 3" in caught.value.seen
    assert "gradient of 4 parameters, first img_backbone.weight" in caught.value.seen


def test_in_fp16_a_loss_that_overflows_leaves_a_step_out(tmp_path, fp16):
    result = play(tmp_path, spoil={4: lambda loss: loss * math.inf})
    assert result["steps"] == 12
    assert load_checkpoint(str(tmp_path / "latest.pth"))["scaler"]["good_steps"] == 8.0
    first, _ = read_losses(str(tmp_path))
    assert first["skipped"] == 0.1 and math.isfinite(first["loss"])


def test_in_fp16_too_many_of_them_stop_the_run(tmp_path, fp16):
    long = replace(SHORT, schedule=replace(SHORT.schedule, max_steps=OVERFLOWS_IN_A_ROW + 9))
    with pytest.raises(Diverged, match="overflowed in 50 steps in a row"):
        play(tmp_path, long, spoil={call: lambda loss: loss * math.nan for call in range(5, 99)})
    assert os.path.samefile(tmp_path / "latest.pth", tmp_path / "iter_0.pth")


def test_means_are_of_what_is_finite_and_begin_again():
    means = Means()
    for terms in ({"loss": 1.0, "skipped": 0.0}, {"loss": math.nan, "skipped": 1.0}, {"loss": 3.0}):
        means.add(terms)
    assert means.take() == {"loss": 2.0, "skipped": 0.5} and means.take() == {}
