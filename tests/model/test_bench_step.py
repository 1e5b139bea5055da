"""`bench step` and `bench infer`: the same weights computed in other ways."""

import numpy as np
import pytest
import torch

from bevformer import bench, bench_infer, bench_launches, bench_models, bench_step, matching
from bevformer.bench_common import preset_of, row
from bevformer.bench_read import read
from bevformer.config import override
from bevformer.errors import ConfigError
from bevformer.nominal import image_size, nominal_sample
from bevformer.step import train_step

CPU = torch.device("cpu")
SMALL = ["head.num_query=40", "head.max_per_img=40", "encoder.bev_h=12", "encoder.bev_w=10"]
WORDS = ["--preset", "micro", "--size", "32x48", "--repeats", "1", "--cfg-options", *SMALL]


def run(kind, tmp_path, heard, *more):
    out = tmp_path / "out.json"
    assert bench.main([kind, *WORDS, "--out", str(out), *more], heard) == 0
    document = read(str(out))
    return {each["who"]: each for each in document["rows"] if each["unit"] == "s"}, document


def test_a_step_of_ours_has_the_plain_ones_loss_and_less_memory(tmp_path, heard):
    rows, document = run("step", tmp_path, heard, "--who", "plain", "fp32", "lean")
    assert rows["fp32"]["loss"] == pytest.approx(rows["plain"]["loss"], rel=1e-4)
    assert rows["lean"]["peak_gb"] <= rows["plain"]["peak_gb"] and rows["plain"]["levers"] == []
    assert "encoder-layers" in rows["lean"]["levers"] and rows["fp32"]["levers"][0].startswith("attention: ")
    assert {each["assignment"] for each in rows.values()} == {"scipy"}
    assert {each["who"] for each in document["ratios"]} == {"fp32", "lean"}


def test_the_leanest_is_measured_first_since_the_plain_one_may_take_all_the_time(
    tmp_path, heard, monkeypatch
):
    order, real = [], bench_step.described

    def noted(contender, sample, device):
        order.append(contender.who)
        return real(contender, sample, device)

    monkeypatch.setattr(bench_step, "described", noted)
    rows, _ = run("step", tmp_path, heard, "--who", "plain", "lean")
    assert order == ["lean", "plain"] and list(rows) == ["plain", "lean"]


def test_a_frame_of_ours_has_the_plain_ones_outputs(tmp_path, heard):
    rows, _ = run("infer", tmp_path, heard, "--who", "plain", "fp32")
    assert set(rows["fp32"]["apart"]) == {"bev", "logits", "codes"} and "apart" not in rows["plain"]
    assert all(0 <= each < 1e-4 for each in rows["fp32"]["apart"].values())
    assert rows["fp32"]["images_hw"] == [32, 48] and rows["fp32"]["peak_gb"] > 0


def test_the_plain_model_is_other_code_with_the_same_weights():
    config = override(preset_of("micro"), SMALL)
    plain, ours = (bench_models.make(config, who, CPU, True).model for who in ("plain", "fp32"))
    for (name, one), (_, other) in zip(plain.state_dict().items(), ours.state_dict().items()):
        assert torch.equal(one, other), name
    kinds = [type(each.pts_bbox_head.transformer.encoder.layers[0].attentions[1]) for each in (plain, ours)]
    assert [kind.__name__ for kind in kinds] == ["PlainSpatialCrossAttention", "SpatialCrossAttention"]


def test_bf16_that_would_be_emulated_is_left_out_by_name(monkeypatch):
    monkeypatch.setattr(bench_models, "bf16_pays", lambda device: False)
    absent = {}
    found = list(bench_models.made_one_by_one(preset_of("micro"), ["fast"], CPU, False, absent, "micro"))
    assert not found and "no fast bf16" in absent["micro, fast"]


@pytest.mark.parametrize("kind", ["step", "infer"])
def test_unknown_contenders_and_sizes_are_refused(kind, heard):
    with pytest.raises(ConfigError, match="unknown contender: magic"):
        bench.main([kind, *WORDS, "--who", "magic"], heard)
    with pytest.raises(ConfigError, match="--size 33x48"):
        bench.main([kind, "--preset", "micro", "--size", "33x48"], heard)


