"""Making, reusing and remaking .venv, with pip played except in the slow tests."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import bootstrap
import pytest
from target_file import ENVS, ROOT

HERE = {"path": sys.executable, "version": "%d.%d.%d" % sys.version_info[:3], "platform": "linux-x86_64"}


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """Runs set_up in tmp_path/.venv without pip; `steps` lists what it did."""
    venv = tmp_path / ".venv"

    class Setup:
        steps = []
        path = venv

        def __call__(self):
            self.steps.clear()
            return bootstrap.set_up("cpu", venv=str(venv))

        def pip(self, venv, *arguments):
            self.steps.append("project" if "--editable" in arguments else "packages")

        def logged(self, venv, command):
            self.steps.append("venv")
            os.makedirs(os.path.join(venv, "bin"))
            os.symlink(sys.executable, os.path.join(venv, "bin", "python"))
            return 0, ""

        def torch(self, venv, torch, lock, python):
            self.steps.append("torch")
            return {"requirement": torch["requirement"], "source": "played", "hashed": False}

    played = Setup()
    for name, stand_in in {"pip": played.pip, "logged": played.logged, "install_torch": played.torch}.items():
        monkeypatch.setattr(bootstrap, name, stand_in)
    monkeypatch.setattr(bootstrap, "choose_python", lambda order, asked=None: HERE)
    return played


ALL = ["venv", "torch", "packages", "project"]


def test_a_new_environment_is_stamped_last(setup, capsys):
    stamp = setup()
    assert setup.steps == ALL
    assert json.loads((setup.path / "bevrepro-env.json").read_text()) == stamp
    assert stamp["target"] == "cpu" and stamp["torch"]["hashed"] is False and len(stamp["locks"]) == 2
    assert "without a hash" in capsys.readouterr().out


def test_an_up_to_date_one_is_reused_in_silence(setup, capsys):
    setup()
    capsys.readouterr()
    assert setup() and setup.steps == []
    assert capsys.readouterr().out == ""


def test_a_changed_lock_builds_it_again(setup, monkeypatch):
    setup()
    monkeypatch.setattr(bootstrap, "wanted_digests", lambda target: {"locks/cpu.txt": "new"})
    setup()
    assert setup.steps == ALL


def test_a_changed_project_file_installs_only_the_project_again(setup, monkeypatch):
    setup()
    digest = bootstrap.sha256_of
    monkeypatch.setattr(
        bootstrap, "sha256_of", lambda path: "new" if path.endswith("pyproject.toml") else digest(path)
    )
    setup()
    assert setup.steps == ["project"]


def test_a_vanished_interpreter_builds_it_again(setup):
    setup()
    (setup.path / "bin" / "python").unlink()
    setup()
    assert setup.steps == ALL


def test_a_moved_environment_is_built_again(setup):
    stamp = setup()
    bootstrap.write_stamp(str(setup.path), dict(stamp, venv="/elsewhere/.venv"))
    setup()
    assert setup.steps == ALL


@pytest.mark.parametrize("failure", [bootstrap.Stop("no network"), KeyboardInterrupt()])
def test_a_failed_one_has_no_stamp_and_is_recognised(setup, monkeypatch, capsys, failure):
    def fail(*arguments):
        raise failure

    monkeypatch.setattr(bootstrap, "install_torch", fail)
    with pytest.raises(type(failure)):
        setup()
    assert not (setup.path / "bevrepro-env.json").exists()
    monkeypatch.setattr(bootstrap, "install_torch", setup.torch)
    setup()
    assert setup.steps == ALL and "half-made" in capsys.readouterr().out


def test_a_venv_of_somebody_else_is_left_alone(setup):
    setup.path.mkdir()
    (setup.path / "mine.txt").write_text("keep")
    with pytest.raises(bootstrap.Stop, match="left alone"):
        setup()
    assert (setup.path / "mine.txt").read_text() == "keep"


def test_too_small_a_disk_is_said_before_anything_is_downloaded(setup, monkeypatch):
    usage = namedtuple("usage", "total used free")(2**40, 2**40, 2**29)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(bootstrap.Stop, match="0.5 GiB are free") as caught:
        setup()
    assert caught.value.exit_code == 8 and setup.steps == []


def test_another_platform_is_called_unverified(setup, monkeypatch, capsys):
    monkeypatch.setattr(bootstrap, "choose_python", lambda *a: dict(HERE, platform="linux-aarch64"))
    assert setup()["verified"] is False
    assert "linux-aarch64 is unverified" in capsys.readouterr().out


def test_no_usable_python_names_what_to_install(monkeypatch):
    bare = dict(HERE, version="3.12.3", missing=["ensurepip"], implementation="CPython", bits=64)
    monkeypatch.setattr(bootstrap.interpreters, "find", lambda order: (None, [bare]))
    with pytest.raises(bootstrap.Stop, match="3.12.3 without ensurepip") as caught:
        bootstrap.choose_python(["3.11", "3.12"])
    assert caught.value.do.splitlines()[1].split()[:3] == ["apt-get", "install", "python3.12-venv"]


def test_only_a_target_that_holds_bevrepro_itself_is_made_here(capsys):
    with pytest.raises(SystemExit) as caught:
        bootstrap.main(["--target", "a100"])
    assert caught.value.code == 2 and "invalid choice: 'a100'" in capsys.readouterr().err


@pytest.mark.parametrize("asked", ["/no/such/python", "/bin/true"])
def test_what_is_no_python_is_said(asked):
    with pytest.raises(bootstrap.Stop, match="does not start as a Python"):
        bootstrap.choose_python(["3.11", "3.12"], asked)


def start(folder, **environ):
    """The real program on a copy of envs/, without any package index."""
    if not (folder / "envs").exists():
        shutil.copytree(ENVS, folder / "envs", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(Path(ROOT, "pyproject.toml"), folder)
    command = [sys.executable, "envs/bootstrap.py"]
    environ = dict(os.environ, PIP_NO_INDEX="1", PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull, **environ)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environ, start_new_session=True, **pipes)


@pytest.mark.slow
def test_without_any_package_the_refusal_is_a_sentence(tmp_path):
    child = start(tmp_path)
    out, err = child.communicate(timeout=120)
    assert child.returncode == 3 and "virtual environment" in out
    assert "torch==2.13.0+cpu" in err and "Traceback" not in err
    assert not (tmp_path / ".venv" / "bevrepro-env.json").exists()


@pytest.mark.slow
def test_ctrl_c_leaves_something_that_is_built_again(tmp_path):
    child = start(tmp_path)
    while not (tmp_path / ".venv" / "pyvenv.cfg").exists() and child.poll() is None:
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGINT)
    assert "Interrupted" in child.communicate(timeout=60)[1] and child.returncode == 130
    assert "half-made" in start(tmp_path).communicate(timeout=120)[0]
