"""Mixed precision: what is chosen, what stays exact, and what an overflow does."""

import json
import math
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import small_frames
import torch
from test_train import SHORT, play
from torch import nn

from bevformer import amp, geometry, train
from bevformer.amp import FULL, LossScale, Precision, choose_precision
from bevformer.checkpoint import load_checkpoint
from bevformer.config import preset
from bevformer.detector import build_model
from bevformer.errors import ConfigError
from bevformer.losses import targets_of
from bevformer.matching import Diverged, Match
from bevformer.runstate import Options
from bevformer.talk import Talk
from bevformer.types import GroundTruth

TINY_FP16 = preset("bevformer_tiny_fp16").schedule
needs_bf16 = pytest.mark.skipif(not amp.bf16_works_on_cpu(), reason="this torch has no whole bf16 on a CPU")
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def with_gradient(value):
    model = nn.Linear(1, 1, bias=False)
    model.weight.grad = torch.full((1, 1), value)
    return model


def test_a_recipe_in_fp16_trains_in_it_where_there_is_a_gpu():
    assert choose_precision(None, TINY_FP16, GPU) == Precision("fp16", 512.0)
    assert choose_precision(None, TINY_FP16, CPU) == FULL == choose_precision("off", TINY_FP16, GPU)
    assert choose_precision(None, SHORT.schedule, GPU) == FULL
    assert choose_precision("fp16", SHORT.schedule, GPU) == Precision("fp16")


def test_fp16_on_the_cpu_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--amp fp16 on the CPU"):
        play(tmp_path, amp="fp16")


def test_fp64_is_double_from_the_images_to_the_weights(tmp_path):
    data = small_frames.SmallFrames()  # images and boxes in float32
    options = Options(str(tmp_path), seed=4, emulate_gpus=1, amp="fp64")
    first = train.run(small_frames.config(2), data, options, Talk(False))
    weights = load_checkpoint(first["checkpoint"])["state_dict"]
    assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float64}
    record = json.loads((tmp_path / "run.json").read_text())
    assert [(each["what"], each["effect"]) for each in record["ledger"] if "lever" not in each] == [
        ("fp64 instead of fp32", "equal up to rounding")
    ]
    (log,) = tmp_path.glob("*.log.json")
    lines = [json.loads(text) for text in log.read_text().splitlines()[1:]]
    assert [line["step"] for line in lines] == [1, 2]  # every step, and more digits than float32 has
    assert lines[-1]["loss"] == pytest.approx(first["losses"]["loss"], rel=1e-11)
    assert lines[-1]["loss"] != pytest.approx(float(np.float32(lines[-1]["loss"])), rel=1e-12)


def test_fp64_is_for_the_processor():
    with pytest.raises(ConfigError, match="--amp fp64 on a GPU"):
        choose_precision("fp64", SHORT.schedule, GPU)


def test_geometry_and_targets_are_as_exact_as_the_weights():
    points = geometry.pillar_points(3, 3, 2, (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0), CPU, torch.float64)
    assert float(points[0, 0, 0]) == pytest.approx(-51.2 + 102.4 / 6, rel=1e-15)
    turned = geometry.rotate_bev(torch.arange(4.0, dtype=torch.float64).view(4, 1), 90.0, 2, 2, None)
    assert turned.dtype == torch.float64
    truth = GroundTruth(torch.tensor([[1.0, 2, 3, 1.7, 4, 1.5, 0.3, 0, 0]]), torch.tensor([0]))
    matches = [[Match(np.array([0]), np.array([0]))]]
    (((wanted,),),) = [[[each.wanted_FD for each in row] for row in targets_of(matches, [truth], points)]]
    assert float(wanted[0, 2]) == math.log(float(np.float32(1.7)))


@needs_bf16
def test_every_departure_is_in_the_record_with_its_class(tmp_path):
    recipe = replace(SHORT, schedule=replace(SHORT.schedule, fp16_loss_scale=512.0))
    ledgers = []
    for number, (config, asked) in enumerate([(recipe, None), (SHORT, "bf16"), (recipe, "bf16")]):
        play(tmp_path / str(number), config, amp=asked)
        record = json.loads((tmp_path / str(number) / "run.json").read_text())
        (entry,) = record["ledger"]
        ledgers.append((entry["what"], record["precision"]["kind"]))
        assert entry["effect"] == "same statistics"
    assert ledgers == [
        ("fp32 instead of fp16", "fp32"),
        ("bf16 instead of fp32", "bf16"),
        ("bf16 instead of fp16", "bf16"),
    ]


