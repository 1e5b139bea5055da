"""The Triton attentions on a GPU at the presets' real sizes, against grid_sample and mmcv's kernel."""

import pytest
import torch
from attention_cases import Case, apart, in_float64, inputs_of, results

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
# float32: sums of thousands of samples in any order.  16 bits: half a step, and the sums.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2.0**-8 + 1e-5, torch.float16: 2.0**-11 + 1e-5}


@pytest.mark.parametrize("deterministic", [False, True], ids=["atomics", "fixed"])
@pytest.mark.parametrize("dtype", BOUNDS, ids=lambda x: str(x).replace("torch.", ""))
@pytest.mark.parametrize("name", SIZES)
def test_real_sizes_give_the_numbers_of_grid_sample(name, dtype, deterministic):
    backend = backends.load("triton", "cuda", deterministic)
    given = inputs_of(SIZES[name], dtype, "cuda")
    found = results(backend, SIZES[name], given)
    true = results(backends.REFERENCE, SIZES[name], in_float64(given))
    differences = [apart(ours, theirs) for ours, theirs in zip(found, true)]
    assert max(differences) < BOUNDS[dtype], differences


@pytest.mark.parametrize("name", SIZES)
def test_real_sizes_give_the_numbers_of_mmcv(name):
    try:
        theirs = backends.load("mmcv", "cuda")
    except ConfigError as error:
        pytest.skip(error.seen)
    given = inputs_of(SIZES[name], device="cuda")
    ours = backends.load("triton", "cuda")
    pairs = zip(results(ours, SIZES[name], given), results(theirs, SIZES[name], given))
    differences = [apart(one, other) for one, other in pairs]
    assert max(differences) < 2e-5, differences


@pytest.mark.parametrize("name", ["base", "temporal"])
def test_in_fixed_point_two_runs_agree_to_the_last_bit(name):
    backend = backends.load("triton", "cuda", True)
    given = inputs_of(SIZES[name], device="cuda")
    first, second = (results(backend, SIZES[name], given) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second))
