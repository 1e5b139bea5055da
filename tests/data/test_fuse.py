"""What is missing for a mount is said exactly."""

import json
from pathlib import Path

import pytest

from bevrepro.core.codec import from_json
from bevrepro.core.machine import Fuse, Host, Machine
from bevrepro.data.fuse import judge

MACHINES = Path(__file__).parents[1] / "machines"
GOOD = Fuse("ok", ("libfuse3.so.3",), ("fusermount3",), helper_set_uid=True, no_new_privileges=False)
ROOT, USER = Host(root=True, may_mount=True), Host(root=False, may_mount=True)
DOCKER = Host(root=True, may_mount=True, container="docker")


def but(**fields):
    return Fuse(**{**vars(GOOD), **fields})


def test_nothing_is_missing_on_a_good_machine_or_an_unknown_one():
    assert judge(GOOD, ROOT, True) == judge(GOOD, USER, True) == judge(Fuse(), Host(), True) == ()


@pytest.mark.parametrize(
    "fuse, host, words",
    [
        (but(device="absent"), USER, "sudo modprobe fuse"),
        (but(device="absent"), DOCKER, "--device /dev/fuse --cap-add SYS_ADMIN"),
        (but(device="absent"), Host(root=False, may_mount=True, wsl=1), "WSL1 has no FUSE"),
        (but(device="forbidden"), USER, "chmod 666 /dev/fuse"),
        (but(device="forbidden"), DOCKER, "may not be opened in this container (docker)"),
        (but(libraries=()), USER, "apt install fuse3 libfuse3-3"),
        (GOOD, Host(root=True, may_mount=False, container="docker"), "CAP_SYS_ADMIN"),
        (but(apparmor="docker-default"), DOCKER, "--security-opt apparmor=unconfined"),
        (but(helpers=()), USER, "no fusermount"),
        (but(no_new_privileges=True), USER, "without --security-opt no-new-privileges"),
        (but(helper_set_uid=False), USER, "set-uid"),
    ],
)
def test_one_missing_thing_gives_one_sentence(fuse, host, words):
    (sentence,) = judge(fuse, host, True)
    assert words in sentence


def test_root_needs_no_helper_and_without_the_program_nothing_works():
    assert judge(but(helpers=(), no_new_privileges=True), ROOT, True) == ()
    assert "ratarmount" in judge(GOOD, ROOT, False)[0]


@pytest.mark.parametrize(
    "name, words",
    [
        ("wsl1_laptop", "WSL1"),
        ("docker_no_fuse_small_shm", "container"),
        ("docker_fuse_without_rights", "CAP_SYS_ADMIN"),
        ("seed004_minipc_wsl2", None),
    ],
)
def test_recorded_machines(name, words):
    machine = from_json(Machine, json.loads((MACHINES / f"{name}.json").read_text()))
    found = judge(machine.fuse, machine.host, True)
    assert any(words in sentence for sentence in found) if words else found == ()
