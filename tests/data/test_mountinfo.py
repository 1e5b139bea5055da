"""/proc/self/mountinfo as values."""

import errno
import os
from pathlib import Path

import pytest

from bevrepro.data import mountinfo

TEXT = r"""
24 1 0:22 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/a,upperdir=/b
36 24 0:32 / /mnt/my\040data rw,nosuid - fuse.ratarmount bevrepro ro,user_id=0
37 24 0:33 / /mnt/x ro,nosuid,nodev,relatime shared:5 master:2 - fuse.ratarmount bevrepro ro,user_id=0
38 24 0:34 / /mnt/other ro - fuse.sshfs host:/x rw
39 24 0:35 / /mnt/x rw - tmpfs bevrepro rw
not a line
"""


def test_lines_are_read_whatever_optional_fields_they_have():
    mounts = mountinfo.parse(TEXT)
    assert [mount.mountpoint for mount in mounts] == ["/", "/mnt/my data", "/mnt/x", "/mnt/other", "/mnt/x"]
    assert [mount.ours for mount in mounts] == [False, True, True, False, False]
    assert [mount.read_only for mount in mounts] == [False, False, True, True, False]


def test_of_two_mounts_at_one_place_the_last_is_on_top():
    mounts = mountinfo.parse(TEXT)
    assert mountinfo.at(mounts, Path("/mnt/x")).fs_type == "tmpfs"
    assert mountinfo.at(mounts, Path("/mnt")) is None


def test_without_proc_nothing_is_mounted(tmp_path, monkeypatch):
    monkeypatch.setattr(mountinfo, "MOUNTINFO", tmp_path / "nope")
    assert mountinfo.read() == []


@pytest.mark.parametrize("code, dead", [(errno.ENOTCONN, True), (errno.ENOENT, False), (errno.EACCES, False)])
def test_errno_107_is_a_dead_mount(monkeypatch, code, dead):
    def statvfs(path):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(mountinfo.os, "statvfs", statvfs)
    assert mountinfo.is_dead(Path("/mnt/x")) is dead


def test_the_real_path_of_a_mount_point_is_found_without_asking_the_mount(tmp_path, monkeypatch):
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    assert mountinfo.real(tmp_path / "link/new") == tmp_path / "new"
    line = f"40 27 0:39 / {tmp_path}/place ro - fuse.ratarmount bevrepro ro\n"
    (tmp_path / "mountinfo").write_text(line)
    monkeypatch.setattr(mountinfo, "MOUNTINFO", tmp_path / "mountinfo")
    asked, real = [], os.path.realpath
    monkeypatch.setattr(os.path, "realpath", lambda path: asked.append(str(path)) or real(path))
    for way in ("place", "link/place", "link/../place"):
        assert mountinfo.real(tmp_path / way) == tmp_path / "place"
    assert not any(path.endswith("place") for path in asked)
