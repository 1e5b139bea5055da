"""A buildah whose images, containers and caches lie in one folder, which goes away with everything in it."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from bevrepro.core import proc

STORAGE = """[storage]
driver = "{driver}"
graphroot = "{folder}/storage"
runroot = "{folder}/run"
[storage.options.overlay]
skip_mount_home = "true"
"""


@dataclass(frozen=True)
class Buildah:
    """Calls buildah; `folder` holds its storage, caches and temporary files."""

    folder: Path
    driver: str

    def __call__(self, *words, timeout_s=900):
        """stdout; AssertionError with what it said where it fails."""
        done = said(["buildah", *words], timeout_s)
        assert done.ok, f"buildah {words[0]}: {done.stderr[-4000:]}"
        return done.stdout.strip()

    def run(self, box, *words):
        """stdout of a command in a container. A chroot is enough, and is there without runc."""
        return self("run", "--isolation", "chroot", "--network", "host", box, "--", *words)


def said(words, timeout_s=900, env=None):
    """A finished program, whatever its exit code; one that hangs is ended."""
    return proc.run(words, timeout_s=timeout_s, env=env)


def last_line(done):
    """Why a program failed, in at most 300 letters."""
    if done.timed_out:
        return "it did not end in time"
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1].strip()[-300:] if lines else f"exit code {done.rc}"


def private_folder():
    """Where buildah itself would put temporary files; skips where nothing can be written."""
    place = os.environ.get("TMPDIR") or "/var/tmp"
    try:
        return Path(tempfile.mkdtemp(prefix="bevrepro-container-", dir=place))
    except OSError as error:
        pytest.skip(f"{place} cannot be written ({error.strerror}); TMPDIR names another folder")


def use(folder, driver):
    """Why buildah cannot keep and mount containers there with that driver; None where it can."""
    (folder / "storage.conf").write_text(STORAGE.format(folder=folder, driver=driver))
    done = said(["buildah", "from", "scratch"])
    if done.ok:
        box = done.stdout.strip()
        done = said(["buildah", "mount", box])
        if done.ok:
            done = said(["touch", f"{done.stdout.strip()}/probe"])
        said(["buildah", "rm", box])
    return None if done.ok else f"{driver}: {last_line(done)}"


def forget(folder):
    """Everything away, mounts first; AssertionError for what stays.

    No `buildah rmi --all`: without its storage.conf (on a full disk, for one) it would empty the user's.
    """
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        place = line.split()[4]
        if place.startswith(f"{folder}/"):
            said(["umount", "--lazy", place])
    shutil.rmtree(folder, ignore_errors=True)
    assert not folder.exists(), f"{folder} could not be removed"
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