@pytest.mark.parametrize("text", ["480", "480x", "100x100", "0x0", "-32x48"])
def test_a_size_the_backbone_cannot_take_is_refused(text):
    with pytest.raises(ConfigError, match="--size"):
        bench_models.sizes_of(preset_of("tiny"), text)


def test_without_scipy_the_assignment_is_fixed_and_said(monkeypatch):
    real, cost = matching.solve, np.array([[3.0, 1.0], [1.0, 3.0], [9.0, 9.0]])
    monkeypatch.setattr(bench_step.importlib.util, "find_spec", lambda name: None)
    with bench_step.assignment() as said:
        queries, boxes = matching.solve(cost)
    assert (said, queries.tolist(), boxes.tolist()) == ("fixed", [0, 1], [0, 1])
    assert matching.solve is real


def test_what_does_not_fit_is_named_and_the_rest_goes_on(tmp_path, heard, monkeypatch):
    real = bench_step.described

    def starved(contender, sample, device):
        if contender.who == "plain":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return real(contender, sample, device)

    monkeypatch.setattr(bench_step, "described", starved)
    rows, document = run("step", tmp_path, heard, "--who", "plain", "fp32")
    assert set(rows) == {"fp32"} and document["absent"] == {"micro, plain": "out of memory"}


def running_out(monkeypatch, module, name, who, on_call):
    """Memory runs out in the `on_call`-th step or frame of a contender."""
    real = getattr(module, name)

    def made(contender, *rest):
        work, *others = real(contender, *rest) if module is bench_step else (real(contender, *rest),)
        calls = []

        def starved():
            calls.append(1)
            if contender.who == who and len(calls) == on_call:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return work()

        return (starved, *others) if module is bench_step else starved

    monkeypatch.setattr(module, name, made)


@pytest.mark.parametrize(
    "kind, module, maker", [("step", bench_step, "stepper"), ("infer", bench_infer, "framer")]
)
@pytest.mark.parametrize("on_call", [1, 2], ids=["before the rounds", "in a round"])
def test_memory_that_runs_out_takes_one_contender_away(
    tmp_path, heard, monkeypatch, kind, module, maker, on_call
):
    running_out(monkeypatch, module, maker, "plain", on_call)
    rows, document = run(kind, tmp_path, heard, "--who", "plain", "fp32")
    assert set(rows) == {"fp32"} and rows["fp32"]["rounds"] == 1
    assert document["absent"] == {"micro, plain": "out of memory"}


@pytest.mark.parametrize(
    "kind, module, first", [("step", bench_step, "fp32"), ("infer", bench_infer, "plain")]
)
def test_what_is_cut_off_keeps_the_peak_and_the_rounds_so_far(
    tmp_path, heard, monkeypatch, kind, module, first
):
    kept, real = [], module.keep
    monkeypatch.setattr(module, "keep", lambda result, out: (real(result, out), kept.append(read(out))))
    run(kind, tmp_path, heard, "--who", "plain", "fp32", "--repeats", "2")
    rows = [[each for each in document["rows"] if each["unit"] == "s"] for document in kept]
    assert [[(each["who"], each["rounds"]) for each in found] for found in rows] == [
        [(first, 0)],
        [("plain", 0), ("fp32", 0)],
        [("plain", 1), ("fp32", 1)],
        [("plain", 2), ("fp32", 2)],
    ]
    assert all(each["peak_gb"] > 0 and each["median"] > 0 for found in rows for each in found)
    assert kept[1]["ratios"]


def test_between_its_steps_a_contender_holds_no_gradients_and_its_step_is_trains():
    config = override(preset_of("micro"), SMALL)
    contender = bench_models.make(config, "fp32", CPU, True)
    sample = nominal_sample(config, image_size(config, (32, 48)))
    step, job = bench_step.stepper(contender, sample, CPU)
    before = [each.clone() for each in contender.model.parameters()]
    assert step() == step()  # the same weights and dropout masks
    assert all(each.grad is None for each in contender.model.parameters())
    assert all(map(torch.equal, before, contender.model.parameters()))
    assert bench_step.train_step is train_step and job.schedule == config.schedule


