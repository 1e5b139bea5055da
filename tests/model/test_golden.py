"""Numbers that must not drift: a state dict filled by value = f(key) gives what it gave when written.

A change that is meant to change results updates golden.json with
    BEVREPRO_WRITE_GOLDEN=1 pytest tests/model/test_golden.py
and says so in its commit, with the numbers before and after.
"""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import filled  # noqa: E402

from bevformer.config import override, preset  # noqa: E402

GOLDEN = Path(__file__).parent / "golden" / "golden.json"
# Full width and depth of the backbones and layers; only the grids and the number of queries are smaller.
SMALLER = ["encoder.bev_h=12", "encoder.bev_w=10", "head.num_query=30", "head.max_per_img=20"]
VARIANTS = {
    "bevformer_tiny": [],
    "bevformer_small": ["backbone.checkpoint_blocks=False"],
    "bevformer_base": [],
    "bevformer_micro": [],
    "bevformer_tiny shifted": ["encoder.shift_current_reference=True"],
}


def figures(values):
    """Sum, sum of magnitudes and three single numbers: a swap of axes or rows shows in the latter."""
    flat = values.detach().double().flatten()
    picked = flat[[0, len(flat) // 3, len(flat) - 1]]
    return [float(flat.sum()), float(flat.abs().sum()), *picked.tolist()]


def measure(name):
    config = override(preset(name.split()[0]), SMALLER + ["transformer.dropout=0.0"] + VARIANTS[name])
    model, out, memory = filled.model_of(config), {}, None
    for index in range(2):
        detections, memory = model.step(filled.frame(index), memory)
        out[f"bev{index}"] = figures(memory.bev_BQC)
        out[f"scores{index}"] = figures(detections.scores_K)
        out[f"boxes{index}"] = figures(detections.boxes_K9)
    losses = model.train().loss(filled.sample())
    total = sum(losses.values())
    total.backward()
    out["losses"] = [float(loss.detach()) for loss in losses.values()]
    for key in ("img_neck.lateral_convs.0.conv.weight", "pts_bbox_head.bev_embedding.weight"):
        out["grad " + key] = figures(dict(model.named_parameters())[key].grad)
    return out


@pytest.mark.parametrize("name", list(VARIANTS))
def test_outputs_losses_and_gradients_have_not_drifted(name):
    torch.manual_seed(0)
    ours = measure(name)
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("BEVREPRO_WRITE_GOLDEN") == "1":
        golden[name] = ours
        GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
    assert set(ours) == set(golden[name])
    for key, values in ours.items():
        assert values == pytest.approx(golden[name][key], rel=1e-6, abs=1e-9), key
