"""Behaviour of the whole detector on the micro preset."""

import dataclasses

import numpy as np
import pytest
import torch

from bevformer.config import override, preset
from bevformer.detector import build_model
from bevformer.types import Frame, FrameMeta, GroundTruth, Sample

H, W = 32, 48


def rig():
    out = []
    for yaw in np.deg2rad([0, -55, 55, 180, 110, -110]):
        forward, right = np.array([-np.sin(yaw), np.cos(yaw), 0]), np.array([np.cos(yaw), np.sin(yaw), 0])
        view = np.eye(4)
        view[:3, :3] = np.stack([right, [0, 0, -1], forward])
        out.append(np.array([[25, 0, W / 2, 0], [0, 25, H / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]) @ view)
    return np.stack(out)


def frame(seed, scene="a", exists=True, move=(1.0, 0.5), turn_deg=2.0):
    can_bus = np.zeros(18)
    can_bus[[0, 1, 16, 17]] = move[0], move[1], 0.3, turn_deg
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(6, 3, H, W, generator=generator)
    return Frame(images, FrameMeta(f"{scene}{seed}", scene, float(seed), rig(), can_bus, exists, (H, W)))


def sample(seed, exists=True):
    boxes = torch.tensor([[5.0, 8, -1, 2, 4, 1.5, 0.3, 1, 0], [-6, 3, -1, 0.6, 0.6, 1.7, 0, 0, 0]])
    frames = (frame(seed, exists=False, move=(0, 0), turn_deg=0), frame(seed + 1, exists=exists))
    return Sample(frames, GroundTruth(boxes + seed * 0.1, torch.tensor([0, 8])))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    built = build_model(override(preset("bevformer_micro"), ["encoder.num_layers=2"]))
    for module in built.modules():  # fresh sampling layers are all zero and would hide mistakes
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.05)
    return built.double()


def doubled(item):
    if isinstance(item, Frame):
        return dataclasses.replace(item, images_NCHW=item.images_NCHW.double())
    truth = GroundTruth(item.truth.boxes_G9.double(), item.truth.labels_G)
    return Sample(tuple(doubled(f) for f in item.frames), truth)


@pytest.mark.parametrize("exists", [(True, True), (True, False), (False, False)])
def test_a_batch_equals_its_samples_one_by_one(model, exists):
    samples = [doubled(sample(3, exists[0])), doubled(sample(8, exists[1]))]
    model.eval()
    one_by_one = []
    for item in samples:
        prev = model.history([item])
        one_by_one.append(model(item.frames[-1].images_NCHW[None], [item.frames[-1].meta], prev))
    together = model(
        torch.stack([s.frames[-1].images_NCHW for s in samples]),
        [s.frames[-1].meta for s in samples],
        model.history(samples),
    )
    for row, single in enumerate(one_by_one):
        assert torch.allclose(together.bev_BQC[row], single.bev_BQC[0], atol=1e-10)
        assert torch.allclose(together.codes_LBOD[-1][row], single.codes_LBOD[-1][0], atol=1e-9)


def test_the_loss_of_a_batch_is_the_mean_by_boxes(model):
    samples = [doubled(sample(3)), doubled(sample(8))]
    single = [sum(model.loss(item, mean_positives=4.0).values()).detach() for item in samples]
    assert float(sum(model.loss(samples).values()).detach()) == pytest.approx(float(sum(single)), rel=1e-6)


def test_history_matters_and_a_new_scene_drops_it(model):
    model.eval()
    first, memory = model.step(doubled(frame(1)))
    fresh, _ = model.step(doubled(frame(2, scene="b")))
    dropped, _ = model.step(doubled(frame(2, scene="b")), memory)
    with_history, _ = model.step(doubled(frame(2, scene="a")), memory)
    assert torch.equal(fresh.scores_K, dropped.scores_K)
    assert not torch.allclose(fresh.scores_K[:5], with_history.scores_K[:5], atol=1e-6)


def test_video_mode_equals_a_queue_with_the_same_motion(model):
    model.eval()
    a, b = (
        doubled(frame(1, move=(7.0, 3.0), turn_deg=10.0)),
        doubled(frame(2, move=(8.5, 3.5), turn_deg=14.0)),
    )
    _, memory = model.step(a)
    detections, _ = model.step(b, memory)
    queued = Sample(
        (
            doubled(frame(1, exists=False, move=(0, 0), turn_deg=0)),
            doubled(frame(2, move=(1.5, 0.5), turn_deg=4.0)),
        ),
        sample(0).truth,
    )
    outputs = model(b.images_NCHW[None], [queued.frames[1].meta], model.history([queued]))
    assert torch.allclose(model.pts_bbox_head.decode(outputs)[0].boxes_K9, detections.boxes_K9)


def test_step_refuses_training_mode(model):
    model.train()
    with pytest.raises(RuntimeError, match="eval"):
        model.step(doubled(frame(1)))


def test_the_history_pass_leaves_training_mode_as_it_was(model):
    model.train()
    model.history([doubled(sample(1))])
    assert model.training


def test_a_camera_that_sees_nothing_is_no_error(model):
    model.eval()
    blind = doubled(frame(1))
    away = blind.meta.lidar2img_N44.copy()
    away[:, 2] *= -1
    away[:, :2] *= 0
    blind = dataclasses.replace(blind, meta=dataclasses.replace(blind.meta, lidar2img_N44=away))
    detections, _ = model.step(blind)
    assert bool(torch.isfinite(detections.boxes_K9).all())


def test_twenty_steps_on_one_sample_lower_the_loss():
    torch.manual_seed(0)
    small = build_model(preset("bevformer_micro")).train()
    optimizer = torch.optim.AdamW(small.parameters(), lr=1e-3)
    totals = []
    for _ in range(20):
        loss = sum(small.loss(sample(3)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(float(loss.detach()))
    assert totals[-1] < 0.7 * totals[0]
