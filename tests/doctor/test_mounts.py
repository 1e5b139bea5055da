"""What the doctor says of a data root that is a mount of ours."""

import pytest

from bevrepro.doctor.data import CHECKS
from bevrepro.doctor.judge import judge_all
from bevrepro.probe.mounts import MountSeen
from bevrepro.probe.nuscenes import DataSet
from bevrepro.probe.paths import Place


def said(mount):
    return {
        each.id: each for each in judge_all(DataSet(Place("/mnt", "folder"), entries=1, mount=mount), CHECKS)
    }


def test_a_mount_that_is_well_and_a_folder_that_is_none_are_not_mentioned():
    for mount in (None, MountSeen("/mnt", "mounted"), MountSeen("/mnt", "in-process")):
        assert not {"mount-lost", "mount-archives"} & set(said(mount))


@pytest.mark.parametrize(
    "state, severity, command",
    [
        ("dead", "fail", "bevrepro data mount '/my data'"),
        ("stuck", "fail", "bevrepro data umount '/my data'"),
        ("gone", "info", "bevrepro data mount '/my data'"),
    ],
)
def test_a_lost_mount_is_told_with_the_command_that_brings_it_back(state, severity, command):
    found = said(MountSeen("/my data", state))["mount-lost"]
    assert found.severity.value == severity and command in found.commands


def test_archives_that_are_gone_or_changed_are_named():
    gone = said(MountSeen("/mnt", "mounted", missing_archives=("/a.tgz", "/b.tgz")))["mount-archives"]
    assert "/a.tgz (and 1 more)" in gone.seen and "until it ends" in gone.seen
    changed = said(MountSeen("/mnt", "mounted", changed_archives=("/a.tgz",)))["mount-archives"]
    assert "changed after it was mounted" in changed.seen
