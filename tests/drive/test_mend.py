"""--fix and --undo on a home of their own: an undo file first, nobody's changes lost, nothing outside."""

import json
import os

import pytest

from bevrepro.core.errors import DataError, DiskError
from bevrepro.core.machine import Host, Machine
from bevrepro.doctor.fix import Fix
from bevrepro.drive import mend


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("BEVREPRO_CONFIG", "BEVREPRO_STATE", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def files(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def fix(path, before, after):
    return Fix(("user-site-leak",), "write", str(path), before, after)


@pytest.mark.parametrize("before", [None, "", "export A=1\n", "n\u00e4\udcff\n"])
def test_undo_gives_back_what_was_there(home, before):
    script = home / "env.sh"
    if before is not None:
        script.write_bytes(before.encode("utf-8", "surrogateescape"))
    undo = mend.carry_out([fix(script, before, "new\n")])
    assert script.read_text() == "new\n" and undo.is_file()
    assert [each.path for each in mend.take_back()] == [str(script)]
    assert mend._text(script) == before
    assert not undo.exists() and mend.take_back() == ()


def test_the_undo_file_is_there_before_the_first_change(home, monkeypatch):
    seen = []
    monkeypatch.setattr(
        mend,
        "_do",
        lambda fix, text: seen.append(json.loads((mend.paths.state_dir() / mend.UNDO).read_text())),
    )
    mend.carry_out([fix(home / "env.sh", None, "new\n")])
    assert seen[0]["runs"][0]["fixes"][0]["after"] == "new\n"


def test_runs_are_taken_back_one_by_one(home):
    script = home / "env.sh"
    mend.carry_out([fix(script, None, "one\n")])
    mend.carry_out([fix(script, "one\n", "two\n")])
    mend.take_back()
    assert script.read_text() == "one\n"
    mend.take_back()
    assert not script.exists()


def test_a_run_that_stopped_halfway_is_taken_back(home):
    first, second = home / "first", home / "second"
    second.mkdir()
    with pytest.raises(DiskError):
        mend.carry_out([fix(first, None, "1\n"), fix(second, None, "2\n")])
    second.rmdir()
    assert not first.exists()  # looked at before anything was written
    mend.carry_out([fix(first, None, "1\n"), fix(second, None, "2\n")])
    second.unlink()  # as if the second had never been written
    mend.take_back()
    assert files(home / ".local") == {} and not first.exists()


@pytest.mark.parametrize("when", ["before", "after"])
def test_changes_of_others_are_never_lost(home, when):
    script = home / "env.sh"
    if when == "after":
        mend.carry_out([fix(script, None, "ours\n")])
    script.write_text("theirs\n")
    with pytest.raises(DataError, match="was changed"):
        mend.take_back() if when == "after" else mend.carry_out([fix(script, None, "ours\n")])
    assert script.read_text() == "theirs\n"


def test_nothing_outside_the_home_is_touched_even_through_a_link(home, tmp_path):
    outside = tmp_path / "etc"
    outside.mkdir()
    (home / "env.sh").symlink_to(outside / "profile")
    for path in (outside / "x", home / "env.sh", home / ".." / "etc" / "y"):
        with pytest.raises(DiskError, match="outside your home"):
            mend.carry_out([fix(path, None, "new\n")])
    assert list(outside.iterdir()) == [] and not (home / ".local").exists()


def test_a_link_within_the_home_stays_a_link(home):
    (home / "dotfiles").mkdir()
    (home / "dotfiles/env.sh").write_text("old\n")
    (home / "env.sh").symlink_to("dotfiles/env.sh")
    mend.carry_out([fix(home / "env.sh", "old\n", "new\n")])
    assert (home / "env.sh").is_symlink() and (home / "dotfiles/env.sh").read_text() == "new\n"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"runs": 3}', '{"runs": [{"fixes": [{"path": 3}]}]}'])
def test_an_undo_file_that_is_none_is_a_sentence(home, text):
    mend.paths.state_dir().mkdir(parents=True)
    (mend.paths.state_dir() / mend.UNDO).write_text(text)
    with pytest.raises(DataError, match="cannot read the undo file"):
        mend.take_back()


def test_a_state_folder_that_cannot_be_used_changes_nothing(home, monkeypatch):
    (home / "state").write_text("a file")
    monkeypatch.setenv("BEVREPRO_STATE", str(home / "state"))
    with pytest.raises(DiskError, match="could not use"):
        mend.carry_out([fix(home / "env.sh", None, "new\n")])
    assert not (home / "env.sh").exists()


def test_a_dead_mount_is_detached_and_its_archives_stay_remembered(home, monkeypatch):
    detached = []
    monkeypatch.setattr(mend.unmount, "detach", lambda place, dead: detached.append((str(place), dead)))
    mend.carry_out([Fix(("mount-dead",), "detach", "/data/nuscenes", mount=True)])
    assert detached == [("/data/nuscenes", True)]
    assert [each.mount for each in mend.take_back()] == [True]


def test_the_windows_profile_is_found_on_the_path_that_wsl_makes(home, monkeypatch, tmp_path):
    assert mend.look_around(Machine(host=Host(wsl=2))).proposal == str(
        home / ".config/bevrepro" / mend.PROPOSAL
    )
    assert mend.look_around(Machine()).proposal == ""
    monkeypatch.setattr(mend, "WINDOWS_HOME", mend.re.compile(f"({tmp_path}/Users/[^/:]+)/AppData/"))
    profile = tmp_path / "Users" / "Alice Liddell"
    profile.mkdir(parents=True)
    (profile / ".wslconfig").write_text("[wsl2]\n")
    monkeypatch.setenv("PATH", f"/usr/bin:{profile}/AppData/Local/Microsoft/WindowsApps")
    around = mend.look_around(Machine(host=Host(wsl=2)))
    assert (around.proposal, around.wslconfig_text) == (str(profile / mend.PROPOSAL), "[wsl2]\n")
    mend.carry_out([fix(around.proposal, None, "[wsl2]\nmemory=6GB\n")])
    assert sorted(os.listdir(profile)) == [".wslconfig", mend.PROPOSAL]
