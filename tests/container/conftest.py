"""A private buildah and a base image.

Where no container image can be built the tests skip, with what stood in the way as the reason. After that
nothing skips: what fails then is a fault of ours.
"""

import os
import shutil
import sys
from dataclasses import replace

import pytest

from bevrepro.core.units import GIB, size
from bevrepro.env.index import configured, uv
from tests.container.private_buildah import Buildah, forget, last_line, private_folder, said, use

PROGRAMS = ("buildah", "debootstrap")
NEEDS_GIB = {"overlay": 12, "vfs": 12}  # measured: up to 8.2 and 8.1


def skip_on_a_full_disk(folder, driver):
    free_b, needed_gib = shutil.disk_usage(folder).free, NEEDS_GIB[driver]
    if free_b < needed_gib * GIB:
        pytest.skip(
            f"{size(free_b)} are free in {folder.parent}, {needed_gib} GiB are needed with {driver}; "
            "TMPDIR names another folder"
        )


@pytest.fixture(scope="session")
def buildah():
    """A Buildah that can keep containers, with overlay or else with vfs."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not on PATH: {', '.join(missing)} (apt-get install {' '.join(missing)})")
    if os.geteuid() != 0:
        pytest.skip("not root, which debootstrap and a build by buildah need")
    folder = private_folder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setenv("CONTAINERS_STORAGE_CONF", f"{folder}/storage.conf")
        for name in ("STORAGE_DRIVER", "STORAGE_OPTS", "BUILDAH_ISOLATION"):
            patch.delenv(name, raising=False)
        try:
            skip_on_a_full_disk(folder, min(NEEDS_GIB, key=NEEDS_GIB.__getitem__))
            problems = []
            for driver in NEEDS_GIB:
                problems.append(use(folder, driver))
                if problems[-1] is None:
                    break
            else:
                pytest.skip(f"buildah cannot keep a container here ({'; '.join(problems)})")
            skip_on_a_full_disk(folder, driver)
            yield Buildah(folder, driver)
        finally:
            forget(folder)


@pytest.fixture(scope="session")
def index(tmp_path_factory):
    """The package index as a container sees it, asked for one package; skips where it does not answer."""
    here = configured()
    remote = replace(
        here,
        index_url=here.index_url if "://" in (here.index_url or "") else None,
        extra=tuple(url for url in here.extra if not url.startswith("file:")),
        find_links=tuple(place for place in here.find_links if place.startswith("http")),
    )
    if here.no_index or (here.index_url or "").startswith(("file:", "/")):
        pytest.skip(
            f"the package index is a folder of this machine ({here.said()}): a container cannot see it"
        )
    words = ["pip", "install", "--dry-run", "--no-cache", "--no-deps", "--python", sys.executable]
    words += ["--target", tmp_path_factory.mktemp("x")]
    done = said([uv(), *words, *remote.arguments(), "packaging"], env=remote.environment())
    if not done.ok:
        pytest.skip(f"no package index can be reached over the network ({last_line(done)})")
    return here


@pytest.fixture(scope="session")
def base(buildah):
    """The name of an image of Debian 12, without what debootstrap copies from this machine."""
    root, name = buildah.folder / "root", "localhost/bevrepro-test-base"
    done = said(["debootstrap", "--variant=minbase", "bookworm", root])
    if not done.ok:
        pytest.skip(f"debootstrap cannot make a base here ({last_line(done)})")
    for copied in ("etc/hostname", "etc/resolv.conf"):
        (root / copied).unlink(missing_ok=True)
    for folder in ("var/cache/apt/archives", "var/log"):
        for path in (root / folder).rglob("*"):
            path.is_file() and path.unlink()
    shutil.rmtree(root / "dev")  # every container gets its own
    (root / "dev").mkdir()
    box = buildah("from", "scratch")
    buildah("add", "--quiet", box, root, "/")
    shutil.rmtree(root)
    done = said(["buildah", "run", "--isolation", "chroot", "--network", "host", box, "--", "/bin/true"])
    if not done.ok:
        pytest.skip(f"buildah cannot start a program in a container here ({last_line(done)})")
    buildah("commit", "--quiet", "--rm", "--timestamp", "0", box, name)
    return name
