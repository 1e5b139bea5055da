"""Debian's packages from the mirror that apt uses."""

import hashlib
from pathlib import Path

import pytest

from bevrepro.core import proc
from bevrepro.env import debs
from bevrepro.env.cuda_recipe import Part
from bevrepro.env.fetch import NotFetched, silent

PATH = "pool/non-free/n/nvidia-cuda-toolkit/nvidia-cuda-toolkit_11.8.89~11.8.0-5~deb12u1_amd64.deb"
CONTENT = b"a package"
PART = Part("deb", "nvidia-cuda-toolkit", "1", PATH, hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), ())
APT = """http://deb.debian.org/debian/
http://deb.debian.org/debian-security/
https://mirror.example/ubuntu/
https://download.docker.example/linux/debian
http://deb.debian.org/debian/
"""


@pytest.fixture
def apt(monkeypatch):
    def set_up(text):
        debs.mirrors_of_apt.cache_clear()
        monkeypatch.setattr(proc, "which", lambda name: Path(f"/usr/bin/{name}"))
        monkeypatch.setattr(proc, "run", lambda argv, **more: proc.Done(0, text, ""))

    yield set_up
    debs.mirrors_of_apt.cache_clear()


def test_apts_own_mirrors_are_asked_and_of_ubuntu_the_folder_beside(apt):
    apt(APT)
    assert debs.mirrors_of_apt() == (
        "http://deb.debian.org/debian",
        "https://mirror.example/debian",
        "https://download.docker.example/linux/debian",
    )


def test_a_named_mirror_is_the_only_one(apt):
    apt(APT)
    assert debs.addresses(PART, "http://m.example/debian/") == [f"http://m.example/debian/{PATH}"]


def test_a_system_without_apt_is_told_of_the_option(monkeypatch, tmp_path):
    debs.mirrors_of_apt.cache_clear()
    monkeypatch.setattr(proc, "which", lambda name: None)
    with pytest.raises(NotFetched, match="--deb-mirror"):
        debs.fetch_deb(PART, debs.addresses(PART, None), tmp_path / "x", silent)


def test_a_package_comes_by_http(mirror, tmp_path):
    mirror.add(PATH, CONTENT)
    target = tmp_path / "x.deb"
    assert debs.fetch_deb(PART, debs.addresses(PART, mirror.url), target, silent).read_bytes() == CONTENT


def test_what_only_apt_reaches_comes_by_its_helper_and_is_checked(monkeypatch, tmp_path):
    asked = []

    def helper(argv, **more):
        asked.append(argv[2])
        Path(argv[3]).write_bytes(CONTENT if "good" in argv[2] else b"other")
        return proc.Done(0, "", "")

    monkeypatch.setattr(debs, "HELPER", tmp_path)
    monkeypatch.setattr(Path, "is_file", lambda path: path == tmp_path or path.exists())
    monkeypatch.setattr(proc, "run", helper)
    urls = ["mirror+file:/bad/x", "mirror+file:/good/x"]
    assert debs.fetch_deb(PART, urls, tmp_path / "x.deb", silent).read_bytes() == CONTENT
    assert asked == urls


def test_a_changed_package_is_not_asked_of_apt_again(mirror, tmp_path, monkeypatch):
    mirror.add(PATH, b"a packagE")
    monkeypatch.setattr(proc, "run", lambda *words, **more: pytest.fail("apt was asked"))
    with pytest.raises(NotFetched, match="not the file that was measured"):
        debs.fetch_deb(PART, debs.addresses(PART, mirror.url), tmp_path / "x.deb", silent)
