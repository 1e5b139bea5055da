"""The C++ operators against grid_sample in float64.

Locations lie at least 1/32 of a cell away from the lines between cells, where gradients of offsets jump:
references are multiples of 1/8 of the coarsest level's cells, levels halve, and offsets are odd multiples of
1/32.
"""

import dataclasses
import os
import shutil

import pytest
import torch

from bevformer.errors import ConfigError
from bevformer.ops.backends import REFERENCE, choose
from bevformer.ops.visible import gather_visible

LEVELS = {
    "tiny": [(15, 25)],
    "small": [(23, 40)],
    "base": [(16, 24), (8, 12), (4, 6), (2, 3)],
    "thin": [(1, 8), (3, 1)],
}
# heads, channels per head, points, references
SIZES = {
    "as published": (8, 32, 8, 4),
    "micro": (8, 16, 8, 4),
    "odd": (3, 5, 6, 3),
    "long": (1, 48, 4, 1),
    "one": (2, 1, 1, 1),
}


@pytest.fixture(scope="module")
def cpp():
    names = [os.environ.get("CXX", "").split(" ")[0], "g++", "c++", "clang++"]
    if not any(name and shutil.which(name) for name in names):
        pytest.skip("no C++ compiler here: CXX, g++, c++, clang++")
    return choose("cpp", "cpu")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


class Draw:
    """Random numbers of one generator, float64."""

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape):
        return torch.randn(shape, generator=self.generator, dtype=torch.float64)

    def offsets(self, *shape):
        return torch.randint(-64, 64, shape, generator=self.generator).double() / 16 + 1 / 32

    def points(self, hw, *shape):
        """(x, y), a fifth of them outside [0, 1], at multiples of 1/8 of a cell of the coarsest level."""
        size = torch.tensor([hw[1], hw[0]])
        eighths = torch.rand(*shape, 2, generator=self.generator, dtype=torch.float64) * 1.4 - 0.2
        return (eighths * size * 8).round() / (8 * size)


def deform(levels="base", sizes="as published", maps=2, queries=7, seed=0):
    """(function of a backend and value, offsets, logits; those three)"""
    draw, shapes, (H, D, P, Z) = Draw(seed), LEVELS[levels], SIZES[sizes]
    L = len(shapes)
    points = draw.points(shapes[0] if levels == "thin" else shapes[-1], maps, queries, Z)
    inputs = [
        draw.normal(maps, sum(h * w for h, w in shapes), H * D),
        draw.offsets(maps, queries, H, L, P, 2),
        draw.normal(maps, queries, H, L, P),
    ]
    return lambda backend, value, *rest: backend.deform_attn(
        value, shapes, as_wide(points, value), *rest
    ), inputs


def temporal(levels="tiny", sizes="as published", batch=2, seed=0):
    draw, (h, w), (H, D, P, _) = Draw(seed), LEVELS[levels][0], SIZES[sizes]
    points = draw.points((h, w), batch, 2, h * w)
    inputs = [
        draw.normal(batch, 2, h * w, H * D),
        draw.offsets(batch, h * w, H, 2, P, 2),
        draw.normal(batch, h * w, H, 2, P),
    ]
    return lambda backend, value, *rest: backend.temporal_attn(
        value, (h, w), as_wide(points, value), *rest
    ), inputs


def as_wide(points, value):
    return points.to(torch.promote_types(value.dtype, torch.float32))


SEEN = {
    "ragged": lambda seen: seen,
    "none": lambda seen: seen & False,
    "all": lambda seen: seen | True,
    "a blind camera": lambda seen: seen & (torch.arange(seen.shape[1]) != 1).view(-1, 1),
    "one row": lambda seen: seen & (torch.arange(seen.shape[2]) == 3),
}


def spatial(levels="base", sizes="as published", seen="ragged", batch=2, cameras=3, queries=9, seed=0):
    draw, shapes, (H, D, P, Z) = Draw(seed), LEVELS[levels], SIZES[sizes]
    L = len(shapes)
    mask = SEEN[seen](draw.normal(batch, cameras, queries) > 0.3)
    points = draw.points(shapes[0] if levels == "thin" else shapes[-1], batch, cameras, queries, Z)
    pairs = gather_visible(points, mask).pairs
    inputs = [
        draw.normal(batch * cameras, sum(h * w for h, w in shapes), H * D),
        draw.offsets(batch * queries, H, L, P, 2),
        draw.normal(batch * queries, H, L, P),
    ]

    def function(backend, value, *rest):
        seen = {
            name: as_wide(getattr(pairs, name), value) for name in ("points_VZ2", "points_KRZ2", "counts_G")
        }
        return backend.spatial_attn(value, shapes, dataclasses.replace(pairs, **seen), *rest)

    return function, inputs


