"""Ctrl-C at random moments of each data command: what it writes is whole or absent, the next run finishes.

Tries: 8 moments for each command in the slow run, 1 for one of them by default; seeded. A terminal sends
Ctrl-C to the whole group of processes, so the test does too.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.data.flow.walkers import ROOT, walker

ENDINGS = (0, 130, -signal.SIGINT)  # the last while Python itself was starting


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The .tgz and the CAN data of a small set."""
    out = tmp_path_factory.mktemp("made") / "set"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "model")}
    small = ["--scenes", "4", "--samples", "4", "--scale", "0.05"]
    made = subprocess.run(
        [sys.executable, "-m", "bevformer", "synth", out, *small], env=env, capture_output=True
    )
    assert made.returncode == 0, made.stderr
    return [out / "archives/v1.0-mini.tgz", out / "archives/can_bus.zip"]


@pytest.fixture(scope="module")
def infos(archives):
    """Beside the set, for `convert`."""
    top = archives[0].parents[2]
    goer = walker(top / "home", unprivileged=False)
    goer.bevrepro("data", *words_of("prepare", archives, top / "infos"))


def words_of(command, archives, out):
    roots = [word for path in archives for word in ("--data-root", path)]
    infos = archives[0].parents[2] / "infos/nuscenes_infos_temporal_train.pkl"
    return {
        "synth": ["synth", out, "--scenes", "2", "--samples", "2", "--scale", "0.05"],
        "verify": ["verify", *archives],
        "index": ["index", *archives],
        "repack": ["repack", *archives[:1], "--out", out],
        "prepare": ["prepare", *roots, "--out", out],
        "convert": ["convert", infos, out / "converted.pkl", "--to", "1.1"],
        "extract": ["extract", *roots, "--out", out],
    }[command]


COMMANDS = ("synth", "verify", "index", "repack", "prepare", "convert", "extract")
ONCE = ("convert", "extract")  # refuse to write what is there


def press_ctrl_c(goer, words, after_s):
    """(exit code, what it said); the whole group gets the signal."""
    argv = [goer.python, "-m", "bevrepro", "data", *words]
    with goer.start(argv, start_new_session=True) as child:
        try:
            child.wait(timeout=after_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=120)
    return child.returncode, out + err


def digest(folder):
    """Of all finished files below; a twin's index holds the date of its pickle, so only its name counts."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.name != "index.json"
        else ""
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def hidden(folder):
    """What is unfinished or was forgotten; locks and the record of a finished repack stay on purpose."""
    names = [path.name for path in folder.rglob(".*")]
    return [name for name in names if not name.endswith((".lock", ".repacked.json"))]


def interrupt(tmp_path, archives, command, tries):
    calm = walker(tmp_path / "calm", unprivileged=False)
    started_s = time.monotonic()
    calm.bevrepro("data", *words_of(command, archives, calm.home / "out"))
    took_s, whole = time.monotonic() - started_s, digest(calm.home / "out")
    rng = random.Random(command)
    for number in range(tries):
        goer = walker(tmp_path / f"try{number}", unprivileged=False)
        words = words_of(command, archives, goer.home / "out")
        rc, said = press_ctrl_c(goer, words, rng.uniform(0.1, took_s))
        assert rc in ENDINGS, (rc, said)
        assert rc == -signal.SIGINT or "Traceback" not in said, said
        left = digest(goer.home / "out")
        assert set(left.items()) <= set(whole.items()), set(left) - set(whole)
        assert command == "repack" or not hidden(goer.home), hidden(
            goer.home
        )  # repack goes on with its .part
        assert not list((goer.home / "tmp").iterdir()), list((goer.home / "tmp").iterdir())
        if not (command in ONCE and left):
            goer.bevrepro("data", *words, *(["--force"] if command == "synth" and left else []))
        assert digest(goer.home / "out") == whole and not hidden(goer.home / "out")


def test_ctrl_c_leaves_whole_files_and_the_next_run_finishes(tmp_path):
    """`synth` needs nothing that would have to be made first."""
    interrupt(tmp_path, [tmp_path, tmp_path], "synth", tries=1)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_at_more_moments(tmp_path, archives, infos, command):
    interrupt(tmp_path, archives, command, tries=8)
