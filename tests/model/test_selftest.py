"""The self-test of an environment: it agrees with what is right and sees what is wrong."""

import json

import pytest
import torch

from bevformer import selftest, selftest_ops


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


def test_a_package_that_is_missing_fails_its_check_only(capsys):
    assert selftest.main(["no-such-check", "torch"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["ok"] for row in rows] == [False, True]
