"""A full disk during index, repack, prepare and extract: exit code 8, what was there stays, then it goes on.

Tries: a tmpfs of each size listed (root), and files limited to each length listed (anyone); for repack also
three disks that are full only in the middle of it.  All of it is slow; by default there is test_repack.py
(12 disks that only pretend).
"""

import errno
import gzip
import hashlib
import io
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile

import pytest

from tests.data.flow.walkers import ROOT, walker

COMMANDS = ("index", "repack", "prepare", "extract")
ROOMS_KB = (16, 400, 1500)
DISK = 8  # the exit code


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "set"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "model")}
    small = ["--scenes", "4", "--samples", "6", "--scale", "0.05"]
    made = subprocess.run(
        [sys.executable, "-m", "bevformer", "synth", out, *small], env=env, capture_output=True
    )
    assert made.returncode == 0, made.stderr
    return [out / "archives/v1.0-mini.tgz", out / "archives/can_bus.zip"]


def words_of(command, archives, out):
    roots = [word for path in archives for word in ("--data-root", path)]
    return {
        "index": ["index", *archives],
        "repack": ["repack", *archives[:1], "--out", out],
        "prepare": ["prepare", *roots, "--out", out],
        "extract": ["extract", *roots, "--out", out],
    }[command]


def digest(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.name != "index.json"
    }


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a tmpfs of so many kB, or skips; taken away afterwards."""
    places = []

    def make(kilobytes):
        place = tmp_path / f"disk{kilobytes}"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
        places.append(place)
        return place

    yield make
    for place in places:
        subprocess.run(["umount", "-l", place], check=True)


def check_kind(done, words):
    assert done.returncode == DISK, (words, done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr, done.stderr
    assert os.strerror(errno.ENOSPC).lower() in done.stderr.lower() or "space" in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_said_and_what_was_there_stays(tmp_path, archives, small_disk, command):
    calm = walker(tmp_path / "calm", unprivileged=False)
    calm.bevrepro("data", *words_of(command, archives, calm.home / "out"))
    whole = digest(calm.home / "out")
    failed = 0
    for kilobytes in ROOMS_KB:
        disk = small_disk(kilobytes)
        (disk / "mine").write_text("mine")
        goer = walker(tmp_path / f"home{kilobytes}", unprivileged=False)
        if command == "index":
            (goer.home / "cache").symlink_to(disk)
        words = words_of(command, archives, disk / "out")
        done = goer.run(goer.python, "-m", "bevrepro", "data", *words)
        assert (disk / "mine").read_text() == "mine"
        if done.returncode == 0:
            assert digest(disk / "out") == whole
            continue
        failed += 1
        check_kind(done, words)
        assert set(digest(disk / "out").items()) <= set(whole.items())
        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)  # some space is freed
        if command == "extract" and (disk / "out").exists():
            shutil.rmtree(disk / "out")
        goer.bevrepro("data", *words)
        assert digest(disk / "out") == whole
    assert failed, "no disk was small enough"


def limit_of(length):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that write fails with EFBIG, as a quota would
        resource.setrlimit(resource.RLIMIT_FSIZE, (length, length))

    return limit


@pytest.mark.slow
@pytest.mark.parametrize("command", ["extract", "prepare", "repack"])
def test_a_limit_on_files_is_a_full_disk_too(tmp_path, archives, command):
    goer = walker(tmp_path / "home", unprivileged=False)
    goer.bevrepro("data", "index", *archives)
    words = words_of(command, archives, goer.home / "out")
    argv = [goer.python, "-m", "bevrepro", "data", *words]
    with goer.start(argv, preexec_fn=limit_of(20_000)) as child:
        out, err = child.communicate(timeout=120)
    assert child.returncode == DISK and "Traceback" not in err, (child.returncode, out, err)
    goer.bevrepro("data", *words)


def small_looking(path):
    """A .tgz of two members, 160 MB that shrink to 2 MB and 20 MB that do not: its size promises 20 MB."""
    tar, content = io.BytesIO(), random.Random(3).randbytes(4 << 20)
    with tarfile.open(fileobj=tar, mode="w") as out:
        for number in range(45):
            entry = tarfile.TarInfo(f"samples/CAM_FRONT/{number:03d}.jpg")
            entry.size = len(content)
            body = number.to_bytes(4, "big") + (content[4:] if number >= 40 else bytes(len(content) - 4))
            out.addfile(entry, io.BytesIO(body))
    data = tar.getbuffer()
    path.write_bytes(gzip.compress(data[: 160 << 20], 1) + gzip.compress(data[160 << 20 :], 0))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("disk_mb, kept_mb", [(50, 0), (100, 64), (150, 128)])
def test_a_disk_that_fills_up_in_the_middle_of_a_repack(tmp_path, small_disk, disk_mb, kept_mb):
    """There seemed to be room, so it is found out late; the next run goes on from there."""
    disk, tgz = small_disk(disk_mb << 10), small_looking(tmp_path / "v1.0-trainval01_blobs.tgz")
    goer = walker(tmp_path / "home", unprivileged=False)
    made = disk / "out/v1.0-trainval01_blobs.tar"
    part = made.with_name(f".{made.name}.part")
    words = ["repack", tgz, "--out", disk / "out"]
    done = goer.run(goer.python, "-m", "bevrepro", "data", *words)
    check_kind(done, words)
    assert not made.exists() and ("is kept" in done.stderr) == (kept_mb > 0) == part.exists()
    assert (part.stat().st_size if part.exists() else 0) >> 20 == kept_mb
    subprocess.run(["mount", "-o", "remount,size=250m", disk], check=True)  # some space is freed
    (one,) = goer.json("data", *words)["archives"]
    assert (one["resumed_at_bytes"] >> 20, one["files"]) == (kept_mb, 45)
    with gzip.open(tgz) as expected, made.open("rb") as found:
        while block := expected.read(1 << 20):
            assert found.read(len(block)) == block
        assert not found.read().strip(b"\0")
    assert {path.name for path in (disk / "out").iterdir()} == {f".{made.name}.repacked.json", made.name}
