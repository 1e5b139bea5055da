"""`bevrepro env cuda` on the command line."""

import json

import pytest

from bevrepro.cli import main
from bevrepro.env import nvcc_check, toolkit
from bevrepro.env.nvcc_check import Check
from bevrepro.env.toolkit import Toolkit


@pytest.fixture
def made(monkeypatch, tmp_path):
    """Nothing is fetched or compiled; what was asked for is kept."""
    asked = {}

    def make(version, into, sources, on_event):
        asked.update(version=version, into=into, sources=sources)
        return Toolkit(into, version, "1" * 64, into / "host/bin/g++", "deb")

    monkeypatch.setenv("BEVREPRO_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(toolkit, "make_toolkit", make)
    monkeypatch.setattr(nvcc_check, "check", lambda home, arch: Check("12.4.131", arch, 1, 2, 0.5))
    return asked


def test_without_a_version_the_known_ones_are_listed(capsys):
    assert main(["env", "cuda"]) == 0
    out = capsys.readouterr().out
    assert "11.8  nvcc 11.8.89, gcc up to 11" in out and "sm_121" in out
    assert main(["env", "cuda", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["toolkits"]
    assert [row["version"] for row in rows] == ["11.8", "12.4", "13.0"] and rows[0]["size_b"]["deb"] > 8e7


def test_it_lies_in_the_data_folder_unless_told_and_says_what_to_export(made, capsys, tmp_path):
    assert main(["env", "cuda", "12.4"]) == 0
    assert made["into"] == tmp_path / "data/cuda/12.4" and made["sources"].kinds is None
    out = capsys.readouterr().out
    assert f"export CUDA_HOME={tmp_path}/data/cuda/12.4" in out and "nothing ran on a GPU" in out


def test_options_reach_the_library_and_json_says_all(made, capsys, tmp_path):
    words = ["--into", str(tmp_path / "x"), "--source", "deb", "--mirror", "m", "--deb-mirror", "d", "--json"]
    assert main(["env", "cuda", "12.4", "--arch", "sm_90", *words]) == 0
    sources = made["sources"]
    assert (sources.kinds, sources.mirror, sources.deb_mirror) == (("deb",), "m", "d")
    told = json.loads(capsys.readouterr().out)
    assert told["home"] == str(tmp_path / "x") and told["selftest"]["arch"] == "sm_90"
    assert told["environment"]["CXX"] == str(tmp_path / "x/host/bin/g++")


def test_a_dry_run_names_every_file_with_its_hash(made, capsys, tmp_path):
    assert main(["env", "cuda", "11.8", "--into", str(tmp_path / "x"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert (
        "d1156026e704fe0368b6295db06224ed00a727966fb13454f34e3f3102db0457  nvidia-cuda-toolkit_11.8.89" in out
    )
    assert main(["env", "cuda", "11.8", "--into", str(tmp_path / "x"), "--dry-run", "--json"]) == 0
    assert [row["kind"] for row in json.loads(capsys.readouterr().out)["sources"]] == ["redist", "deb"]
    assert made == {} and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["11.9"], 6, "The known toolkits are: 11.8, 12.4, 13.0."),
        (["11.8", "--arch", "sm_120"], 6, "does not compile for 'sm_120'"),
        (["13.0", "--source", "deb", "--dry-run"], 6, "cannot be made from 'deb'"),
        (["13.0", "--source", "apt"], 2, "--source"),
    ],
)
def test_bad_input_is_a_sentence(made, capsys, words, code, said):
    assert main(["env", "cuda", *words]) == code
    err = capsys.readouterr().err
    assert said in err and "Traceback" not in err and made == {}
