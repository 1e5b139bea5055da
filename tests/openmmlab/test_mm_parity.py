"""mmcv's DCNv2 and deformable attention as our backends against our own operators, forward and backward."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))  # small_base

from small_base import small  # noqa: E402

from bevformer import mm, selftest, selftest_mmcv, selftest_train  # noqa: E402
from bevformer.config import override  # noqa: E402
from bevformer.detector import build_model  # noqa: E402
from bevformer.mm import compiled  # noqa: E402
from bevformer.ops import backends, dcn_backends  # noqa: E402
from bevformer.ops.backends import REFERENCE, disagreement, load  # noqa: E402
from bevformer.ops.dcn_layer import ModulatedDeformConv  # noqa: E402
from bevformer.ops.modulated_conv import modulated_deform_conv  # noqa: E402
from bevformer.runstate import seed_weights  # noqa: E402
from bevformer.selftest_ops import AttentionSize, ConvSize, compare_attention, compare_conv  # noqa: E402

DEVICES = ("cpu", *(["cuda"] if torch.cuda.is_available() else []))
BOUNDS = ((torch.float32, 1e-5), (torch.float64, 1e-12))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype, bound", BOUNDS)
@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("height, width", [(9, 14), (1, 7), (3, 3)])
def test_dcnv2_is_ours(device, dtype, bound, stride, dilation, height, width):
    size = ConvSize(3, 6, height, width, 5, stride, dilation)
    compare_conv(mm.modulated_deform_conv2d(), modulated_deform_conv, dtype, device, bound, size)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype, bound", BOUNDS)
@pytest.mark.parametrize("shapes", [((9, 14),), ((12, 20), (6, 10), (3, 5), (1, 1))])
@pytest.mark.parametrize("points, maps", [(4, 1), (8, 2)])
def test_deformable_attention_is_ours(device, dtype, bound, shapes, points, maps):
    size = AttentionSize(maps, 30, 8, points, 32, shapes)
    attend = load("mmcv", device).deform_attn
    compare_attention(attend, REFERENCE.deform_attn, dtype, device, bound, size)


@pytest.mark.parametrize("device", DEVICES)
def test_all_three_attentions_agree_and_are_chosen_by_name(device):
    assert disagreement(load("mmcv", device), device) < backends.TOLERANCE
    dcn_backends.choose.cache_clear()
    assert dcn_backends.choose("auto", device)[0] == "mmcv"
    assert dcn_backends.disagreement(mm.modulated_deform_conv2d(), device) < dcn_backends.TOLERANCE


def layer(backend):
    torch.manual_seed(0)
    made = ModulatedDeformConv(8, 8, backend=backend)
    torch.nn.init.normal_(made.conv_offset.weight, std=0.1)
    torch.nn.init.normal_(made.conv_offset.bias)
    return made


@pytest.mark.parametrize("dtype, bound", [(None, 1e-5), (torch.bfloat16, 0.05)])
def test_channels_last_maps_and_autocast_change_nothing(dtype, bound):
    """mmcv's function by itself reads channels-last maps as if they were not, and refuses bf16."""
    x, outs = torch.randn(2, 8, 9, 7, generator=torch.Generator().manual_seed(1)), []
    for backend in ("mmcv", "reference"):
        last = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", enabled=dtype is not None, dtype=dtype or torch.bfloat16):
            outs.append(layer(backend)(last).detach().float())
    assert float((outs[0] - outs[1]).abs().max()) < bound


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("folded", ["off", "on"])
def test_a_backbone_with_dcnv2_gives_the_same_features(folded, last):
    from bevformer.folded import FoldedResNet

    images, found = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)), []
    images = images.contiguous(memory_format=torch.channels_last) if last else images
    for name in ("reference", "mmcv"):
        seed_weights(0)
        backbone = build_model(override(small(), ["backbone.dcn_backend=" + name])).img_backbone.eval()
        generator = torch.Generator().manual_seed(1)
        for part in backbone.modules():
            if isinstance(part, ModulatedDeformConv):
                part.conv_offset.weight.data.normal_(0, 0.05, generator=generator)
        run = FoldedResNet(backbone, torch.float32, last) if folded == "on" else backbone
        with torch.no_grad():
            found.append(run(images))
    for ours, theirs in zip(*found):
        assert float((ours - theirs).abs().max()) < 1e-4 * float(ours.abs().max())


def off_the_corners(config):
    """Fresh weights sample at the very corners of cells, where a bilinear slope is either side's."""
    model, generator = build_model(config), torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if name.endswith("sampling_offsets.bias"):
            parameter.data += 0.3 * torch.rand(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("amp, steps, bound", [("off", 2, 1e-4), ("fp64", 20, 1e-6)])
def test_training_with_mmcvs_attention_has_the_losses_of_ours(amp, steps, bound, synth, monkeypatch):
    runs = []
    monkeypatch.setattr(selftest_train, "build_model", off_the_corners)
    for name in ("reference", "mmcv"):
        settings = ["schedule.max_steps=%d" % steps, "ops.attention=" + name]
        runs.append(selftest_train.train(synth.root, synth.infos, "cpu", settings, amp)[0])
    ours, theirs = ([row["loss"] for row in rows] for rows in runs)
    assert len(ours) == steps and theirs == pytest.approx(ours, rel=bound)


def test_every_compiled_operator_answers_or_says_why_not():
    rows = compiled.ask_all("cpu")
    answers = {row["operator"]: row["answer"] for row in rows}
    assert answers["modulated_deform_conv2d"] == compiled.ANSWERS
    assert not {compiled.WRONG, compiled.FAILS} & set(answers.values()), rows
    assert all(row["said"] for row in rows if row["answer"] != compiled.ANSWERS)


@pytest.mark.parametrize("name", ["openmmlab-imports", "mmcv-operators", "mmcv-compiled", "mmcv-parity"])
def test_the_self_test_of_the_environment_passes(name, capsys):
    assert selftest.main([name]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]


def test_a_damaged_operator_fails_the_parity_check(monkeypatch, capsys):
    right = mm.modulated_deform_conv2d()
    monkeypatch.setattr(
        selftest_mmcv.mm, "modulated_deform_conv2d", lambda: lambda *args: right(*args) * 1.001
    )
    assert selftest.main(["mmcv-parity"]) == 1
    assert "DCNv2 in float32 is off by" in json.loads(capsys.readouterr().out)["said"]
