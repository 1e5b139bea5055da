"""data bench: what it would do, and that it cleans up."""

import shutil

import pytest

from bevrepro.core.errors import DataError, DiskError
from bevrepro.data import bench


@pytest.fixture(autouse=True)
def no_fuse(monkeypatch):
    monkeypatch.setattr(bench.fuse, "missing", lambda: ("no FUSE here",))


def test_the_plan_says_what_is_read_and_why_nothing_is_mounted(tmp_path):
    said = bench.plan((), 0.5, tmp_path, False)
    assert any("0.5 GB" in line for line in said.sentences()) and said.not_mounted == ("no FUSE here",)
    assert bench.plan((), 0.5, tmp_path, True).not_mounted == ("--no-fuse was given",)


def test_too_little_room_and_missing_archives_are_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 8, 10**9))
    with pytest.raises(DiskError, match="1.0 GB free"):
        bench.plan((), 1.0, tmp_path / "new", True)
    with pytest.raises(DataError, match="does not exist"):
        bench.plan((tmp_path / "no.tar",), 1.0, tmp_path, True)
    assert list(tmp_path.iterdir()) == []


def test_the_workplace_is_removed_also_after_an_error(tmp_path):
    planned = bench.plan((), 0.1, tmp_path, True)
    with pytest.raises(KeyboardInterrupt), bench.workplace(planned) as folder:
        (folder / "set").mkdir()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_without_fuse_nothing_is_mounted(tmp_path):
    planned = bench.plan((), 0.1, tmp_path, False)
    with bench.mounts(planned, ["a.tar", "a.tgz"], tmp_path, print) as mounted:
        assert mounted == {}
