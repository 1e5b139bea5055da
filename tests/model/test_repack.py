"""A .tgz becomes a .tar whole or not at all, whatever ends the run."""

import errno
import gzip
import io
import json
import os
import random
import signal
import sys
import tarfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from packed import make  # noqa: E402

from bevformer.data import gzip_tar, repack, repack_job, repack_main  # noqa: E402
from bevformer.data.store import open_store  # noqa: E402
from bevformer.errors import DataError, DiskError  # noqa: E402

RNG = random.Random(11)
PICTURES = {
    f"{part}/CAM_FRONT/{i:03d}.jpg": RNG.randbytes(60_000 + i)
    for i in range(20)
    for part in ("samples", "sweeps")
}
FILES = {**PICTURES, "v1.0-mini/scene.json": b"[]", "maps/a.png": b"png" * 999}
KILLS, FULL = 40, 12  # tries; of the former 4 by default


@pytest.fixture(autouse=True)
def small_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(repack, "CHECKPOINT_BYTES", 100_000)
    monkeypatch.setattr(repack, "_CHUNK", 50_000)


@pytest.fixture(scope="module")
def whole():
    """The bytes of the .tgz, made once."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for name, data in FILES.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


@pytest.fixture
def tgz(tmp_path, whole):
    (tmp_path / "v1.0-trainval01_blobs.tgz").write_bytes(whole)
    return tmp_path / "v1.0-trainval01_blobs.tgz"


def run(tgz, out, keyframes_only=False, reread=False):
    job = repack_job.plan(str(tgz), str(out), keyframes_only)
    return repack.repack(job, reread, lambda *told: None)


def content(path):
    store = open_store([str(path)])
    return {name: store.read(name) for name in store.names()}


@pytest.mark.parametrize("indexed", [False, True])
def test_the_tar_holds_the_same_files_and_tarfile_reads_it(tgz, tmp_path, indexed):
    if indexed:
        gzip_tar.index(str(tgz))
    receipt = run(tgz, tmp_path / "out", reread=True)
    made = tmp_path / "out/v1.0-trainval01_blobs.tar"
    assert content(made) == FILES and receipt["files"] == len(FILES)
    with tarfile.open(made) as tar:
        assert len(tar.getnames()) == len(FILES)
    assert sorted(os.listdir(tmp_path / "out")) == [f".{made.name}.repacked.json", made.name]


def test_keyframes_only_leaves_sweeps_out_and_says_so_in_the_name(tgz, tmp_path):
    receipt = run(tgz, tmp_path / "out", keyframes_only=True)
    made = tmp_path / "out/v1.0-trainval01_keyframes.tar"
    assert content(made) == {name: data for name, data in FILES.items() if not name.startswith("sweeps")}
    assert (receipt["files"], receipt["left_out"]) == (22, 20)
    again = repack_job.plan(str(made), str(tmp_path / "more"), True)  # a plain .tar can be thinned too
    assert repack.repack(again, False, lambda *told: None)["files"] == 22


def test_a_second_run_finds_the_work_done_and_a_changed_archive_is_not_taken_for_it(tgz, tmp_path, heard):
    argv = [str(tgz), "--out", str(tmp_path / "out")]
    repack_main.main(argv, heard)
    before = os.stat(tmp_path / "out/v1.0-trainval01_blobs.tar")
    repack_main.main(argv, heard)
    assert [one["archives"][0]["was_there"] for one in heard.results] == [False, True]
    assert os.stat(tmp_path / "out/v1.0-trainval01_blobs.tar") == before
    os.utime(tgz, ns=(1, 1))
    with pytest.raises(DataError, match="there already"):
        repack_main.main(argv, heard)


def test_a_file_that_is_in_the_way_is_left_alone(tgz, tmp_path):
    (tmp_path / "v1.0-trainval01_blobs.tar").write_text("mine")
    with pytest.raises(DataError, match="there already"):
        run(tgz, tmp_path)
    assert (tmp_path / "v1.0-trainval01_blobs.tar").read_text() == "mine"


def killed_at(step, tgz, out):
    """In a child: SIGKILL at the nth of all writes, fsyncs and renames."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    left = [step]

    def counted(call):
        def one(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return one

    try:
        os.fsync, os.replace = counted(os.fsync), counted(os.replace)
        repack._Writer._flush = counted(repack._Writer._flush)
        run(tgz, out)
    finally:
        os._exit(0)


@pytest.mark.parametrize(
    "indexed, tries",
    [(True, 4), *(pytest.param(one, KILLS // 2, marks=pytest.mark.slow) for one in (False, True))],
)
def test_kill_9_at_random_points_and_a_rerun_finishes(tgz, tmp_path, indexed, tries):
    """Some runs are killed twice; what an earlier run wrote is used."""
    if indexed:
        gzip_tar.index(str(tgz))
    rng, resumed, killed = random.Random(int(indexed)), 0, 0
    for number in range(tries):
        out = tmp_path / str(number)
        for _ in range(rng.choice((1, 1, 2))):
            killed += killed_at(rng.randrange(1, 150), tgz, out) == signal.SIGKILL
        assert not list(out.glob("*.tar")) or content(next(iter(out.glob("*.tar")))) == FILES
        receipt = run(tgz, out)
        resumed += receipt["resumed_at_bytes"] > 0
        assert content(out / "v1.0-trainval01_blobs.tar") == FILES and len(os.listdir(out)) == 2
    assert killed > tries // 2 and resumed > tries // 4


@pytest.mark.parametrize("damage", ["part", "state", "longer"])
def test_what_an_earlier_run_left_is_not_believed(tgz, tmp_path, damage):
    out = tmp_path / "out"
    assert killed_at(40, tgz, out) == signal.SIGKILL
    part, state = out / ".v1.0-trainval01_blobs.tar.part", out / ".v1.0-trainval01_blobs.tar.state"
    good = json.loads(state.read_text())["out_bytes"]
    if damage == "part":
        data = bytearray(part.read_bytes())
        data[good // 2] ^= 1
        part.write_bytes(data)
    elif damage == "state":
        state.write_text("{")
    else:
        part.write_bytes(part.read_bytes() + b"x" * 999)
    receipt = run(tgz, out)
    assert receipt["resumed_at_bytes"] == (good if damage == "longer" else 0)
    assert content(out / "v1.0-trainval01_blobs.tar") == FILES


@pytest.mark.parametrize("seed", range(FULL))
def test_a_full_disk_leaves_no_tar_and_the_rerun_goes_on(tgz, tmp_path, monkeypatch, seed):
    room, flush = random.Random(seed).randrange(2_500_000), repack._Writer._flush

    def full(self):
        if self.bytes > room:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(self)

    monkeypatch.setattr(repack._Writer, "_flush", full)
    with pytest.raises(DiskError, match="No space left") as caught:
        run(tgz, tmp_path / "out")
    left = os.listdir(tmp_path / "out")
    assert not [name for name in left if not name.startswith(".")] and "goes on" in caught.value.do
    part = tmp_path / "out/.v1.0-trainval01_blobs.tar.part"
    assert ("is kept" in caught.value.why) == part.exists() and (part.exists() or left == [])
    monkeypatch.setattr(repack._Writer, "_flush", flush)
    run(tgz, tmp_path / "out")
    assert content(tmp_path / "out/v1.0-trainval01_blobs.tar") == FILES


def test_too_little_room_is_said_before_anything_is_written(tgz, tmp_path, monkeypatch, heard):
    real = os.statvfs(tmp_path)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((*real[:3], 100, 100, *real[5:])))
    with pytest.raises(DiskError, match="GB free, the results need about"):
        repack_main.main([str(tgz), "--out", str(tmp_path / "out")], heard)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_says_what_would_be_made_and_writes_nothing(tgz, tmp_path, heard):
    repack_main.main([str(tgz), "--out", str(tmp_path / "out"), "--dry-run"], heard)
    (one,) = heard.results[0]["archives"]
    size = sum(512 + -(-len(data) // 512) * 512 for data in FILES.values())
    assert abs(one["expected_bytes"] - size) < 20_480 and not one["finished"]
    assert sorted(os.listdir(tmp_path)) == [tgz.name]


@pytest.mark.parametrize("share", [0.2, 0.6, 0.97, 0.9999])
def test_a_cut_archive_makes_nothing(tgz, tmp_path, share):
    data = tgz.read_bytes()
    tgz.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match="damaged or cut short"):
        run(tgz, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_byte_makes_nothing(tgz, tmp_path, seed):
    data = bytearray(tgz.read_bytes())
    data[random.Random(seed).randrange(100, len(data) - 8)] ^= 0x10
    tgz.write_bytes(data)
    with pytest.raises(DataError):
        run(tgz, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []


def test_several_gzip_members_become_one_tar(tmp_path):
    tar = make(tmp_path / "a.tar", FILES).read_bytes()
    pieces = [gzip.compress(tar[i : i + 300_000], 1) for i in range(0, len(tar), 300_000)]
    (tmp_path / "a.tgz").write_bytes(b"".join(pieces))
    run(tmp_path / "a.tgz", tmp_path / "out")
    assert content(tmp_path / "out/a.tar") == FILES


def test_two_runs_at_once_do_not_write_into_each_other(tgz, tmp_path):
    job = repack_job.plan(str(tgz), str(tmp_path), False)
    with open(job.part, "wb") as other:
        repack.fcntl.flock(other.fileno(), repack.fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another run"):
            run(tgz, tmp_path)


def test_a_link_in_place_of_the_part_is_not_followed(tgz, tmp_path):
    (tmp_path / "precious").write_text("mine")
    job = repack_job.plan(str(tgz), str(tmp_path / "out"), False)
    (tmp_path / "out").mkdir()
    os.symlink(tmp_path / "precious", job.part)
    with pytest.raises((DataError, DiskError, OSError)):
        run(tgz, tmp_path / "out")
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize(
    "names, match",
    [
        (["a.zip"], "neither"),
        (["a.tar"], "already"),
        (["a.tgz", "b/a.tgz"], "two archives"),
        (["no.tgz"], "cannot read"),
    ],
)
def test_what_cannot_be_repacked_is_said(tmp_path, heard, names, match):
    for name in names:
        if not name.startswith("no"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            make(tmp_path / name, {"a": b"1"})
    with pytest.raises(DataError, match=match):
        repack_main.main([str(tmp_path / name) for name in names] + ["--out", str(tmp_path / "out")], heard)
