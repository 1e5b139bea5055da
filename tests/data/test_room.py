"""Free space and reading speed, looked at before indexing."""

import os

from bevrepro.data import room
from bevrepro.data.archives import recognise


def test_a_cache_that_is_not_there_yet_has_the_room_of_the_disk_it_will_be_on(tmp_path, home):
    usage = os.statvfs(tmp_path)
    found = room.look([])
    assert found.cache == home / "cache" and not found.cache.exists()
    assert abs(found.cache_free_b - usage.f_bavail * usage.f_frsize) < 1 << 30


def test_the_speed_is_read_from_the_largest_archive_and_small_ones_are_not_measured(tmp_path, tgz):
    assert room.look([recognise(tgz)]).read_b_per_s is None
    large = tmp_path / "large.tgz"
    with large.open("wb") as file:
        file.write(b"\x1f\x8b\x08")
        file.truncate(40 << 20)
    found = room.look([recognise(tgz), recognise(large)])
    assert found.read_b_per_s > 1e6 and found.read_from == str(large) and found.filesystem
