"""Results at full scale as people published them: every known mistake is named by its numbers."""

import json
from pathlib import Path

import pytest

from bevrepro.doctor.metrics import examine_metrics
from bevrepro.drive.published import against_table
from bevrepro.drive.recipes import recipe

RECORDED = Path(__file__).parent / "recorded"
# file, recipe it is held against, verdict, the cause that is named first
CASES = [
    ("tiny_zoo", "bevformer_tiny", "pass", None),
    ("base_boxes", "bevformer_base", "below", "box convention"),
    ("mbev_boxes", "bevformer_base", "below", "box convention"),
    ("bevdet_boxes", "bevformer_small", "below", "box convention"),
    ("base_single_frame", "bevformer_base", "below", "history lost"),
    ("small_single_frame", "bevformer_small", "below", "history lost"),
    ("tiny_batch_4", "bevformer_tiny", "below", "batch and learning rate"),
    ("fastbev_nothing", "bevformer_tiny", "below", "weights that do not belong to the model"),
    ("base_first_epoch", "bevformer_base", "below", "weights that do not belong to the model"),
    ("uvtr_mini", "bevformer_tiny", "below", "another split"),
    ("bevfusion_mini", "bevformer_base", "above", "another split"),
]


@pytest.mark.parametrize("name, against, word, cause", CASES)
def test_a_recorded_result_gets_its_verdict_and_its_cause(name, against, word, cause):
    verdict = against_table(RECORDED / f"{name}.json", recipe(against))
    assert verdict.word == word
    assert [each.name for each in verdict.causes][:1] == ([cause] if cause else [])
    assert bool(verdict.next) == (word != "pass") and verdict.next.startswith("bevrepro ") or not verdict.next


def test_raw_weights_are_told_from_their_average():
    raw, average = (examine_metrics(RECORDED / f"bevdet4d_{name}.json") for name in ("raw", "ema"))
    assert "metrics-ema" in [each.id for each in raw] and "_ema.pth" in raw[0].remedy
    assert "metrics-ema" not in [each.id for each in average]


def test_every_recorded_result_says_where_it_comes_from_and_is_used():
    names = {path.stem for path in RECORDED.glob("*.json")}
    assert names == {case[0] for case in CASES} | {"bevdet4d_raw", "bevdet4d_ema"}
    assert all(json.loads(path.read_text())["source"] for path in RECORDED.glob("*.json"))