CASES = {
    **{"deform %s" % levels: lambda levels=levels: deform(levels) for levels in LEVELS},
    **{"deform %s" % sizes: lambda sizes=sizes: deform(sizes=sizes) for sizes in SIZES},
    **{"temporal %s" % levels: lambda levels=levels: temporal(levels) for levels in ("tiny", "thin")},
    **{"temporal %s" % sizes: lambda sizes=sizes: temporal("thin", sizes) for sizes in SIZES},
    **{"spatial %s" % levels: lambda levels=levels: spatial(levels) for levels in LEVELS},
    **{"spatial %s" % sizes: lambda sizes=sizes: spatial(sizes=sizes) for sizes in SIZES},
    **{"spatial %s" % seen: lambda seen=seen: spatial(seen=seen) for seen in SEEN},
    "deform, rows over several blocks": lambda: deform("tiny", "long", queries=37),
    "spatial, rows over several blocks": lambda: spatial("tiny", queries=37),
}
FEW = ["deform base", "temporal tiny", "spatial ragged"]


def results(backend, function, inputs, dtype=torch.float64):
    """The output and the gradients, as float64."""
    leaves = [each.to(dtype).requires_grad_() for each in inputs]
    out = function(backend, *leaves)
    weight = torch.linspace(-1, 1, out.numel()).bfloat16().view_as(out).to(out.dtype)
    return [each.double() for each in (out.detach(), *torch.autograd.grad(out, leaves, weight))]


def apart(ours, theirs):
    """The largest difference of each, in parts of the largest number."""
    return [float((a - b).abs().max() / b.abs().max().clamp(min=1e-30)) for a, b in zip(ours, theirs)]


@pytest.mark.parametrize("name", CASES)
def test_numbers_and_gradients_are_those_of_grid_sample(cpp, name):
    function, inputs = CASES[name]()
    exact = results(REFERENCE, function, inputs)
    assert max(apart(results(cpp, function, inputs), exact)) < 1e-10
    assert max(apart(results(cpp, function, inputs, torch.float32), exact)) < 1e-5


@pytest.mark.parametrize("name", FEW)
def test_bf16_is_summed_in_float32_and_rounded_once(cpp, name):
    """Half a unit in the last of 8 bits at the output, a little more where gradients start from it."""
    function, inputs = CASES[name]()
    inputs = [each.bfloat16() for each in inputs]
    exact = results(REFERENCE, function, inputs)
    assert max(apart(results(cpp, function, inputs, torch.bfloat16), exact)) < 2**-8


@pytest.mark.parametrize(
    "case",
    [
        lambda: deform("thin", "one", maps=1, queries=3),
        lambda: deform("thin", "odd", maps=1, queries=2),
        lambda: temporal("thin", "one", batch=1),
        lambda: spatial("thin", "odd", queries=4, batch=1),
    ],
    ids=["deform", "deform odd", "temporal", "spatial"],
)
def test_gradients_are_those_of_finite_differences(cpp, case):
    function, inputs = case()
    leaves = [each.requires_grad_() for each in inputs]
    assert torch.autograd.gradcheck(lambda *each: function(cpp, *each), leaves)


def test_reference_points_of_the_decoder_have_a_gradient(cpp):
    draw = Draw()
    value, points = draw.normal(2, 32, 8).requires_grad_(), draw.points((4, 8), 2, 5, 2).requires_grad_()
    rest = draw.offsets(2, 5, 2, 1, 4, 2), draw.normal(2, 5, 2, 1, 4)
    ours, theirs = (
        torch.autograd.grad(each.deform_attn(value, [(4, 8)], points, *rest).square().sum(), [value, points])
        for each in (cpp, REFERENCE)
    )
    assert max(apart(ours, theirs)) < 1e-10


@pytest.mark.parametrize("cells", [-0.5, 0.0, 0.5, 7.5, 8.0, 8.5, -0.75, 8.25, 3.0])
def test_samples_on_the_border_are_those_of_grid_sample(cpp, cells):
    """From the left edge of the first cell's neighbour to the right edge of the last one's, 8 cells wide."""
    draw = Draw()
    value, logits = draw.normal(1, 64, 4), draw.normal(1, 1, 2, 1, 2)
    offsets = torch.tensor([[cells - 4, 0.25], [0.25, cells - 4]]).expand(1, 1, 2, 1, 2, 2).double()
    points = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64)
    both = [
        results(each, lambda b, v, *r: b.deform_attn(v, [(8, 8)], points, *r), [value, offsets, logits])
        for each in (cpp, REFERENCE)
    ]
    assert max(apart(*both)) < 1e-12


