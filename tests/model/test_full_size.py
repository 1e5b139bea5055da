"""bevformer_tiny at the paper's size, 480x800; and the same numbers on a GPU where there is one."""

import dataclasses
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


@pytest.mark.slow
def test_tiny_runs_two_frames_at_full_size():
    model = filled.model_of(preset("bevformer_tiny")).float()
    first, memory = model.step(full_size_frame(0))
    assert memory.bev_BQC.shape == (1, 2500, 256) and bool(torch.isfinite(memory.bev_BQC).all())
    second, _ = model.step(full_size_frame(1), memory)
    alone, _ = model.step(full_size_frame(1))
    assert len(second.scores_K) == 300 or bool((second.boxes_K9[:, :2].abs() <= 61.2).all())
    assert not torch.equal(second.scores_K[:50], alone.scores_K[:50])  # history reaches the boxes


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["bevformer_micro", "bevformer_tiny", "bevformer_small", "bevformer_base"])
def test_a_gpu_gives_the_cpus_numbers(name):
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    pytest.importorskip("scipy", reason="the matching needs scipy")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    smaller = ["encoder.bev_h=12", "encoder.bev_w=10", "head.num_query=30", "transformer.dropout=0.0"]
    model = filled.model_of(override(preset(name), smaller))
    outputs = []
    for device in ("cpu", "cuda"):
        model.to(device)
        _, memory = model.eval().step(filled.frame(0))
        _, memory = model.step(filled.frame(1), memory)
        losses = model.train().loss(filled.sample())
        outputs.append([memory.bev_BQC.cpu()] + [loss.detach().cpu() for loss in losses.values()])
    for on_cpu, on_gpu in zip(*outputs):
        # The projection is float32 by contract; its last digits differ between devices.
        assert torch.allclose(on_cpu, on_gpu, rtol=1e-4, atol=1e-5)
