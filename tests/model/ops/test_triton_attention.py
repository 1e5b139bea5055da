"""The Triton attentions, in the interpreter where there is no GPU, against grid_sample in float64.

Marked gpu is what gpu-check has time for: it compiles a kernel for each case.
"""

import warnings

import pytest
import torch

pytest.importorskip("triton", reason="no Triton here: make test-ops")
from attention_cases import CASES, Inputs, apart, apply, in_float64, inputs_of, results

from bevformer.ops.backends import REFERENCE
from bevformer.ops.triton_backend import make

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(DEVICE == "cpu", reason="torch sees no GPU")]
OURS = {"atomics": make(False), "fixed": make(True)}
# Relative to the largest number.  Everything is summed in float32, so that of 16 bits only the last rounding
# is left: half a step, at most 2**-8 in bfloat16 and 2**-11 in float16.  The interpreter cuts bfloat16 off
# instead, a whole step.
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-11}
HALVES = (torch.bfloat16, torch.float16)
SIXTEEN_BITS = [(n, dtype) for dtype in HALVES for n in ("decoder", "temporal", "tiny", "small", "base")]


def also_on_a_gpu(cases, chosen):
    """All cases wherever the tests run; the chosen ones marked gpu besides."""
    rows = [each if isinstance(each, tuple) else (each,) for each in chosen]
    marked = [pytest.param(*row, marks=ON_GPU, id="-".join(["gpu", *map(str, row)])) for row in rows]
    return [*cases, *marked]


here_and_on_a_gpu = pytest.mark.parametrize("device", also_on_a_gpu([DEVICE], ["cuda"]))


def compared(name, dtype, sums="atomics"):
    given = inputs_of(CASES[name], dtype, DEVICE)
    found = results(OURS[sums], CASES[name], given)
    true = results(REFERENCE, CASES[name], in_float64(given))
    return [apart(ours, theirs) for ours, theirs in zip(found, true)], found


@pytest.mark.parametrize("name", also_on_a_gpu(CASES, ["decoder", "temporal", "base"]))
def test_outputs_and_gradients_are_those_of_grid_sample(name):
    differences, _ = compared(name, torch.float32)
    assert max(differences) < BOUNDS[torch.float32], differences


@pytest.mark.parametrize(
    ("name", "dtype"),
    also_on_a_gpu(SIXTEEN_BITS, [("decoder", torch.float16), ("base", torch.bfloat16)]),
    ids=lambda x: str(x).replace("torch.", ""),
)
def test_of_sixteen_bits_only_the_last_rounding_is_left(name, dtype):
    differences, found = compared(name, dtype)
    assert max(differences) < BOUNDS[dtype], differences
    assert {each.dtype for each in found} == {dtype}


@pytest.mark.parametrize("name", ["temporal", "base"])
def test_sums_in_fixed_point_are_the_same_numbers(name):
    assert max(compared(name, torch.float32, "fixed")[0]) < BOUNDS[torch.float32]


@here_and_on_a_gpu
def test_where_no_camera_looks_there_is_nothing(device):
    out, *gradients = compared("seen by none", torch.float32)[1]
    assert not out.any() and not any(each.any() for each in gradients)


@here_and_on_a_gpu
def test_locations_beyond_every_number_sample_nothing(device):
    case = CASES["decoder"]
    given = inputs_of(case, device=device)
    far, outside = given.offsets.clone(), given.offsets.clone()
    for p, big in enumerate((1e9, -1e30, float("inf"), -float("inf"))):
        far[:, 2, :, :, p], outside[:, 2, :, :, p] = big, 1e3
    (out, value, *rest), (expected, sums, *others) = (
        results(OURS["atomics"], case, Inputs(given.value, offsets, given.logits, given.points))
        for offsets in (far, outside)
    )
    assert torch.equal(out, expected) and all(torch.equal(*both) for both in zip(rest, others))
    assert apart(value, sums) < 1e-6  # a GPU's atomics add in another order each time


