"""The Triton attentions on a GPU at the presets' real sizes, against grid_sample and mmcv's kernel."""

import pytest
import torch
from attention_cases import Case, in_float64, inputs_of, results

from bevformer.errors import ConfigError
from bevformer.ops import backends

pytestmark = pytest.mark.gpu
pytest.importorskip("triton", reason="no Triton here")

BASE_LEVELS = ((116, 200), (58, 100), (29, 50), (15, 25))
SIZES = {
    "tiny": Case("spatial", ((15, 25),), 6, 2500, 8, 32, 8, 4, seen=2),
    "small": Case("spatial", ((23, 40),), 6, 22500, 8, 32, 8, 4, seen=2),
    "base": Case("spatial", BASE_LEVELS, 6, 40000, 8, 32, 8, 4, seen=2),
    "decoder": Case("deform", ((200, 200),), 1, 900, 8, 32, 4),
    "temporal": Case("temporal", ((200, 200),), 1, 40000, 8, 32, 4),
}
# float32: a location is rounded by up to 8e-6 cells 200 cells from the edge (grid_sample in float32 is off by
# 2e-5 there), and thousands of samples are summed in any order.  16 bits: half a step besides.
BOUNDS = {torch.float32: 2e-5, torch.bfloat16: 2.0**-8 + 2e-5, torch.float16: 2.0**-11 + 2e-5}
# (size, dtype, deterministic): every kernel that training launches, and of the others one of each kind.
RUNS = [(name, dtype, False) for name in SIZES for dtype in (torch.float32, torch.bfloat16)]
RUNS += [("base", torch.float16, False), ("base", torch.float32, True), ("temporal", torch.bfloat16, True)]


def differences(found, true):
    """Of output and gradients, relative to the largest number; of the offsets' gradient all but 1e-4 count.

    That gradient jumps where a location crosses the centre of a cell, and of millions of locations some lie
    within float32's rounding of one.
    """
    out, value, offsets, logits = (abs(ours.double() - theirs.double()) for ours, theirs in zip(found, true))
    rest = offsets.flatten().topk(1 + offsets.numel() // 10000).values[-1]
    worst = (out.max(), value.max(), rest, logits.max())
    return [float(each / theirs.abs().max()) for each, theirs in zip(worst, true)]


@pytest.mark.parametrize(("name", "dtype", "deterministic"), RUNS, ids=lambda x: str(x).replace("torch.", ""))
def test_real_sizes_give_the_numbers_of_grid_sample(name, dtype, deterministic):
    backend = backends.load("triton", "cuda", deterministic)
    given = inputs_of(SIZES[name], dtype, "cuda")
    found = results(backend, SIZES[name], given)
    true = results(backends.REFERENCE, SIZES[name], in_float64(given))
    assert max(differences(found, true)) < BOUNDS[dtype], differences(found, true)


@pytest.mark.parametrize("name", SIZES)
def test_real_sizes_give_the_numbers_of_mmcv(name):
    try:
        theirs = backends.load("mmcv", "cuda")
    except ConfigError as error:
        pytest.skip(error.seen)
    given = inputs_of(SIZES[name], device="cuda")
    found, true = (results(each, SIZES[name], given) for each in (backends.load("triton", "cuda"), theirs))
    assert max(differences(found, true)) < 5e-5, differences(found, true)


@pytest.mark.parametrize("name", ["base", "temporal"])
def test_in_fixed_point_two_runs_agree_to_the_last_bit(name):
    backend = backends.load("triton", "cuda", True)
    given = inputs_of(SIZES[name], device="cuda")
    first, second = (results(backend, SIZES[name], given) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second))
