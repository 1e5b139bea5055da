"""How mmcv's compiled functions are called, and how their answers are sorted, with stand-ins for mmcv."""

import json
import sys
import types

import pytest
import torch

from bevformer import mm, selftest, selftest_mmcv
from bevformer.mm import compiled
from bevformer.ops.deform_attn import deform_attn
from bevformer.ops.mmcv_backend import load
from bevformer.selftest_ops import AttentionSize, compare_attention


def kernel(value, shapes, starts, locations, weights, step):
    """Level by level from its start, as mmcv's CUDA kernel walks through the value; for one head."""
    assert value.shape[0] % step == 0 and all(each.is_contiguous() for each in (value, locations, weights))
    total = 0
    for level, (start, (h, w)) in enumerate(zip(starts.tolist(), shapes.tolist())):
        part = value[:, start : start + h * w, 0].transpose(1, 2).reshape(len(value), -1, h, w)
        grid = 2 * locations[:, :, 0, level] - 1
        sampled = torch.nn.functional.grid_sample(part, grid, align_corners=False)
        total = total + (sampled * weights[:, None, :, 0, level]).sum(-1)
    return total.transpose(1, 2)


@pytest.fixture
def mmcv(monkeypatch):
    """A package mmcv.ops with nothing in it; .put(module, **names)"""

    def put(name, **names):
        module = types.ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)

    for name in ("mmcv", "mmcv.ops"):
        put(name)
    return types.SimpleNamespace(put=put)


def test_the_cuda_kernel_is_told_where_levels_start(mmcv):
    function = types.SimpleNamespace(apply=kernel)
    mmcv.put("mmcv.ops.multi_scale_deform_attn", MultiScaleDeformableAttnFunction=function)
    size = AttentionSize(3, 5, 1, 2, 4, ((4, 5), (2, 3), (1, 2)))
    attend = load("cuda").deform_attn
    compare_attention(attend, deform_attn, torch.float64, "cpu", 1e-12, size)


def refuses(*args):
    raise RuntimeError("nms_impl: implementation for device cpu not found.")


def left_out(*args):
    raise RuntimeError("roi_align_forward was left out when mmcv was compiled (operators of the target)")


def breaks(*args):
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


@pytest.mark.parametrize(
    "nms, answer",
    [
        (lambda *args: (None, torch.tensor([0, 2])), compiled.ANSWERS),
        (lambda *args: (None, torch.tensor([0, 1])), compiled.WRONG),
        (lambda *args: (None, torch.tensor([0, 1, 2])), compiled.WRONG),
        (refuses, compiled.NOT_FOR),
        (left_out, compiled.LEFT_OUT),
        (breaks, compiled.FAILS),
    ],
)
def test_answers_are_told_apart(mmcv, nms, answer):
    mmcv.put("mmcv.ops", nms=nms)
    (row,) = [row for row in compiled.ask_all("cpu") if row["operator"] == "nms"]
    assert row["answer"] == answer and bool(row["said"]) == (answer != compiled.ANSWERS)


def test_importing_the_room_imports_nothing_of_openmmlab(monkeypatch):
    monkeypatch.setitem(sys.modules, "mmcv", None)
    with pytest.raises(ImportError):
        mm.modulated_deform_conv2d()


@pytest.mark.parametrize(
    "answer, ok", [(compiled.ANSWERS, True), (compiled.NOT_FOR, True), (compiled.WRONG, False)]
)
def test_the_self_test_fails_for_what_computes_something_else(monkeypatch, capsys, answer, ok):
    build = {"functions": "99", "compiler": "GCC 12.2", "cuda": "not available"}
    row = {"operator": "nms", "answer": answer, "said": "off by 3"}
    monkeypatch.setattr(selftest_mmcv, "refuse_without_operators", lambda: None)
    monkeypatch.setattr(compiled, "build_of_mmcv", lambda: build)
    monkeypatch.setattr(compiled, "ask_all", lambda device: [row])
    assert selftest.main(["mmcv-compiled"]) == int(not ok)
    told = json.loads(capsys.readouterr().out)
    assert told["said"].startswith("99 functions are bound, by GCC 12.2, CUDA not available; asked")
    assert ("nms on cpu computed something else: off by 3" in told["said"]) == (not ok)
