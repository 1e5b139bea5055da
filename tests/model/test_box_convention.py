"""Files with boxes of the other mmdet3d: seen, named, and converted without a loss."""

import dataclasses

import numpy as np
import pytest
import torch

from bevformer import box_convention as convention
from bevformer.boxes import swap_convention
from bevformer.checkpoint import load_checkpoint, notes_on
from bevformer.config import HeadConfig, preset
from bevformer.errors import ConfigError
from bevformer.head import _reg_branch, decode_detections


@pytest.mark.parametrize(
    "version, name", [("0.17.1", "0.17"), ("0.18.0", "0.17"), ("1.0.0rc0", "1.0"), ("1.0.0", "1.0")]
)
def test_the_convention_changed_with_1_0(version, name):
    assert convention.convention_of(version) == name
    assert convention.trained_with({"mmdet3d_version": version}) == name


def head_state(seed=0):
    torch.manual_seed(seed)
    return torch.nn.ModuleDict({"reg_branches": torch.nn.ModuleList([_reg_branch(16)])})


def boxes_of(model, features):
    codes = model["reg_branches"][0](features)
    wide = dataclasses.replace(HeadConfig(), post_center_range_m=(-99.0,) * 3 + (99.0,) * 3, max_per_img=20)
    logits = torch.arange(20.0).view(2, 10)
    return decode_detections(logits, codes, wide).boxes_K9.detach().numpy()


def test_reordered_weights_give_the_same_boxes_in_the_other_convention():
    model, features = head_state(), torch.randn(2, 16)
    before = boxes_of(model, features)
    model.load_state_dict(convention.reordered(model.state_dict()))
    after, wanted = boxes_of(model, features), swap_convention(before)
    assert np.allclose(np.delete(after, 6, 1), np.delete(wanted, 6, 1))
    assert np.allclose(np.cos(after[:, 6] - wanted[:, 6]), 1)


def test_twice_reordered_is_as_before():
    state = head_state().state_dict()
    again = convention.reordered(convention.reordered(state))
    assert all(torch.equal(again[key], state[key]) for key in state)


def test_other_weights_are_refused():
    with pytest.raises(ConfigError, match="no box branches"):
        convention.reordered({"img_backbone.conv1.weight": torch.zeros(1)})


def test_a_file_is_converted_on_the_command_line(tmp_path, capsys):
    source, out = str(tmp_path / "in.pth"), str(tmp_path / "out.pth")
    state = head_state().state_dict()
    torch.save({"meta": {"epoch": 3}, "state_dict": state}, source)
    assert convention.main([source, out]) == 0
    found = load_checkpoint(out)
    assert found["meta"] == {"epoch": 3, "boxes_turned": True}
    key = "reg_branches.0.4.bias"
    assert torch.equal(found["state_dict"][key], convention.reordered(state)[key])
    assert convention.main([source]) == 6 and "IN.pth OUT.pth" in capsys.readouterr().err


def test_a_file_that_was_turned_says_so_and_is_not_to_be_turned_again(tmp_path, capsys):
    paths = [str(tmp_path / name) for name in ("in.pth", "once.pth", "twice.pth")]
    meta = {"mmdet3d_version": "1.0.0rc6"}
    torch.save({"meta": meta, "state_dict": head_state().state_dict()}, paths[0])
    assert convention.main(paths[:2]) == 0 and "before that" not in capsys.readouterr().err
    note = convention.note_on(load_checkpoint(paths[1])["meta"])
    assert "turned by bevformer.box_convention" in note and "convert it" not in note
    assert convention.main(paths[1:]) == 0 and "once.pth had been turned before" in capsys.readouterr().err
    assert load_checkpoint(paths[2])["meta"] == meta


@pytest.mark.parametrize("meta", [{"mmdet3d_version": "0.17.1"}, {"bevformer_version": "0.1"}])
def test_turning_what_is_read_as_it_is_says_whom_it_is_for(tmp_path, capsys, meta):
    source, out = str(tmp_path / "in.pth"), str(tmp_path / "out.pth")
    torch.save({"meta": meta, "state_dict": head_state().state_dict()}, source)
    assert convention.main([source, out]) == 0
    assert "in.pth says that it learned (w, l, h, -yaw - pi/2)" in capsys.readouterr().err
    note = convention.note_on(load_checkpoint(out)["meta"])
    assert note is None or "does not read; take the file of before" in note


def test_a_checkpoint_of_mmdet3d_1_0_is_named_by_eval():
    config = preset("bevformer_tiny")
    (note,) = notes_on("a.pth", {"mmdet3d_version": "1.0.0rc6"}, config)
    assert "mmdet3d 1.0.0rc6" in note and "bevformer.box_convention" in note
    assert not notes_on("a.pth", {"mmdet3d_version": "0.17.1"}, config)
    assert "(w, l, h, -yaw - pi/2)" in convention.note_on({"mmdet3d_version": "0.17.1"})


@pytest.mark.parametrize(
    "first, second, name", [(4.6, 1.9, "1.0"), (1.9, 4.6, "0.17"), (1.0, 1.1, None), (0.0, 0.0, None)]
)
def test_cars_tell_the_convention_where_they_are_long(first, second, name):
    assert convention.of_sizes([first] * 30, [second] * 30) == name
    assert convention.of_sizes([first] * 3, [second] * 3) is None
