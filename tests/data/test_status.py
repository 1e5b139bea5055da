"""Mounted, dead, gone and never mounted are told apart."""

import os

import pytest

from bevrepro.data import mount, mountinfo, remembered
from bevrepro.data.remembered import Remembered
from bevrepro.data.status import status


def remember(place, archive, mode=remembered.FUSE):
    remembered.add(Remembered(str(place), (str(archive),), mode, "2026-01-01T00:00:00+00:00"))


def test_nothing_at_first(system):
    assert status() == []


@pytest.mark.parametrize(
    "mounted, dead, mode, state",
    [
        (True, False, "fuse", "mounted"),
        (True, True, "fuse", "dead"),
        (False, False, "fuse", "gone"),
        (False, False, "in-process", "in-process"),
    ],
)
def test_states(system, tgz, tmp_path, monkeypatch, mounted, dead, mode, state):
    remember(tmp_path / "mnt", tgz, mode)
    monkeypatch.setattr(mountinfo, "is_dead", lambda path: dead)
    if mounted:
        system.add_mount(tmp_path / "mnt")
    (one,) = status()
    assert (one.state, one.archives, one.missing_archives) == (state, (str(tgz),), ())


def test_a_mount_that_is_not_remembered_and_an_archive_that_is_gone_are_shown(system, tmp_path):
    system.add_mount(tmp_path / "a")
    remember(tmp_path / "b", tmp_path / "nope.tgz")
    first, second = status()
    assert (first.state, first.archives) == ("mounted", ())
    assert second.missing_archives == (str(tmp_path / "nope.tgz"),)


def test_an_archive_that_changed_is_shown_and_a_folder_may_change(system, tgz, tmp_path):
    (tmp_path / "overlay").mkdir()
    wanted = mount.Wanted((tgz,), tmp_path / "mnt", tmp_path / "overlay")
    mount.mount(mount.plan_for(wanted), lambda text: None)
    (tmp_path / "overlay/new.pkl").write_text("x")
    assert status()[0].well
    os.utime(tgz, ns=(1, 1))
    assert status()[0].changed_archives == (str(tgz),) and not status()[0].well
