"""Weights, images and metas as a pure function of a name, so that outputs can be compared across versions."""

import zlib

import numpy as np
import torch

from bevformer.detector import build_model
from bevformer.types import Frame, FrameMeta, GroundTruth, Sample

HEIGHT, WIDTH = 64, 96


def stream(name):
    return np.random.RandomState(zlib.crc32(("golden|" + name).encode()))


def value(key, shape):
    """Of parameter or buffer `key`: spread so that offsets, masks and batch norms all matter."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    drawn = stream(key).standard_normal(shape)
    fan_in = max(1, int(np.prod(shape[1:])))
    if key.endswith("code_weights"):
        return np.array([1, 1, 1, 1, 1, 1, 1, 1, 0.2, 0.2])
    if key.endswith("running_var"):
        return 1 + 0.3 * np.abs(drawn)
    if "sampling_offsets.bias" in key:
        return 1.5 * drawn
    if len(shape) == 1:
        return 1 + 0.1 * drawn if key.endswith("weight") else 0.1 * drawn
    if "embed" in key:
        return 0.5 * drawn
    return drawn / np.sqrt(fan_in)


def model_of(config):
    """In float64: what rounding does is then far below what a change of the code does."""
    model = build_model(config).double().eval()
    state = {k: torch.from_numpy(np.asarray(value(k, tuple(v.shape)))) for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    return model


def rig():
    out = []
    for yaw in np.deg2rad([0, -55, 55, 180, 110, -110]):
        forward, right = np.array([-np.sin(yaw), np.cos(yaw), 0]), np.array([np.cos(yaw), np.sin(yaw), 0])
        view = np.eye(4)
        view[:3, :3] = np.stack([right, [0, 0, -1], forward])
        view[:3, 3] = [0.1, -0.3, 0.2]
        focal = 0.8 * WIDTH
        out.append(
            np.array([[focal, 0, WIDTH / 2, 0], [0, focal, HEIGHT / 2, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
            @ view
        )
    return np.stack(out)


def frame(index, relative=False):
    """Absolute can_bus of a car driving a curve, or, with `relative`, as a training queue carries it."""
    can_bus = np.zeros(18)
    can_bus[7:16] = 0.1 * stream("can").standard_normal(9)
    position, yaw_deg = np.array([400.0 + 3 * index, 1100.0 + 2 * index, 0]), 30.0 + 4 * index
    can_bus[0:3] = np.array([3.0, 2.0, 0]) * (index > 0) if relative else position
    can_bus[16], can_bus[17] = np.deg2rad(yaw_deg), 4.0 * (index > 0) if relative else yaw_deg
    images = torch.from_numpy(stream("image%d" % index).standard_normal((6, 3, HEIGHT, WIDTH)))
    meta = FrameMeta(
        "t%d" % index, "scene", 0.5 * index, rig(), can_bus, relative and index > 0, (HEIGHT, WIDTH)
    )
    return Frame(images, meta)


def sample():
    drawn = stream("boxes")
    boxes = drawn.uniform(-40, 40, (5, 9))
    boxes[:, 2], boxes[:, 3:6] = -1, drawn.uniform(0.5, 5, (5, 3))
    boxes[2, 7:] = np.nan
    truth = GroundTruth(torch.from_numpy(boxes), torch.tensor([0, 3, 8, 9, 0]))
    return Sample((frame(0, relative=True), frame(1, relative=True)), truth)
