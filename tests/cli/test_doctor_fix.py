"""`doctor --fix` and `--undo` end to end, on a home of their own."""

import json
import subprocess
from pathlib import Path

import pytest

from bevrepro.cli import main
from bevrepro.doctor import record
from bevrepro.probe import machine as probing

MACHINES = Path(__file__).parents[1] / "machines"


@pytest.fixture
def home(monkeypatch, tmp_path):
    for name in ("BEVREPRO_CONFIG", "BEVREPRO_STATE", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "a home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return home


@pytest.fixture
def invoke(capsys, monkeypatch, home):
    """`invoke(host, ...)`: `bevrepro doctor ...` on a machine like the recorded one."""

    def run(host, *argv):
        machine = record.load(MACHINES / f"{host}.json")
        monkeypatch.setattr(probing, "collect", lambda python, deep: machine)
        code = main(["doctor", *argv])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def files(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_shows_and_writes_nothing(invoke, home):
    code, out, _ = invoke("workstation_driver_mismatch", "--fix", "--dry-run")
    assert code == 0 and "+export PYTHONNOUSERSITE=1  # user-site-leak" in out and "+unset PYTHONPATH" in out
    assert list(home.iterdir()) == []


def test_fix_writes_a_script_that_a_shell_can_source_and_undo_removes_it(invoke, home):
    code, out, _ = invoke("workstation_driver_mismatch", "--fix")
    script = home / ".config/bevrepro/env.sh"
    assert code == 0 and f"  . '{script}'" in out and "bevrepro doctor --undo" in out
    shell = ["sh", "-ec", f'. "{script}"; echo $PYTHONNOUSERSITE ${{PYTHONPATH-unset}}']
    env = {"PYTHONPATH": "/x", "PATH": "/usr/bin:/bin"}
    assert subprocess.run(shell, env=env, capture_output=True, text=True).stdout == "1 unset\n"
    assert "Removed: " in invoke("workstation_driver_mismatch", "--undo")[1]
    assert files(home) == {}


def test_a_second_fix_has_nothing_to_do_and_says_where_the_settings_are(invoke, home):
    invoke("workstation_driver_mismatch", "--fix")
    before = files(home)
    _, out, _ = invoke("workstation_driver_mismatch", "--fix")
    assert "Nothing to mend" in out and "env.sh" in out and files(home) == before


def test_a_wslconfig_proposal_is_written_beside_and_named(invoke, home):
    _, out, _ = invoke("seed004_minipc_wsl2", "--fix", "--only", "wsl-memory")
    (name,) = [name for name in files(home) if "proposal" in name]
    assert name.endswith("/.wslconfig.bevrepro-proposal") and "memory=6GB" in files(home)[name]
    assert "wsl.exe --shutdown" in out


def test_json_tells_the_plan_and_the_undo_file(invoke, home):
    plan = json.loads(invoke("workstation_driver_mismatch", "--fix", "--dry-run", "--json")[1])
    done = json.loads(invoke("workstation_driver_mismatch", "--fix", "--json")[1])
    assert plan["fixes"] == done["fixes"] and plan["undo"] is None and plan["dry_run"]
    assert Path(done["undo"]).is_file()
    assert json.loads(invoke("workstation_driver_mismatch", "--undo", "--json")[1])["restored"]


def test_a_healthy_machine_is_left_alone(invoke, home):
    code, out, _ = invoke("ci_vm_debian12", "--fix")
    assert code == 0 and "Nothing to mend" in out and list(home.iterdir()) == []


def test_undo_without_a_fix_is_a_sentence(invoke, home):
    code, out, _ = invoke("ci_vm_debian12", "--undo")
    assert code == 0 and "Nothing to take back" in out


def test_only_the_chosen_finding_is_mended(invoke, home):
    invoke("workstation_driver_mismatch", "--fix", "--only", "user-site-leak")
    text = files(home)[".config/bevrepro/env.sh"]
    assert "PYTHONNOUSERSITE" in text and "PYTHONPATH " not in text


def test_a_script_changed_since_is_not_taken_back(invoke, home):
    invoke("workstation_driver_mismatch", "--fix")
    script = home / ".config/bevrepro/env.sh"
    script.write_text(script.read_text() + "export MINE=1\n")
    code, _, err = invoke("workstation_driver_mismatch", "--undo")
    assert code == 4 and "was changed" in err and "MINE" in script.read_text()
