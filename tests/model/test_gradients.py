"""Gradients in one buffer are those of gradients by themselves, in one process and in several."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import small_frames
import torch
from test_memory import Hungry, go, rungs_in
from torch import nn

from bevformer import plan, train
from bevformer.amp import LossScale, Precision
from bevformer.checkpoint import load_checkpoint
from bevformer.config import override, preset
from bevformer.errors import ConfigError
from bevformer.gradients import ALIGNED_B, OWN, FlatGradients, build_gradients
from bevformer.memory import forget_gradients
from bevformer.ranks import ALONE
from bevformer.runstate import Options
from bevformer.talk import Talk

HERE = Path(__file__).parent
TWO = """
import sys, torch
import small_frames
from bevformer.config import override
made = small_frames.config
small_frames.config = lambda steps: override(made(steps), ["ops.gradients=" + sys.argv[2]])
torch.set_num_threads(1)
small_frames.in_float64(sys.argv[1], 2, 3)
small_frames.leave()
"""


class Odd(nn.Module):
    """A weight with its channels last, one of another kind, one that nothing uses, one that is frozen."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)
        self.wide = nn.Parameter(torch.randn(7, dtype=torch.float64))
        self.unused = nn.Parameter(torch.randn(4))
        self.frozen = nn.Parameter(torch.randn(4), requires_grad=False)

    def forward(self, images):
        return self.conv(images).square().sum() + self.wide.exp().sum() + self.frozen.sum()


def trained(gradients, steps=3, ranks=1):
    """Weights after AdamW with weight decay, which would pull at an unused weight with a gradient of zero."""
    model = Odd()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for step in range(steps):
        gradients.clear(model)
        for rank in range(ranks):
            model(torch.ones(1, 3, 4, 4) * (step + rank)).backward()
        gradients.sum(model, ALONE)
        optimizer.step()
    return model


@pytest.mark.parametrize("ranks", [1, 3])
def test_one_buffer_gives_the_same_bits(ranks):
    own, flat = (trained(gradients, ranks=ranks) for gradients in (OWN, FlatGradients()))
    for (name, one), other in zip(own.named_parameters(), flat.parameters()):
        assert torch.equal(one, other), name
    assert flat.unused.grad is None and torch.equal(flat.unused, Odd().unused)


def test_every_gradient_is_a_view_of_the_buffer_that_stays():
    gradients, model = FlatGradients(), Odd()
    for _ in range(2):
        forget_gradients(model)  # as after memory ran out
        gradients.clear(model)
        model(torch.ones(1, 3, 4, 4)).backward()
        places = {name: p.grad.data_ptr() for name, p in model.named_parameters() if p.requires_grad}
    first = places["conv.weight"]
    assert places["conv.bias"] == first + ALIGNED_B * -(-135 * 4 // ALIGNED_B)
    assert all(place % 16 == 0 for place in places.values())
    assert model.conv.weight.grad.stride() == model.conv.weight.stride()
    gradients.clear(model)
    assert not model.conv.weight.grad.any() and model.conv.weight.grad.data_ptr() == first
    assert model.frozen.grad is None


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="ops.gradients=heap"):
        build_gradients("heap")
    assert build_gradients("auto") is OWN


def run(folder, kind):
    config = override(small_frames.config(1), ["ops.attention=reference", "ops.gradients=" + kind])
    data = small_frames.SmallFrames(count=7)
    result = train.run(config, data, Options(str(folder), seed=4, emulate_gpus=2), Talk(False))
    return json.loads((folder / "run.json").read_text()), load_checkpoint(result["checkpoint"])["state_dict"]


def test_a_training_ends_with_the_same_weights_and_says_so(tmp_path):
    (_, own), (record, flat) = (run(tmp_path / kind, kind) for kind in ("own", "flat"))
    assert all(torch.equal(own[key], flat[key]) for key in own)
    assert record["sessions"][0]["levers"]["gradients"] == "flat"
    (entry,) = [entry for entry in record["ledger"] if entry.get("lever") == "gradients"]
    assert entry["effect"] == "identical"


def in_two_processes(folder, kind):
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = str(found.getsockname()[1])
    path = os.pathsep.join([str(HERE.parents[1] / "model"), str(HERE)])
    meet = dict(OMP_NUM_THREADS="1", PYTHONPATH=path, MASTER_ADDR="localhost", MASTER_PORT=port)
    command = [sys.executable, "-c", TWO, str(folder), kind]
    both = [
        subprocess.Popen(
            command, env=dict(os.environ, RANK=rank, WORLD_SIZE="2", **meet), stderr=subprocess.PIPE
        )
        for rank in "01"
    ]
    ends = [each.communicate(timeout=120)[1] for each in both]
    assert not any(each.returncode for each in both), ends
    return load_checkpoint(str(folder / "latest.pth"))["state_dict"]


@pytest.mark.slow
def test_two_processes_add_the_buffer_up_to_the_same_bits(tmp_path):
    own, flat = (in_two_processes(tmp_path / kind, kind) for kind in ("own", "flat"))
    assert all(torch.equal(own[key], flat[key]) for key in own)


@pytest.mark.skipif(not hasattr(torch, "func"), reason="plan needs torch 2.1")
def test_the_buffer_is_in_the_plan():
    small = override(preset("bevformer_micro"), ["encoder.bev_h=8", "encoder.bev_w=8"])
    peaks = [plan.peak_memory(override(small, ["ops.gradients=" + kind])) for kind in ("own", "flat")]
    trained_b = sum(p.numel() * 4 for p in plan.build_model(small).parameters() if p.requires_grad)
    assert peaks[1]["parts_gib"]["gradients"] * 2**30 == pytest.approx(trained_b, rel=0.02)
    assert 0 <= peaks[1]["peak_gib"] - peaks[0]["peak_gib"] <= 1.02 * trained_b / 2**30


def test_a_step_that_is_repeated_for_want_of_memory_leaves_the_same_bits(tmp_path, heard):
    """The attempt that ran out has added half of its gradients to the buffer."""
    ended = []
    for kind, hungry in (("own", Hungry()), ("flat", Hungry()), ("flat", Hungry(4, 5))):
        config = override(small_frames.config(3), ["ops.gradients=" + kind])
        folder = tmp_path / str(len(ended))
        ended.append(go(folder, heard, hungry, config=config))
    assert len(set(ended)) == 1
    assert [entry["rung"] for entry in rungs_in(folder)] == ["encoder-layers", "backbone-blocks"]


def trained_with_a_scaler(gradients):
    """Three steps in fp16's way, of which the second overflows."""
    model, scale = Odd(), LossScale(Precision("fp16"))
    optimizer, stepped = torch.optim.AdamW(model.parameters(), lr=0.01), []
    for factor in (1.0, float("inf"), 0.5):
        gradients.clear(model)
        (model(torch.ones(1, 3, 4, 4)) * scale.scale * factor).backward()
        gradients.sum(model, ALONE)
        stepped.append(scale.unscale(model))
        if stepped[-1]:
            optimizer.step()
    return model, stepped


def test_a_step_that_overflowed_in_fp16_leaves_nothing_in_the_buffer():
    (own, steps), (flat, same) = (trained_with_a_scaler(each) for each in (OWN, FlatGradients()))
    assert steps == same == [True, False, True]
    assert all(
        torch.equal(*both) and both[0].isfinite().all() for both in zip(own.parameters(), flat.parameters())
    )
