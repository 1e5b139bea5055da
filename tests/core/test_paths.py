"""Folders and whole-file writes."""

import errno
import os

import pytest

from bevrepro.core import paths
from bevrepro.core.errors import DiskError


def test_the_model_plane_is_found_in_a_checkout():
    assert (paths.model_dir() / "bevformer" / "__init__.py").is_file()


def test_the_model_plane_is_found_in_a_wheel(tmp_path, monkeypatch):
    (tmp_path / "bevrepro/_model/bevformer").mkdir(parents=True)
    (tmp_path / "bevrepro/_model/bevformer/__init__.py").touch()
    monkeypatch.setattr(paths, "PACKAGE_DIR", tmp_path / "bevrepro")
    assert paths.model_dir() == tmp_path / "bevrepro/_model"


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({"BEVREPRO_CACHE": "/own"}, "/own"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/bevrepro"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/bevrepro"),
        ({}, "/home/me/.cache/bevrepro"),
    ],
)
def test_the_cache_follows_the_environment(environment, expected, monkeypatch):
    for name in ("BEVREPRO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **environment}.items():
        monkeypatch.setenv(name, value)
    assert str(paths.cache_dir()) == expected


def test_a_write_replaces_the_whole_file_and_keeps_its_mode(tmp_path):
    target = tmp_path / "new" / "file.json"
    paths.atomic_write_text(target, "first")
    target.chmod(0o640)
    paths.atomic_write_text(target, "second: ü")
    assert target.read_text(encoding="utf-8") == "second: ü"
    assert target.stat().st_mode & 0o777 == 0o640
    assert os.listdir(target.parent) == ["file.json"]


def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    target = tmp_path / "file"
    target.write_text("old")

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(paths.os, "fsync", full)
    with pytest.raises(DiskError, match="No space left"):
        paths.atomic_write_text(target, "new")
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["file"]
