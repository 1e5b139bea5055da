"""Small attentions of every shape class of the presets, and what a backend makes of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from bevformer.ops.visible import gather_visible


@dataclass(frozen=True)
class Case:
    """kind: deform, temporal or spatial.  maps: M, B or N; seen: how many rows of eight a camera sees."""

    kind: str
    levels: tuple[tuple[int, int], ...]
    maps: int
    queries: int
    heads: int
    dims: int
    points: int
    heights: int = 1
    seen: int = 3


CASES = {
    "decoder": Case("deform", ((5, 6),), 2, 9, 2, 4, 4),
    "deform of three levels": Case("deform", ((4, 5), (2, 3), (1, 1)), 1, 5, 2, 4, 4, 2),
    "temporal": Case("temporal", ((3, 5),), 2, 15, 2, 4, 4),
    "tiny": Case("spatial", ((4, 6),), 3, 25, 2, 4, 8, 4),
    "small": Case("spatial", ((5, 7),), 2, 67, 1, 4, 8, 4),
    "base": Case("spatial", ((6, 8), (3, 4), (2, 2), (1, 1)), 3, 18, 2, 4, 8, 4),
    "head of 32": Case("spatial", ((4, 6),), 2, 5, 1, 32, 8, 4),
}
CASES["seen by none"] = dataclasses.replace(CASES["base"], seen=0)  # the same kernels


@dataclass(frozen=True)
class Inputs:
    """value, offsets and logits get gradients; points is a tensor, or the `Pairs` of spatial attention."""

    value: torch.Tensor
    offsets: torch.Tensor
    logits: torch.Tensor
    points: object


def inputs_of(case, dtype=torch.float32, device="cpu", scale=2.0):
    """Deterministic numbers; a part of the reference points lies outside the maps."""
    generator = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(shape, generator=generator).to(device)
    cells, C, H, Q = sum(h * w for h, w in case.levels), case.heads * case.dims, case.heads, case.queries
    samples = (len(case.levels), case.points)
    if case.kind == "temporal":
        shape, samples = (case.maps, Q, H, 2, case.points), ()
        value, points = normal(case.maps, 2, cells, C), _around(normal(case.maps, 2, Q, 2))
    elif case.kind == "deform":
        shape = (case.maps, Q, H)
        value, points = normal(case.maps, cells, C), _around(normal(case.maps, Q, case.heights, 2))
    else:
        shape = (Q, H)
        value, points = normal(case.maps, cells, C), _around(normal(1, case.maps, Q, case.heights, 2))
        row, camera = torch.arange(Q, device=device), torch.arange(case.maps, device=device)
        ragged = (row + 5 * camera[:, None]) * 7 % 8 < case.seen
        points = gather_visible(points, ragged[None]).pairs
    offsets, logits = scale * normal(*shape, *samples, 2), normal(*shape, *samples)
    return Inputs(*(each.to(dtype) for each in (value, offsets, logits)), points)


def _around(normal):
    return 0.5 + 0.5 * normal


def apply(backend, case, given):
    """The output of a backend."""
    if case.kind == "temporal":
        return backend.temporal_attn(given.value, case.levels[0], given.points, given.offsets, given.logits)
    if case.kind == "deform":
        return backend.deform_attn(given.value, case.levels, given.points, given.offsets, given.logits)
    return backend.spatial_attn(given.value, case.levels, given.points, given.offsets, given.logits)


def results(backend, case, given):
    """(output, and the gradients of value, offsets and logits) for a weighting without symmetry."""
    leaves = [each.detach().requires_grad_() for each in (given.value, given.offsets, given.logits)]
    out = apply(backend, case, Inputs(*leaves, given.points))
    weight = (
        torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out).to(torch.bfloat16).to(out.dtype)
    )
    return [out.detach(), *torch.autograd.grad(out, leaves, weight)]


def in_float64(given):
    """The same numbers, for a reference without rounding of its own."""
    points = given.points
    if isinstance(points, torch.Tensor):
        points = points.double()
    else:
        doubled = dict(points_VZ2=points.points_VZ2.double(), points_KRZ2=points.points_KRZ2.double())
        points = dataclasses.replace(points, **doubled)
    return Inputs(given.value.double(), given.offsets.double(), given.logits.double(), points)


def apart(found, true):
    """The largest difference, relative to the largest number there is; NaN stays."""
    largest = float(true.abs().max()) if true.numel() else 0.0
    difference = float((found.double() - true.double()).abs().max()) if true.numel() else 0.0
    return difference if largest == 0 else difference / largest
