"""bevformer_tiny at the paper's size, 480x800; and every preset's numbers, smaller, also on a GPU."""

import contextlib
import dataclasses
import functools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import filled  # noqa: E402

from bevformer.config import override, preset  # noqa: E402
from bevformer.types import Frame  # noqa: E402


def full_size_frame(index, height=480, width=800):
    small = filled.frame(index)
    scale = np.diag([width / filled.WIDTH, height / filled.HEIGHT, 1, 1])
    meta = dataclasses.replace(
        small.meta, lidar2img_N44=scale @ small.meta.lidar2img_N44, img_shape_hw=(height, width)
    )
    images = torch.from_numpy(filled.stream("full%d" % index).standard_normal((6, 3, height, width)))
    return Frame(images.float(), meta)


SLOW = pytest.mark.slow


@SLOW
def test_tiny_runs_two_frames_at_full_size():
    model = filled.model_of(preset("bevformer_tiny")).float()
    first, memory = model.step(full_size_frame(0))
    assert memory.bev_BQC.shape == (1, 2500, 256) and bool(torch.isfinite(memory.bev_BQC).all())
    second, _ = model.step(full_size_frame(1), memory)
    alone, _ = model.step(full_size_frame(1))
    assert len(second.scores_K) == 300 or bool((second.boxes_K9[:, :2].abs() <= 61.2).all())
    assert not torch.equal(second.scores_K[:50], alone.scores_K[:50])  # history reaches the boxes


PRESETS = ("bevformer_micro", "bevformer_tiny", "bevformer_small", "bevformer_base")
SMALLER = ["encoder.bev_h=12", "encoder.bev_w=10", "head.num_query=30", "transformer.dropout=0.0"]
EXACT = ("ops.attention=reference", torch.float64)  # Triton's and mmcv's kernels know no float64
# Relative to the largest number.  In float64 only the projection is float32, by contract: its last digit.  In
# float32 a CPU is 1e-6 off its own float64, by grid_sample and by cpp (test below); a GPU's convolutions may
# round some ten times as much (Winograd).  TF32, left on by mistake, would be off by 1e-3.
BOUNDS = {torch.float64: 1e-5, torch.float32: 1e-4}


def numbers(name, attention, dtype, device="cpu", options=()):
    """The BEV map of a video's second frame, and all losses of a training step, on the CPU in float64."""
    model = filled.model_of(override(preset(name), [*SMALLER, *options, attention])).to(device, dtype)
    _, memory = model.eval().step(filled.frame(0))
    _, memory = model.step(filled.frame(1), memory)
    losses = model.train().loss(filled.sample())
    assert memory.bev_BQC.device.type == torch.device(device).type
    return [each.detach().cpu().double() for each in (memory.bev_BQC, *losses.values())]


@functools.lru_cache
def exact_numbers(name):
    return numbers(name, *EXACT)


def apart(found, true):
    """NaN stays."""
    return max((float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, true)), key=_nan_first)


def _nan_first(number):
    return number if number == number else float("inf")


@pytest.mark.parametrize("name", ["bevformer_micro", *(pytest.param(n, marks=SLOW) for n in PRESETS[1:])])
@pytest.mark.parametrize("attention", ["ops.attention=reference", "ops.attention=auto"])
def test_float32_gives_float64s_numbers_up_to_rounding(name, attention):
    pytest.importorskip("scipy", reason="the matching needs scipy")
    found = numbers(name, attention, torch.float32)
    assert 0 < apart(found, exact_numbers(name)) < BOUNDS[torch.float32] / 40


@contextlib.contextmanager
def without_tf32():
    """Not by monkeypatch, which cannot put attributes of these modules back."""
    modules = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [module.allow_tf32 for module in modules]
    for module in modules:
        module.allow_tf32 = False
    try:
        yield
    finally:
        for module, value in zip(modules, before):
            module.allow_tf32 = value


def test_tf32_is_as_it_was_after_a_test_without():
    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    with without_tf32():
        assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


@pytest.mark.gpu
@pytest.mark.parametrize("how", [EXACT, ("ops.attention=auto", torch.float32)], ids=["float64", "float32"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_gpu_gives_the_cpus_numbers(name, how):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    pytest.importorskip("scipy", reason="the matching needs scipy")
    with without_tf32():
        found = numbers(name, *how, "cuda")
    assert apart(found, exact_numbers(name)) < BOUNDS[how[1]]
