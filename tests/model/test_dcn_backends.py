"""The rule by which a compiled DCNv2 is taken, with stand-ins for torchvision and mmcv."""

import sys
import types

import pytest
import torch

from bevformer.errors import ConfigError
from bevformer.ops import dcn_backends
from bevformer.ops.modulated_conv import modulated_deform_conv


@pytest.fixture(autouse=True)
def forget():
    dcn_backends.choose.cache_clear()
    yield
    dcn_backends.choose.cache_clear()


def pretend(monkeypatch, package, module, **names):
    import importlib.machinery

    for name, extra in ((package, {}), (module, names)):
        stand_in = types.ModuleType(name)
        stand_in.__spec__ = importlib.machinery.ModuleSpec(name, None)
        stand_in.__path__ = []
        vars(stand_in).update(extra)
        monkeypatch.setitem(sys.modules, name, stand_in)


def torchvision_like(x, offset, weight, bias, stride, padding, dilation, mask):
    return modulated_deform_conv(x, offset, mask, weight, stride, padding, dilation)


def mmcv_like(x, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups):
    return modulated_deform_conv(x, offset, mask, weight, stride, padding, dilation)


@pytest.mark.parametrize(
    "package, module, function, operator",
    [
        ("torchvision", "torchvision.ops", "deform_conv2d", torchvision_like),
        ("mmcv", "mmcv.ops.modulated_deform_conv", "modulated_deform_conv2d", mmcv_like),
    ],
)
def test_an_operator_that_agrees_is_taken(monkeypatch, package, module, function, operator):
    monkeypatch.setitem(sys.modules, "mmcv.ops", types.ModuleType("mmcv.ops"))
    pretend(monkeypatch, package, module, **{function: operator})
    assert dcn_backends.choose("auto", "cpu")[0] == package
    assert dcn_backends.choose(package, "cpu")[0] == package


def swapped(x, offset, weight, bias, stride, padding, dilation, mask):
    pairs = offset.view(offset.shape[0], 9, 2, *offset.shape[2:]).flip(2).flatten(1, 2)  # (dx, dy)
    return modulated_deform_conv(x, pairs, mask, weight, stride, padding, dilation)


def crashing(*args):
    raise RuntimeError("operator torchvision::deform_conv2d does not exist")


@pytest.mark.parametrize("operator, word", [(swapped, "other numbers"), (crashing, "does not exist")])
def test_one_that_disagrees_or_crashes_is_passed_over_and_named(monkeypatch, operator, word):
    pretend(monkeypatch, "torchvision", "torchvision.ops", deform_conv2d=operator)
    with pytest.warns(UserWarning, match=word):
        assert dcn_backends.choose("auto", "cpu") == ("reference", modulated_deform_conv)
    with pytest.raises(ConfigError, match=word):
        dcn_backends.choose("torchvision", "cpu")


@pytest.mark.parametrize("name", ["mmcv", "torchvision", "cudnn"])
def test_an_explicit_choice_that_is_not_there_is_refused(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "mmcv", None)
    with pytest.raises(ConfigError, match=name):
        dcn_backends.choose(name, "cpu")


def test_nothing_installed_means_ours(monkeypatch):
    monkeypatch.setattr(dcn_backends.importlib.util, "find_spec", lambda name: None)
    assert dcn_backends.choose("auto", "cpu") == ("reference", modulated_deform_conv)


def test_the_check_runs_with_gradients_disabled_too():
    with torch.no_grad():
        assert dcn_backends.disagreement(modulated_deform_conv, "cpu") == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_mmcvs_gets_rows_in_float32_or_more_as_it_looks_at_no_strides(monkeypatch, dtype):
    def picky(x, offset, mask, weight, *rest):
        assert all(
            each.is_contiguous() and each.dtype != torch.bfloat16 for each in (x, offset, mask, weight)
        )
        return mmcv_like(x, offset, mask, weight, *rest)

    monkeypatch.setitem(sys.modules, "mmcv.ops", types.ModuleType("mmcv.ops"))
    pretend(monkeypatch, "mmcv", "mmcv.ops.modulated_deform_conv", modulated_deform_conv2d=picky)
    operator = dcn_backends.choose("mmcv", "cpu")[1]
    shapes = ((2, 4, 6, 5), (2, 18, 6, 5), (2, 9, 6, 5))
    maps = [torch.rand(shape).to(dtype, memory_format=torch.channels_last) for shape in shapes]
    assert operator(*maps, torch.rand(3, 4, 3, 3).to(dtype), 1, 1, 1).dtype == dtype


def test_an_operator_that_overlooks_strides_is_passed_over(monkeypatch):
    def blind(x, offset, weight, bias, stride, padding, dilation, mask):
        rows = [each.as_strided(each.shape, torch.empty(each.shape).stride()) for each in (x, offset, mask)]
        return modulated_deform_conv(*rows, weight, stride, padding, dilation)

    pretend(monkeypatch, "torchvision", "torchvision.ops", deform_conv2d=blind)
    with pytest.raises(ConfigError, match="other numbers"):
        dcn_backends.choose("torchvision", "cpu")
