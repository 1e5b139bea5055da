"""Mounts are remembered in one file that is whole or an error."""

import threading
from pathlib import Path

import pytest

from bevrepro.core.errors import MountError
from bevrepro.data import remembered
from bevrepro.data.remembered import Remembered


def one(place, *archives):
    return Remembered(place, archives or ("/data/a.tgz",), remembered.FUSE, "2026-01-01T00:00:00+00:00", True)


def test_what_is_added_is_there_until_it_is_forgotten():
    remembered.add(one("/mnt/a"))
    remembered.add(one("/mnt/b"))
    remembered.add(one("/mnt/a", "/data/new.tgz"))
    assert remembered.get(Path("/mnt/a")) == one("/mnt/a", "/data/new.tgz")
    remembered.forget(Path("/mnt/a"))
    assert remembered.load() == [one("/mnt/b")]


def test_nothing_is_remembered_at_first():
    assert remembered.load() == [] and remembered.get(Path("/mnt/a")) is None


@pytest.mark.parametrize(
    "text", ["", "[]", '{"mounts": [{"mountpoint": 1}]}', '{"mounts": [{"archives": []}]}']
)
def test_a_file_that_is_not_ours_is_an_error(home, text):
    (home / "state").mkdir(parents=True)
    (home / "state/mounts.json").write_text(text)
    with pytest.raises(MountError, match="mounts.json"):
        remembered.load()


def test_two_at_once_lose_nothing():
    threads = [threading.Thread(target=remembered.add, args=(one(f"/mnt/{n}"),)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(remembered.load()) == 12
