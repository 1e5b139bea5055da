"""kill -9 of the mount's daemon, and the archives taken away, in the middle of a training.

Tries: one training each through the mount (killed, mounted again, resumed) and in-process (killed, unlinked).
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from bevrepro.data import fuse, mountinfo, unmount
from tests.data.flow.walkers import walker

STEPS = 40
no_fuse = pytest.mark.skipif(bool(fuse.missing()), reason="; ".join(fuse.missing()))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small set with its infos; frames enough that the first steps do not see (and keep) all of them."""
    folder = tmp_path_factory.mktemp("made")
    goer = walker(folder / "home", unprivileged=False)
    goer.bevrepro("data", "synth", folder / "set", "--scenes", 3, "--samples", 16, "--scale", 0.1)
    roots = [word for path in archives(folder) for word in ("--data-root", path)]
    goer.bevrepro("data", "prepare", *roots, "--out", folder / "infos")
    return folder


def archives(folder):
    return [folder / "set/archives" / name for name in ("v1.0-mini.tgz", "can_bus.zip")]


@pytest.fixture
def goer(tmp_path):
    goer = walker(tmp_path / "home", unprivileged=False)
    yield goer
    for name in ("mnt", "other"):
        if mountinfo.at(mountinfo.read(), goer.home / name):
            unmount.detach(goer.home / name, dead=True)


def training(goer, made, *roots):
    """The words that train for STEPS steps."""
    data = [word for root in roots for word in ("--data-root", root)]
    where = ["--infos", made / "infos", "--work-dir", goer.home / "run", "--gpus", "0"]
    return ["train", "bevformer_micro", *data, *where, "--cfg-options", f"schedule.max_steps={STEPS}"]


def start_until_it_trains(goer, words):
    """The running child when its first checkpoint is written: the first step comes next."""
    child = goer.start([goer.python, "-m", "bevrepro", *words], stderr=subprocess.STDOUT)
    until_s = time.monotonic() + 120
    while not (goer.home / "run/iter_0.pth").is_file():
        assert child.poll() is None and time.monotonic() < until_s, child.communicate()[0]
        time.sleep(0.05)
    return child


def kill_daemon(place):
    """Of exactly this mount point."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(place) in words and any(b"ratarmount" in word for word in words):
            os.kill(int(process.name), signal.SIGKILL)
            return
    raise AssertionError(f"no daemon for {place}")


def finish(child):
    with child:
        out, _ = child.communicate(timeout=300)
    return child.returncode, out


@pytest.mark.slow
@pytest.mark.fuse
@no_fuse
def test_training_through_the_mount_stops_with_the_reason_and_resumes(made, goer):
    mnt = goer.home / "mnt"
    goer.bevrepro("data", "mount", *archives(made), mnt)
    child = start_until_it_trains(goer, training(goer, made, mnt))
    kill_daemon(mnt)
    rc, out = finish(child)
    assert rc in (4, 5) and "died" in out and "Traceback" not in out, (rc, out)
    assert "data mount" in out or "mount it again" in out, out
    goer.bevrepro("data", "mount", *archives(made), mnt)
    goer.bevrepro(*training(goer, made, mnt), "--resume", "auto")
    assert (goer.home / f"run/iter_{STEPS}.pth").is_file()


@pytest.mark.slow
@pytest.mark.fuse
@no_fuse
def test_training_in_process_does_not_notice_the_daemon(made, goer):
    mnt = goer.home / "mnt"
    goer.bevrepro("data", "mount", *archives(made), mnt)
    child = start_until_it_trains(goer, training(goer, made, *archives(made)))
    kill_daemon(mnt)
    rc, out = finish(child)
    assert rc == 0, out


@pytest.mark.slow
def test_training_in_process_goes_on_when_the_archives_are_deleted(made, goer):
    """What is open stays readable until it is closed."""
    own = [Path(shutil.copy(path, goer.home)) for path in archives(made)]
    child = start_until_it_trains(goer, training(goer, made, *own))
    for path in own:
        path.unlink()
    rc, out = finish(child)
    assert rc == 0 or (rc == 4 and "Traceback" not in out), (rc, out)
