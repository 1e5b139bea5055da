"""The whole way: archives as downloaded -> scan -> verify -> index -> mount -> prepare -> the devkit's score.

As this user and as an unprivileged one, through FUSE and without it; the devkit is used as it is.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bevrepro.data import mountinfo

from .walkers import ROOT, walker, why_not

DEVKIT = Path(__file__).with_name("devkit_run.py")
SMALL = ["--scenes", "2", "--samples", "2", "--scale", "0.05"]  # one trains, one validates
MINI_SIZED = ["--samples", "40", "--scale", "0.16"]  # ten scenes, 400 samples; the real one has 404


def synthesise(folder, *options):
    done = subprocess.run(
        [sys.executable, "-m", "bevformer", "synth", str(folder), *options],
        env={**os.environ, "PYTHONPATH": str(ROOT / "model")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return synthesise(tmp_path_factory.mktemp("small") / "set", *SMALL)


@pytest.fixture(scope="module")
def mini_sized(tmp_path_factory):
    return synthesise(tmp_path_factory.mktemp("mini") / "set", *MINI_SIZED)


@pytest.fixture
def goer(request):
    """The user of this test (root or nobody; None: nobody where that can be), whose mounts are taken away
    afterwards, whatever happened.

    Not below pytest's own folder: every pytest that starts closes that one to others.
    """
    top = Path(tempfile.mkdtemp(prefix="bevrepro-flow-"))
    top.chmod(0o755)
    wanted = not why_not(unprivileged=True, fuse=False) if request.param is None else request.param
    one = walker(top / "home", unprivileged=wanted)
    yield one
    for mount in mountinfo.read():
        if Path(mount.mountpoint).is_relative_to(top):
            away = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
            subprocess.run([*away, mount.mountpoint])
    shutil.rmtree(top)


def downloads(made, goer):
    """A folder of downloads, theirs: the .tgz and can_bus.zip under the names of the official files."""
    folder = goer.home / "downloads"
    folder.mkdir()
    for name in ("v1.0-mini.tgz", "can_bus.zip"):
        shutil.copy(made / "archives" / name, folder)
    if goer.uid is not None:
        for path in (folder, *folder.iterdir()):
            os.chown(path, goer.uid, goer.uid)
    return folder


def expected(made):
    """What devkit_run.py should find: counted from the files, not by the code under test."""
    root = made / "nuscenes"
    pictures = sum(path.stat().st_size for path in root.glob("samples/CAM*/*.jpg"))
    poses = sum(len(json.loads(path.read_text())) for path in root.glob("can_bus/*_pose.json"))
    samples = json.loads((root / "v1.0-mini/sample.json").read_text())
    scenes = json.loads((root / "v1.0-mini/scene.json").read_text())
    return dict(scenes=len(scenes), samples=len(samples), picture_bytes=pictures, pose_messages=poses)


def devkit(goer, root, split="mini_val"):
    done = goer.run(goer.python, DEVKIT, root, "v1.0-mini", split)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check_score(found, made):
    assert found.pop("score") == pytest.approx([1.0, 1.0]) and min(found.pop("mask")) > 0
    assert found == expected(made)


def look(goer, folder):
    """scan, verify and index, as one would after a download."""
    seen = json.loads(goer.bevrepro("data", "scan", folder, "--json", rc=1))  # smaller than the published one
    assert {one["is"] for one in seen["archives"]} == {"v1.0-mini.tgz", "can_bus.zip"}
    told = goer.json("data", "verify", folder)
    assert [one["read_through"] for one in told["archives"]] == [True, True]
    states = [one["state"] for one in goer.json("data", "index", folder)["archives"]]
    assert set(states) <= {"indexed", "was done"} and len(states) >= 2
    again = [one["state"] for one in goer.json("data", "index", folder)["archives"]]
    assert set(again) == {"was done"}
    return folder / "v1.0-mini.tgz", folder / "can_bus.zip"


def go_with_fuse(made, goer):
    mnt, overlay = goer.home / "nuscenes", goer.home / "overlay"
    overlay.mkdir()
    if goer.uid is not None:
        os.chown(overlay, goer.uid, goer.uid)
    answer = goer.json("data", "mount", *look(goer, downloads(made, goer)), overlay, mnt)
    assert answer["mode"] == "fuse", answer
    goer.bevrepro("data", "prepare", "--data-root", mnt, "--out", overlay)
    assert (overlay / "nuscenes_infos_temporal_train.pkl").is_file()
    check_score(devkit(goer, mnt), made)
    seen = goer.run("ls", mnt)
    assert {"nuscenes_infos_temporal_val.pkl", "can_bus", "samples"} <= set(seen.stdout.split())
    goer.bevrepro("data", "umount", mnt)
    assert str(mnt) not in [one["mountpoint"] for one in goer.json("data", "status")["mounts"]]


def go_without_fuse(made, goer):
    """The devkit reads folders: tables, maps and CAN data are written to one; pictures stay packed."""
    place, infos, tables = goer.home / "nuscenes", goer.home / "infos", goer.home / "tables"
    answer = goer.json("data", "mount", "--in-process", *look(goer, downloads(made, goer)), place)
    assert answer["mode"] == "in-process" and not place.exists()
    goer.bevrepro("data", "prepare", "--data-root", place, "--out", infos)
    assert (infos / "nuscenes_infos_temporal_val.pkl").is_file()
    goer.bevrepro("data", "extract", "--data-root", place, "--out", tables)
    assert {path.name for path in tables.iterdir()} == {"can_bus", "maps", "v1.0-mini"}
    found = devkit(goer, tables)
    assert found.pop("picture_bytes") == 0
    check_score({**found, "picture_bytes": expected(made)["picture_bytes"]}, made)


def go(made, goer, fuse):
    reason = why_not(unprivileged=goer.uid is not None, fuse=fuse)
    if reason:
        pytest.skip(reason)
    (go_with_fuse if fuse else go_without_fuse)(made, goer)


@pytest.mark.fuse
@pytest.mark.parametrize("goer", [None], indirect=True, ids=["somebody"])
def test_from_archives_to_the_devkit_s_score(small, goer):
    """On a mount and as `nobody` where this machine can; the slow ones try all four."""
    go(small, goer, fuse=not why_not(unprivileged=goer.uid is not None, fuse=True))


@pytest.mark.slow
@pytest.mark.fuse
@pytest.mark.parametrize("goer", [False, True], indirect=True, ids=["this user", "unprivileged"])
def test_a_mini_sized_set_on_a_mount(mini_sized, goer):
    go(mini_sized, goer, fuse=True)


@pytest.mark.slow
@pytest.mark.parametrize("goer", [False, True], indirect=True, ids=["this user", "unprivileged"])
def test_a_mini_sized_set_without_fuse(mini_sized, goer):
    go(mini_sized, goer, fuse=False)