@pytest.mark.parametrize("name", FEW)
def test_the_number_of_threads_changes_no_bit(cpp, threads, name):
    function, inputs = CASES[name]()
    found = []
    for count in (1, 2, 3, 7):
        threads(count)
        found.append(results(cpp, function, inputs, torch.float32))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 3e9])
def test_offsets_that_no_integer_holds_stay_in_their_row(cpp, bad):
    function, inputs = spatial(seen="all")
    inputs = [each.float() for each in inputs]
    expected = results(cpp, function, inputs)
    inputs[1][4, 2, 1, 3, 0] = bad
    found = results(cpp, function, inputs)
    finite = abs(bad) < float("inf")
    assert all(torch.isfinite(each).all() for each in found) == finite
    own = slice(2 * 32, 3 * 32)  # head 2
    assert torch.isnan(found[0][4, own]).all() != finite
    found[0][4, own] = expected[0][4, own]
    assert torch.equal(found[0], expected[0])


@pytest.mark.parametrize("which", [1, 2], ids=["an offset", "a logit"])
def test_gradients_that_are_not_numbers_stay_in_their_row_and_head(cpp, which):
    function, inputs = deform("tiny", maps=1, queries=20)
    inputs = [each.float() for each in inputs]
    expected = results(cpp, function, inputs)[2:]
    inputs[which].view(20, 8, -1)[5, 2, 3] = float("nan")
    for ours, before in zip(results(cpp, function, inputs)[2:], expected):
        assert torch.isnan(ours[0, 5, 2]).all()
        ours[0, 5, 2] = before[0, 5, 2]
        assert torch.equal(ours, before)


def test_far_offsets_count_as_nothing(cpp):
    function, inputs = deform()
    inputs[1][0, 0, 0, 0, 0] = torch.tensor([1e6, -1e6])
    assert max(apart(*(results(each, function, inputs) for each in (cpp, REFERENCE)))) < 1e-10


def test_a_logit_that_is_not_a_number_is_seen(cpp):
    function, inputs = deform()
    inputs[2][0, 0, 0, 0, 0] = float("nan")
    out = function(cpp, *inputs)
    assert torch.isnan(out[0, 0, :32]).all() and torch.isfinite(out[1]).all()


@pytest.mark.parametrize("name", FEW)
def test_strides_do_not_matter(cpp, name):
    function, inputs = CASES[name]()
    dense = results(cpp, function, inputs)
    strided = [each.transpose(-1, -2).contiguous().transpose(-1, -2) for each in inputs]
    wide = torch.cat([inputs[0], inputs[0]], -1)[..., : inputs[0].shape[-1]]
    for value in (strided[0], wide, wide.flip(0).flip(0)):
        leaves = [value, *strided[1:]]
        assert all(torch.equal(a, b) for a, b in zip(results(cpp, function, leaves), dense))


def test_one_map_for_both_queues(cpp):
    function, (value, *rest) = temporal()
    own = value[:, :1].clone()
    expected = results(REFERENCE, lambda b, v, *r: function(b, v.expand(-1, 2, -1, -1), *r), [own, *rest])
    expanded = results(cpp, lambda b, v, *r: function(b, v.expand(-1, 2, -1, -1), *r), [own, *rest])
    shared = results(cpp, function, [own, *rest])
    assert max(apart(expanded, expected) + apart(shared, expected)) < 1e-10


@pytest.mark.parametrize(
    "dtypes",
    [
        ("bfloat16", "float32", "bfloat16"),
        ("float32", "bfloat16", "float32"),
        ("float32", "float64", "float32"),
        ("float16", "float16", "float16"),
    ],
    ids=" ".join,
)
def test_mixtures_keep_every_inputs_dtype(cpp, dtypes):
    function, inputs = spatial()
    leaves = [each.to(getattr(torch, name)).requires_grad_() for each, name in zip(inputs, dtypes)]
    out = function(cpp, *leaves)
    grads = torch.autograd.grad(out.float().sum(), leaves)
    assert out.dtype == leaves[0].dtype and [each.dtype for each in grads] == [each.dtype for each in leaves]
    exact = function(REFERENCE, *(each.detach().double() for each in leaves))
    assert apart([out.detach().double()], [exact.detach()])[0] < 2**-8


