"""The attentions side by side: real geometry, and wrong numbers shown as wrong."""

import dataclasses
import functools
import sys
import types

import pytest
import torch

from bevformer import bench_cases, bench_common, bench_contenders, bench_ops
from bevformer.bench_common import preset_of
from bevformer.bench_plain import plain_deform_attn
from bevformer.bench_read import read
from bevformer.errors import ConfigError
from bevformer.ops.backends import REFERENCE

WORDS = ["--preset", "micro", "--case", "decoder", "--repeats", "1"]
CPU = torch.device("cpu")


def by_who(path, what):
    return {row["who"]: row for row in read(str(path))["rows"] if row["what"] == what}


def test_every_contender_has_times_memory_and_its_distance_to_float64(tmp_path, heard):
    out = tmp_path / "ops.json"
    assert bench_ops.main([*WORDS, "--out", str(out)], heard) == 0
    rows = by_who(out, "training")
    assert {"grid_sample", "reference"} <= set(rows)
    assert all(row["right"] and 0 <= row["max_error"] < row["bound"] == 4e-5 for row in rows.values())
    assert rows["grid_sample"]["saved_mb"] > 0 and rows["grid_sample"]["peak_mb"] > 0
    assert read(str(out))["cases_left"] == 0 and {"triton", "mmcv", "deformops"} & set(
        read(str(out))["absent"]
    )


def test_a_fast_contender_that_is_wrong_is_shown_as_wrong(tmp_path, heard, monkeypatch):
    wrong = dataclasses.replace(
        REFERENCE, name="cpp", deform_attn=lambda *inputs: REFERENCE.deform_attn(*inputs) * 1.01
    )
    both = {"grid_sample": REFERENCE, "cpp": wrong}
    monkeypatch.setattr(bench_ops, "contenders", lambda device_type, names: (both, {}))
    out = tmp_path / "ops.json"
    bench_ops.main([*WORDS, "--out", str(out)], heard)
    assert not by_who(out, "forward")["cpp"]["right"] and by_who(out, "forward")["grid_sample"]["right"]
    assert any("cpp" in note and "WRONG NUMBERS" in note for note in heard.notes)


def test_a_contender_that_fails_is_named_and_the_others_go_on(tmp_path, heard, monkeypatch):
    def broken(*inputs):
        raise RuntimeError("no kernel image is available\nmore")

    both = {"reference": REFERENCE, "mmcv": dataclasses.replace(REFERENCE, name="mmcv", deform_attn=broken)}
    monkeypatch.setattr(bench_ops, "contenders", lambda device_type, names: (both, {}))
    out = tmp_path / "ops.json"
    bench_ops.main([*WORDS, "--out", str(out)], heard)
    assert set(by_who(out, "forward")) == {"reference"}
    assert read(str(out))["absent"] == {"micro decoder, mmcv": "RuntimeError: no kernel image is available"}


def test_what_broke_the_gpu_is_in_the_file_with_what_was_measured_before(tmp_path, heard, monkeypatch):
    def broken(*inputs):
        monkeypatch.setattr(bench_common, "give_back", broken)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    both = {"reference": REFERENCE, "triton": dataclasses.replace(REFERENCE, name="triton")}
    both["triton"] = dataclasses.replace(both["triton"], temporal_attn=broken)
    monkeypatch.setattr(bench_ops, "contenders", lambda device_type, names: (both, {}))
    out = tmp_path / "ops.json"
    with pytest.raises(bench_common.GpuLost, match="triton broke the GPU"):
        bench_ops.main([*WORDS[:3], "decoder", "temporal", "--repeats", "1", "--out", str(out)], heard)
    assert set(by_who(out, "forward")) == {"reference", "triton"}
    assert "illegal memory access" in read(str(out))["absent"]["micro temporal, triton"]


