import pytest
import torch

from bevformer.ops.deform_attn import deform_attn
from bevformer.ops.modulated_conv import modulated_deform_conv


def bilinear(plane_hwD, x, y):
    """One sample at pixel coordinates (x, y), zero outside: written from the contract, point by point."""
    h, w = plane_hwD.shape[:2]
    x0, y0 = int(torch.floor(x)), int(torch.floor(y))
    out = torch.zeros_like(plane_hwD[0, 0])
    for yi, wy in ((y0, y0 + 1 - y), (y0 + 1, y - y0)):
        for xi, wx in ((x0, x0 + 1 - x), (x0 + 1, x - x0)):
            if 0 <= xi < w and 0 <= yi < h:
                out = out + plane_hwD[yi, xi] * wx * wy
    return out


def brute_force(value, shapes, locations, weights):
    B, _, H, D = value.shape
    out = torch.zeros(B, locations.shape[1], H, D, dtype=value.dtype)
    starts = [sum(h * w for h, w in shapes[:i]) for i in range(len(shapes))]
    for b, q, head in torch.cartesian_prod(*(torch.arange(n) for n in (B, locations.shape[1], H))):
        for level, (h, w) in enumerate(shapes):
            plane = value[b, starts[level] : starts[level] + h * w, head].view(h, w, D)
            for p in range(locations.shape[4]):
                x, y = locations[b, q, head, level, p]
                out[b, q, head] += weights[b, q, head, level, p] * bilinear(plane, x * w - 0.5, y * h - 0.5)
    return out.flatten(2)


def draw(shapes, B=2, H=2, D=3, Q=4, P=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    S = sum(h * w for h, w in shapes)
    value = torch.randn(B, S, H, D, generator=generator, dtype=torch.float64)
    locations = torch.rand(B, Q, H, len(shapes), P, 2, generator=generator, dtype=torch.float64) * 1.6 - 0.3
    weights = torch.rand(B, Q, H, len(shapes), P, generator=generator, dtype=torch.float64)
    return value, locations, weights


def ours(value, shapes, locations, logits):
    """Locations as offsets from reference points drawn at random, in cells; logits as they are."""
    generator = torch.Generator().manual_seed(5)
    B, Q, _, _, P, _ = locations.shape
    reference = torch.rand(B, Q, P, 2, generator=generator, dtype=torch.float64)
    sizes = torch.tensor([[w, h] for h, w in shapes], dtype=torch.float64)[:, None]
    return deform_attn(
        value.flatten(2), shapes, reference, (locations - reference[:, :, None, None]) * sizes, logits
    )


@pytest.mark.parametrize("shapes", [[(5, 4)], [(4, 6), (2, 3)], [(1, 1), (3, 1), (2, 5)]])
def test_deformable_attention_equals_a_loop_over_points(shapes):
    value, locations, weights = draw(shapes)
    soft = weights.flatten(3).softmax(-1).view_as(weights)
    twin = brute_force(value, shapes, locations, soft)
    assert torch.allclose(ours(value, shapes, locations, weights), twin, atol=1e-12)


def test_deformable_attention_has_right_gradients():
    value, locations, weights = (t.requires_grad_() for t in draw([(3, 4), (2, 2)], B=1, Q=2, P=2))
    assert torch.autograd.gradcheck(
        lambda v, x, w: ours(v, [(3, 4), (2, 2)], x, w), (value, locations, weights)
    )


def conv_inputs(stride):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 6, 5, generator=generator, dtype=torch.float64)
    h, w = (6 - 1) // stride + 1, (5 - 1) // stride + 1
    offset = torch.randn(2, 18, h, w, generator=generator, dtype=torch.float64) * 1.5
    mask = torch.rand(2, 9, h, w, generator=generator, dtype=torch.float64)
    return x, offset, mask, torch.randn(4, 3, 3, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("stride", [1, 2])
def test_modulated_convolution_equals_a_loop_over_taps(stride):
    x, offset, mask, weight = conv_inputs(stride)
    ours = modulated_deform_conv(x, offset, mask, weight, stride, 1, 1)
    wanted = torch.zeros_like(ours)
    for b, i, j, tap in torch.cartesian_prod(*(torch.arange(n) for n in (2, *ours.shape[2:], 9))):
        y = i * stride - 1 + tap // 3 + offset[b, 2 * tap, i, j]
        xx = j * stride - 1 + tap % 3 + offset[b, 2 * tap + 1, i, j]
        sampled = bilinear(x[b].permute(1, 2, 0), xx, y) * mask[b, tap, i, j]
        wanted[b, :, i, j] += weight[:, :, tap // 3, tap % 3] @ sampled
    assert torch.allclose(ours, wanted, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_without_offsets_it_is_an_ordinary_convolution(stride):
    x, offset, mask, weight = conv_inputs(stride)
    ours = modulated_deform_conv(x, offset * 0, torch.ones_like(mask), weight, stride, 1, 1)
    assert torch.allclose(ours, torch.nn.functional.conv2d(x, weight, stride=stride, padding=1), atol=1e-12)


def test_modulated_convolution_has_right_gradients():
    x, offset, mask, weight = (
        t[:1, :, :3, :3].contiguous().requires_grad_()
        if t.dim() == 4 and t.shape[0] == 2
        else t.requires_grad_()
        for t in conv_inputs(1)
    )
    assert torch.autograd.gradcheck(lambda *a: modulated_deform_conv(*a, 1, 1, 1), (x, offset, mask, weight))
