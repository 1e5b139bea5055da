"""`--target`: which environment the model plane runs in, and which one is refused with what words."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bevrepro import cli
from bevrepro.core.errors import ConfigError, MachineError, UserError
from bevrepro.core.machine import Cuda, Gpu
from bevrepro.drive import demo, inside, replay
from bevrepro.drive.inside import changed, enter
from bevrepro.drive.recipes import TRAIN, recipe
from bevrepro.drive.reproduce import Wish, check, commands_of
from bevrepro.env.interpreter import this_platform
from bevrepro.env.receipt import Receipt, write_receipt

BUILD = "0123456789abcdef"
RECEIPT = Receipt(
    target="", title="t", stack="torch2", prefix="/p", path="/p.builds/x",
    python={"version": "3.8.18", "platform": this_platform()}, inputs_digest="a" * 64, digest="b" * 64,
    locks={}, packages={"numpy": "1.23.5", "Typing_Extensions": "4"}, built=(), patches=(), cuda=None,
    environment={"OF_THE_TARGET": "1"}, selftest=(), steps=(), built_at="2026-11-21T00:00:00Z", bevrepro="0",
    evidence=None,
)  # fmt: skip
# In place of a Python with torch: notes what it was started with, and gives a training's result.
PYTHON = """#!/bin/sh
printf '%s\\n' "$@" > "$NOTED"
env > "$NOTED.env"
echo '{"event": "result", "checkpoint": "w/latest.pth", "steps": 2, "seconds_per_step": null}'
"""


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Make an environment of a target in a data folder of its own; returns its real folder."""
    monkeypatch.setenv("BEVREPRO_DATA", str(tmp_path))
    monkeypatch.delenv("BEVREPRO_PYTHON", raising=False)

    def make(target="cpu-openmmlab", **told):
        folder = tmp_path / "envs" / f"{target}.builds" / BUILD
        site = folder / "lib/python3.8/site-packages"
        for name in ("numpy-1.23.5.dist-info", "typing_extensions-4.dist-info"):
            (site / name).mkdir(parents=True)
        (folder / "bin").mkdir()
        (folder / "bin/python").write_text(PYTHON)
        (folder / "bin/python").chmod(0o755)
        write_receipt(replace(RECEIPT, **{"target": target, **told}), folder)
        (tmp_path / "envs" / target).symlink_to(f"{target}.builds/{BUILD}")
        return folder

    return make


def test_an_environment_is_entered_with_its_variables(build):
    folder = build()
    found = enter("cpu-openmmlab", None)
    assert (found.python, found.digest, found.gpus) == (str(folder / "bin/python"), "b" * 64, 0)
    assert found.variables["VIRTUAL_ENV"] == str(folder) and found.variables["OF_THE_TARGET"] == "1"
    assert "cpu-openmmlab (ran-on-cpu" in found.title and "Python 3.8.18" in found.title


def test_a_missing_one_names_the_command_that_builds_it(build):
    with pytest.raises(ConfigError) as caught:
        enter("cpu-openmmlab", None)
    assert caught.value.do == "bevrepro env build --target cpu-openmmlab"
    with pytest.raises(ConfigError, match="is 'cpu-openmmlab' meant"):
        enter("cpu-openmmlb", None)


def test_one_of_another_target_is_refused(build):
    build(target="cpu-openmmlab-torch2")
    place = Path(build().parents[1] / "cpu-openmmlab-torch2")
    with pytest.raises(ConfigError, match="holds cpu-openmmlab-torch2, not cpu-openmmlab"):
        enter("cpu-openmmlab", None, place)


def test_one_of_another_machine_is_refused(build):
    folder = build(python={"version": "3.8.18", "platform": "linux-sparc64"})
    with pytest.raises(
        MachineError, match=f"is for linux-sparc64, this machine is {this_platform()}"
    ) as caught:
        enter("cpu-openmmlab", None)
    assert "env build --target cpu-openmmlab --rebuild" in caught.value.do
    write_receipt(replace(RECEIPT, target="cpu-openmmlab"), folder)
    (folder / "bin/python").unlink()
    (folder / "bin/python").symlink_to("/elsewhere/bin/python3.8")
    with pytest.raises(MachineError, match="leads to /elsewhere/bin/python3.8, which is not on this machine"):
        enter("cpu-openmmlab", None)


@pytest.mark.parametrize(
    "installed, twice, said",
    [
        ({"numpy": "1.24.4"}, (), "numpy 1.24.4 instead of 1.23.5"),
        ({"numpy": "1.23.5", "mmcv": "2.1.0"}, (), "mmcv 2.1.0 added"),
        ({}, (), "numpy removed"),
        ({"numpy": "1.23.5"}, ("numpy",), "numpy installed twice"),
        ({"numpy": "1.23.5"}, (), None),
    ],
)
def test_packages_that_are_not_as_they_were_built_are_named(installed, twice, said):
    assert list(changed({"NumPy": "1.23.5"}, installed, twice)) == ([said] if said else [])


def test_a_changed_environment_is_refused(build):
    (build() / "lib/python3.8/site-packages/mmcv-2.1.0.dist-info").mkdir()
    with pytest.raises(MachineError, match="changed since it was built: mmcv 2.1.0 added") as caught:
        enter("cpu-openmmlab", None)
    assert "bevrepro doctor env /p" in caught.value.do


