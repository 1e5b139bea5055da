"""The whole spatial layer - projections, weights, sampling - by every compiled backend, against float64."""

import pytest
import torch
from attention_cases import CASES

from bevformer.attention import SpatialCrossAttention
from bevformer.errors import ConfigError
from bevformer.ops.backends import choose
from bevformer.ops.visible import gather_visible

GPU = torch.cuda.is_available()
BASE = CASES["base"]  # whose kernels another test marked gpu compiles as well
LEVELS, CAMERAS, QUERIES, HEADS = BASE.levels, BASE.maps, BASE.queries, BASE.heads
DIMS, POINTS, HEIGHTS = BASE.heads * BASE.dims, BASE.points, BASE.heights
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not GPU, reason="torch sees no GPU")]
BACKENDS = [("reference", "cpu"), ("cpp", "cpu"), ("triton", "cuda" if GPU else "cpu")]
BACKENDS += [pytest.param("triton", "cuda", marks=ON_GPU, id="gpu")]


def drawn():
    """The layer and its inputs, in float64; two of the queries are seen by no camera."""
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)
    layer = SpatialCrossAttention(DIMS, HEADS, len(LEVELS), POINTS, 0.0).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(normal(*parameter.shape) / 3)
    seen = normal(1, CAMERAS, QUERIES) > 0
    seen[..., :2] = False
    points = normal(1, CAMERAS, QUERIES, HEIGHTS, 2).mul(0.3).add(0.5)
    cells = sum(h * w for h, w in LEVELS)
    return layer, normal(1, QUERIES, DIMS), normal(1, CAMERAS, cells, DIMS), points, seen


def gradients(backend, device, dtype):
    """Of all parameters, of the queries and of the cameras' features."""
    layer, query, features, points, seen = drawn()
    layer.backend = backend
    layer = layer.to(device, dtype)
    leaves = [each.to(device, dtype).requires_grad_() for each in (query, features)]
    visible = gather_visible(points.to(dtype), seen).to(torch.device(device))
    out = layer(*leaves, LEVELS, visible)
    weight = torch.linspace(-1, 1.3, out.numel(), device=device, dtype=dtype).view_as(out)
    named = dict(layer.named_parameters(), query=leaves[0], features=leaves[1])
    found = torch.autograd.grad((out * weight).sum(), list(named.values()))
    return {name: each.cpu().double() for name, each in zip(named, found)}


@pytest.mark.parametrize(("backend", "device"), BACKENDS)
def test_every_parameter_of_the_layer_gets_float64s_gradient(backend, device):
    if backend == "triton":
        pytest.importorskip("triton", reason="no Triton here: make test-ops")
    try:
        choose(backend, device)
    except ConfigError as error:
        pytest.skip(error.seen)
    found, true = gradients(backend, device, torch.float32), gradients("reference", "cpu", torch.float64)
    assert len(found) == 2 + 4 * 2 and all(each.any() for each in true.values())
    apart = {name: float((found[name] - each).norm() / each.norm()) for name, each in true.items()}
    assert max(apart.values()) < 1e-5, apart
