"""Places of an environment, and the switch from one to the next."""

import os

import pytest

from bevrepro.core.errors import ConfigError, DiskError, MachineError
from bevrepro.env import layout

FIRST, SECOND = "0123456789abcdef", "0123456789abcdef-2"


def test_the_default_place_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("BEVREPRO_DATA", str(tmp_path))
    assert layout.resolve(None, "cpu").prefix == tmp_path / "envs/cpu"
    monkeypatch.delenv("BEVREPRO_DATA")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "x"))
    assert layout.resolve(None, "cpu").builds == tmp_path / "x/bevrepro/envs/cpu.builds"


def test_a_switch_shows_the_new_one_and_knows_the_old(tmp_path):
    place = layout.resolve(tmp_path / "env", "cpu")
    for name in (FIRST, SECOND):
        (place.builds / name).mkdir(parents=True)
        layout.switch(place, place.builds / name)
        assert layout.resolve(tmp_path / "env", "cpu").link == place.builds / name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["env", "env.builds"]
    assert not os.path.isabs(os.readlink(tmp_path / "env"))
    assert [path.name for path in place.all_builds()] == [FIRST, SECOND]


@pytest.mark.parametrize("text", ["elsewhere", "env.builds", "env.builds/other", "/", "env.builds/../x"])
def test_a_link_that_is_not_ours_is_refused(tmp_path, text):
    (tmp_path / "env").symlink_to(text)
    with pytest.raises(ConfigError, match="not an environment"):
        layout.resolve(tmp_path / "env", "cpu")


@pytest.mark.parametrize("name", ["/", ".."])
def test_a_place_without_a_name_is_refused(name):
    with pytest.raises(ConfigError):
        layout.resolve(layout.Path(name), "cpu")


def test_one_holder_at_a_time(tmp_path):
    place = layout.resolve(tmp_path / "env", "cpu")
    with layout.held(place):
        with pytest.raises(MachineError, match=f"process {os.getpid()}"):
            with layout.held(place):
                pass
    with layout.held(place):
        pass


def test_a_folder_that_cannot_be_made_is_a_disk_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DiskError):
        with layout.held(layout.resolve(tmp_path / "file/env", "cpu")):
            pass


def test_an_unfinished_environment_is_none(tmp_path):
    place = layout.resolve(tmp_path / "env", "cpu")
    (place.builds / FIRST).mkdir(parents=True)
    layout.switch(place, place.builds / FIRST)
    with pytest.raises(ConfigError, match="no environment"):
        layout.real(tmp_path / "env", "cpu")