def facts_of(kind, dtype, backend):
    case = bench_cases.make_case(preset_of("micro"), kind, getattr(torch, dtype), CPU)
    bounds = bench_ops.LAYER_BOUNDS if kind == bench_ops.LAYER else bench_ops.BOUNDS
    return case.name, bench_ops.check(case, backend, *bench_ops.exact_results(case), bounds[dtype], CPU)


@pytest.mark.parametrize("kind", bench_cases.KINDS)
@pytest.mark.parametrize("dtype, ending", [("float32", ""), ("bfloat16", " bf16"), ("float16", " float16")])
@pytest.mark.parametrize("who", ["grid_sample", "reference", "cpp"])
def test_right_results_pass_in_every_case_and_dtype(kind, dtype, ending, who):
    found, absent = bench_contenders.contenders("cpu", None)
    if who not in found:
        pytest.skip(absent[who])
    name, facts = facts_of(kind, dtype, found[who])
    assert name == f"micro {kind}{ending}" and facts["forward"]["right"] and facts["training"].get("right", 1)
    assert ("right" in facts["training"]) is (kind != bench_ops.LAYER)
    if dtype == "float32":  # in 16 bits one rounding of the result fills the bound: there is no more room
        assert max(each.get("max_error", 0) for each in facts.values()) < 0.3 * bench_ops.FLOAT32


def seen_row(where, each):
    """Of offsets or logits, those of the first head of a row that is not empty; a view."""
    spatial = not isinstance(where, torch.Tensor)
    return each[int(where.row_V[0]), 0] if spatial else each[0, 0, 0]


def a_wrong_corner(attend, value, shapes, where, offsets, logits):
    """One sample reads the cells to the right of its own."""
    aside = torch.zeros_like(offsets)
    seen_row(where, aside).view(-1)[0] = 1
    return attend(value, shapes, where, offsets + aside, logits)


def two_points_swapped(attend, value, shapes, where, offsets, logits):
    """In one head of one row."""
    mixed = logits.clone()
    seen_row(where, mixed).view(-1)[:2] = seen_row(where, logits).reshape(-1)[:2].flip(0)
    return attend(value, shapes, where, offsets, mixed)


def no_division_by_cameras(attend, value, shapes, where, offsets, logits):
    return attend(value, shapes, where, offsets, logits) * where.counts_G[:, None]


def sums_in_bf16(attend, value, shapes, where, offsets, logits):
    """Each sample alone, by a softmax that sees no other; then their sum."""
    samples, total = logits.flatten(-2), 0.0
    for n, weight in enumerate(samples.float().softmax(-1).unbind(-1)):
        alone = torch.full_like(samples, -1e4).index_fill(-1, torch.tensor(n), 0).view_as(logits)
        sample = attend(value, shapes, where, offsets, alone).float().unflatten(-1, (weight.shape[-1], -1))
        total = (total + weight.unsqueeze(-1) * sample).to(torch.bfloat16)
    return total.flatten(-2).to(value.dtype)


def a_gradient_one_per_cent_off(attend, value, shapes, where, offsets, logits):
    value = value.clone()
    if value.requires_grad:
        value.register_hook(lambda gradient: 1.01 * gradient)
    return attend(value, shapes, where, offsets, logits)


FAULTS = [
    (a_wrong_corner, "temporal"),
    (a_wrong_corner, "spatial"),
    (two_points_swapped, "decoder"),
    (two_points_swapped, "spatial"),
    (no_division_by_cameras, "spatial"),
    (sums_in_bf16, "decoder"),
    (sums_in_bf16, "spatial"),
    (a_gradient_one_per_cent_off, "temporal"),
]


@pytest.mark.parametrize("dtype", bench_ops.DTYPES)
@pytest.mark.parametrize("fault, kind", FAULTS, ids=lambda each: getattr(each, "__name__", each))
def test_the_smallest_fault_of_an_operator_is_wrong_numbers(fault, kind, dtype):
    right = bench_contenders.contenders("cpu", ["reference"])[0]["reference"]
    names = ("deform_attn", "temporal_attn", "spatial_attn")
    wrong = {name: functools.partial(fault, getattr(right, name)) for name in names}
    _, facts = facts_of(kind, dtype, dataclasses.replace(right, **wrong))
    assert facts["forward"]["right"] is (fault is a_gradient_one_per_cent_off)
    assert fault is sums_in_bf16 or not facts["training"]["right"]


