"""What a user names as data becomes what the model plane can open."""

import pytest

from bevrepro.core.errors import DataError
from bevrepro.data import mountinfo, remembered
from bevrepro.data.remembered import Remembered
from bevrepro.data.roots import resolve


@pytest.fixture
def remembered_place(tmp_path, tgz, zipped):
    archives = (str(tgz), str(zipped))
    remembered.add(Remembered(str(tmp_path / "mnt"), archives, remembered.FUSE, "2026-01-01T00:00:00+00:00"))
    return tmp_path / "mnt"


def test_folders_and_archives_stay_in_order(system, tmp_path, tgz):
    (tmp_path / "infos").mkdir()
    assert resolve([tgz, tmp_path / "infos"]) == [str(tgz), str(tmp_path / "infos")]


def test_a_live_mount_stays_a_folder(system, remembered_place):
    remembered_place.mkdir()
    system.add_mount(remembered_place)
    assert resolve([remembered_place]) == [str(remembered_place)]


def test_a_mount_that_is_gone_or_dead_becomes_its_archives(
    system, remembered_place, tgz, zipped, monkeypatch
):
    assert resolve([remembered_place]) == [str(tgz), str(zipped)]
    remembered_place.mkdir()  # after a reboot the empty folder is still there
    assert resolve([remembered_place]) == [str(tgz), str(zipped)]
    system.add_mount(remembered_place)
    monkeypatch.setattr(mountinfo, "is_dead", lambda path: True)
    assert resolve([remembered_place]) == [str(tgz), str(zipped)]


def test_a_link_to_the_mount_point_is_the_mount_point(system, remembered_place, tgz, zipped, tmp_path):
    (tmp_path / "link").symlink_to(remembered_place)
    assert resolve([tmp_path / "link"]) == [str(tgz), str(zipped)]


def test_what_is_missing_is_a_data_error(system, remembered_place, tgz, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="there is no .*nope"):
        resolve([tmp_path / "nope"])
    tgz.unlink()
    with pytest.raises(DataError, match="v1.0-mini.tgz"):
        resolve([remembered_place])


def test_a_dead_mount_nobody_remembers_is_a_data_error(system, tmp_path, monkeypatch):
    (tmp_path / "mnt").mkdir()
    system.add_mount(tmp_path / "mnt")
    monkeypatch.setattr(mountinfo, "is_dead", lambda path: True)
    with pytest.raises(DataError, match="has died"):
        resolve([tmp_path / "mnt"])
