"""The recorded run of the reference, ready to compare with (shared/reference/README.md)."""

import importlib.util

import numpy as np
import torch

from bevformer.config import preset
from bevformer.detector import build_model
from bevformer.types import Frame, FrameMeta, GroundTruth, Sample

HEIGHT, WIDTH = 128, 224


def load_inputs(shared):
    spec = importlib.util.spec_from_file_location("reference_inputs", shared / "reference" / "inputs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def filled_model(inputs, name="bevformer_tiny"):
    """The preset with every entry of its state dict set by the rule value = f(key)."""
    model = build_model(preset(name))
    state = {k: torch.from_numpy(np.asarray(inputs.fill(k, v.shape))) for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    return model.eval()


def frame(inputs, image_name, meta, prev_bev_exists=False):
    return Frame(
        torch.from_numpy(inputs.image(image_name, HEIGHT, WIDTH)),
        FrameMeta(
            meta["sample_idx"],
            meta["scene_token"],
            0.0,
            np.stack(meta["lidar2img"]),
            np.array(meta["can_bus"]),
            prev_bev_exists,
            (HEIGHT, WIDTH),
        ),
    )


def training_sample(inputs):
    metas = inputs.queue_metas(HEIGHT, WIDTH)
    frames = tuple(frame(inputs, f"train{i}", metas[i], metas[i]["prev_bev_exists"]) for i in range(3))
    boxes, labels = inputs.gt_boxes()
    boxes = boxes.copy()
    boxes[:, 2] += boxes[:, 5] / 2  # recorded bottom-centred; ours are gravity-centred
    return Sample(frames, GroundTruth(torch.from_numpy(boxes), torch.from_numpy(labels)))


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    return model


def bottom_centred(boxes):
    out = boxes.clone()
    out[:, 2] -= out[:, 5] / 2
    return out