@pytest.mark.parametrize(
    "target, gpus, seen, said",
    [
        ("cpu", 2, (), "--gpus 2 with target cpu, which is for CPUs"),
        ("a100", None, (), "no NVIDIA GPU is seen here"),
        ("a100", 1, (), "no NVIDIA GPU is seen here"),
        ("a100", 0, (), None),
        ("a100", 1, (Gpu("NVIDIA A100"),), None),
        ("ascend910b", 0, (), "is for ascend accelerators"),
    ],
)
def test_what_the_target_is_not_for_is_refused(build, monkeypatch, target, gpus, seen, said):
    build(target)
    monkeypatch.setattr(inside, "probe_cuda", lambda: Cuda(gpus=seen))
    if said is None:
        assert enter(target, gpus).gpus == gpus
        return
    with pytest.raises(UserError, match=said):
        enter(target, gpus)


def test_train_starts_the_environments_interpreter(build, tmp_path, monkeypatch, capsys):
    folder = build()
    monkeypatch.setenv("NOTED", str(tmp_path / "noted"))
    monkeypatch.setenv("PYTHONPATH", "/mine")
    words = ["train", "bevformer_micro", "--target", "cpu-openmmlab", "--infos", str(tmp_path)]
    assert cli.main(words) == 0
    argv = (tmp_path / "noted").read_text().splitlines()
    assert argv[:3] == ["-m", "bevformer", "train"] and argv[argv.index("--gpus") + 1] == "0"
    env = dict(
        line.split("=", 1) for line in (tmp_path / "noted.env").read_text().splitlines() if "=" in line
    )
    assert env["VIRTUAL_ENV"] == str(folder) and env["PYTHONNOUSERSITE"] == "1"
    first, *others = env["PYTHONPATH"].split(":")
    assert first.endswith("model") and "/mine" in others and env["BEVREPRO_EVENTS"] == "1"
    assert "In cpu-openmmlab (" in capsys.readouterr().err


def test_eval_does_so_too(build, tmp_path, monkeypatch):
    build()
    monkeypatch.setenv("NOTED", str(tmp_path / "noted"))
    words = ["eval", "bevformer_micro", "w.pth", "--target", "cpu-openmmlab", "--infos", str(tmp_path)]
    python = tmp_path / "envs/cpu-openmmlab/bin/python"
    python.write_text(PYTHON.replace('"checkpoint": "w/latest.pth"', '"results": "r.json", "metrics": {}'))
    assert cli.main(words) == 0 and (tmp_path / "noted").read_text().splitlines()[2] == "eval"


def test_a_debugger_is_given_that_interpreter(build, tmp_path, capsys):
    folder = build()
    words = ["train", "bevformer_micro", "--target", "cpu-openmmlab", "--infos", str(tmp_path)]
    assert cli.main([*words, "--print-launch", "vscode"]) == 0
    assert json.loads(capsys.readouterr().out)["configurations"][0]["python"] == str(folder / "bin/python")


def run_in(target, prefix="/gone"):
    return {"sessions": [{"environment": {"target": target, "prefix": str(prefix)}}]}


def test_a_replay_takes_the_runs_environment_where_there_is_one(build, monkeypatch):
    folder, told = build(), []
    assert replay.as_then(run_in("cpu-openmmlab"), 0, told.append).build == folder
    assert replay.as_then(run_in("cpu-openmmlab", folder), 0, told.append).build == folder and told == []
    for here in ("cpu", None):  # that of this interpreter; an older record
        assert replay.as_then(run_in(here), 0, told.append) is None and told == []
    monkeypatch.setenv("BEVREPRO_PYTHON", sys.executable)
    assert replay.as_then(run_in("cpu-openmmlab"), 0, told.append) is None and told == []


def test_a_replay_says_that_the_runs_environment_is_not_here(build):
    told = []
    assert replay.as_then(run_in("a100"), 0, told.append) is None
    assert (
        "It ran in a100, which is not here" in told[0]["text"]
        and "env build --target a100" in told[0]["text"]
    )


def test_a_demo_and_a_reproduction_train_and_score_in_it(build, tmp_path):
    build()
    made = demo.Demo(tmp_path / "d", gpus=demo.usable_gpus("cpu-openmmlab"), target="cpu-openmmlab")
    asked = [step.argv for step in demo.steps_of(made, tokens=lambda results: [])]
    wish = Wish(recipe("micro_synth"), TRAIN, tmp_path / "r", gpus=0, target="cpu-openmmlab")
    check(wish)
    asked += [step.argv for _, step in commands_of(wish)]
    inside_it = [argv[0] for argv in asked if "--target" in argv]
    assert inside_it == ["train", "eval", "eval", "eval", "train", "eval"]
    assert ("doctor", "env", str(tmp_path / "envs" / "cpu-openmmlab.builds" / BUILD)) in asked
    with pytest.raises(ConfigError, match="which is for CPUs"):
        check(replace(wish, gpus=1))


def test_a_demos_folder_belongs_to_one_environment(tmp_path):
    demo.enter(demo.Demo(tmp_path / "d", target="cpu-openmmlab"))
    with pytest.raises(ConfigError, match="1400 steps and seed 0 in cpu-openmmlab"):
        demo.enter(demo.Demo(tmp_path / "d"))
