"""`eval` and checkpoints of other people: strict, diagnosed, and with what their keys do not show."""

import json
import sys
from pathlib import Path

import pytest
import torch

from bevformer import evaluate
from bevformer.config import preset
from bevformer.detector import build_model
from bevformer.errors import CheckpointError

sys.path.insert(0, str(Path(__file__).parent))
import fake_weights as fake  # noqa: E402


@pytest.fixture
def play(synth, heard, tmp_path):
    """Evaluates a file with this content; returns eval.json."""

    def go(config, content, *more):
        torch.save(content, str(tmp_path / "epoch_24.pth"))
        argv = [config, str(tmp_path / "epoch_24.pth"), "--data-root", synth.root, "--infos", synth.infos]
        evaluate.main([*argv, "--gpus", "0", "--limit", "1", "--out", str(tmp_path / "out"), *more], heard)
        return json.loads((tmp_path / "out" / "eval.json").read_text())

    return go


@pytest.mark.parametrize(
    "content, why, do",
    [
        (fake.fcos3d, "FCOS3D", "bevrepro train bevformer_small|bevformer_base --init-from"),
        (lambda: fake.detector("bevformer_base"), "the preset bevformer_base", "Give bevformer_base"),
    ],
)  # fmt: skip
def test_a_file_of_something_else_is_told_by_what_it_is(play, heard, content, why, do):
    with pytest.raises(CheckpointError, match="does not fit bevformer_tiny") as caught:
        play("bevformer_tiny", content())
    assert why in caught.value.why and do in caught.value.do
    assert heard.results == []


def test_a_file_of_2022_is_scored_with_one_note_about_the_shift(play, heard):
    content = fake.upstream_file(build_model(preset("bevformer_micro")).state_dict())
    scores = play("bevformer_micro", content)
    notes = [note for note in heard.notes if "encoder.shift_current_reference=true" in note]
    assert len(notes) == 1 and scores["all"]["shift_current_reference"] is False


def test_the_shift_that_was_asked_for_is_recorded(play, heard):
    content = fake.upstream_file(build_model(preset("bevformer_micro")).state_dict())
    scores = play("bevformer_micro", content, "--cfg-options", "encoder.shift_current_reference=true")
    assert scores["all"]["shift_current_reference"] is True
    assert not any("2022" in note for note in heard.notes)
