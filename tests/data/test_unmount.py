"""Taking mounts away."""

import os
import subprocess
import sys

import pytest

from bevrepro.core import proc
from bevrepro.core.errors import MachineError, MountError
from bevrepro.data import mount, mountinfo, remembered, unmount


@pytest.fixture
def mounted(system, tgz, tmp_path):
    mount.mount(mount.plan([tgz], tmp_path / "mnt"), lambda text: None)
    return tmp_path / "mnt"


def test_umount_removes_mount_memory_and_the_folder_it_made(system, mounted):
    assert unmount.umount(mounted).mode == "fuse"
    assert system.mounted == [] and remembered.load() == [] and not mounted.exists()


def test_a_folder_that_was_not_made_by_the_mount_stays(system, tgz, tmp_path):
    (tmp_path / "own").mkdir()
    mount.mount(mount.plan([tgz], tmp_path / "own"), lambda text: None)
    unmount.umount(tmp_path / "own")
    assert (tmp_path / "own").is_dir()


def test_what_was_never_mounted_is_only_forgotten(system, tgz, tmp_path):
    mount.mount(mount.plan([tgz], tmp_path / "mnt", in_process=True), lambda text: None)
    assert unmount.umount(tmp_path / "mnt").mode == "in-process"
    assert system.calls == [] and remembered.load() == []


def test_nothing_there_is_an_error(system, tmp_path):
    with pytest.raises(MountError, match="nothing is mounted"):
        unmount.umount(tmp_path)


def test_a_mount_of_others_is_left_alone(system, tmp_path):
    system.mountinfo.write_text(f"40 27 0:39 / {tmp_path} rw - tmpfs tmpfs rw\n")
    with pytest.raises(MountError, match="not a mount of bevrepro"):
        unmount.umount(tmp_path)
    assert system.calls == []


def test_busy_names_the_program_and_forgets_nothing(system, mounted, monkeypatch):
    system.umount_says = proc.Done(32, "", "umount: target is busy.")
    sitting = subprocess.Popen(
        [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], cwd=mounted, stdout=-1
    )
    try:
        sitting.stdout.readline()
        with pytest.raises(MountError, match="target is busy") as caught:
            unmount.umount(mounted)
    finally:
        sitting.kill()
        sitting.communicate()
    assert f"{sitting.pid} python" in caught.value.why and remembered.get(mounted)


def test_a_dead_mount_is_detached_lazily(system, mounted, monkeypatch):
    monkeypatch.setattr(mountinfo, "is_dead", lambda path: True)
    assert unmount.umount(mounted).was_dead
    assert system.calls[-1][1] in ("-l", "-uz")


@pytest.mark.parametrize("uid, first", [(0, "umount"), (1000, "fusermount3")])
def test_root_unmounts_itself_and_users_through_the_helper(monkeypatch, tmp_path, uid, first):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(proc, "which", lambda name: tmp_path / name)
    commands = unmount._commands(tmp_path / "mnt", dead=False)
    assert os.path.basename(commands[0][0]) == first and len(commands) == 3


def test_without_any_tool_it_says_what_to_install(system, mounted, monkeypatch):
    monkeypatch.setattr(proc, "which", lambda name: None)
    with pytest.raises(MachineError, match="fusermount3"):
        unmount.umount(mounted)
