"""Days and samples per second, and what they rest on."""

import pytest

from bevrepro.drive.pace import Pace, pace_here, pace_of, rows_of, samples_of


def test_a_recipe_sees_its_epochs_of_nuscenes_or_its_steps():
    assert samples_of({"max_epochs": 24, "max_steps": 0, "batch": 8}) == 24 * 28130
    assert samples_of({"max_epochs": 0, "max_steps": 1400, "batch": 1}) == 1400


def test_a_measured_step_is_divided_by_its_samples():
    found = {"device": "the CPU", "threads": 2, "samples": 2, "kind": "measured", "step_s": 5.0}
    pace = pace_here(found)
    assert pace.samples_per_s() == (0.4, 0.4) and pace.days(34560) == (1.0, 1.0)
    assert "estimated" in pace_here(dict(found, kind="estimated")).evidence


def test_reports_of_one_gpu_agree_with_each_other():
    days = pace_of("bevformer_base", "NVIDIA A100-SXM4-80GB").days(24 * 28130)
    assert days[0] == pytest.approx(14, abs=0.5)  # "14 days on one A100", reported apart from the seconds


def test_an_unknown_gpu_or_configuration_has_no_number():
    assert pace_of("bevformer_base", "RTX 4090").days(1) is None
    assert pace_of("bevformer_small", "A100") == Pace("A100", None, None, pace_of("x", "A100").evidence)
    assert {row["gpu"] for row in rows_of("bevformer_base")} == {"A100", "V100"}
