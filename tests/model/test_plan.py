"""The peak that `plan` measures on the meta device, against tensors that are really there."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from bevformer import plan as planned
from bevformer.config import override, preset
from bevformer.detector import build_model
from bevformer.errors import ConfigError, UserError
from bevformer.live import LiveBytes
from bevformer.nominal import image_size, nominal_sample
from bevformer.talk import Talk

QUIET = Talk(events=True)


def test_a_storage_counts_from_its_maker_to_its_last_holder():
    live = LiveBytes([])
    with live:
        first = torch.zeros(256)
        second = first.view(16, 16) + 1  # a view is no storage of its own
        assert live.now_b == 2048
        del first
        assert live.now_b == 1024
    assert (live.peak_b, second.shape) == (2048, (16, 16))


def test_what_autograd_holds_stays_counted():
    weight = torch.ones(256, requires_grad=True)
    live = LiveBytes([weight])
    with live:
        total = (weight * 2).exp().sum()  # exp saves its result
        held_b = live.now_b
        total.backward()
        del total
    assert (held_b, live.now_b) == (1024 + 4, 1024)  # the result and the sum; then the gradient


def test_the_innermost_watched_module_names_what_it_makes():
    inner, outer = nn.Linear(4, 8, bias=False), nn.Sequential()
    outer.add_module("a", inner)
    outer.add_module("b", nn.Linear(8, 2, bias=False))
    live = LiveBytes(outer.parameters())
    live.watch(outer, "outer")
    live.watch(inner, "inner")
    with live, torch.no_grad():
        outer(torch.zeros(1, 4))
    assert live.peak_by_label == {"the rest": 16, "inner": 32, "outer": 8}


def real_peak_b(config):
    """The same step with numbers, losses and all, followed on the CPU."""
    model = build_model(config).train()
    live = LiveBytes([*model.parameters(), *model.buffers()])
    sample = nominal_sample(config, image_size(config))
    with live:
        sum(model.loss(sample, np.random.RandomState(0)).values()).backward()
    return live.peak_b


@pytest.mark.parametrize("name", ["bevformer_micro", pytest.param("bevformer_tiny", marks=pytest.mark.slow)])
def test_the_peak_is_that_of_a_real_step(name):
    config = preset(name)
    memory = planned.peak_memory(config)
    always = sum(memory["parts_gib"][part] for part in ("weights", "optimiser state"))
    assert (memory["peak_gib"] - always) * planned.GIB == pytest.approx(real_peak_b(config), rel=0.1)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["bevformer_micro", "bevformer_tiny", "bevformer_small"])
def test_the_peak_is_that_of_the_allocator_of_a_gpu(name):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    config = preset(name)
    model = build_model(config).train().cuda()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    sample = nominal_sample(config, image_size(config))
    for _ in range(2):  # the optimiser's state is there from the second step on
        torch.cuda.reset_peak_memory_stats()
        optimizer.zero_grad()
        sum(model.loss(sample, np.random.RandomState(0)).values()).backward()
        optimizer.step()
    measured_gib = torch.cuda.max_memory_allocated() / planned.GIB
    assert planned.peak_memory(config)["peak_gib"] == pytest.approx(measured_gib, rel=0.1)


def test_the_parts_of_the_worst_moment_add_up_to_the_peak():
    memory = planned.peak_memory(preset("bevformer_micro"))
    assert sum(memory["parts_gib"].values()) == pytest.approx(memory["peak_gib"])
    assert (
        memory["phases_gib"][memory["worst_phase"]]
        == memory["peak_gib"]
        == max(memory["phases_gib"].values())
    )


def test_a_longer_queue_costs_time_and_no_memory():
    longer = override(preset("bevformer_micro"), ["data.queue_length=4"])
    assert (
        planned.peak_memory(longer)["peak_gib"] == planned.peak_memory(preset("bevformer_micro"))["peak_gib"]
    )


def test_two_samples_take_more_than_one():
    two = override(preset("bevformer_micro"), ["schedule.samples_per_gpu=2"])
    one_gib = planned.peak_memory(preset("bevformer_micro"))["peak_gib"]
    assert 1.4 * one_gib < planned.peak_memory(two)["peak_gib"] < 2 * one_gib


def test_smaller_models_are_measured_until_one_fits():
    config = override(preset("bevformer_micro"), ["schedule.samples_per_gpu=2"])
    one = planned.peak_memory(preset("bevformer_micro"))["peak_gib"]
    result = planned.plan(config, one * 1.01, QUIET)
    assert [choice["cfg_options"] for choice in result["smaller"]] == [["schedule.samples_per_gpu=1"]]
    assert planned.plan(config, one * 10, QUIET)["smaller"] == []


def test_every_smaller_model_is_smaller():
    result = planned.plan(preset("bevformer_micro"), 1e-3, QUIET)
    peaks = [result["memory"]["peak_gib"], *(choice["peak_gib"] for choice in result["smaller"])]
    assert len(peaks) == 3 and peaks == sorted(peaks, reverse=True)


def test_an_old_torch_is_refused_with_another_way(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "1.10.0+cu113")
    with pytest.raises(UserError, match=r"torch 2\.1 or newer; this is 1\.10\.0"):
        planned.main(["bevformer_micro"], QUIET)


def test_the_verb_takes_presets_and_overrides_and_refuses_unknown_ones(capsys):
    assert (
        planned.main(["bevformer_micro", "--cfg-options", "head.num_query=40", "head.max_per_img=40"], QUIET)
        == 0
    )
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["config"] == "bevformer_micro"
    with pytest.raises(ConfigError, match="unknown preset"):
        planned.main(["bevformer_huge"], QUIET)
