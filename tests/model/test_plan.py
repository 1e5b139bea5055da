"""The peak that `plan` measures on the meta device, against tensors that are really there."""

import gc
import json

import numpy as np
import pytest
import torch
from small_base import small
from torch import nn

from bevformer import plan as planned
from bevformer.bench_memory import calibration
from bevformer.config import override, preset
from bevformer.detector import build_model
from bevformer.errors import ConfigError, UserError
from bevformer.ledger import ROUNDING
from bevformer.live import LiveBytes
from bevformer.nominal import image_size, nominal_sample
from bevformer.optim import build_optimizer
from bevformer.rungs import apply_rungs, rungs_for, rungs_up_to
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


def all_rungs(config):
    return [rung.name for rung in rungs_for(build_model(config))]


def step_gib(memory):
    """The predicted peak without what is there before the step."""
    return memory["peak_gib"] - sum(memory["parts_gib"][part] for part in ("weights", "optimiser state"))


@pytest.mark.parametrize("which", ["without", "with"])
def test_the_peak_is_that_of_a_real_step_with_and_without_rungs(which):
    """With numbers, losses and all, followed on the CPU."""
    rungs = all_rungs(preset("bevformer_micro")) if which == "with" else ()
    config = override(preset("bevformer_micro"), ["ops.attention=reference"])
    model = build_model(config).train()
    apply_rungs(model, rungs)
    live = LiveBytes([*model.parameters(), *model.buffers()])
    sample = nominal_sample(config, image_size(config))
    with live:
        sum(model.loss(sample, np.random.RandomState(0)).values()).backward()
    assert step_gib(planned.peak_memory(config, rungs)) * planned.GIB == pytest.approx(live.peak_b, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", [preset("bevformer_micro"), override(preset("bevformer_tiny"), ["data.scale=0.25"]), small()]
)
def test_every_rung_takes_what_the_cpus_allocator_gives_out(config):
    for row in calibration(config, QUIET):
        assert row["ratio"] == pytest.approx(1.0, abs=0.1), row


# On a GPU dropout keeps one byte of a mask, and the decoder's self-attention no matrix.
LESS_ON_A_GPU = ("dropout masks", "decoder: self-attention")
WORKSPACES_GIB = 0.25  # cuBLAS keeps 32 MiB for itself on sm_90, a convolution takes its own: not in the plan


def within(memory, measured_gib):
    """Whether an allocator's peak is what `peak_memory` has, as far as it says."""
    less_gib = sum(memory["parts_gib"].get(part, 0.0) for part in LESS_ON_A_GPU)
    peak_gib = memory["peak_gib"]
    return 0.9 * (peak_gib - less_gib) <= measured_gib <= 1.1 * peak_gib + WORKSPACES_GIB


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["bevformer_tiny", "bevformer_small"])
def test_the_peak_is_that_of_the_allocator_of_a_gpu(name):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    pytest.importorskip("scipy", reason="the matching needs scipy")
    gc.collect()
    before = torch.cuda.memory_allocated()  # of other tests
    config = preset(name)
    model = build_model(config).train().cuda()
    optimizer = build_optimizer(model, config.schedule, config.ops.adamw)
    sample = nominal_sample(config, image_size(config))
    for _ in range(2):  # the optimiser's state is there from the second step on
        torch.cuda.reset_peak_memory_stats()
        optimizer.zero_grad(set_to_none=True)
        sum(model.loss(sample, np.random.RandomState(0)).values()).backward()
        optimizer.step()
    measured_gib = (torch.cuda.max_memory_allocated() - before) / planned.GIB
    memory = planned.peak_memory(config)
    assert within(memory, measured_gib), (measured_gib, memory)


def test_a_gpus_peak_is_judged_with_what_only_a_gpu_saves():
    memory = {"peak_gib": 3.2, "parts_gib": {"dropout masks": 0.1, "decoder: self-attention": 0.5}}
    assert [within(memory, gib) for gib in (2.0, 2.6, 3.2, 3.6, 4.0)] == [False, True, True, True, False]


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


@pytest.fixture(scope="module")
def ladder():
    """Every rung and every other model of a small configuration that has them all."""
    return planned.plan(small("bevformer_base"), None, QUIET)


@pytest.mark.slow
def test_the_ladder_is_measured_rung_by_rung(ladder):
    assert [row["name"] for row in ladder["rungs"]] == [rung.name for rung in rungs_up_to(ROUNDING)]
    assert [row["name"] for row in ladder["others"]] == ["bf16", "half-grid", "half-images"]
    peaks = [ladder["memory"]["peak_gib"], *(row["peak_gib"] for row in ladder["rungs"])]
    assert peaks[-1] < 0.96 * peaks[0]  # weights are the most of it
    assert ladder["others"][-1]["peak_gib"] < ladder["others"][0]["peak_gib"]
    assert (ladder["chosen"], ladder["as_published"]) == (None, False)


def test_the_fewest_rungs_that_fit_are_chosen_and_never_one_that_changes_the_result():
    rungs = [dict(name="a", peak_gib=9.0), dict(name="b", peak_gib=5.0), dict(name="c", peak_gib=4.0)]
    chosen = {limit: planned.choose(10.0, rungs, limit) for limit in (12, 9, 6, 4, 3, None)}
    assert chosen == {12: [], 9: ["a"], 6: ["a", "b"], 4: ["a", "b", "c"], 3: None, None: None}


@pytest.mark.slow
def test_what_changes_the_result_is_measured_where_nothing_else_fits_until_it_does():
    micro = preset("bevformer_micro")
    least = planned.peak_memory(micro, all_rungs(micro))["peak_gib"]
    assert planned.plan(micro, least * 1.001, QUIET)["others"] == []
    starved = planned.plan(micro, 1e-3, QUIET)
    assert starved["chosen"] is None and [row["name"] for row in starved["others"]][1:] == [
        "half-grid",
        "half-images",
    ]


def test_an_old_torch_is_refused_with_another_way(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "1.10.0+cu113")
    with pytest.raises(UserError, match=r"torch 2\.1 or newer; this is 1\.10\.0"):
        planned.main(["bevformer_micro"], QUIET)


def test_the_verb_takes_presets_and_overrides_and_refuses_unknown_ones(capsys):
    assert (
        planned.main(["bevformer_micro", "--limit-gib", "9", "--cfg-options", "head.max_per_img=40"], QUIET)
        == 0
    )
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["config"] == "bevformer_micro"
    with pytest.raises(ConfigError, match="unknown preset"):
        planned.main(["bevformer_huge"], QUIET)
