"""`env build --conda`: what conda is asked, and whose compilers are used."""

import os

import pytest

from bevrepro.cli import main
from bevrepro.cli.env_conda import python_by_conda
from bevrepro.core.errors import MachineError
from bevrepro.env import conda, target


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A conda that is only looked at."""
    program = tmp_path / "micromamba"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("MAMBA_EXE", str(program))
    monkeypatch.setenv("BEVREPRO_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CXX", "before")
    return program


def test_a_dry_run_prints_the_command_and_makes_nothing(here, tmp_path, capsys):
    assert main(["env", "build", "--target", "a100", "--conda", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"{here} create --yes" in said and "python=3.8" in said and "'gxx<12'" in said
    assert "--channel conda-forge" in said and not (tmp_path / "data").exists()


def test_the_next_python_is_taken_where_conda_lacks_the_best(here, tmp_path, monkeypatch):
    def provide(wanted):
        if wanted.python == "3.11":
            raise MachineError("no 3.11")
        return conda.Provided("micromamba", tmp_path, tmp_path / "bin/python", {"CXX": "/c/g++"}, ())

    monkeypatch.setattr(conda, "provide", provide)
    wanted = target.load("cpu")
    assert python_by_conda(wanted, wanted.python, (), False, False) == str(tmp_path / "bin/python")
    assert os.environ["CXX"] == "/c/g++"
    monkeypatch.setattr(conda, "provide", lambda wanted: provide(conda.wish("3.11", False)))
    with pytest.raises(MachineError, match="no 3.11"):
        python_by_conda(wanted, wanted.python, (), False, False)


def test_conda_and_another_python_exclude_each_other(here, capsys):
    assert main(["env", "build", "--conda", "--python", "python3"]) == 2
    assert main(["env", "build", "--conda-channel", "x"]) == 2
