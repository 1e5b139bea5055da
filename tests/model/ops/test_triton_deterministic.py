"""Sums in fixed point: the order of the programs leaves no trace, numbers are as close as float32 can be."""

import pytest
import torch

pytest.importorskip("triton", reason="no Triton here: make test-ops")

import triton
import triton.language as tl

from bevformer.ops import triton_deterministic as fixed

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
ROWS, CELLS = 64, 3


@triton.jit
def _scatter(grad, weights, cells, order, into, unit_1, FIXED: tl.constexpr, D: tl.constexpr):
    row = tl.load(order + tl.program_id(0))
    unit = tl.load(unit_1) if FIXED else 1.0
    d = tl.arange(0, D)
    contributions = tl.load(grad + row * D + d) * tl.load(weights + row)
    fixed.add(into + tl.load(cells + row) * D + d, contributions, d < D, unit, FIXED)


def scattered(grad_RD, weights_R, cells_R, order_R, deterministic=True):
    D = grad_RD.shape[1]
    sums = fixed.sums_like((CELLS, D), grad_RD, len(grad_RD), deterministic)
    _scatter[(len(grad_RD),)](
        grad_RD, weights_R, cells_R, order_R, sums.into, sums.unit_1, FIXED=deterministic, D=D
    )
    return sums.result(torch.float32)


def example(scale=1.0):
    generator = torch.Generator().manual_seed(0)
    grad = torch.randn(ROWS, 8, generator=generator) * scale
    weights = torch.rand(ROWS, generator=generator)
    cells = torch.randint(CELLS, (ROWS,), generator=generator)
    orders = [torch.randperm(ROWS, generator=generator).to(DEVICE) for _ in range(4)]
    return grad.to(DEVICE), weights.to(DEVICE), cells.to(DEVICE), orders


def exactly(grad, weights, cells):
    sums = torch.zeros(CELLS, 8, dtype=torch.float64, device=DEVICE)
    return sums.index_add(0, cells, grad.double() * weights.double().unsqueeze(1))


def test_another_order_of_the_programs_gives_the_same_bits():
    grad, weights, cells, orders = example()
    first, *others = [scattered(grad, weights, cells, order) for order in orders]
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.skipif(GPU, reason="a GPU has its own order")
def test_in_floating_point_the_order_shows():
    grad, weights, cells, orders = example()
    first, *others = [scattered(grad, weights, cells, order, False) for order in orders]
    assert not all(torch.equal(first, other) for other in others)
    assert torch.allclose(first, exactly(grad, weights, cells).float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6, 1e36])
def test_sums_are_as_close_as_float32_can_tell_at_any_scale(scale):
    grad, weights, cells, orders = example(scale)
    true = exactly(grad, weights, cells)
    found = scattered(grad, weights, cells, orders[0])
    assert float((found - true).abs().max() / true.abs().max()) < 2e-7


@pytest.mark.parametrize("rows", [1, 7, 40000, 2**31])
def test_the_largest_sum_there_can_be_fits_and_is_exact(rows):
    largest = 1.9999999  # all rows whole on one cell
    unit = fixed.unit_of(torch.tensor([largest, -largest]), rows)
    each = (torch.tensor(largest) * unit).to(torch.int64)
    assert abs(int(each) * rows) < 2**63 and float(each / unit) == torch.tensor(largest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_gradient_that_is_not_finite_stays_visible(dtype, bad):
    grad = torch.tensor([1.0, bad, 2.0], dtype=dtype)
    sums = fixed.sums_like((2,), grad, 3, True)
    assert sums.result(dtype).isnan().all() and sums.result(dtype).dtype == dtype


def test_no_gradient_at_all_and_zero_gradients_give_zeros():
    for grad in (torch.zeros(0, 4), torch.zeros(3, 4)):
        sums = fixed.sums_like((2, 4), grad, 3, True)
        assert float(sums.unit_1) > 0 and not sums.result(torch.float32).any()
