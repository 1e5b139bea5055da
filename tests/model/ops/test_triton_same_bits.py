"""ops.deterministic: the backward pass gives the same bits whatever the order of its programs."""

import pytest
import torch

pytest.importorskip("triton", reason="no Triton here: make test-ops")

from bevformer.ops import reference
from bevformer.ops.deform_attn import deform_attn
from bevformer.ops.triton_backend import make
from bevformer.ops.visible import gather_visible

GPU = torch.cuda.is_available()
LEVELS, CELLS = ((2, 3), (1, 2)), 8  # few cells, so that many samples meet in each
HEADS, CHANNELS = 1, 32  # so a program takes 4 rows, or 8 where it adds float32


def drawn(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def deform(attend, Q, device):
    points, *inputs = drawn(
        0, (2, Q, 2, 2), (2, CELLS, CHANNELS), (2, Q, HEADS, 2, 4, 2), (2, Q, HEADS, 2, 4)
    )
    points = points.sigmoid().to(device)
    return inputs, lambda v, o, w: attend(v, LEVELS, points.to(promoted(v)), o, w)


def temporal(attend, Q, device):
    points, *inputs = drawn(1, (1, 2, Q, 2), (1, 2, Q, CHANNELS), (1, Q, HEADS, 2, 4, 2), (1, Q, HEADS, 2, 4))
    points = points.sigmoid().to(device)
    return inputs, lambda v, o, w: attend(v, (2, Q // 2), points.to(promoted(v)), o, w)


def spatial(attend, Q, device):
    points, seen, *inputs = drawn(
        2, (1, 3, Q, 2, 2), (1, 3, Q), (3, CELLS, CHANNELS), (Q, HEADS, 2, 4, 2), (Q, HEADS, 2, 4)
    )
    pairs = gather_visible(points.sigmoid(), seen > 0).pairs.to(device)
    return inputs, lambda v, o, w: attend(v, LEVELS, pairs, o, w)


def promoted(value):
    return torch.promote_types(value.dtype, torch.float32)


OPERATORS = {
    "deform": (deform, "deform_attn", deform_attn),
    "temporal": (temporal, "temporal_attn", reference.temporal_attn),
    "spatial": (spatial, "spatial_attn", reference.spatial_attn),
}


def gradients(operator, dtype, backend=None, Q=6, device="cpu", factor=1.0):
    """Of value, offsets and logits, by a backend, or by grid_sample."""
    example, name, by_grid_sample = OPERATORS[operator]
    attend = getattr(backend, name) if backend else by_grid_sample
    inputs, function = example(attend, Q, device)
    inputs = [each.to(torch.bfloat16).to(dtype).to(device).requires_grad_() for each in inputs]
    out = function(*inputs)
    weight = torch.linspace(-1, 1.3, out.numel(), device=device).view_as(out) * factor
    return torch.autograd.grad((out.to(promoted(out)) * weight).sum(), inputs)


@pytest.fixture
def backwards(monkeypatch):
    """The interpreter's programs run in reverse from the call on."""
    from triton.runtime.interpreter import interpreter_builder as builder

    forwards = builder.set_grid_idx

    def backwards(*place):
        forwards(*(size - 1 - index for size, index in zip(builder.grid_dim, place)))

    return lambda: monkeypatch.setattr(builder, "set_grid_idx", backwards)


@pytest.mark.skipif(GPU, reason="a GPU has its own order")
@pytest.mark.parametrize("operator", OPERATORS)
def test_programs_in_reverse_leave_the_same_bits(operator, backwards):
    first = gradients(operator, torch.float32, make(True), Q=12)
    backwards()
    for ours, again in zip(first, gradients(operator, torch.float32, make(True), Q=12)):
        assert torch.equal(ours, again)


@pytest.mark.skipif(GPU, reason="a GPU has its own order")
def test_without_the_option_the_order_shows(backwards):
    first = gradients("deform", torch.float32, make(False), Q=24)
    backwards()
    (value, offsets, logits) = gradients("deform", torch.float32, make(False), Q=24)
    assert not torch.equal(first[0], value) and torch.allclose(first[0], value, atol=1e-5)
    assert torch.equal(first[1], offsets) and torch.equal(first[2], logits)


ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not GPU, reason="torch sees no GPU")]
SPATIAL_ON_GPU = pytest.param("spatial", marks=ON_GPU, id="gpu-spatial")


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("operator", [*OPERATORS, SPATIAL_ON_GPU])
def test_the_numbers_are_grid_samples(operator, dtype, bound):
    device = "cuda" if GPU else "cpu"
    found = gradients(operator, dtype, make(True), device=device)
    for ours, true in zip(found, gradients(operator, torch.float64, device=device)):
        assert ours.dtype == dtype and float((ours - true).norm() / true.norm()) < bound


@pytest.mark.filterwarnings(
    "ignore:invalid value encountered"
)  # by NumPy, which the interpreter computes with
@pytest.mark.parametrize("operator", [*OPERATORS, SPATIAL_ON_GPU])
def test_a_gradient_that_is_not_finite_stays_visible(operator):
    device = "cuda" if GPU else "cpu"
    (value, _, _) = gradients(operator, torch.float32, make(True), device=device, factor=float("inf"))
    assert not value.isfinite().any()


@pytest.mark.parametrize("operator", [pytest.param(name, marks=ON_GPU) for name in OPERATORS])
def test_two_runs_on_a_gpu_leave_the_same_bits(operator):
    first, *others = [gradients(operator, torch.float32, make(True), 20000, "cuda") for _ in range(5)]
    for each in others:
        assert all(torch.equal(ours, again) for ours, again in zip(first, each))
