"""The bench: that it compares what it says, and that both formulations are the same function."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bevformer import bench, nominal
from bevformer.config import override, preset
from bevformer.detector import build_model
from bevformer.errors import ConfigError

SMALL = ["head.num_query=20", "head.max_per_img=20", "encoder.bev_h=12", "encoder.bev_w=10"]
WORDS = ["--preset", "bevformer_micro", "--size", "32x48", "--repeats", "2", "--cfg-options", *SMALL]


@pytest.mark.parametrize("step", [[], ["--train"]], ids=["inference", "training"])
def test_it_writes_medians_ratio_and_difference(tmp_path, heard, step):
    path = tmp_path / "bench.json"
    assert bench.main([*WORDS, *step, "--out", str(path)], heard) == 0
    result = json.loads(path.read_text())
    assert result["ratio"] == pytest.approx(result["plain"]["step_s"] / result["ours"]["step_s"])
    assert (
        len(result["ours"]["step_s_all"]) == 2 and 0 < result["ours"]["encoder_s"] < result["ours"]["step_s"]
    )
    assert result["images_hw"] == [32, 48] and result["host"]["cpus"] >= 1
    assert all(0 <= apart < 1e-4 for apart in result["max_abs_difference"].values())
    assert heard.results == [{"out": str(path), "ratio": result["ratio"]}]


def test_both_models_are_different_code_on_the_same_parameters():
    ours = build_model(override(preset("bevformer_micro"), SMALL))
    plain = bench.plain_copy(ours)
    assert {id(p) for p in ours.parameters()} == {id(p) for p in plain.parameters()}
    kinds = [type(m.pts_bbox_head.transformer.encoder.layers[0].attentions[1]) for m in (ours, plain)]
    assert [kind.__name__ for kind in kinds] == ["SpatialCrossAttention", "PlainSpatialCrossAttention"]


@pytest.mark.parametrize("history", [True, False])
@pytest.mark.parametrize("outs", [1, 4], ids=["one level", "four levels"])
def test_both_give_the_same_bev_map_and_gradient_in_float64(history, outs):
    config = override(preset("bevformer_micro"), [*SMALL, "encoder.num_layers=2", f"neck.num_outs={outs}"])
    torch.manual_seed(0)
    ours = bench.with_spread_sampling(build_model(config)).double().train()
    size, past = nominal.image_size(config, (64, 96)), torch.randn(2, 120, 128, dtype=torch.float64)
    images = torch.stack([nominal.nominal_frame(size, i).images_NCHW.double() for i in range(2)])
    results = []
    for model in (ours, bench.plain_copy(ours)):
        levels = model.features(images)
        bev = model.pts_bbox_head.bev(levels, [nominal.nominal_meta(size)] * 2, past if history else None)
        ours.zero_grad()
        (bev * torch.linspace(0, 1, bev.numel(), dtype=bev.dtype).view_as(bev)).sum().backward()
        results.append([bev.detach()] + [p.grad for p in ours.parameters() if p.grad is not None])
    assert len(results[0]) == len(results[1]) > 20
    for one, other in zip(*results):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", ["480", "480x", "100x100", "0x0", "-32x48"])
def test_a_size_the_backbone_cannot_take_is_refused(size):
    with pytest.raises(ConfigError, match="--size"):
        bench.parse_size(size, preset("bevformer_tiny"))


def test_as_a_program_it_says_what_is_wrong():
    model_dir = Path(bench.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "bevformer.bench", "--size", "7x7"],
        env=dict(os.environ, PYTHONPATH=str(model_dir)), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 6 and "--size 7x7" in done.stderr and "Traceback" not in done.stderr


def test_the_recorded_run_is_of_this_bench_and_not_slower():
    recorded = json.loads((Path(__file__).parents[2] / "benchmarks" / "tiny_cpu_inference.json").read_text())
    assert recorded["config"] == "bevformer_tiny" and recorded["images_hw"] == [480, 800]
    assert recorded["host"]["threads"] == 2 and recorded["host"]["cpu"]
    assert min(recorded[kind] for kind in ("ratio", "ratio_cpu_time", "ratio_encoder")) >= 1.0


@pytest.mark.slow
def test_ours_is_not_slower_in_the_part_that_differs(heard):
    """The encoder; of tiny's whole step at full size 95 % are the backbone, which both share."""
    config = preset("bevformer_micro")
    result = bench.bench(config, nominal.image_size(config), repeats=7, train=False, talk=heard)
    assert result["ratio_encoder"] > 1.0
