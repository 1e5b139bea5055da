"""How mmcv's compiled functions are called, and how their answers are sorted, with stand-ins for mmcv."""

import json
import sys
import types
from dataclasses import replace
from pathlib import Path

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
    """mmcv-full 1.7.2 for a CPU with nothing in mmcv.ops; .put(module, **names)"""

    def put(name, **names):
        module = types.ModuleType(name)
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, name, module)

    put("mmcv", __version__="1.7.2")
    put("mmcv._ext", get_compiler_version=lambda: "GCC", get_compiling_cuda_version=lambda: "not available")
    put("mmcv.ops")
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


def answer_of(operator, device="cpu"):
    (row,) = [row for row in compiled.ask_all(device) if row["operator"] == operator]
    return row["answer"], row["said"]


@pytest.mark.parametrize(
    "nms, answer",
    [
        (lambda *args: (None, torch.tensor([0, 2])), compiled.ANSWERS),
        (lambda *args: (None, torch.tensor([0, 1])), compiled.WRONG),
        (lambda *args: (None, torch.tensor([0, 1, 2])), compiled.WRONG),
        (refuses, compiled.FAILS),  # mmcv has it for a CPU
        (left_out, compiled.LEFT_OUT),
        (breaks, compiled.FAILS),
    ],
)
def test_answers_are_told_apart(mmcv, nms, answer):
    mmcv.put("mmcv.ops", nms=nms)
    found, said = answer_of("nms")
    assert found == answer and bool(said) == (answer != compiled.ANSWERS)


@pytest.mark.parametrize(
    "said, answer",
    [
        ("roi_pool_forward_impl: implementation for device cpu not found.", compiled.NOT_FOR),
        ("Padding mode x is not supported", compiled.FAILS),
        ("CUDA error: no kernel image is available for execution on the device", compiled.FAILS),
    ],
)
def test_only_an_operator_that_mmcv_has_not_for_a_cpu_may_refuse_and_only_so(mmcv, said, answer):
    def roi_pool(*args):
        raise RuntimeError(said)

    mmcv.put("mmcv.ops", roi_pool=roi_pool)
    assert answer_of("roi_pool") == (answer, said)


@pytest.mark.parametrize(
    "version, cuda, device, answer",
    [
        ("1.6.0", "not available", "cpu", compiled.NOT_FOR),  # 1.7.2 has it for a CPU
        ("1.7.2", "not available", "cpu", compiled.FAILS),
        ("1.7.2", "not available", "cuda", compiled.NOT_FOR),
        ("1.7.2", "11.8", "cuda", compiled.FAILS),
        ("1.3.9", "not available", "cpu", compiled.NOT_FOR),  # nobody looked into it
    ],
)
def test_which_operators_have_to_answer_follows_from_mmcvs_version_and_its_build(
    mmcv, monkeypatch, version, cuda, device, answer
):
    def bbox_overlaps(*args):
        raise RuntimeError("bbox_overlaps_impl: implementation for device %s not found." % device)

    mmcv.put("mmcv", __version__=version)
    mmcv.put("mmcv._ext", get_compiler_version=str, get_compiling_cuda_version=lambda: cuda)
    mmcv.put("mmcv.ops", bbox_overlaps=bbox_overlaps)
    monkeypatch.setattr(compiled, "_boxes", lambda device: (torch.zeros(2, 4), torch.zeros(2)))
    assert answer_of("bbox_overlaps", device)[0] == answer


def test_every_function_that_is_asked_for_is_a_fact_of_some_device():
    rows = json.loads(Path(compiled.DEVICES).read_text())
    for name, row in rows.items():
        assert "sha256" in row["source"] and row["checked"], name
        for operator, case in compiled.CASES.items():
            known = {device for device in ("cpu", "cuda") if getattr(case, device) in row[device]}
            assert known, "%s of %s" % (operator, name)


@pytest.fixture
def reduced(mmcv, monkeypatch):
    """An mmcv that was compiled without DCNv2 and nms, on purpose."""

    def conv(*args):
        said = "modulated_deform_conv_forward was left out when mmcv was compiled (operators of the target)"
        raise RuntimeError(said)

    monkeypatch.setattr(selftest_mmcv, "refuse_without_operators", lambda: None)
    monkeypatch.setattr(selftest_mmcv, "load", lambda device: types.SimpleNamespace(deform_attn=deform_attn))
    mmcv.put("mmcv.ops", nms=left_out)
    mmcv.put("mmcv.ops.modulated_deform_conv", modulated_deform_conv2d=conv)
    return mmcv


@pytest.mark.parametrize(
    "check, names", [("mmcv-operators", "DCNv2, nms"), ("mmcv-parity", "DCNv2, stride 1")]
)
def test_what_was_left_out_on_purpose_is_a_row_and_no_failure(reduced, capsys, check, names):
    assert selftest.main([check]) == 0
    told = json.loads(capsys.readouterr().out)
    answers = {row["operator"].split(",")[0]: row["answer"] for row in told["rows"]}
    assert answers["deformable attention"] == compiled.ANSWERS and answers["DCNv2"] == compiled.LEFT_OUT
    assert "deformable attention" in told["said"] or "apart in float32" in told["said"]
    assert "; left out when mmcv was compiled: " + names in told["said"]


@pytest.mark.parametrize("check", ["mmcv-operators", "mmcv-parity"])
def test_what_was_not_left_out_and_fails_is_a_failure(reduced, capsys, check):
    reduced.put("mmcv.ops.modulated_deform_conv", modulated_deform_conv2d=breaks)
    assert selftest.main([check]) == 1
    assert "illegal memory access" in json.loads(capsys.readouterr().out)["said"]


@pytest.mark.parametrize(
    "gpu, for_gpu, devices", [(True, True, ["cpu", "cuda"]), (True, False, ["cpu"]), (False, True, ["cpu"])]
)
def test_an_environment_for_cpus_is_asked_on_the_cpu_whatever_its_torch_sees(
    monkeypatch, gpu, for_gpu, devices
):
    asked = selftest_mmcv.asked_for()
    monkeypatch.setattr(selftest_mmcv, "asked_for", lambda: replace(asked, for_gpu=for_gpu))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert selftest_mmcv._devices() == devices


def test_an_nms_that_keeps_other_boxes_is_a_failure(reduced, capsys):
    reduced.put("mmcv.ops", nms=lambda *args: (None, torch.tensor([0, 1])))
    assert selftest.main(["mmcv-operators"]) == 1
    assert "nms keeps [0, 1] instead of [0, 2]" in json.loads(capsys.readouterr().out)["said"]


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
