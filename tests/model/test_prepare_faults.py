"""`prepare` cut off by Ctrl-C, kill -9 at random moments and a full disk: what was there stays whole."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bevformer import forked
from bevformer.data import prepare
from bevformer.data.infos import load_infos
from bevformer.data.infos_frames import Frames
from bevformer.errors import DataError, UserError
from bevformer.talk import Talk

sys.path.insert(0, str(Path(__file__).parent))
import small_nuscenes  # noqa: E402

MODEL = Path(__file__).parents[2] / "model"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return small_nuscenes.write(tmp_path_factory.mktemp("nusc"))


@pytest.fixture(scope="module")
def prepared(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "infos"
    prepare.main(["--data-root", root, "--out", str(folder)], Talk(events=False))
    return folder


@pytest.fixture
def out(prepared, tmp_path):
    """A copy that may be written over."""
    return shutil.copytree(prepared, tmp_path / "infos")


def contents(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def started(root, out):
    command = [sys.executable, "-m", "bevformer", "prepare", "--data-root", root, "--out", str(out)]
    env = dict(os.environ, PYTHONPATH=str(MODEL))
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )


def members(group):
    """Processes of the group that still run."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.getpgid(int(entry)) == group:
                with open("/proc/%s/stat" % entry) as stat:
                    found += [entry] if stat.read().rsplit(")", 1)[1].split()[0] != "Z" else []
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    "number, alone, tries",
    (
        (signal.SIGKILL, True, 1),
        pytest.param(signal.SIGINT, False, 20, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, True, 20, marks=pytest.mark.slow),
    ),
)
def test_cut_off_at_random_moments_the_old_files_stay_whole_and_nobody_is_left(
    root, out, number, alone, tries
):
    draw = random.Random(int(number))
    before = contents(out)
    whole = time.monotonic()
    assert started(root, out).wait() == 0
    whole = time.monotonic() - whole
    for _ in range(tries):
        child = started(root, out)
        time.sleep(draw.uniform(0.2, 1.0) * whole)
        try:
            os.kill(child.pid, number) if alone else os.killpg(child.pid, number)
        except ProcessLookupError:
            continue  # it had finished
        child.communicate()
        assert child.returncode in (0, 130, -number)
        deadline = time.monotonic() + 5
        while members(child.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not members(child.pid)
        for split in ("train", "val"):
            path = out / ("nuscenes_infos_temporal_%s.pkl" % split)
            assert isinstance(load_infos(str(path)).infos, Frames)
    assert started(root, out).wait() == 0  # the last one clears away what the killed ones left
    after = contents(out)
    assert set(after) == set(before) and not [name for name in os.listdir(out) if name.startswith(".")]
    assert all(after[name] == data for name, data in before.items() if not name.endswith("index.json"))


@pytest.mark.slow
@pytest.mark.parametrize("kib", (0, 16, 40, 80, 120, 160, 200))
def test_a_full_disk_leaves_the_old_files_and_nothing_else(root, tmp_path, kib):
    """On a file system of `kib` beyond what the old files take."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here: " + mounted.stderr.strip())
    try:
        prepare.main(["--data-root", root, "--out", str(place / "infos")], Talk(events=False))
        before = contents(place / "infos")
        room = os.statvfs(place)
        (place / "filler").write_bytes(b"x" * (room.f_bavail * room.f_bsize - kib * 1024))
        child = started(root, place / "infos")
        said = child.communicate()[1].decode()
        assert child.returncode == 8 and "No space left" in said and "Traceback" not in said
        assert contents(place / "infos") == before
        assert len(os.listdir(place / "infos")) == 4
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_file_of_someone_else_with_the_twins_name_is_not_replaced(root, tmp_path):
    (tmp_path / "nuscenes_infos_temporal_train.bev").mkdir()
    (tmp_path / "nuscenes_infos_temporal_train.bev" / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="no twin of prepared infos"):
        prepare.main(["--data-root", root, "--out", str(tmp_path)], Talk(events=False))
    assert (tmp_path / "nuscenes_infos_temporal_train.bev" / "mine.txt").read_text() == "x"


def test_what_is_written_does_not_depend_on_the_number_of_processes(root, out, tmp_path):
    for jobs in ("1", "3"):
        argv = ["--data-root", root, "--out", str(tmp_path / jobs), "--jobs", jobs]
        prepare.main(argv, Talk(events=False))
        for path in (tmp_path / jobs).glob("*.pkl"):
            assert path.read_bytes() == (out / path.name).read_bytes()


@pytest.mark.parametrize(
    "sweeps, most",
    (("3", 3), *(pytest.param(*one, marks=pytest.mark.slow) for one in (("0", 0), ("1", 1), ("30", 12)))),
)
def test_sweeps_are_as_many_as_asked_for(root, out, tmp_path, sweeps, most):
    prepare.main(["--data-root", root, "--out", str(tmp_path / "x"), "--sweeps", sweeps], Talk(events=False))
    name = "nuscenes_infos_temporal_train.pkl"
    few, all_ten = (load_infos(str(folder / name)) for folder in (tmp_path / "x", out))
    assert max(len(info["sweeps"]) for info in few.infos) == most
    assert few.metadata["bevrepro_sweeps"] == int(sweeps)
    for a, b in zip(few.infos, all_ten.infos):
        assert [one["sample_data_token"] for one in a["sweeps"]][:10] == [
            one["sample_data_token"] for one in b["sweeps"]
        ][: int(sweeps)]


def numbers(*values):
    yield from values


def failing():
    yield 1
    raise DataError("seen", "why", "do")


def dying():
    yield 1
    os.kill(os.getpid(), signal.SIGKILL)


def crashing():
    yield 1 // 0


def test_a_child_gives_its_values_in_order_and_its_errors_whole():
    with forked.child(numbers, 1, 2, b"x" * 10**6) as values:
        assert [next(values), next(values), len(next(values)), list(values)] == [1, 2, 10**6, []]
    with forked.child(failing) as values, pytest.raises(DataError) as caught:
        list(values)
    assert str(caught.value) == "seen\nwhy\ndo"
    with forked.child(crashing) as values, pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(values)


def test_a_child_that_was_killed_is_said_to_be():
    with forked.child(dying) as values, pytest.raises(UserError, match="(?s)SIGKILL.*memory.*--jobs 1"):
        list(values)
