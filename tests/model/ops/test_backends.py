"""The choice of a backend: the rule, refusals, and the check of numbers before the first use."""

import dataclasses
import sys
import types
import warnings

import pytest
import torch

from bevformer.config import override, preset
from bevformer.detector import build_model
from bevformer.errors import ConfigError, UserError
from bevformer.ops import backends, dcn_backends
from bevformer.ops.backends import REFERENCE, choose, disagreement, load

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fresh():
    choose.cache_clear()
    yield
    choose.cache_clear()


def broken(**changes):
    return dataclasses.replace(REFERENCE, name="broken", **changes)


def test_one_that_breaks_the_gpu_is_named_and_not_passed_over(monkeypatch):
    def broken_gpu(*words):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(backends, "_loaded", broken_gpu)
    with pytest.warns(UserWarning, match="illegal memory access"):
        assert choose("auto", "cuda") is REFERENCE  # the GPU still answers
    choose.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", broken_gpu)
    for name in ("auto", "triton"):
        with pytest.raises(
            UserError, match="^ops.attention=triton broke the GPU .* was encountered\n"
        ) as seen:
            choose(name, "cuda")
        assert not isinstance(seen.value, ConfigError) and "ops.attention=reference" in seen.value.do


def test_a_convolution_that_breaks_the_gpu_is_named(monkeypatch):
    def broken_gpu(*words):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", broken_gpu)
    monkeypatch.setitem(dcn_backends._LOADERS, "mmcv", broken_gpu)
    with pytest.raises(UserError, match="^backbone.dcn_backend=mmcv broke the GPU"):
        dcn_backends.load("mmcv", "cuda")


def test_grid_sample_agrees_with_itself():
    assert disagreement(REFERENCE, "cpu") == 0


@pytest.mark.parametrize("name", ["deform_attn", "temporal_attn", "spatial_attn"])
def test_an_operator_that_is_off_or_nan_is_noticed(name):
    right = getattr(REFERENCE, name)
    assert disagreement(broken(**{name: lambda *args: right(*args) * 1.01}), "cpu") > backends.TOLERANCE
    far = disagreement(broken(**{name: lambda *args: right(*args) * float("nan")}), "cpu")
    assert far != far


def test_a_wrong_gradient_is_noticed():
    def attend(value, shapes, points, offsets, logits):
        return REFERENCE.deform_attn(value, shapes, points, offsets.detach() + 0 * offsets, logits)

    assert disagreement(broken(deform_attn=attend), "cpu") > backends.TOLERANCE


def test_one_that_disagrees_is_refused_by_name_and_passed_over_by_auto(monkeypatch):
    wrong = broken(spatial_attn=lambda *args: 2 * REFERENCE.spatial_attn(*args))
    monkeypatch.setattr(backends, "_loaded", lambda *args: wrong)
    with pytest.raises(ConfigError, match="other numbers than grid_sample"):
        load("cpp", "cpu")
    with pytest.warns(UserWarning, match="other numbers"):
        assert choose("auto", "cpu") is REFERENCE
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose("auto", "cpu") is REFERENCE  # said once


def test_one_that_cannot_run_is_refused_with_the_reason(monkeypatch):
    def fail(*args):
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(backends, "_loaded", fail)
    with pytest.raises(ConfigError, match="libgomp"):
        choose("cpp", "cpu")


@pytest.mark.parametrize("name", ["reference", "mmcv"])
def test_one_that_adds_in_any_order_is_refused_where_bits_have_to_repeat(name):
    with pytest.raises(ConfigError, match="ops.deterministic=True with ops.attention=" + name) as caught:
        choose(name, "cuda", True)
    assert "ops.attention=triton" in caught.value.do


def test_a_cpu_adds_in_one_order_always():
    assert choose("reference", "cpu", True) is REFERENCE


@pytest.mark.parametrize("there", ["triton", "mmcv", "reference"])
def test_auto_says_where_bits_do_not_repeat(monkeypatch, there):
    def load(name, device_type, deterministic):
        if name != there:
            raise ConfigError("no %s here" % name, "It is missing.")
        return dataclasses.replace(REFERENCE, name=name)

    monkeypatch.setattr(backends, "load", load)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert choose("auto", "cuda", True).name == there
    said = [str(each.message) for each in caught]
    assert not said if there == "triton" else "no triton here" in said[0] and there in said[-1]


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        build_model(override(preset("bevformer_micro"), ["ops.attention=cuda"]))
    assert "triton" in caught.value.do


def test_mmcvs_operator_gives_our_numbers(monkeypatch):
    """Its grid_sample version, written from its documentation: locations in [0, 1], weights after softmax."""
    from bevformer.bench_plain import plain_deform_attn

    module = types.ModuleType("mmcv.ops.multi_scale_deform_attn")
    module.multi_scale_deformable_attn_pytorch = lambda value, shapes, locations, weights: plain_deform_attn(
        value, [tuple(row) for row in shapes.tolist()], locations, weights
    )
    for name in ("mmcv", "mmcv.ops"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert load("mmcv", "cpu").name == "mmcv"


def test_shapes_only_on_the_meta_device():
    value, offsets = torch.empty(2, 18, 16, device="meta"), torch.empty(2, 5, 2, 2, 4, 2, device="meta")
    fused = choose("triton", "meta")
    out = fused.deform_attn(value.requires_grad_(), ((3, 4), (2, 3)), None, offsets, offsets[..., 0])
    assert out.shape == (2, 5, 16) and fused.saves_inputs_only
    assert torch.autograd.grad(out.sum(), value)[0].shape == value.shape
    assert choose("auto", "meta") is REFERENCE


@pytest.mark.parametrize(
    "dtype, deterministic, bytes_each",
    [(torch.float32, False, 4), (torch.bfloat16, False, 4 + 2), (torch.bfloat16, True, 8 + 2)],
)
def test_the_account_of_memory_holds_the_sums_of_the_backward_pass(dtype, deterministic, bytes_each):
    """As `triton_deterministic.Sums` does: they live until the gradient of the value is made of them."""
    live = pytest.importorskip("bevformer.live", reason="torch >= 2.0").LiveBytes
    value = torch.empty(6, 1000, 256, device="meta", dtype=dtype, requires_grad=True)
    offsets = torch.empty(1, 5, 8, 1, 4, 2, device="meta", dtype=dtype).expand(6, -1, -1, -1, -1, -1)
    out = choose("triton", "meta", deterministic).deform_attn(
        value, ((25, 40),), None, offsets, offsets[..., 0]
    )
    with live([]) as counted:
        torch.autograd.grad(out, value, torch.empty_like(out))
    assert counted.peak_b == pytest.approx(value.numel() * bytes_each, rel=0.02)
