"""The benchmarks' program, and the two models that steps are timed with: the same function, other code."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bevformer import bench, bench_pair, nominal
from bevformer.bench_common import KINDS
from bevformer.config import override, preset
from bevformer.detector import build_model

SMALL = ["head.num_query=20", "head.max_per_img=20", "encoder.bev_h=12", "encoder.bev_w=10"]


def test_both_models_are_different_code_on_the_same_parameters():
    ours = build_model(override(preset("bevformer_micro"), SMALL))
    plain = bench_pair.plain_copy(ours)
    assert {id(p) for p in ours.parameters()} == {id(p) for p in plain.parameters()}
    kinds = [type(m.pts_bbox_head.transformer.encoder.layers[0].attentions[1]) for m in (ours, plain)]
    assert [kind.__name__ for kind in kinds] == ["SpatialCrossAttention", "PlainSpatialCrossAttention"]


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize("outs", [1, 4], ids=["one level", "four levels"])
def test_both_give_the_same_bev_map_and_gradient_in_float64(history, outs):
    config = override(preset("bevformer_micro"), [*SMALL, "encoder.num_layers=2", f"neck.num_outs={outs}"])
    torch.manual_seed(0)
    ours = bench_pair.with_spread_sampling(build_model(config)).double().train()
    size, past = nominal.image_size(config, (64, 96)), torch.randn(2, 120, 128, dtype=torch.float64)
    images = torch.stack([nominal.nominal_frame(size, i).images_NCHW.double() for i in range(2)])
    results = []
    for model in (ours, bench_pair.plain_copy(ours)):
        levels = model.features(images)
        bev = model.pts_bbox_head.bev(levels, [nominal.nominal_meta(size)] * 2, past if history else None)
        ours.zero_grad()
        (bev * torch.linspace(0, 1, bev.numel(), dtype=bev.dtype).view_as(bev)).sum().backward()
        results.append([bev.detach()] + [p.grad for p in ours.parameters() if p.grad is not None])
    assert len(results[0]) == len(results[1]) > 20
    for one, other in zip(*results):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)


def started(*words):
    model_dir = Path(bench.__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-m", "bevformer.bench", *words],
        env=dict(os.environ, PYTHONPATH=str(model_dir)), capture_output=True, text=True,
    )  # fmt: skip


def test_as_a_program_it_says_what_is_wrong():
    done = started("ops", "--preset", "huge")
    assert done.returncode == 6 and "unknown preset: 'huge'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_program_that_takes_presets_and_a_file(kind, heard, capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main([kind, "--help"], heard)
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "--preset" in said and "--out" in said


def test_the_recorded_run_is_of_this_bench_and_not_slower():
    recorded = json.loads((Path(__file__).parents[2] / "benchmarks" / "tiny_cpu_inference.json").read_text())
    assert recorded["config"] == "bevformer_tiny" and recorded["images_hw"] == [480, 800]
    assert recorded["host"]["threads"] == 2 and recorded["host"]["cpu"]
    assert min(recorded[kind] for kind in ("ratio", "ratio_cpu_time", "ratio_encoder")) >= 1.0
