"""`bevrepro doctor` as a person and a script meet it."""

import json
import shutil
from pathlib import Path

import pytest

from bevrepro.cli import main
from bevrepro.core.machine import Machine
from bevrepro.doctor.record import load
from bevrepro.doctor.registry import FAMILIES

MACHINES = Path(__file__).parents[1] / "machines"


@pytest.fixture
def invoke(capsys, monkeypatch):
    """Run one command in-process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(*argv):
        code = main([str(arg) for arg in argv])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_a_healthy_host_ends_well(invoke):
    code, out, err = invoke("doctor", "--replay", MACHINES / "ci_vm_debian12.json")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "no failures, no warnings, 1 note: ready."


def test_a_failing_host_exits_with_1_and_says_what_to_do(invoke):
    code, out, _ = invoke("doctor", "--replay", MACHINES / "rtx3090_cuda_home_list.json")
    assert code == 1
    assert "[cuda-home-list]" in out and "✗ cuda" in out
    assert "            $ export CUDA_HOME=/usr/local/cuda-11.0\n" in out
    assert "https://github.com/open-mmlab/mmcv/issues/876" in out
    assert out.splitlines()[-1].startswith("2 failures, no warnings, ")


def test_commands_are_never_wrapped(invoke, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    _, out, _ = invoke("doctor", "--replay", MACHINES / "workstation_driver_mismatch.json")
    assert "$ python -m pip uninstall -y mmcv mmcv-full\n" in out


@pytest.mark.parametrize("path", sorted(MACHINES.glob("*.json")), ids=lambda path: path.stem)
def test_every_recorded_host_gets_a_whole_report(invoke, path):
    code, out, err = invoke("doctor", "--replay", path)
    assert code in (0, 1) and err == ""
    assert all(f" {family} " in out for family in FAMILIES)


def test_what_is_unknown_is_not_called_good(invoke):
    _, out, _ = invoke("doctor", "--replay", MACHINES / "unknown_host.json")
    assert out.count("? ") == len(FAMILIES) and "✓" not in out
    assert "ready" not in out and out.endswith("nothing is known.\n")


def test_json_is_the_machine_and_its_findings(invoke):
    code, out, err = invoke("doctor", "--json", "--replay", MACHINES / "rtx3090_cuda_home_list.json")
    data = json.loads(out)
    assert (code, err) == (1, "")
    assert data["machine"]["cuda"]["toolkit"]["source"] == "CUDA_HOME"
    assert {"id", "severity", "seen", "why", "remedy", "commands", "links", "fixable"} <= set(
        data["findings"][0]
    )


def test_this_machine_is_recorded_and_replays_to_the_same_findings(invoke, tmp_path):
    _, now, _ = invoke("doctor", "--json", "--record", tmp_path / "host.json")
    _, later, _ = invoke("doctor", "--json", "--replay", tmp_path / "host.json")
    assert isinstance(load(tmp_path / "host.json"), Machine)
    ids = [[finding["id"] for finding in json.loads(text)["findings"]] for text in (now, later)]
    assert ids[0] == ids[1]


def test_an_interpreter_that_is_none_is_a_finding(invoke, tmp_path):
    code, out, _ = invoke("doctor", "--python", tmp_path / "python")
    assert code == 1 and "[python-unusable]" in out and "✗ python" in out


@pytest.mark.parametrize("option", [["--deep"], ["--python", "python3"]])
def test_a_recorded_host_cannot_be_asked_again(invoke, option):
    code, _, err = invoke("doctor", "--replay", MACHINES / "unknown_host.json", *option)
    assert code == 2 and "no interpreter to ask" in " ".join(err.split())


def test_a_record_that_is_none_is_a_sentence(invoke, tmp_path):
    code, out, err = invoke("doctor", "--replay", tmp_path / "missing.json")
    assert (code, out) == (4, "")
    assert "could not read" in err and "--record" in err and "Traceback" not in err


def test_a_record_that_cannot_be_written_is_a_disk_error(invoke, tmp_path):
    (tmp_path / "file").touch()
    replay = MACHINES / "unknown_host.json"
    code, _, err = invoke("doctor", "--replay", replay, "--record", tmp_path / "file" / "host.json")
    assert code == 8 and "could not write" in err


def test_nothing_is_written_without_being_asked(invoke, tmp_path, monkeypatch):
    shutil.copy(MACHINES / "ci_vm_debian12.json", tmp_path)
    monkeypatch.chdir(tmp_path)
    invoke("doctor")
    assert [path.name for path in tmp_path.iterdir()] == ["ci_vm_debian12.json"]
