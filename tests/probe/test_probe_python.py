"""The target interpreter is asked in a child; torch is read, and imported only where asked for."""

import stat
import sys
from pathlib import Path

import pytest

from bevrepro.core.proc import Done
from bevrepro.probe import python

VERSION_PY = "__version__ = '1.9.1+cu111'\ndebug = False\ncuda = '11.1'\n"


def site(monkeypatch, folder, torch="", dists=()):
    """Put a made-up site-packages first on the child's path."""
    if torch is not None:
        (folder / "torch").mkdir()
        (folder / "torch/version.py").write_text(VERSION_PY)
        (folder / "torch/__init__.py").write_text(torch)
    for name in dists:
        (folder / name).mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_our_own_interpreter_describes_itself():
    found = python.probe_python()
    assert found.version == ".".join(map(str, sys.version_info[:3]))
    assert found.prefix == sys.prefix and found.error is None


def test_torch_is_read_from_its_files_without_importing_it(monkeypatch, tmp_path):
    site(monkeypatch, tmp_path, torch="raise SystemError('imported')", dists=["torch-1.9.1+cu111.dist-info"])
    found = python.probe_python()
    assert (found.torch.version, found.torch.cuda, found.torch.tried) == ("1.9.1+cu111", "11.1", False)
    assert found.package("torch").location == str(tmp_path)


def test_names_are_normalised_and_the_first_on_the_path_counts(monkeypatch, tmp_path):
    site(
        monkeypatch,
        tmp_path,
        None,
        ["NumPy-9.9.dist-info", "mmcv_full-1.4.0-py3.8.egg-info", "other-1.dist-info"],
    )
    found = python.probe_python()
    assert found.package("numpy").version == "9.9"
    assert found.package("mmcv-full").version == "1.4.0"
    assert found.package("other") is None


def test_packages_of_setup_py_and_editable_ones_are_seen_where_their_code_is(monkeypatch, tmp_path):
    """mmdet3d 0.17.1 is installed with `setup.py install` or `develop`: neither leaves a plain dist-info."""
    egg = tmp_path / "mmdet3d-0.17.1-py3.8-linux-x86_64.egg"
    developed, source = tmp_path / "checkout", tmp_path / "with blank"
    for folder in (egg, developed / "mmdet.egg-info", source, tmp_path / "site/mmcv-2.1.0.dist-info"):
        folder.mkdir(parents=True)
    (developed / "mmdet.egg-info/PKG-INFO").write_text(
        "Metadata-Version: 2.1\nName: mmdet\nVersion: 2.14.0\n"
    )
    told = f'{{"url": "file://{tmp_path}/with%20blank", "dir_info": {{"editable": true}}}}'
    (tmp_path / "site/mmcv-2.1.0.dist-info/direct_url.json").write_text(told)
    monkeypatch.setenv("PYTHONPATH", f"{egg}:{developed}:{tmp_path}/site")
    found = {each.name: (each.version, each.location) for each in python.probe_python().packages}
    assert found["mmdet3d"] == ("0.17.1", str(egg))
    assert found["mmdet"] == ("2.14.0", str(developed))
    assert found["mmcv"] == ("2.1.0", str(source))


@pytest.mark.parametrize("told", ["[]", "{", '{"url": 1, "dir_info": {}}', '{"dir_info": {"editable": 1}}'])
def test_a_strange_note_of_where_a_package_is_from_changes_nothing(monkeypatch, tmp_path, told):
    (tmp_path / "mmcv-2.1.0.dist-info").mkdir()
    (tmp_path / "mmcv-2.1.0.dist-info/direct_url.json").write_text(told)
    (tmp_path / "mmdet.egg-info").mkdir()  # without PKG-INFO
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = python.probe_python()
    assert found.package("mmcv").location == str(tmp_path) and found.package("mmdet") is None


@pytest.mark.parametrize(
    "code, rc, error",
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", -4, "died of SIGILL"),
        ("raise OSError('libtorch_cpu.so: cannot open shared object file')", 0, "libtorch_cpu.so"),
        ("print('{}garbage'); import sys; sys.exit(7)", 7, "exit status 7"),
    ],
)
def test_a_torch_that_breaks_breaks_in_the_child(monkeypatch, tmp_path, code, rc, error):
    site(monkeypatch, tmp_path, torch=code)
    torch = python.probe_python(deep=True).torch
    assert (torch.tried, torch.child_rc) == (True, rc)
    assert not torch.imports and error in torch.error


def test_a_crash_while_computing_is_told_from_one_while_importing(monkeypatch, tmp_path):
    code = """
import os, signal
class cuda:
    is_available = staticmethod(lambda: False)
    device_count = staticmethod(lambda: 0)
backends = None
def ones(*shape):
    os.kill(os.getpid(), signal.SIGILL)
"""
    site(monkeypatch, tmp_path, torch=code)
    torch = python.probe_python(deep=True).torch
    assert (torch.child_rc, torch.imports, torch.computes) == (-4, True, False)


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_target_that_is_no_python_is_an_error_in_words(tmp_path):
    assert "exit status 3" in python.probe_python(script(tmp_path / "py", "#!/bin/sh\nexit 3\n")).error
    assert "could not start" in python.probe_python(tmp_path / "missing").error


def test_a_target_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(python.proc, "run", lambda argv, **_: Done(-9, "", "", timed_out=True))
    assert python.probe_python(Path("py")).error == "no answer in time"


def test_a_target_that_answers_garbage_is_an_error_in_words(monkeypatch):
    monkeypatch.setattr(python.proc, "run", lambda argv, **_: Done(0, "[1]\nwelcome to conda\n", ""))
    assert python.probe_python(Path("py")).error == "it does not answer as a Python does"


@pytest.mark.parametrize(
    "name, words",
    [
        ("/bin/true", "does not answer as a Python"),
        ("/bin/false", "exit status 1"),
        ("/usr", "it is a folder"),
    ],
)
def test_what_is_no_python_is_told_as_such(name, words):
    found = python.probe_python(Path(name))
    assert words in found.error and not found.error.endswith(": ")