@here_and_on_a_gpu
def test_nan_reaches_its_own_row_and_head_alone(device):
    case = CASES["decoder"]
    given = inputs_of(case, device=device)
    given.offsets[1, 3, 0, 0, 2, 0] = float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, of the interpreter: NaN becomes an integer
        out = apply(OURS["atomics"], case, given)
    assert out[1, 3, : case.dims].isnan().all() and out.isnan().sum() == case.dims


@here_and_on_a_gpu
def test_queues_that_share_a_map_share_its_gradient(device):
    case = CASES["temporal"]
    given = inputs_of(case, device=device)
    one = given.value[:, :1]
    for shared in (one.expand(-1, 2, -1, -1), one):
        leaf = one.clone().requires_grad_()
        value = leaf.expand_as(shared)
        out = apply(OURS["atomics"], case, Inputs(value, given.offsets, given.logits, given.points))
        (found,) = torch.autograd.grad(out.sum(), leaf)
        double = in_float64(Inputs(one, given.offsets, given.logits, given.points))
        leaf = double.value.requires_grad_()
        both = leaf.expand(-1, 2, -1, -1)
        true = apply(REFERENCE, case, Inputs(both, double.offsets, double.logits, double.points))
        assert apart(found, torch.autograd.grad(true.sum(), leaf)[0]) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["deform of three levels", "temporal"])
def test_reference_points_have_a_gradient_too(name, dtype):
    given, found = inputs_of(CASES[name], dtype, DEVICE), []
    for backend, inputs in ((OURS["atomics"], given), (REFERENCE, in_float64(given))):
        points = inputs.points.clone().requires_grad_()
        offsets = inputs.offsets.clone().requires_grad_()
        out = apply(backend, CASES[name], Inputs(inputs.value, offsets, inputs.logits, points))
        found.append(torch.autograd.grad(out.sum(), (points, offsets)))
    assert apart(found[0][0], found[1][0]) < 1e-5
    assert apart(found[0][1], found[1][1]) < BOUNDS[dtype] and found[0][1].dtype == dtype


def test_inputs_may_lie_in_memory_as_they_like():
    case = CASES["tiny"]
    given = inputs_of(case, device=DEVICE)
    turned = [each.transpose(0, 1).contiguous().transpose(0, 1) for each in (given.offsets, given.logits)]
    value = given.value.transpose(1, 2).contiguous().transpose(1, 2)
    found = results(OURS["atomics"], case, Inputs(value, *turned, given.points))
    expected = results(OURS["atomics"], case, given)
    assert max(apart(ours, theirs) for ours, theirs in zip(found, expected)) < 1e-6


@pytest.mark.parametrize("name", ["decoder", "tiny"])
def test_maps_may_lie_further_apart_than_int32_can_count(name):
    case = CASES[name]
    given = inputs_of(case, torch.float16, DEVICE)
    apart_by = 2**31 // (case.maps - 1) + 16
    room = torch.empty(2**31 + 2**12, dtype=torch.float16, device=DEVICE)  # only what is written takes memory
    value = room.as_strided(given.value.shape, (apart_by, given.value.shape[-1], 1)).copy_(given.value)
    found = apply(OURS["atomics"], case, Inputs(value, given.offsets, given.logits, given.points))
    assert torch.equal(found, apply(OURS["atomics"], case, given))


@pytest.mark.parametrize("name", ["decoder", "temporal", "tiny"])
def test_only_the_inputs_wait_for_the_backward_pass(name):
    case, saved = CASES[name], []
    given = inputs_of(case, device=DEVICE)
    leaves = [each.requires_grad_() for each in (given.value, given.offsets, given.logits)]
    points = given.points if isinstance(given.points, torch.Tensor) else given.points.points_VZ2
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.data_ptr()) or x, lambda x: x):
        apply(OURS["atomics"], case, given)
    assert set(saved) <= {each.data_ptr() for each in (*leaves, points)}
