"""On a GPU: the images that a CPU would finish, and copies that are there when they are used.  No OpenCV."""

import numpy as np
import pytest
import torch

from bevformer import pixels
from bevformer.config import bevformer_base, bevformer_small, bevformer_tiny
from bevformer.data.distortion import draw_distortion
from bevformer.prefetch import Prefetch, ToDevice
from bevformer.types import Frame, GroundTruth, Sample

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]
PIXEL = 1e-3  # as in test_pixels


def raw(seed, hw=(90, 160)):
    images = np.random.RandomState(seed).randint(0, 256, (6, *hw, 3)).astype(np.uint8)
    return torch.from_numpy(images).permute(0, 3, 1, 2)


@pytest.mark.parametrize("preset", (bevformer_tiny, bevformer_small, bevformer_base))
@pytest.mark.parametrize("distorted", (False, True))
def test_a_gpu_finishes_images_as_a_cpu_does(preset, distorted):
    data, rng = preset().data, np.random.RandomState(0)
    drawn = [draw_distortion(rng) for _ in range(6)] if distorted else []
    here = pixels.finished(raw(1), data, drawn)
    there = pixels.finished(raw(1).cuda(), data, drawn)
    assert there.is_cuda and there.shape == here.shape
    apart = float((there.cpu() - here).abs().max())
    assert apart <= (PIXEL / min(data.std) if distorted else 0.0)


def test_what_is_copied_ahead_is_whole_when_it_is_used():
    device = torch.device("cuda")
    truth = GroundTruth(torch.zeros(0, 9), torch.zeros(0, dtype=torch.int64))
    samples = [
        [Sample(tuple(Frame(raw(4 * k + i, (450, 800)), None) for i in range(4)), truth)] for k in range(6)
    ]
    ahead = Prefetch(iter([(each, k) for k, each in enumerate(samples)]), ToDevice(device))
    busy = torch.randn(2048, 2048, device=device)
    for k, each in enumerate(samples):
        (moved,), place = next(ahead)
        assert place == k
        for there, here in zip(moved.frames, each[0].frames):
            assert there.images_NCHW.is_cuda and there.images_NCHW.stride() == here.images_NCHW.stride()
            total = there.images_NCHW.long().sum()  # behind the work that is queued
            assert int(total) == int(here.images_NCHW.long().sum())
        busy = busy @ busy / 2048
    ahead.close()