def test_under_autocast_the_projections_are_bf16_and_the_sums_float32(cpp):
    function, (features, query, _) = deform("tiny", "micro")
    project = torch.nn.Linear(128, 128)
    offsets, logits = torch.nn.Linear(8, 128), torch.nn.Linear(8, 64)
    query = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inputs = [
            project(features.float()),
            offsets(query).view(2, 7, 8, 1, 8, 2),
            logits(query).view(2, 7, 8, 1, 8),
        ]
        out = function(cpp, *inputs)
        out.float().square().sum().backward()
    assert {each.dtype for each in (out, *inputs)} == {torch.bfloat16}
    assert project.weight.grad.dtype == torch.float32 and torch.isfinite(offsets.weight.grad).all()
    exact = function(REFERENCE, *(each.detach().double() for each in inputs))
    assert apart([out.detach().double()], [exact.detach()])[0] < 2**-8


def test_nothing_is_kept_but_the_inputs(cpp):
    for name in FEW:
        function, inputs = CASES[name]()
        leaves = [each.float().requires_grad_() for each in inputs]
        sizes = {each.data_ptr(): 0 for each in leaves}
        note = lambda tensor, sizes=sizes: (
            sizes.setdefault(tensor.data_ptr(), tensor.numel() * tensor.element_size()),
            tensor,
        )[1]
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            function(cpp, *leaves)
        assert sum(sizes.values()) < 20_000  # the reference points


def test_no_rows_no_pairs_no_maps(cpp):
    function, inputs = deform(maps=2, queries=0)
    assert results(cpp, function, inputs)[0].shape == (2, 0, 256)
    function, inputs = spatial(seen="none")
    assert all(not each.any() for each in results(cpp, function, inputs))


def test_a_second_derivative_is_refused(cpp):
    function, inputs = deform()
    leaves = [each.requires_grad_() for each in inputs]
    with pytest.raises(ConfigError, match="second derivative"):
        torch.autograd.grad(function(cpp, *leaves).sum(), leaves[:1], create_graph=True)


def misfit(index, change):
    function, inputs = deform()
    inputs[index] = change(inputs[index])
    return lambda cpp: function(cpp, *inputs)


def four_of_three(cpp):
    draw = Draw()
    rest = draw.offsets(1, 2, 2, 1, 4, 2), draw.normal(1, 2, 2, 1, 4)
    return cpp.deform_attn(draw.normal(1, 32, 8), [(4, 8)], draw.points((4, 8), 1, 2, 3), *rest)


def moving_cells(cpp):
    draw = Draw()
    rest = draw.offsets(1, 32, 2, 2, 4, 2), draw.normal(1, 32, 2, 2, 4)
    return cpp.temporal_attn(
        draw.normal(1, 2, 32, 8), (4, 8), draw.points((4, 8), 1, 2, 32).requires_grad_(), *rest
    )


@pytest.mark.parametrize(
    "call, word",
    [
        (misfit(0, lambda value: value[:, :-1]), "cells"),
        (misfit(0, lambda value: value[:1]), "maps"),
        (misfit(0, lambda value: value[..., :-1]), "heads"),
        (misfit(1, lambda offsets: offsets[:, :-1]), "offsets"),
        (misfit(2, lambda logits: logits[..., :-1]), "offsets"),
        (four_of_three, "4 points, 3 references"),
        (moving_cells, "require a gradient"),
    ],
    ids=["cells", "maps", "heads", "queries", "points", "references", "moving cells"],
)
def test_tensors_that_do_not_fit_are_refused(cpp, call, word):
    with pytest.raises(ConfigError, match=word):
        call(cpp)


@pytest.mark.parametrize("field", ["starts_G1", "camera_V", "row_V", "by_camera_V", "camera_starts_K1"])
@pytest.mark.parametrize("change", [-1, 1, 10**6], ids=str)
def test_pairs_that_contradict_each_other_are_refused(cpp, field, change):
    draw, points = Draw(), Draw().points((2, 3), 1, 2, 5, 1)
    pairs = gather_visible(points, torch.ones(1, 2, 5, dtype=torch.bool)).pairs
    index = getattr(pairs, field).clone()
    index[len(index) // 2] += change
    inputs = draw.normal(2, 6, 8), [(2, 3)], dataclasses.replace(pairs, **{field: index})
    with pytest.raises(ConfigError, match="contradict"):
        cpp.spatial_attn(*inputs, draw.offsets(5, 2, 1, 1, 2), draw.normal(5, 2, 1, 1))
