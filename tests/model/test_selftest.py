"""The self-test of an environment: it agrees with what is right and sees what is wrong."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bevformer import selftest, selftest_ops, selftest_packages, selftest_train
from bevformer.selftest_told import Absent, Told, Wrong


@pytest.mark.parametrize("check", ["torch", "bundled-operators", "devkit"])
def test_a_good_environment_passes(check, capsys):
    assert selftest.main([check]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["name"] == check and row["ok"] and row["said"]


@pytest.mark.parametrize("name", ["deform_attn", "modulated_deform_conv"])
@pytest.mark.parametrize(
    "damage", [lambda out: out * (1 + 1e-6), lambda out: out * float("nan"), torch.detach]
)
def test_a_wrong_operator_is_seen(name, damage, monkeypatch, capsys):
    right = getattr(selftest_ops, name)
    monkeypatch.setattr(selftest_ops, name, lambda *args: damage(right(*args)))
    assert selftest.main(["bundled-operators", "torch"]) == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert not first["ok"] and first["said"] and second["ok"]


def test_a_wrong_gradient_is_seen(monkeypatch, capsys):
    right = selftest_ops.deform_attn

    def off(value, shapes, reference, offsets, logits):
        out = right(value, shapes, reference, offsets, logits)
        return out + 0.1 * (offsets.sum() - offsets.sum().detach())

    monkeypatch.setattr(selftest_ops, "deform_attn", off)
    assert selftest.main(["bundled-operators"]) == 1
    assert "off by" in json.loads(capsys.readouterr().out)["said"]


def test_a_gradient_that_is_not_passed_on_is_seen():
    def cut(value, shapes, reference, offsets, logits):
        return selftest_ops.deform_attn(value, shapes, reference, offsets.detach(), logits)

    with pytest.raises(Wrong, match="gradients for other inputs"):
        selftest_ops.compare_attention(cut, selftest_ops.deform_attn, torch.float64, "cpu", 1.0)


def test_a_package_that_is_missing_fails_its_check_only(capsys):
    assert selftest.main(["no-such-check", "torch"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["ok"] for row in rows] == [False, True]


DYING = """
import os, signal, sys
from bevformer import selftest
selftest.dies = lambda: os.kill(os.getpid(), signal.SIGBUS)
selftest.CHECKS["torch"] = "selftest:dies"
selftest.main(["torch"])
"""


def test_a_check_that_ends_the_interpreter_is_named():
    """As an operator library does that is cut off, or of another processor."""
    done = subprocess.run(
        [sys.executable, "-c", DYING],
        env={**os.environ, "PYTHONPATH": str(Path(selftest.__file__).parents[1])},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == -signal.SIGBUS
    assert "Bus error" in done.stderr and "in <lambda>" in done.stderr and "selftest.py" in done.stderr


def no_mmcv():
    raise Absent("no mmcv here")


def off():
    raise Wrong("it is off", [{"step": 1, "loss": 2.5}])


@pytest.fixture
def few(monkeypatch):
    """Three checks, one of them of something that is not installed."""
    checks = {"versions": lambda: Told("all", [{"module": "numpy", "version": None}]), "mmcv-parity": no_mmcv}
    for name, function in {**checks, "training": off}.items():
        monkeypatch.setattr(selftest, "check_" + name, function, raising=False)
        monkeypatch.setitem(selftest.CHECKS, name, "selftest:check_" + name)
    monkeypatch.setattr(selftest, "ALL", ("versions", "mmcv-parity"))


def test_without_words_everything_is_told_to_a_person(few, capsys):
    assert selftest.main([]) == 0
    out = capsys.readouterr().out
    assert "no mmcv here" in out and "1 of 2 checks passed; not here: mmcv-parity." in out
    assert "module" in out and "numpy   -" in out


def test_json_has_a_line_per_check(few, capsys):
    assert selftest.main(["--json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["rows"] == [{"module": "numpy", "version": None}]
    assert second["ok"] and second["absent"] and second["said"] == "no mmcv here"


def test_a_failure_is_an_exit_code_and_keeps_its_table(few, monkeypatch, capsys):
    monkeypatch.setattr(selftest, "ALL", ("versions", "training"))
    assert selftest.main([]) == 1
    out = capsys.readouterr().out
    assert "FAILED" in out and "2.5000" in out and "failed: training." in out


def test_what_is_absent_fails_where_it_was_asked_for(few, monkeypatch, capsys):
    assert selftest.main(["mmcv-parity"]) == 1
    asked = selftest_packages.Asked("cpu-openmmlab", frozenset({"mmcv"}))
    monkeypatch.setattr(selftest_packages, "asked_for", lambda: asked)
    assert selftest.main([]) == 1
    assert "target cpu-openmmlab" in capsys.readouterr().out


def test_training_goes_through_the_real_steps(synth):
    settings = ["schedule.max_steps=2", "ops.attention=reference"]
    rows, ran = selftest_train.train(synth.root, synth.infos, "cpu", settings)
    assert [row["step"] for row in rows] == [1, 2] and all(math.isfinite(row["loss"]) for row in rows)
    assert "bevformer_micro on cpu, attention by reference" in ran


@pytest.mark.parametrize(
    "losses, word", [((9, 8, 7), None), ((7, 7, 8), "fall"), ((9, math.nan, 7), "finite")]
)
def test_losses_are_judged(losses, word, monkeypatch):
    monkeypatch.setattr(selftest_train, "FEW", 1)
    rows = [{"step": step, "loss": loss} for step, loss in enumerate(losses)]
    if word is None:
        assert "of the last 7.000" in selftest_train.judge(rows, "micro").said
        return
    with pytest.raises(Wrong, match=word) as caught:
        selftest_train.judge(rows, "micro")
    assert caught.value.rows == rows
