"""What an image is built from: sources in a fixed order and mode, wheels by hash, secrets apart."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bevrepro.core.errors import ConfigError, DiskError
from bevrepro.env import container_context as context
from bevrepro.env.container_context import Entry
from bevrepro.env.index import Index
from bevrepro.env.lockfile import LockFile, Pin

FILES = (
    Entry("Dockerfile", content=b"FROM x\n"),
    Entry("docker/run.sh", content=b"#!/bin/sh\n", executable=True),
)
WHEEL = "six-1.0-py3-none-any.whl"


def lock(*hashes, name="six", version="1.0"):
    return LockFile(Path("locks/x.txt"), (Pin(name, version, None, hashes),), "0" * 64)


def test_the_context_holds_what_the_files_copy_and_nothing_made_on_the_way():
    paths = [each.path for each in context.entries("FROM x\n", ())]
    assert paths == sorted(set(paths))
    tops = {path.split("/")[0] for path in paths}
    assert tops == {"Dockerfile", "bevrepro", "model", "envs", "patches", "docker"}
    assert not [path for path in paths if "__pycache__" in path or "/." in path or "/_envs" in path]
    assert "docker/wheels/README.md" in paths and "envs/locks/cpu.txt" in paths


def test_equal_files_make_equal_folders_whatever_the_mode_here(tmp_path):
    source = tmp_path / "a"
    source.write_bytes(b"1")
    digests = set()
    for mode in (0o600, 0o664):
        source.chmod(mode)
        digests.add(context.write_context((Entry("a", source),), tmp_path / "out"))
        assert (tmp_path / "out/a").stat().st_mode & 0o777 == 0o644
    assert len(digests) == 1


def test_a_folder_of_ours_is_written_again_and_what_is_gone_is_gone(tmp_path):
    out = tmp_path / "out"
    context.write_context(FILES, out)
    assert os.access(out / "docker/run.sh", os.X_OK)
    context.write_context(FILES[:1], out)
    assert sorted(path.name for path in out.iterdir()) == [context.MARKER, "Dockerfile"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["mine.txt", "docker/mine.txt", "Dockerfile"])
def test_foreign_and_edited_files_are_never_overwritten(tmp_path, name):
    out = tmp_path / "out"
    context.write_context(FILES, out)
    (out / name).write_text("mine")
    with pytest.raises(ConfigError, match=name):
        context.write_context(FILES, out)
    assert (out / name).read_text() == "mine"


@pytest.mark.parametrize("kind", ["empty folder", "link to a folder", "link to nothing"])
def test_folders_and_links_of_ones_own_are_foreign_too(tmp_path, kind):
    out = tmp_path / "out"
    context.write_context(FILES, out)
    mine = out / "docker/mine"
    mine.mkdir() if kind == "empty folder" else mine.symlink_to(tmp_path if "folder" in kind else "none")
    with pytest.raises(ConfigError, match="docker/mine"):
        context.write_context(FILES, out)
    assert os.path.lexists(mine)


@pytest.mark.parametrize("kind", ["file", "link", "folder with a forged marker"])
def test_what_is_no_folder_of_ours_stays_as_it_is(tmp_path, kind):
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "link":
        (tmp_path / "there").mkdir()
        out.symlink_to("there")
    else:
        out.mkdir()
        (out / "Dockerfile").write_text("mine")
        (out / context.MARKER).write_text("[1")
    with pytest.raises(ConfigError, match="did not write there"):
        context.write_context(FILES, out)
    assert out.is_symlink() or out.is_file() or (out / "Dockerfile").read_text() == "mine"


def test_a_full_disk_leaves_the_old_folder(tmp_path, monkeypatch):
    out = tmp_path / "out"
    before = context.write_context(FILES, out)

    def full(*words, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskError, match="No space left"):
        context.write_context(FILES, out)
    monkeypatch.undo()
    assert context.write_context(FILES, out) == before and [path.name for path in tmp_path.iterdir()] == [
        "out"
    ]


def test_only_packages_with_a_locked_hash_are_taken_along(tmp_path):
    good, other, edited = tmp_path / WHEEL, tmp_path / "other-1.0-py3-none-any.whl", tmp_path / "b" / WHEEL
    edited.parent.mkdir()
    for path, content in (
        (good, b"good"),
        (other, b"good"),
        (edited, b"bad"),
        (tmp_path / "six-1.0.txt", b"good"),
    ):
        path.write_bytes(content)
    locks = [lock(hashlib.sha256(b"good").hexdigest())]
    assert context.local_packages([edited.parent, tmp_path, tmp_path / "none"], locks) == (good,)


def test_an_sdist_is_a_package_too(tmp_path):
    (tmp_path / "six-1.0.tar.gz").write_bytes(b"s")
    locks = [lock(hashlib.sha256(b"s").hexdigest())]
    assert [path.name for path in context.local_packages([tmp_path], locks)] == ["six-1.0.tar.gz"]


def test_index_settings_become_a_secret_and_folders_of_this_machine_do_not(tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_bytes(b"CA")
    mirror = "https://me:word@mirror.example/simple"
    index = Index(mirror, ("file:///opt/x",), (str(tmp_path), "https://w.example/"), str(ca), timeout_s=9)
    handed = context.secrets(index, {})
    text = handed.contents["pip"].decode()
    assert f"index-url = {mirror}\n" in text and f"cert = {context.CERTIFICATE}\n" in text
    assert "find-links = /run/bevrepro/docker/wheels https://w.example/\n" in text
    assert str(tmp_path) not in text and "file://" not in text
    assert handed.contents["ca"] == b"CA" and handed.notes == (
        "file:///opt/x is a folder of this machine: not handed in",
    )
    assert context.local_folders(index) == (tmp_path,)


def test_nothing_to_hand_in_is_no_secret():
    assert context.secrets(Index(), {}) == context.Secrets({}, ())


def test_a_folder_of_certificates_is_told_and_left(tmp_path):
    handed = context.secrets(replace(Index(), cert=str(tmp_path)), {})
    assert "ca" not in handed.contents and "no single file" in handed.notes[0]


def test_a_mirror_that_cannot_be_read_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="none cannot be read"):
        context.secrets(Index(), {}, tmp_path / "none")


def test_the_image_has_the_part_of_the_lock_that_bevrepro_itself_needs(monkeypatch):
    import importlib.util

    place = context.docker_dir() / "control.py"
    spec = importlib.util.spec_from_file_location("control", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.control() == place.with_name("control.txt").read_text()
    needed = {pin.name for pin in context.control_lock().pins}
    assert {"typer", "rich", "uv", "ratarmount", "psutil", "packaging", "tomli"} <= needed
    assert not {"torch", "numpy", "pytest", "ruff"} & needed
