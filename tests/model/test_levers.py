"""Every lever gives the numbers of the plain path."""

import copy
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import filled  # noqa: E402

from bevformer import folded as by_onednn  # noqa: E402
from bevformer.amp import Precision, bf16_works_on_cpu  # noqa: E402
from bevformer.backbone import build_backbone  # noqa: E402
from bevformer.bench_models import OPTIONS  # noqa: E402
from bevformer.bench_plain import plain_twin  # noqa: E402
from bevformer.config import BackboneConfig, NeckConfig, OpsConfig, ScheduleConfig, override, preset  # noqa: E402
from bevformer.detector import build_model  # noqa: E402
from bevformer.errors import ConfigError  # noqa: E402
from bevformer.evaluate import ready_step  # noqa: E402
from bevformer.extractor import Extractor, arranged, images_at_once, prepare  # noqa: E402
from bevformer.folded import FoldedResNet  # noqa: E402
from bevformer.ledger import IDENTICAL, ROUNDING  # noqa: E402
from bevformer.levers import levers_entries, levers_record, levers_sentence  # noqa: E402
from bevformer.neck import FPN  # noqa: E402
from bevformer.nominal import image_size, nominal_frame, nominal_meta  # noqa: E402
from bevformer.ops.dcn_rows import modulated_deform_conv_rows  # noqa: E402
from bevformer.ops.modulated_conv import modulated_deform_conv  # noqa: E402
from bevformer.optim import build_optimizer, gradient_norm, scale_gradients  # noqa: E402

SMALL = ["head.num_query=20", "head.max_per_img=20", "encoder.bev_h=12", "ops.attention=reference"]
OFF = OpsConfig(channels_last="off", folded_norms="off", cameras_at_once=6)


class Camera(nn.Module):
    """A backbone with all there is - caffe style, DCNv2, three maps - and its neck."""

    def __init__(self):
        super().__init__()
        self.backbone = build_backbone(BackboneConfig(style="caffe", dcn_stages=(3,), out_stages=(1, 2, 3)))
        self.neck = FPN(NeckConfig((512, 1024, 2048), 4), 32)


