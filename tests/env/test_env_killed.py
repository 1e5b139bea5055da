"""kill -9 at any moment, a full disk at any point: the old environment or the new one, then a rerun."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bevrepro.env.job import MARK, end_orphans
from tests.env.build_world import make_sdist, make_world, newer_alpha, receipt

MOUNTS = os.geteuid() == 0 and shutil.which("mount") is not None


@pytest.fixture
def world(tmp_path):
    made = make_world(tmp_path / "w", files=60)
    sdist = make_sdist(made.wheels, "gamma", "3.0")
    made.target(build='[build]\nsdists = ["gamma"]\nrequires = ["beta"]')
    made.lock(*sorted(made.wheels.glob("*.whl")), sdist)
    made.lock(made.wheels / "beta-2.0-py3-none-any.whl", name="tiny.build.txt")
    return made


def words(prefix):
    return ("env", "build", "--target", "tiny", "--prefix", prefix, "--python", sys.executable)


def kill_after(world, prefix, seconds):
    """Start a build and end it, and nothing else, the hard way. True where it was still at work."""
    child = world.start(*words(prefix))
    try:
        child.communicate(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        return True


def check_after_kill(world, prefix, allowed):
    """What PREFIX shows is whole: it has a receipt and answers; or there is nothing."""
    answer = world.answer(prefix)
    assert answer in allowed, answer
    if answer is not None:
        assert receipt(prefix)["selftest"][0]["ok"]


def killed_builds(world, tmp_path, count, seed):
    """A first build and an upgrade, each killed `count` times at other moments, each finished by a rerun."""
    chance, prefix = random.Random(seed), tmp_path / "env"
    started_s = time.monotonic()
    assert world.build(tmp_path / "whole")[0] == 0
    whole_s = time.monotonic() - started_s
    digests = [receipt(tmp_path / "whole")["digest"]]
    hits = 0
    for allowed in ((None, "one"), ("one", "two")):
        for _ in range(count):
            hits += kill_after(world, prefix, chance.uniform(0.1, whole_s))
            check_after_kill(world, prefix, allowed)
        code, _, err = world.build(prefix)
        assert code == 0, err
        digests.append(receipt(prefix)["digest"])
        assert world.answer(prefix) == allowed[1]
        newer_alpha(world)
        world.target()
    assert digests[0] == digests[1] != digests[2]
    assert hits > count / 2, "too few kills met a build at work"


def test_a_killed_build_leaves_the_old_or_the_new_and_goes_on(world, tmp_path):
    killed_builds(world, tmp_path, 3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_many_kills_leave_the_old_or_the_new_and_go_on(world, tmp_path, seed):
    killed_builds(world, tmp_path, 25, seed=100 + seed)


def test_what_a_killed_build_left_running_is_ended(tmp_path):
    argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    ours = subprocess.Popen(argv, env={**os.environ, MARK: str(tmp_path)})
    other = subprocess.Popen(argv, env={**os.environ, MARK: str(tmp_path / "other")})
    try:
        end_s = time.monotonic() + 10
        while not end_orphans(tmp_path) and time.monotonic() < end_s:
            time.sleep(0.05)
        assert ours.wait(timeout=10) == -signal.SIGKILL and other.poll() is None
    finally:
        for each in (ours, other):
            each.kill()
            each.wait()


def test_a_step_cut_off_inside_the_environment_begins_it_anew(world, tmp_path):
    prefix = tmp_path / "env"
    assert world.build(prefix, FAKE_FAILS="1")[0] == 9
    (build,) = prefix.with_name("env.builds").glob("[0-9a-f]*")
    steps = build / "bevrepro-steps"
    done = next(steps.glob("*-wheels.json"))
    done.unlink()  # as if it had been killed before it could say so
    stray = next(build.glob("lib/python3*/site-packages")) / "half.py"
    stray.touch()
    code, _, err = world.build(prefix)
    assert code == 0 and not stray.exists() and world.answer(prefix) == "one", err


@pytest.fixture
def small_disk(tmp_path):
    """A file system of so many KiB; skipped where nobody may mount one."""
    if not MOUNTS:
        pytest.skip("mounting a small tmpfs needs root")
    place = tmp_path / "small"
    place.mkdir()
    mounted = []

    def mount(kib: int) -> Path:
        if mounted:
            subprocess.run(["umount", "-l", place], check=True)
            mounted.clear()
        options = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", place]
        done = subprocess.run(options, capture_output=True)
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.decode()[:80]}")
        mounted.append(place)
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", "-l", place], check=True)


def full_at(world, small_disk, tmp_path, sizes):
    codes = []
    for kib in sizes:
        prefix = small_disk(kib) / "env"
        code, _, err = world.build(prefix)
        codes.append(code)
        assert code in (0, 8), f"{kib} KiB: {code}: {err}"
        assert world.answer(prefix) == ("one" if code == 0 else None)
    return codes


def test_a_full_disk_is_said_and_shows_nothing_half(world, small_disk, tmp_path):
    assert full_at(world, small_disk, tmp_path, (40, 260, 20000)) == [8, 8, 0]


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_point_is_said(world, small_disk, tmp_path):
    codes = full_at(world, small_disk, tmp_path, [*range(4, 900, 28), 20000])
    assert codes[0] == 8 and codes[-1] == 0


@pytest.mark.slow
def test_more_room_lets_a_full_build_finish(world, small_disk, tmp_path):
    place = small_disk(300)
    assert world.build(place / "env")[0] == 8
    subprocess.run(["mount", "-o", "remount,size=20000k", place], check=True)
    assert world.build(place / "env")[0] == 0 and world.answer(place / "env") == "one"


def test_too_little_room_is_said_before_anything_is_built(world, tmp_path):
    path = world.root / "envs/targets/tiny.toml"
    path.write_text(path.read_text().replace("needs_gib = 0.0", "needs_gib = 1000000.0"))
    code, _, err = world.build(tmp_path / "env")
    assert code == 8 and "1000000.0" in err and "--prefix" in err
