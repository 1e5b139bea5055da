"""Which Python an environment is built on, what a program inside sees, what a self-test is taken to say."""

import signal
import sys

import pytest

from bevrepro.core.errors import ConfigError, MachineError
from bevrepro.core.paths import model_dir
from bevrepro.env import interpreter, run, selftest
from bevrepro.env.selftest import SelfTestFailed
from tests.env.build_world import PYTHON
from tests.env.test_receipt import TOLD


def test_a_python_that_is_named_is_taken_with_its_base():
    found = interpreter.find_python([PYTHON], sys.executable)
    assert found.minor == PYTHON and found.markers()["python_version"] == PYTHON
    assert found.platform == interpreter.this_platform()


@pytest.mark.parametrize(
    "asked, words", [("/no/such/python", "does not start"), (sys.executable, "is Python")]
)
def test_a_python_that_will_not_do_is_refused_with_the_reason(asked, words):
    with pytest.raises(MachineError, match=words) as caught:
        interpreter.find_python(["3.4"], asked)
    assert "3.4" in caught.value.why


def test_where_none_is_found_every_place_is_listed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(MachineError) as caught:
        interpreter.find_python(["3.4"])
    assert all(word in caught.value.why for word in ("PATH", "PYENV_ROOT", "UV_PYTHON_INSTALL_DIR"))
    assert "--python" in caught.value.do


def test_the_hook_is_asked_last(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr(interpreter._rules(), "find", lambda versions, probe: (None, []))
    assert interpreter.find_python([PYTHON], hook=lambda versions: sys.executable).minor == PYTHON


def test_a_program_inside_sees_the_environment_first(tmp_path):
    base = {"PATH": "/usr/bin", "PYTHONHOME": "/x", "PYTHONPATH": "./", "PS1": "> "}
    env = run.variables(TOLD, tmp_path, base)
    assert env["PATH"].split(":")[:2] == [str(tmp_path / "bin"), "/usr/bin"] and env["Ä"] == "ü"
    assert "PYTHONHOME" not in env and env["PYTHONNOUSERSITE"] == "1"
    assert env["PYTHONPATH"].split(":") == ["./", str(model_dir())]  # the user's first
    assert env["BEVREPRO_PYTHON"] == str(tmp_path / "bin/python") and "CUDA_HOME" not in env
    assert run.shell(TOLD, {**env, "SHELL": "/bin/bash"})[1]["PS1"] == "(cpu) > "


def test_an_environment_with_a_toolkit_brings_its_nvcc(tmp_path):
    from dataclasses import replace

    told = replace(TOLD, cuda={"version": "11.8", "home": "/h", "digest": "d"})
    env = run.variables(told, tmp_path, {"PATH": "/usr/bin"})
    assert env["CUDA_HOME"] == str(tmp_path / "cuda") and env["PATH"].split(":")[1] == str(
        tmp_path / "cuda/bin"
    )


@pytest.mark.parametrize("name, kind", [("pip", ConfigError), ("no-such-program", MachineError)])
def test_a_program_from_elsewhere_that_would_do_harm_or_is_not_there(tmp_path, name, kind):
    with pytest.raises(kind):
        run.start([name], {"PATH": str(tmp_path)}, tmp_path)


ROW = '{"name": "torch", "ok": true, "seconds": 1.0, "said": "2.13"}'


def test_checks_are_told_in_order_and_the_one_that_died_with_its_signal():
    found = selftest.judge(("torch", "devkit", "more"), ["noise", ROW, "{"], -signal.SIGILL)
    assert [each.ok for each in found] == [True, False, False]
    assert "SIGILL" in found[1].said and found[2].said.startswith("not run")
    with pytest.raises(SelfTestFailed, match="devkit"):
        selftest.refuse_failures(found, "log")


def test_a_check_that_said_it_failed_is_believed():
    found = selftest.judge(("torch",), [ROW.replace("true", "false")], 1)
    assert not found[0].ok and found[0].said == "2.13"


def test_every_target_names_checks_that_exist():
    from bevrepro.env import target

    for name in target.names():
        assert set(target.load(name).selftest) <= set(selftest.NAMES), name
