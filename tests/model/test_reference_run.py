"""bevformer_tiny against one recorded run of the unmodified reference, within its stated gates."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import recorded  # noqa: E402

from bevformer import checkpoint_read  # noqa: E402
from bevformer.matching import match  # noqa: E402
from bevformer.optim import build_optimizer  # noqa: E402


@pytest.fixture(scope="module")
def inputs(shared):
    return recorded.load_inputs(shared)


@pytest.fixture(scope="module")
def reference(shared):
    return checkpoint_read.read_file(str(shared / "reference" / "tiny_small_image.pt"))  # on any torch


def watch(seen, name):
    return lambda module, inputs, output: seen.__setitem__(name, output)


@pytest.fixture(scope="module")
def stream(inputs):
    """Per frame: the head's outputs, detections, camera features and layer outputs of one video."""
    model, memory, steps = recorded.filled_model(inputs), None, []
    transformer = model.pts_bbox_head.transformer
    for i, spec in enumerate(inputs.FRAMES):
        seen = {}
        watched = {"head": model.pts_bbox_head, "neck": model.img_neck}
        watched.update({f"enc{k}": layer for k, layer in enumerate(transformer.encoder.layers)})
        watched.update({f"dec{k}": layer for k, layer in enumerate(transformer.decoder.layers)})
        hooks = [module.register_forward_hook(watch(seen, name)) for name, module in watched.items()]
        meta = inputs.meta(spec, recorded.HEIGHT, recorded.WIDTH)
        seen["detections"], memory = model.step(recorded.frame(inputs, f"test{i}", meta), memory)
        for hook in hooks:
            hook.remove()
        steps.append(seen)
    return steps


def furthest(ours, theirs):
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("i", [0, 1, 2])
def test_every_decoder_layer_gives_the_recorded_logits_and_boxes(stream, reference, i):
    head, wanted = stream[i]["head"], reference["frames"][i]
    assert furthest(torch.stack(head.logits_LBOK), wanted["all_cls_scores"]) < 1e-3
    assert furthest(torch.stack(head.codes_LBOD), wanted["all_bbox_preds"]) < 5e-3


@pytest.mark.parametrize("i", [0, 1])
def test_every_layer_gives_the_recorded_features(stream, reference, i):
    seen, wanted = stream[i], reference["frames"][i]
    assert furthest(seen["head"].bev_BQC.transpose(0, 1), wanted["bev_embed"]) < 1e-4
    for k in range(3):
        assert furthest(seen[f"enc{k}"][:, ::16], wanted[f"enc{k}_every16"]) < 1e-4
    for k in range(6):
        assert furthest(seen[f"dec{k}"].transpose(0, 1)[::16], wanted[f"dec{k}_every16"]) < 1e-3


def test_the_backbone_and_neck_give_the_recorded_features(stream, reference):
    wanted = reference["frames"][0]["img_feats"][0]
    assert furthest(stream[0]["neck"][0].view_as(wanted), wanted) < 1e-4


def test_projected_points_and_masks_are_the_recorded_ones(inputs, reference):
    from bevformer import geometry

    meta = recorded.frame(inputs, "test0", inputs.meta(inputs.FRAMES[0], 128, 224)).meta
    points = geometry.pillar_points(50, 50, 4, (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0), torch.device("cpu"))
    uv, seen = geometry.project(points, [meta])
    wanted = reference["frames"][0]
    mask = wanted["bev_mask"].transpose(0, 1)
    assert torch.equal(seen, mask)
    assert furthest(uv[mask], wanted["reference_points_cam"].transpose(0, 1)[mask]) < 1e-5


def test_history_is_rotated_as_recorded(stream, inputs, reference):
    from bevformer import geometry

    wanted = reference["frames"][1]
    turned = geometry.rotate_bev(
        stream[0]["head"].bev_BQC[0], float(wanted["can_bus_used"][17]), 50, 50, (100, 100)
    )
    assert furthest(turned.flatten(), wanted["rotated_prev_bev"].flatten()) < 1e-4


@pytest.mark.parametrize("i", [0, 1, 2])
def test_decoded_boxes_are_the_recorded_ones_as_a_set(stream, reference, i):
    detections, wanted = stream[i]["detections"], reference["frames"][i]
    assert furthest(detections.scores_K, wanted["scores"]) < 1e-4
    ours = recorded.bottom_centred(detections.boxes_K9)
    near = torch.cdist(ours.double(), wanted["boxes"].double(), p=float("inf"))
    same_label = detections.labels_K[:, None] == wanted["labels"][None]
    near[~same_label] = float("inf")
    assert float(near.min(1)[0].max()) < 5e-3 and float(near.min(0)[0].max()) < 5e-3


@pytest.fixture(scope="module")
def trained(inputs):
    """One training step of the recorded queue: losses, head outputs, model with gradients."""
    model = recorded.without_dropout(recorded.filled_model(inputs)).train()
    seen = {}
    model.pts_bbox_head.register_forward_hook(lambda m, a, out: seen.__setitem__("head", out))
    sample = recorded.training_sample(inputs)
    losses = model.loss(sample)
    sum(losses.values()).backward()
    return model, sample, seen["head"], {k: float(v.detach()) for k, v in losses.items()}


def test_losses_are_the_recorded_ones(trained, reference):
    assert trained[3] == pytest.approx(
        {k: float(v) for k, v in reference["train"]["losses"].items()}, rel=1e-4
    )


def test_queries_are_matched_as_recorded(trained, reference):
    _, sample, head, _ = trained
    for layer, wanted in enumerate(reference["train"]["assigned_gt_inds"]):
        queries, boxes = match(head.logits_LBOK[layer][0], head.codes_LBOD[layer][0], sample.truth)
        ours = torch.zeros(900, dtype=torch.int64)
        ours[queries] = boxes + 1
        assert torch.equal(ours, wanted.view(-1).long())


def test_gradients_and_the_optimiser_step_are_the_recorded_ones(trained, reference, inputs):
    model, wanted = trained[0], reference["train"]
    parameters = dict(model.named_parameters())
    for name, norm in wanted["grad_norms"].items():
        if norm is not None:
            assert float(parameters[name].grad.norm()) == pytest.approx(float(norm), rel=1e-2, abs=1e-6), name
    before = {name: p.detach().clone() for name, p in parameters.items()}
    optimizer = build_optimizer(model, model.config.schedule)
    total = torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 35)
    assert float(total) == pytest.approx(float(wanted["clip_total_norm"]), rel=1e-3)
    optimizer.step()
    for name, norm in wanted["adamw_step_delta_norms"].items():
        moved = float((parameters[name].detach() - before[name]).norm())
        assert moved == pytest.approx(float(norm), rel=1e-2, abs=1e-9), name
