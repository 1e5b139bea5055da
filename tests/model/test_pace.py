"""How long a step takes here: timed where it is short, estimated where it is not."""

import io

import pytest

from bevformer import pace
from bevformer.config import preset
from bevformer.detector import build_model
from bevformer.talk import Talk

QUIET = Talk(False, io.StringIO())


def test_a_short_step_is_timed_with_the_chosen_rungs(monkeypatch):
    seen = []
    monkeypatch.setattr(
        pace, "time_steps", lambda config, model, steps: seen.append(model) or [3.0, 1.0, 2.0]
    )
    found = pace.pace_here(preset("bevformer_micro"), ["encoder-layers"], QUIET)
    assert (found["kind"], found["step_s"], found["rungs"]) == ("measured", 2.0, ["encoder-layers"])
    assert seen[0].pts_bbox_head.transformer.encoder.recompute_layers


def test_a_long_step_is_estimated_from_the_backbone(monkeypatch):
    monkeypatch.setattr(pace, "SHORT_S", 0.0)
    found = pace.pace_here(preset("bevformer_micro"), [], QUIET)
    assert found["kind"] == "estimated" and found["step_s"] > 0


@pytest.mark.slow
def test_the_estimate_is_of_the_right_size():
    config = preset("bevformer_tiny")
    model = build_model(config).train()
    assert 0.3 < pace.estimate_step_s(config, model) / pace.time_steps(config, model, 1)[0] < 3


def test_steps_are_whole_ones():
    model = build_model(preset("bevformer_micro")).train()
    before = model.img_backbone.conv1.weight.detach().clone()
    (step_s,) = pace.time_steps(model.config, model, 1)
    assert step_s > 0 and not (model.img_backbone.conv1.weight == before).all()
