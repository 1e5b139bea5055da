"""Which Python is taken, shown with scripts that answer like interpreters."""

import ast
import json
import sys
from pathlib import Path

import interpreters
import pytest

ORDER = ["3.11", "3.12", "3.10"]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without any Python; `add` puts one somewhere on it."""
    monkeypatch.setattr(sys, "executable", "")

    class Machine:
        path, pyenv, uv = (tmp_path / name for name in ("bin", "pyenv", "uv"))
        environ = {"PATH": str(path), "PYENV_ROOT": str(pyenv), "UV_PYTHON_INSTALL_DIR": str(uv)}

        def add(self, place, version, **other):
            place.parent.mkdir(parents=True, exist_ok=True)
            seen = {"path": str(place), "version": version, "missing": [], "implementation": "CPython"}
            seen.update({"bits": 64, "platform": "linux-x86_64"}, **other)
            return self.script(place, "echo '%s'" % json.dumps(seen))

        def script(self, place, text):
            place.write_text("#!/bin/sh\n" + text + "\n")
            place.chmod(0o755)
            return str(place)

        def found(self):
            seen, refused = interpreters.find(ORDER, self.environ)
            return seen and seen["path"], [other["path"] for other in refused]

    return Machine()


def test_the_best_version_wins_wherever_it_lies(machine):
    machine.add(machine.path / "python3.12", "3.12.1")
    best = machine.add(machine.pyenv / "versions/3.11.7/bin/python3.11", "3.11.7")
    assert machine.found() == (best, [])


def test_the_newest_patch_release_of_pyenv_wins(machine):
    machine.add(machine.pyenv / "versions/3.11.9/bin/python3.11", "3.11.9")
    newest = machine.add(machine.pyenv / "versions/3.11.10/bin/python3.11", "3.11.10")
    assert machine.found() == (newest, [])


def test_an_interpreter_of_uv_is_found(machine):
    best = machine.add(machine.uv / "cpython-3.12.7-linux-x86_64-gnu/bin/python3.12", "3.12.7")
    assert machine.found() == (best, [])


def test_a_plain_python3_is_found_by_what_it_says(machine):
    best = machine.add(machine.path / "python3", "3.10.12")
    assert machine.found() == (best, [])


def test_a_python_without_venv_is_passed_over(machine):
    machine.add(machine.path / "python3.11", "3.11.2", missing=["ensurepip"])
    second = machine.add(machine.path / "python3.12", "3.12.1")
    assert machine.found() == (second, [])


def test_a_shim_that_does_not_start_is_passed_over(machine):
    machine.add(machine.path / "python3.12", "3.12.1")
    machine.script(machine.path / "python3.11", "echo 'pyenv: command not found' >&2; exit 127")
    assert machine.found()[0].endswith("python3.12")


def test_only_unusable_ones_are_all_named(machine):
    newer = machine.add(machine.path / "python3", "3.13.0")
    bare = machine.add(machine.path / "python3.12", "3.12.3", missing=["venv", "ensurepip"])
    assert machine.found() == (None, [newer, bare])


@pytest.mark.parametrize(
    "change, why",
    [
        ({}, ""),
        ({"version": "3.13.0"}, "is Python 3.13.0"),
        ({"bits": 32}, "is a 32-bit Python"),
        ({"implementation": "PyPy"}, "is PyPy, not CPython"),
        ({"missing": ["venv", "ensurepip"]}, "is Python 3.11.7 without venv and ensurepip"),
    ],
)
def test_judgement_is_a_sentence(change, why):
    seen = {
        "version": "3.11.7",
        "missing": [],
        "implementation": "CPython",
        "bits": 64,
        "platform": "linux-x86_64",
    }
    assert interpreters.judge(dict(seen, **change), ORDER) == why


def test_this_interpreter_will_do():
    seen = interpreters.probe(sys.executable)
    assert seen["version"].startswith("%d.%d." % sys.version_info[:2])


@pytest.mark.parametrize("name", ["bootstrap", "installing", "interpreters", "target_file"])
def test_an_old_python_can_read_the_set_up(name):
    source = (Path(interpreters.__file__).parent / (name + ".py")).read_text()
    ast.parse(source, feature_version=(3, 6))
