"""The demo as a newcomer runs it, only shorter: real commands, real training, the devkit's score."""

import json

import pytest

from bevrepro import cli


@pytest.mark.slow
def test_short_demo_learns_the_frames_it_was_trained_on(tmp_path, monkeypatch, capsys):
    """850 steps: 2 minutes of training on two free cores (facts: micro.md)."""
    monkeypatch.setenv("BEVREPRO_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "demo"
    assert cli.main(["demo", "--out", str(out), "--steps", "850"]) == 0
    work = out / "work_dirs" / "bevformer_micro"
    scores = {
        name: json.loads((work / "eval" / name / "eval.json").read_text()) for name in ("before", "after")
    }
    assert scores["before"]["labelled"]["mAP"] < 0.01
    assert scores["after"]["labelled"]["mAP"] >= 0.3
    assert json.loads((work / "run.json").read_text())["peak_rss_gib"] < 3
    printed = capsys.readouterr().out
    assert str(work / "report.html") in printed and "mAP on the trained frames" in printed
    assert not (out / "mnt").exists() or not any((out / "mnt").iterdir())