@needs_bf16
def test_a_run_goes_on_in_its_own_precision_only(tmp_path):
    play(tmp_path, amp="bf16")
    assert load_checkpoint(str(tmp_path / "latest.pth"))["meta"]["precision"] == "bf16"
    with pytest.raises(ConfigError, match="trained in bf16, this would go on in fp32"):
        play(tmp_path, resume="auto")
    assert play(tmp_path, resume="auto", amp="bf16")["steps"] == 12


def test_a_torch_whose_autocast_stops_half_way_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(amp, "bf16_works_on_cpu", lambda: False)
    with pytest.raises(ConfigError, match="--amp bf16 on the CPU with torch"):
        play(tmp_path, amp="bf16")


@needs_bf16
def test_real_model_in_bf16_has_every_gradient_and_nearly_the_same_loss():
    def gradients(kind):
        torch.manual_seed(0)
        model, data = build_model(small_frames.config(1)).train(), small_frames.SmallFrames()
        sample = data.load_queue([1, 2], np.random.RandomState(0))
        with Precision(kind).autocast(CPU):
            loss = sum(model.loss(sample).values())
        loss.backward()
        return float(loss.detach()), {name: p.grad for name, p in model.named_parameters()}

    (exact, one), (rounded, two) = gradients("fp32"), gradients("bf16")
    assert rounded == pytest.approx(exact, rel=0.05) and rounded != exact
    assert {name for name, grad in one.items() if grad is not None} == {
        name for name, grad in two.items() if grad is not None
    }


@needs_bf16
def test_real_model_in_bf16_repeats_bit_for_bit(tmp_path):
    def go(name):
        options, data = Options(str(tmp_path / name), seed=4, amp="bf16"), small_frames.SmallFrames()
        return train.run(small_frames.config(4), data, options, Talk(False), build_model)["weights_digest"]

    assert go("a") == go("b")


def test_gradients_are_unscaled_and_a_fixed_scale_stays():
    scale, model = LossScale(Precision("fp16", 512.0)), with_gradient(1024.0)
    assert scale.unscale(model) and float(model.weight.grad) == 2.0
    assert not scale.unscale(with_gradient(math.inf)) and scale.scale == 512.0


def test_an_adaptive_scale_halves_after_an_overflow_and_doubles_after_quiet(monkeypatch):
    monkeypatch.setattr(amp, "GROW_AFTER", 3)
    scale = LossScale(Precision("fp16"))
    seen = [scale.scale]
    for value in (math.nan, 1.0, 1.0, 1.0, 1.0):
        scale.unscale(with_gradient(value))
        seen.append(scale.scale)
    assert seen == [65536.0, 32768.0, 32768.0, 32768.0, 65536.0, 65536.0]


def test_the_scale_travels_through_a_checkpoint():
    scale = LossScale(Precision("fp16"))
    scale.unscale(with_gradient(math.inf))
    again = LossScale(Precision("fp16"), scale.state())
    assert again.state() == scale.state() == {"scale": 32768.0, "good_steps": 0.0, "overflows": 1.0}
    assert LossScale(FULL).state() is None


def test_endless_overflows_are_a_divergence():
    scale = LossScale(Precision("fp16", 512.0))
    with pytest.raises(Diverged, match="50 steps in a row"):
        for _ in range(60):
            scale.unscale(with_gradient(math.inf))


def test_a_step_that_overflowed_leaves_the_weights_and_is_counted(tmp_path, monkeypatch):
    """fp16's bookkeeping on a CPU: the same loop, with a loss that overflows once."""
    monkeypatch.setattr(train, "choose_precision", lambda *args: Precision("fp16", 512.0))
    monkeypatch.setattr(Precision, "autocast", lambda self, device: nullcontext())
    result = play(tmp_path, spoil={12: lambda loss: loss + _Infinite.apply(loss)})
    assert (result["losses"]["skipped"], result["losses"]["loss_scale"]) == (1.0, 512.0)
    content = load_checkpoint(str(tmp_path / "latest.pth"))
    assert content["scaler"]["overflows"] == 1.0


class _Infinite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 0

    @staticmethod
    def backward(ctx, grad):
        return grad * math.inf
