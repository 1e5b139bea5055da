"""How far a target was taken stands beside its name in every command's answer."""

import json
import sys

import pytest

from bevrepro.cli import main
from bevrepro.env import evidence, target

DRY = ["env", "build", "--target", "cpu", "--dry-run", "--python", sys.executable]


@pytest.mark.parametrize(
    "argv",
    [
        ["env", "list"],
        ["env", "show", "cpu"],
        DRY,
        [*DRY, "--json"],
        ["env", "docker", "--target", "cpu"],
        ["env", "docker", "--target", "cpu", "--json"],
        ["doctor", "--target", "cpu", "--only", "host"],
    ],
    ids=lambda argv: " ".join(argv[:2] + argv[-1:]),
)
def test_a_command_that_names_a_target_says_how_far_it_was_taken(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("BEVREPRO_DATA", str(tmp_path))
    main(argv)
    assert evidence.badge(target.load("cpu")) in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a100", "cpu-openmmlab"])
def test_an_exported_file_says_how_far_its_target_was_taken(name, tmp_path, capsys):
    out = tmp_path / "environment.yml"
    argv = ["env", "export", "--format", "conda", "--target", name, "--out", str(out)]
    assert main([*argv, "--json"]) == 0
    badge = evidence.badge(target.load(name))
    assert json.loads(capsys.readouterr().out)["evidence"] == badge
    assert f"{badge}." in out.read_text()


def test_an_environment_of_a_target_that_is_gone_is_named_as_such():
    assert evidence.named_by("cpu") == evidence.named(target.load("cpu"))
    assert evidence.named_by("old") == "old (no target of this bevrepro)"
