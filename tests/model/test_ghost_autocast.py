"""Autocast on the meta device casts what CUDA's does."""

import torch
import torch.nn.functional as F
from torch import nn

from bevformer import plan as planned
from bevformer.config import preset
from bevformer.ghost_autocast import GhostAutocast

LOW, FULL = torch.bfloat16, torch.float32


def ghost(*shape):
    return torch.empty(*shape, device="meta", requires_grad=True)


def test_products_are_low_norms_and_sums_are_full_and_the_rest_takes_what_it_gets():
    x, linear, conv = ghost(2, 3, 8, 8), nn.Linear(8, 8, device="meta"), nn.Conv2d(3, 4, 3, device="meta")
    grid = torch.empty(2, 5, 5, 2, device="meta")
    with GhostAutocast(LOW):
        low = linear(x)
        assert (low.dtype, conv(x).dtype, (x @ x).dtype, low.relu().dtype) == (LOW,) * 4
        assert (F.layer_norm(low, (8,)).dtype, low.sum(1).dtype, low.softmax(1).dtype) == (FULL,) * 3
        sampled = [F.grid_sample(low, each, align_corners=False).dtype for each in (grid, grid.to(LOW))]
        assert sampled == [FULL, LOW]
    assert linear(x).dtype == FULL


def test_gradients_are_those_of_full_precision_weights():
    linear = nn.Linear(8, 8, device="meta")
    with GhostAutocast(LOW):
        planned._backward(linear(ghost(2, 8)).sum())
    assert linear.weight.grad.dtype == FULL


def test_recomputed_parts_run_under_it_too():
    config = preset("bevformer_micro")
    names = ["encoder-layers", "backbone-blocks", "sampling"]
    low, full = (planned.peak_memory(config, names, amp)["phases_gib"]["history"] for amp in (True, False))
    assert low < full
