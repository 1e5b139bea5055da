"""The kernel that distorts and normalises, in the interpreter where there is no GPU."""

import numpy as np
import pytest
import torch

pytest.importorskip("triton", reason="no Triton here: make test-ops")

from bevformer import pixels
from bevformer.config import bevformer_base, bevformer_tiny
from bevformer.data.distortion import Distortion, draw_distortion

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def images(hw):
    rng = np.random.RandomState(0)
    noise = rng.randint(0, 256, (6, *hw, 3)).astype(np.uint8)
    noise[2], noise[3], noise[4] = 0, 255, noise[4][..., :1]
    return torch.from_numpy(noise).permute(0, 3, 1, 2).to(DEVICE)


@pytest.mark.parametrize("preset", (bevformer_tiny, bevformer_base))
@pytest.mark.parametrize("seed", (None, 0, 1))
def test_the_numbers_are_those_of_separate_operations(preset, seed):
    rng, data = np.random.RandomState(seed), preset().data
    drawn = [] if seed is None else [draw_distortion(rng) for _ in range(6)]
    one, two = (each(images((40, 57)), data, drawn) for each in (pixels.coloured, pixels.coloured_at_once))
    assert one.shape == two.shape == (6, 3, 40, 57)
    assert (one - two).abs().max() <= (0 if DEVICE.type == "cpu" or seed is None else 1e-3 / min(data.std))


def test_every_image_has_its_own_order_of_channels():
    orders = ((0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0), (0, 2, 1), (1, 0, 2))
    drawn = [Distortion(channels=order) for order in orders]
    data = bevformer_base().data
    one, two = (each(images((3, 5)), data, drawn) for each in (pixels.coloured, pixels.coloured_at_once))
    assert (one - two).abs().max() < 1e-4


def test_the_check_before_its_first_use_passes():
    assert pixels.disagreement(DEVICE) <= pixels.AGREES
