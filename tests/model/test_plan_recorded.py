"""The committed memory of the presets (benchmarks/plan_memory.json) keeps its bounds, and is this code's."""

import json
from pathlib import Path

import pytest

from bevformer.config import preset
from bevformer.ledger import IDENTICAL, ROUNDING
from bevformer.plan import GIB, peak_memory
from bevformer.rungs import rungs_up_to

RECORDED = json.loads((Path(__file__).parents[2] / "benchmarks" / "plan_memory.json").read_text())


def test_base_and_tiny_stay_below_the_bounds_in_fp32_to_the_bit_and_in_bf16():
    """The committed numbers, of which the slow test below measures the last again."""
    rows = {row["name"]: row["peak_gib"] for row in RECORDED["ladder_gib"]["bevformer_base"]["rungs"]}
    assert rows["backbone-groups"] <= 10.5 and rows["bf16"] <= 7.0
    tiny = {row["name"]: row["peak_gib"] for row in RECORDED["ladder_gib"]["bevformer_tiny"]["rungs"]}
    assert tiny["backbone-groups"] <= 2.0


@pytest.mark.slow
@pytest.mark.parametrize("amp, name, most", [(False, "backbone-groups", 10.5), (True, "bf16", 7.0)])
def test_the_committed_numbers_of_base_are_those_of_this_code(amp, name, most):
    config = preset("bevformer_base")
    names = [rung.name for rung in rungs_up_to(ROUNDING if amp else IDENTICAL)]
    peak_gib = peak_memory(config, names, amp)["peak_gib"]
    rows = {row["name"]: row["peak_gib"] for row in RECORDED["ladder_gib"]["bevformer_base"]["rungs"]}
    assert peak_gib == pytest.approx(rows[name], rel=0.02) and peak_gib * GIB <= most * 1e9


def test_predictions_were_within_a_tenth_of_what_was_allocated():
    for name, found in RECORDED["calibration"].items():
        assert len(found["rows"]) >= 4 and all(abs(row["ratio"] - 1) <= 0.1 for row in found["rows"]), name
