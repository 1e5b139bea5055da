"""Packages of OpenMMLab that do not go together are named; the stand-ins fail as the real ones do."""

import json
import sys

import pytest

from bevformer import selftest, selftest_packages
from bevformer.selftest_packages import Asked, asked_for, contradictions, installed

NAMES = ("mmcv", "mmdet", "mmseg", "mmdet3d")
GOOD = {"mmcv-full": "1.6.0", "mmdet3d": "1.0.0rc6", "numba": "0.53.0", "numpy": "1.23.5"}
EXT = ["_ext.cpython-38-x86_64-linux-gnu.so"]


@pytest.mark.parametrize(
    "change, operators, words",
    [
        ({}, EXT, []),
        ({}, None, []),
        ({"mmcv": "1.6.0"}, EXT, ["mmcv 1.6.0 and mmcv-full 1.6.0 are both installed"]),
        ({"mmcv-lite": "2.1.0"}, EXT, ["mmcv-lite 2.1.0 and mmcv-full 1.6.0"]),
        ({"mmdet3d": "1.4.0"}, EXT, ["mmdet3d 1.4.0 is made for mmcv 2 and mmengine"]),
        ({"mmdet3d": "1.1.0rc0"}, EXT, ["here is mmcv-full 1.6.0"]),
        ({}, [], ["mmcv-full 1.6.0: no compiled operators, there is no _ext*.so in /e/mmcv"]),
        ({"numpy": "1.24.4"}, EXT, ["numba 0.53.0 does not load beside NumPy 1.24.4"]),
        ({"numpy": "1.26.4", "numba": "0.59.0"}, EXT, []),
        (
            {"numpy": "1.24.0", "mmcv": "1.7.2"},
            [],
            ["both installed", "no compiled operators", "numba 0.53.0"],
        ),
    ],
)
def test_each_contradiction_is_a_sentence(change, operators, words):
    said = contradictions({**GOOD, **change}, operators, "/e/mmcv")
    assert len(said) == len(words)
    assert all(word in sentence for word, sentence in zip(words, said))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Stand-ins that import as the real ones do; .add(distribution, version), .module(name, text)."""
    for name in [name for name in sys.modules if name.split(".")[0] in NAMES]:
        monkeypatch.delitem(sys.modules, name)

    class Site:
        def add(self, name, version):
            folder = tmp_path / f"{name}-{version}.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

        def module(self, name, text="__version__ = '1'\n"):
            path = tmp_path.joinpath(*name.split("."))
            path.mkdir(parents=True, exist_ok=True)
            (path / "__init__.py").write_text(text)

    made = Site()
    for name in (*NAMES, "mmcv.runner", "mmdet.models", "mmdet3d.models", "mmdet3d.datasets"):
        made.module(name)
    made.module("mmcv.ops", "import importlib\nimportlib.import_module('mmcv._ext')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(selftest_packages, "installed", lambda: installed([str(tmp_path)]))
    yield made
    for name in [name for name in sys.modules if name.split(".")[0] in NAMES]:
        del sys.modules[name]


def said_by(check, capsys):
    code = selftest.main([check])
    row = json.loads(capsys.readouterr().out)
    assert code == int(not row["ok"])
    return row["ok"], row["said"]


@pytest.mark.parametrize("check", ["openmmlab-imports", "mmcv-operators", "mmcv-compiled", "mmcv-parity"])
def test_an_op_less_mmcv_is_named_by_every_check_of_it(site, check, capsys):
    site.add("mmcv-full", "1.6.0")
    ok, said = said_by(check, capsys)
    assert not ok and "mmcv-full 1.6.0: no compiled operators" in said and "--no-build-isolation" in said
    assert check != "openmmlab-imports" or "ModuleNotFoundError: No module named 'mmcv._ext'" in said


def test_the_message_of_a_failing_import_follows_its_reason(site, capsys, tmp_path):
    site.add("mmcv-full", "1.6.0")
    site.add("mmdet3d", "1.4.0")
    (tmp_path / "mmcv/_ext.so").write_bytes(b"")
    site.module("mmcv.ops", "")
    site.module("mmdet3d", "import mmengine_that_is_not_there\n")
    ok, said = said_by("openmmlab-imports", capsys)
    assert not ok and said.index("made for mmcv 2") < said.index("No module named 'mmengine_that")


def test_both_mmcv_fail_even_where_the_import_works(site, capsys, tmp_path):
    site.add("mmcv-full", "1.6.0")
    site.add("mmcv", "1.6.0")
    (tmp_path / "mmcv/_ext.so").write_bytes(b"")
    site.module("mmcv.ops", "")
    ok, said = said_by("openmmlab-imports", capsys)
    assert not ok and "are both installed" in said and "Importing" not in said


def test_an_extension_for_another_torch_is_explained(site, capsys, tmp_path):
    site.add("mmcv-full", "1.6.0")
    (tmp_path / "mmcv/_ext.so").write_bytes(b"")
    site.module("mmcv.ops", "raise ImportError('_ext.so: undefined symbol: _ZN2at4_ops')\n")
    ok, said = said_by("openmmlab-imports", capsys)
    assert not ok and "undefined symbol" in said and "compiled for another torch" in said


def test_versions_say_where_everything_lies(site, capsys, tmp_path):
    site.add("mmcv-full", "1.6.0")
    site.add("mmcv", "1.7.0")
    told = selftest_packages.check_versions()
    rows = {row["module"]: row for row in told.rows}
    assert rows["mmcv"]["from"] == "mmcv-full and mmcv" and rows["mmcv"]["path"] == str(tmp_path / "mmcv")
    assert rows["mmseg"]["version"] == "of unknown version" and "mmcv 1.6.0" in told.said


def test_what_an_environment_was_built_for_is_in_its_receipt(tmp_path):
    assert asked_for(str(tmp_path)) == Asked(None, frozenset())
    receipt = {"target": "cpu-openmmlab", "selftest": [{"name": "torch"}, {"name": "mmcv-operators"}]}
    (tmp_path / "bevrepro-env.json").write_text(json.dumps(receipt))
    asked = asked_for(str(tmp_path))
    assert asked.target == "cpu-openmmlab" and asked.wants("mmcv-parity") and not asked.wants("devkit")
    assert not asked.for_gpu
    (tmp_path / "bevrepro-env.json").write_text(json.dumps({**receipt, "cuda": {"version": "11.8"}}))
    assert asked_for(str(tmp_path)).for_gpu