def test_ours_asks_for_far_fewer_operators_than_the_plain_step(tmp_path, heard):
    _, document = run("step", tmp_path, heard, "--who", "plain", "fp32")
    what = "torch operators of a training step"
    counts = {each["who"]: each["median"] for each in document["rows"] if each["what"] == what}
    assert counts["plain"] > 2 * counts["fp32"] > 500
    assert [each["who"] for each in document["ratios"] if each["what"] == what] == ["fp32"]


def test_operators_are_counted_that_would_launch_something():
    x = torch.ones(4)
    with bench_launches.counting() as counted:
        x.view(2, 2).t().detach(), torch.empty(3), x.new_empty(2)
        assert counted() == 0
        x + 1, x.add_(1), torch.zeros(2), x.clone()
    assert counted() == 4


def test_a_profiler_that_is_not_let_in_costs_the_count_alone(monkeypatch):
    def refused(step, device):
        raise RuntimeError("CUPTI_ERROR_INSUFFICIENT_PRIVILEGES")

    monkeypatch.setattr(bench_step, "kernels_of", refused)
    found = bench_step.kernels(lambda: 0.0, CPU)
    assert found["launches"] is None and "INSUFFICIENT_PRIVILEGES" in found["launches_absent"]
    facts = dict(found, alone_s=1.0, peak_gb=2.0)
    (only,) = bench_step.rows_about("tiny", "fast", facts, [], CPU)
    assert (only["median"], only["rounds"], only["peak_gb"]) == (1.0, 0, 2.0) and "launches" not in only


def test_of_a_gpus_profile_the_kernels_are_counted():
    class Event:
        def __init__(self, name, kind):
            self.name, self.device_type = lambda: name, lambda: getattr(torch.autograd.DeviceType, kind)

    events = [Event("aten::add", "CPU"), Event("cudaLaunchKernel", "CPU"), Event("add_kernel", "CUDA")]
    for name in ("Memcpy HtoD", "Memset", "Optimizer.step#AdamW.step", "spatial_forward"):
        events.append(Event(name, "CUDA"))
    assert bench_launches.on_the_gpu(events) == ["add_kernel", "spatial_forward"]


def test_a_step_too_large_for_the_machine_is_not_begun(monkeypatch):
    monkeypatch.setattr(bench_step, "host_summary", lambda device: {"memory_gib": 0.01})
    absent = {}
    names = bench_step.fitting(preset_of("micro"), ["plain", "lean"], CPU, absent, "micro")
    assert names == ["lean"] and "takes 0 GiB of 0" in absent["micro, plain"]


def test_a_frames_peak_has_a_goal_too():
    rows = [
        row("base", bench_infer.WHAT, who, [s], peak_gb=gb)
        for who, s, gb in (("plain", 4.0, 8.0), ("fp32", 3.0, 3.0), ("fast", 1.0, 5.0))
    ]
    found = {(each["what"], each["who"]): each for each in bench_infer.judged(rows, "base", CPU, True)}
    assert found[bench_infer.WHAT, "fast"]["met"] is True and found["peak memory", "fast"]["met"] is False
    assert "goal" not in found["peak memory", "fp32"] and found["peak memory", "fp32"]["times"] == 2.6667


@pytest.mark.parametrize("module, what", [(bench_step, bench_step.WHAT), (bench_infer, bench_infer.WHAT)])
def test_the_better_of_ours_carries_the_goal(module, what):
    rows = [row("tiny", what, who, [s]) for who, s in (("plain", 4.0), ("fp32", 3.0), ("fast", 1.0))]
    found = {each["who"]: each for each in module.judged(rows, "tiny", CPU, full_size=True)}
    assert found["fast"]["met"] is True and "goal" not in found["fp32"]
    assert not any("goal" in each for each in module.judged(rows, "tiny", CPU, full_size=False))