@pytest.fixture(scope="module")
def camera():
    model = Camera().eval()
    state = {k: torch.from_numpy(np.asarray(filled.value(k, v.shape))) for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    return model


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(filled.stream("levers").standard_normal((1, 3, 3, 64, 96))).float()


@pytest.fixture(scope="module")
def plain(camera, images):
    with torch.no_grad():
        return camera.neck(camera.backbone(images[0]))


def apart(ours, theirs):
    return max(float((a.float() - b).norm() / b.norm()) for a, b in zip(ours, theirs))


@pytest.mark.parametrize("at_once", [0, 1, 2])
@pytest.mark.parametrize("folded", ["on", "off"])
@pytest.mark.parametrize("last", ["on", "off"])
def test_features_without_gradients_are_the_plain_ones_up_to_rounding(
    camera, images, plain, last, folded, at_once
):
    ops = OpsConfig(channels_last=last, folded_norms=folded, cameras_at_once=at_once)
    levels = Extractor(camera.backbone, camera.neck, ops)(images)
    assert [tuple(level.shape) for level in levels] == [(1, 3, *level.shape[1:]) for level in plain]
    assert apart([level[0] for level in levels], plain) < 1e-5


def test_without_levers_they_are_the_plain_ones_to_the_bit(camera, images, plain):
    levels = Extractor(camera.backbone, camera.neck, OFF)(images)
    assert all(torch.equal(ours[0], theirs) for ours, theirs in zip(levels, plain))


@pytest.mark.skipif(not bf16_works_on_cpu(), reason="this torch has no bf16 autocast on the CPU")
@pytest.mark.parametrize("folded", ["on", "off"])
def test_in_bf16_they_are_within_two_per_cent(camera, images, plain, folded):
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        levels = Extractor(camera.backbone, camera.neck, OpsConfig(folded_norms=folded))(images)
    assert levels[0].dtype == torch.bfloat16 and 1e-4 < apart([level[0] for level in levels], plain) < 0.02


def test_folding_copies_the_weights_of_the_moment(camera, images):
    resnet = copy.deepcopy(camera.backbone)
    before, keys = FoldedResNet(resnet), list(resnet.state_dict())
    first = before(images[0])[0]
    with torch.no_grad():
        resnet.conv1.weight.mul_(2.0)
    assert torch.equal(before(images[0])[0], first) and list(resnet.state_dict()) == keys
    assert not torch.allclose(FoldedResNet(resnet)(images[0])[0], first)


def test_levers_in_training_give_the_same_gradients(camera, images):
    gradients, crop = [], images[0, :1, :, :32, :48].double()
    for ops in (OFF, OpsConfig(channels_last="on", folded_norms="on")):
        resnet = copy.deepcopy(camera.backbone).double().train()
        resnet.fold(ops.folded_norms == "on")
        maps = resnet(arranged(crop, resnet, ops))
        sum((level * torch.linspace(0, 1, level.shape[-1]).double()).sum() for level in maps).backward()
        gradients.append({name: p.grad for name, p in resnet.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 40
    for name, gradient in gradients[0].items():
        assert float((gradients[1][name] - gradient).norm()) <= 1e-9 * float(gradient.norm()), name


@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("dtype, bound", [("float64", 1e-12), ("float32", 1e-5), ("bfloat16", 0.01)])
def test_deformable_rows_are_the_deformable_convolution(dtype, bound, stride, dilation):
    generator = torch.Generator().manual_seed(0)
    height, width = (-(-side // stride) for side in (11, 13))
    shapes = ((2, 8, 11, 13), (2, 18, height, width), (2, 9, height, width), (5, 8, 3, 3))
    x, offset, mask, weight = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    args = (x, 4 * offset, mask.sigmoid(), weight)  # many points lie outside
    wanted = modulated_deform_conv(*args, stride, dilation, dilation)
    kinds = [getattr(torch, dtype)] * 4
    kinds[1] = torch.float32 if dtype == "bfloat16" else kinds[1]
    ours = modulated_deform_conv_rows(*(a.to(k) for a, k in zip(args, kinds)), stride, dilation, dilation)
    assert ours.dtype == kinds[0] and float((ours - wanted).norm() / wanted.norm()) < bound


def test_a_video_is_the_same_with_and_without_an_extractor():
    model = filled.model_of(override(preset("bevformer_micro"), SMALL))
    plain, _ = model.step(filled.frame(0))
    ours, _ = model.step(filled.frame(0), None, model.extractor())
    assert torch.allclose(ours.scores_K, plain.scores_K, rtol=1e-9)


@pytest.mark.parametrize("asked, height, size", [(0, 928, 1), (0, 480, 1), (0, 144, 14), (3, 928, 3)])
def test_on_a_cpu_few_large_images_run_together(asked, height, size):
    assert images_at_once(asked, "cpu", height, height * 16 // 9) == size
    assert images_at_once(asked, "cuda", height, 1600) == (asked or None)


@pytest.mark.parametrize(
    "option", ["channels_last=maybe", "folded_norms=1", "cameras_at_once=-1"], ids=lambda text: text
)
def test_a_lever_that_there_is_not_is_refused(option):
    with pytest.raises(ConfigError, match=option.split("=")[0]):
        build_model(override(preset("bevformer_micro"), ["ops." + option]))


def trained(kind, steps=3):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = build_optimizer(model, ScheduleConfig(lr=1e-2), kind)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        model(torch.linspace(-1, 1, 12).view(3, 4)).square().sum().backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("kind", ["fused", "foreach"])
def test_adamw_is_the_same_by_any_kernels(kind):
    try:
        ours = trained(kind)
    except ConfigError as error:
        pytest.skip(error.seen)
    assert torch.allclose(ours, trained("loop"), rtol=1e-5, atol=1e-7)


def test_kernels_that_there_are_not_are_refused():
    with pytest.raises(ConfigError, match="ops.adamw=quick"):
        trained("quick")


@pytest.mark.parametrize("max_norm", [0.1, 1e6], ids=["clipped", "as they are"])
def test_the_norm_and_the_clipping_are_torchs(max_norm):
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(nn.Linear(5, 3))
        models[-1](torch.ones(1, 5)).square().sum().backward()
    norm = gradient_norm(models[0])
    scale_gradients(models[0], max_norm, norm)
    wanted = nn.utils.clip_grad_norm_(models[1].parameters(), max_norm)
    assert float(norm) == float(wanted)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(models[0].parameters(), models[1].parameters()))


@pytest.mark.parametrize("option, folded", [("auto", "history"), ("on", "all"), ("off", "off")])
def test_a_run_records_what_auto_came_to(camera, option, folded):
    config = override(preset("bevformer_micro"), ["ops.folded_norms=" + option, "ops.adamw=loop"])
    model = types.SimpleNamespace(img_backbone=copy.deepcopy(camera.backbone), config=config)
    prepare(model.img_backbone, config.ops)
    found = levers_record(model, build_optimizer(nn.Linear(1, 1), ScheduleConfig(), "loop"), torch.bfloat16)
    assert found == dict(
        channels_last=True, folded_norms=folded, cameras_at_once=6, adamw="loop", gradients="own"
    )


def test_where_onednn_fuses_it_gives_torchs_numbers(camera, images, monkeypatch):
    fused = FoldedResNet(camera.backbone, channels_last=True)(images[0])
    assert not by_onednn.fuses(torch.device("meta"), torch.float32)
    there = hasattr(torch.ops.mkldnn, "_convolution_pointwise_") and torch.backends.mkldnn.is_available()
    assert by_onednn.fuses(torch.device("cpu"), torch.float32) == there
    monkeypatch.setattr(by_onednn, "fuses", lambda device, dtype: False)
    by_torch = FoldedResNet(camera.backbone, channels_last=True)(images[0])
    assert apart(fused, by_torch) < 1e-5


@pytest.mark.slow
def test_a_frame_of_base_takes_less_than_half_the_memory_of_the_plain_version():
    from bevformer.live import LiveBytes  # torch >= 2.0

    peaks = {}
    for who, options in (("plain", OPTIONS["plain"]), ("ours", ("ops.cameras_at_once=1",))):
        config = override(preset("bevformer_base"), options)
        model = build_model(config).eval()
        if who == "plain":
            plain_twin(model.pts_bbox_head.transformer.encoder)
        model, size = model.to("meta"), image_size(config)
        images = torch.empty(1, 6, 3, *size.padded_hw, device="meta")
        before = torch.empty(1, config.encoder.bev_h * config.encoder.bev_w, 256, device="meta")
        live = LiveBytes([*model.parameters(), *model.buffers(), images, before])
        with live, torch.no_grad():
            extract = model.extractor() if who == "ours" else model.features
            model.pts_bbox_head(extract(images), [nominal_meta(size)], before)
        peaks[who] = live.peak_b
    assert peaks["ours"] < 0.5 * peaks["plain"] and peaks["plain"] > 5e9


@pytest.mark.skipif(not bf16_works_on_cpu(), reason="this torch has no bf16 autocast on the CPU")
def test_eval_runs_a_video_in_the_precision_that_it_is_asked_for():
    torch.manual_seed(0)
    model = build_model(override(preset("bevformer_micro"), SMALL)).eval()
    frame = nominal_frame(image_size(model.config, (32, 48)))
    exact, _ = model.step(frame)
    full, _ = ready_step(model)(frame, None)
    half, memory = ready_step(model, Precision("bf16"))(frame, None)
    assert torch.equal(full.scores_K, exact.scores_K) and memory.bev_BQC.isfinite().all()
    assert 0 < float((half.scores_K - exact.scores_K).abs().max()) < 0.02 * float(exact.scores_K.max())


def test_positions_that_are_no_numbers_stay_where_they_are():
    """Of weights that diverged: no index is made of them, and every other cell is as it was."""
    x, offset, weight = torch.randn(1, 4, 5, 6), torch.zeros(1, 18, 5, 6), torch.randn(3, 4, 3, 3)
    mask = torch.ones(1, 9, 5, 6)
    right = modulated_deform_conv_rows(x, offset, mask, weight, 1, 1, 1)
    offset[0, 0, 2, 2], offset[0, 3, 1, 1] = float("nan"), float("inf")
    out = modulated_deform_conv_rows(x, offset, mask, weight, 1, 1, 1)
    assert out[0, :, (2, 1), (2, 1)].isnan().all() and out.isnan().sum() == 6
    assert torch.allclose(out[~out.isnan()], right[~out.isnan()])


CPU_NOW = dict(channels_last=True, folded_norms="history", cameras_at_once=1, adamw="fused", gradients="own")
PLAIN = dict(channels_last=False, folded_norms="off", cameras_at_once=6, adamw="loop", gradients="own")


@pytest.mark.parametrize(
    "device, operators, levers, told",
    [
        ("cpu", {"attention": "reference"}, PLAIN, []),
        ("cpu", {"attention": "mmcv", "dcn": "mmcv"}, PLAIN, []),
        ("cuda", {"attention": "mmcv", "dcn": "mmcv"}, PLAIN, []),
        ("cuda", {"attention": "triton", "dcn": "torchvision"}, PLAIN, ["attention", "dcn"]),
        ("cuda", {"attention": "reference"}, PLAIN, ["attention"]),
        ("cpu", {"attention": "cpp"}, CPU_NOW,
         ["attention", "channels_last", "folded_norms", "cameras_at_once", "adamw"]),
        ("cpu", {}, {}, []),
    ],
)  # fmt: skip
def test_what_is_computed_otherwise_than_upstream_is_in_the_ledger(device, operators, levers, told):
    entries = levers_entries(operators, levers, device)
    assert [entry["lever"] for entry in entries] == told
    assert {entry["effect"] for entry in entries} <= {ROUNDING}
    sentence = levers_sentence(entries)
    assert sentence.endswith("equal up to rounding.") if told else sentence == ""
    assert all(entry["what"] in sentence for entry in entries)


def test_an_operator_that_a_rung_of_the_memory_ladder_brought_has_its_entry_there():
    entries = levers_entries(
        {"attention": "cpp", "dcn": "cpp"}, PLAIN, "cpu", rungs=["sampling", "fused-attention"]
    )
    assert [entry["lever"] for entry in entries] == ["dcn"]


@pytest.mark.parametrize("processes, effect", [(1, IDENTICAL), (2, IDENTICAL), (3, ROUNDING)])
def test_a_common_buffer_rounds_otherwise_where_more_than_two_processes_add_up(processes, effect):
    (entry,) = levers_entries({}, dict(PLAIN, gradients="flat"), "cpu", processes)
    assert entry["effect"] == effect and effect in levers_sentence([entry])
