"""After a reboot: what is remembered and not mounted is mounted again as it was."""

import pytest

from bevrepro.core.errors import MountError
from bevrepro.data import again, mount, mountinfo, remembered
from bevrepro.data.mount import Wanted
from bevrepro.data.status import status


def quiet(text):
    pass


@pytest.fixture
def made(system, tgz, zipped, tmp_path):
    """Mounted with an overlay."""
    wanted = Wanted((tgz, zipped), tmp_path / "mnt", tmp_path / "overlay")
    mount.mount(mount.plan_for(wanted), quiet)
    return wanted


def reboot(system):
    system.mounted.clear()
    system._save()


def test_everything_that_was_mounted_is_wanted_as_it_was(system, made):
    assert again.wanted_again() == ()
    reboot(system)
    assert again.wanted_again() == again.wanted_again(made.mountpoint) == (made,)


def test_mounted_again_it_is_as_before_and_its_folder_is_still_ours(system, made):
    before = remembered.get(made.mountpoint)
    reboot(system)
    (wanted,) = again.wanted_again()
    mount.mount(mount.plan_for(wanted), quiet)
    after = remembered.get(made.mountpoint)
    assert [one.state for one in status()] == ["mounted"]
    assert (after.archives, after.overlay, after.made_folder) == (before.archives, before.overlay, True)


def test_a_dead_mount_is_wanted_too_and_a_live_one_is_said(system, made, monkeypatch):
    with pytest.raises(MountError, match="is mounted already"):
        again.wanted_again(made.mountpoint)
    monkeypatch.setattr(mountinfo, "is_dead", lambda path: True)
    assert again.wanted_again() == (made,)


def test_what_was_never_mounted_is_not_known(system, tmp_path):
    with pytest.raises(MountError, match="nothing is remembered"):
        again.wanted_again(tmp_path / "mnt")


def test_a_list_of_an_older_bevrepro_is_read(system, tgz, tmp_path, home):
    (home / "state").mkdir(parents=True)
    (home / "state/mounts.json").write_text(
        f'{{"format": 1, "mounts": [{{"mountpoint": "{tmp_path}/mnt", "archives": ["{tgz}"], "mode": "fuse",'
        ' "since": "2026-01-01T00:00:00+00:00", "made_folder": true}]}'
    )
    assert again.wanted_again() == (Wanted((tgz,), tmp_path / "mnt"),)
    assert status()[0].changed_archives == ()
