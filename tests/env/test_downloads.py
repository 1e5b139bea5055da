"""Locked packages as files, from a folder that stands for an index."""

import hashlib
import json
import sys
import zipfile
from pathlib import Path

import pytest

from bevrepro.core.errors import DataError, MachineError
from bevrepro.env import downloads
from bevrepro.env.downloads import Located, download, download_all, locate
from bevrepro.env.index import Index
from bevrepro.env.interpreter import Interpreter
from bevrepro.env.lockfile import Pin

HERE = Interpreter(sys.executable, "3.11.7", "CPython", "linux-x86_64", sys.executable)


def wheel(folder: Path, name: str, version: str) -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        info = f"{name}-{version}.dist-info"
        archive.writestr(f"{name}.py", "x = 1\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\nRoot-Is-Purelib: true\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A folder of wheels and an index that asks it alone."""
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "shop é"
    folder.mkdir()
    return folder, Index(no_index=True, find_links=(str(folder),))


def test_a_locked_wheel_is_found_fetched_and_then_taken_from_the_cache(shop):
    folder, index = shop
    path = wheel(folder, "small", "1.0")
    pin = Pin("small", "1.0", None, ("0" * 64, sha256(path)))
    (found,) = locate([pin], (), HERE, index)
    (kept,) = download_all((found,))
    assert kept.name == path.name and kept.read_bytes() == path.read_bytes()
    path.unlink()
    assert download(found) == kept
    kept.write_bytes(b"changed")
    with pytest.raises(MachineError, match="could not be downloaded"):
        download(found)


def test_a_file_that_was_not_locked_is_refused(shop):
    folder, index = shop
    wheel(folder, "small", "1.0")
    with pytest.raises(DataError, match="small 1.0 is offered, but not the file that was locked|sha256"):
        download_all(locate([Pin("small", "1.0", None, ("0" * 64,))], (), HERE, index))


def test_a_file_that_changed_after_it_was_found_is_refused(shop):
    folder, index = shop
    path = wheel(folder, "small", "1.0")
    (found,) = locate([Pin("small", "1.0", None, (sha256(path),))], (), HERE, index)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataError, match="not the file that was locked"):
        download(found)


def test_a_package_that_cannot_be_had_is_named_with_the_mirror_option(shop):
    _, index = shop
    with pytest.raises(MachineError, match="small") as caught:
        locate([Pin("small", "1.0", None, ("0" * 64,))], (), HERE, index)
    assert "--index-url" in caught.value.do


def test_a_wheel_comes_through_the_proxy_that_pip_is_told_of(shop, mirror):
    path = wheel(shop[0], "small", "1.0")
    mirror.add("http://nowhere.invalid/small.whl", path.read_bytes())
    via = Index(proxy=mirror.url).via
    found = Located("small", "1.0", path.name, "http://nowhere.invalid/small.whl", (sha256(path),), via)
    assert download(found).read_bytes() == path.read_bytes()


def test_an_unhashed_requirement_is_found_too(shop):
    folder, index = shop
    wheel(folder, "torch", "2.0+cpu")
    (found,) = locate([], (), HERE, index, unhashed=["torch==2.0+cpu"])
    assert found.file == "torch-2.0+cpu-py3-none-any.whl" and found.hashes == ()


def test_for_an_sdist_uv_is_asked_for_no_wheel(shop, monkeypatch):
    asked = []

    def run(argv, **options):
        asked.extend(map(str, argv))
        row = '[[packages]]\nname = "mmcv-full"\nversion = "1.6.0"\nsdist = {url = "https://h/mmcv-full-1.6.0.tar.gz"}'
        Path(argv[argv.index("-o") + 1]).write_text(row)
        return downloads.proc.Done(0, "", "")

    monkeypatch.setattr(downloads.proc, "run", run)
    index = Index(index_url="https://me:word@h/simple")
    (found,) = locate([Pin("mmcv-full", "1.6.0", None, ("0" * 64,))], ["mmcv_full"], HERE, index)
    assert "--no-binary mmcv-full" in " ".join(asked) and "--no-deps" in asked
    assert found.file == "mmcv-full-1.6.0.tar.gz" and found.url == "https://me:word@h/mmcv-full-1.6.0.tar.gz"


def test_an_answer_that_is_no_lock_is_told(shop, monkeypatch):
    def run(argv, **options):
        Path(argv[argv.index("-o") + 1]).write_text(json.dumps({}))
        return downloads.proc.Done(0, "", "")

    monkeypatch.setattr(downloads.proc, "run", run)
    with pytest.raises(MachineError, match="no pylock"):
        locate([Pin("small", "1.0", None, ("0" * 64,))], (), HERE, shop[1])
