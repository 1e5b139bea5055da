"""Forecast and refusal: archives and recorded machines in, a sentence out."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bevrepro.core.codec import from_json
from bevrepro.core.errors import DiskError, MachineError
from bevrepro.core.machine import Machine
from bevrepro.data.archives import Archive
from bevrepro.data.preflight import MOUNT, READER, Room, forecast, judge, memory_b, task

MACHINES = Path(__file__).parents[1] / "machines"
OFFICIAL_B = (31_579_122_687, 41_727_447_974, 461_678_030)  # the first, the largest, the meta archive
ROOM = Room(Path("/cache"), cache_free_b=10**12, read_b_per_s=500e6)


def machine(name, **host):
    recorded = from_json(Machine, json.loads((MACHINES / f"{name}.json").read_text()))
    return replace(recorded, host=replace(recorded.host, **host))


def archive(size_b, kind="tgz"):
    return Archive(Path(f"/data/{size_b}.{kind}"), kind, size_b, 0)


def wanted(sizes_b=OFFICIAL_B, uses=(READER, MOUNT)):
    archives = [archive(size_b) for size_b in sizes_b]
    return forecast([task(one, use) for one in archives for use in uses], archives)


def test_the_peak_is_that_of_the_largest_archive_and_below_256_mb_for_all_official_ones():
    assert wanted([OFFICIAL_B[1]]).memory_b == wanted(OFFICIAL_B * 4).memory_b < 256e6


def test_time_and_disk_add_up_and_a_slow_disk_decides():
    one, two = wanted([10**9]), wanted([10**9] * 2)
    assert (two.time_s, two.disk_b) == (2 * one.time_s, 2 * one.disk_b)
    slow = forecast([task(archive(10**9), READER)], [], read_b_per_s=1e6)
    assert slow.time_s == 1000


def test_a_mount_of_twenty_archives_stays_below_500_mb_and_folders_cost_nothing():
    archives = [*[archive(2 * 10**9)] * 20, archive(0, "folder")]
    assert forecast([], archives).mount_memory_b < 500e6
    assert task(archives[-1], READER) is task(archives[-1], MOUNT) is task(archive(9, "tar"), READER) is None


@pytest.mark.parametrize("path", sorted(MACHINES.glob("*.json")), ids=lambda path: path.stem)
def test_every_recorded_machine_can_index_every_official_archive(path):
    recorded = from_json(Machine, json.loads(path.read_text()))
    assert judge(recorded, wanted(), ROOM).refusal is None


@pytest.mark.parametrize(
    "name, host, words",
    [
        ("wsl2_laptop_small_memory", {"memory_available_b": 90 << 20}, "[wsl2] write the line memory=4GB"),
        ("docker_no_fuse_small_shm", {"memory_limit_b": 128 << 20}, "docker run --memory 1g"),
        (
            "docker_no_fuse_small_shm",
            {"memory_limit_b": 8 << 30, "memory_room_b": 9 << 20},
            "docker run --memory",
        ),
        ("rtx4090_mixed_builds", {"memory_available_b": 90 << 20}, "Close programs"),
    ],
)
def test_too_little_memory_is_refused_with_what_to_change(name, host, words):
    refusal = judge(machine(name, **host), wanted(), ROOM).refusal
    assert isinstance(refusal, MachineError) and words in refusal.do
    assert ("WSL" in refusal.seen) == name.startswith("wsl2")


def test_nothing_to_do_needs_no_memory_and_the_unknown_does_not_stand_in_the_way():
    starved = machine("wsl2_laptop_small_memory", memory_available_b=1)
    assert judge(starved, forecast([], []), ROOM).refusal is None
    assert judge(starved, forecast([], []), ROOM, mounting=True).refusal is not None
    assert memory_b(Machine()) is None and judge(Machine(), wanted(), Room(Path("/cache"))).refusal is None


def test_a_full_cache_is_refused_before_anything_is_written():
    refusal = judge(machine("ci_vm_debian12"), wanted(), replace(ROOM, cache_free_b=1 << 20)).refusal
    assert isinstance(refusal, DiskError) and "BEVREPRO_CACHE" in refusal.do and "1.0 MiB" in refusal.seen


def test_a_slow_windows_drive_is_told_to_be_left():
    slow = replace(ROOM, read_b_per_s=0.1e6, read_from="/mnt/c/a.tgz", filesystem="9p")
    (note,) = judge(machine("wsl2_laptop_small_memory"), wanted(), slow).notes
    assert "/mnt/c/a.tgz" in note and "0.1 MB/s" in note and "copying" in note
    assert "decides" in judge(machine("ci_vm_debian12"), wanted(), slow).notes[-1]