@pytest.mark.parametrize(
    "preset, shapes",
    [("tiny", [(15, 25)]), ("small", [(23, 40)]), ("base", [(116, 200), (58, 100), (29, 50), (15, 25)])],
)
def test_levels_are_those_of_the_backbone_and_neck(preset, shapes):
    assert bench_cases.level_shapes(preset_of(preset)) == shapes


def test_bases_cameras_see_as_much_as_was_counted_on_nuscenes():
    pairs = bench_cases.seen_queries(preset_of("base")).pairs
    assert len(pairs.row_V) == pytest.approx(44855, rel=0.02)
    few = bench_cases.seen_queries(preset_of("base"), 2000).pairs
    assert len(few.counts_G) == 40000 and len(few.row_V) < 3000


def test_contenders_asked_for_by_name_have_to_be_there():
    with pytest.raises(ConfigError, match="unknown contender: magic"):
        bench_contenders.contenders("cpu", ["magic"])
    with pytest.raises(ConfigError):
        bench_contenders.contenders("cpu", ["mmcv"])  # no such package in this environment
    found, absent = bench_contenders.contenders("cpu", None)
    assert {"grid_sample", "reference"} <= set(found) and set(found) | set(absent) == set(
        bench_contenders.NAMES
    )


@pytest.mark.parametrize("scale, runs", [(1.0, True), (1.01, False)], ids=["right", "wrong"])
def test_deformops_is_called_as_its_documentation_says_and_left_out_where_it_is_wrong(
    monkeypatch, scale, runs
):
    def msda(value_BSGD, shapes_L2, starts_L, locations_BQGLK2, logits_BQGlk, *, method):
        B, Q, G, L, K, _ = locations_BQGLK2.shape
        assert (method, tuple(logits_BQGlk.shape)) == ("softmax", (B, Q, G, L * K))
        assert starts_L.tolist() == [0, *shapes_L2.prod(1).cumsum(0).tolist()[:-1]]
        weights = logits_BQGlk.softmax(-1).view(B, Q, G, L, K)
        return scale * plain_deform_attn(value_BSGD, shapes_L2.tolist(), locations_BQGLK2, weights)

    monkeypatch.setitem(sys.modules, "deformops.registry", types.SimpleNamespace(msda=msda))
    found, absent = bench_contenders.contenders("cpu", None)
    assert ("deformops" in found) is runs
    assert runs or "gives other numbers than grid_sample" in absent["deformops"]


def test_an_unknown_case_is_refused(heard):
    with pytest.raises(ConfigError, match="unknown case: 'sideways'"):
        bench_ops.main(["--case", "sideways"], heard)


@pytest.mark.parametrize("kind, dtype", [("temporal", torch.bfloat16), ("decoder", torch.float32)])
def test_no_sample_lies_on_the_edge_of_a_cell_where_gradients_jump(kind, dtype):
    case = bench_cases.make_case(preset_of("micro"), kind, dtype, CPU)
    offsets, reference = case.inputs[1].detach().float(), case.held[0]
    centres = (25 * reference - 0.5).transpose(1, 2) if kind == "temporal" else 25 * reference - 0.5
    shape = (1, offsets.shape[1], 1, offsets.shape[3], 1, 2)
    places = offsets + centres.reshape(shape)
    assert float((places - places.round()).abs().min()) > 1.9e-3


def test_no_number_is_infinitely_wrong():
    exact = torch.ones(3, dtype=torch.float64)
    assert bench_ops.error_of(torch.tensor([1.0, float("nan"), 1.0]), exact) == float("inf")
    assert bench_ops.error_of(torch.tensor([1.0, 1.5, 1.0]), exact) == 0.5
