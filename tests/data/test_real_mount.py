"""The real thing: ratarmount, FUSE and the kernel; skipped, with the reason, where mounting is impossible."""

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bevrepro.core.errors import DataError, MountError
from bevrepro.data import fuse, mountinfo, unmount
from bevrepro.data.again import wanted_again
from bevrepro.data.index import ensure, tar_end
from bevrepro.data.mount import Wanted, mount, plan, plan_for, recognise
from bevrepro.data.roots import resolve
from bevrepro.data.status import status

from .conftest import FILES, write_tar, write_zip

MISSING = fuse.missing()
pytestmark = [pytest.mark.fuse, pytest.mark.skipif(bool(MISSING), reason="; ".join(MISSING))]


@pytest.fixture
def place(tmp_path):
    """A mount point whose mount is taken away after the test, whatever happened."""
    yield tmp_path / "mnt"
    if mountinfo.at(mountinfo.read(), tmp_path / "mnt"):
        unmount.detach(tmp_path / "mnt", dead=True)


def do_mount(archives, place):
    made = mount(plan(archives, place), lambda text: None)
    assert made.mode == "fuse", made.missing
    return made


def states(place):
    """Of this mount point alone: others on the machine may have mounts of their own."""
    return [one.state for one in status() if one.mountpoint == str(place)]


def daemon_of(place: Path) -> int:
    """The process that serves exactly this mount point."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        if os.fsencode(place) in words and any(word.endswith(b"ratarmount") for word in words):
            return int(process.name)
    raise AssertionError(f"no daemon for {place}")


def test_a_union_of_archives_and_a_live_folder_reads_right_and_is_read_only(tgz, zipped, tmp_path, place):
    (tmp_path / "infos").mkdir()
    newer = write_zip(tmp_path / "newer.zip", {"samples/CAM_FRONT/03.jpg": b"newer"})
    do_mount([tgz, zipped, newer, tmp_path / "infos"], place)
    (tmp_path / "infos/late.pkl").write_bytes(b"late")
    expected = {**FILES, "samples/CAM_FRONT/03.jpg": b"newer", "can_bus/scene-0001_pose.json": b"[]"}
    assert {name: (place / name).read_bytes() for name in expected} == expected
    assert (place / "late.pkl").read_bytes() == b"late"
    with pytest.raises(OSError, match="Read-only"):
        (place / "x").write_text("x")


@pytest.mark.slow
def test_mount_status_resolve_umount(tar, place):
    do_mount([tar], place)
    assert states(place) == ["mounted"] and resolve([place]) == [str(place)]
    with pytest.raises(MountError, match="already mounted"):
        plan([tar], place)
    unmount.umount(place)
    assert not place.exists() and states(place) == []


@pytest.mark.slow
def test_the_real_index_says_where_the_tar_ends(tar, tgz):
    for path in (tar, tgz):
        archive = recognise(path)
        assert ensure(archive) and not ensure(archive)
        assert tar_end(archive) == len(FILES) * 1536


def test_zeros_behind_a_tgz_are_named_where_ratarmount_stops_at_them(tgz, place):
    with tgz.open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(DataError, match="zeros behind its end") as caught:
        do_mount([tgz], place)
    assert "--in-process" in caught.value.do and not place.exists()


def test_what_ratarmount_does_not_report_is_refused(tmp_path, place):
    """Header broken in the middle, cut: ratarmount 1.3 ends with 0 for both."""
    files = {f"samples/{number:03d}": bytes([number]) * 4000 for number in range(100)}
    for name in ("a.tar", "a.tgz"):
        path = write_tar(tmp_path / name, files)
        data = bytearray(path.read_bytes())
        if name == "a.tar":
            data[4608 * 50 + 3] ^= 1
        path.write_bytes(bytes(data if name == "a.tar" else data[: len(data) // 2]))
        with pytest.raises(DataError, match="cut short|broken|ended"):
            do_mount([path], place)
    assert mountinfo.at(mountinfo.read(), place) is None and not place.exists()


def test_a_killed_daemon_is_seen_and_cleaned_by_umount_and_by_mount(tar, place):
    for clean in (lambda: unmount.umount(place), lambda: do_mount([tar], place)):
        do_mount([tar], place)
        os.kill(daemon_of(place), signal.SIGKILL)
        _until(lambda: mountinfo.is_dead(place))
        assert states(place) == ["dead"] and resolve([place]) == [str(tar)]
        clean()
    assert (place / "samples/CAM_FRONT/07.jpg").read_bytes() == FILES["samples/CAM_FRONT/07.jpg"]


def _until(condition, within_s=5.0):
    until_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)


@pytest.mark.slow
def test_a_busy_mount_says_who_and_stays(tar, place):
    do_mount([tar], place)
    with (place / "samples/CAM_FRONT/07.jpg").open("rb"), pytest.raises(MountError, match="busy") as caught:
        unmount.umount(place)
    assert f"{os.getpid()} " in caught.value.why
    unmount.umount(place)


@pytest.mark.parametrize(
    "delays_s", [(0.4,), pytest.param((0.2, 0.4, 0.6, 0.8, 1.0, 1.2), marks=pytest.mark.slow)]
)
def test_ctrl_c_at_any_moment_leaves_no_mount(tgz, place, delays_s):
    """The whole command, interrupted after so long: mounted and remembered, or neither."""
    for delay_s in delays_s:
        command = [sys.executable, "-m", "bevrepro", "data", "mount", str(tgz), str(place)]
        child = subprocess.Popen(command, stdout=-1, stderr=-1, cwd=Path(__file__).parents[2])
        time.sleep(delay_s)
        child.send_signal(signal.SIGINT)
        _, stderr = child.communicate(timeout=30)
        assert child.returncode in (0, 130, -2), stderr.decode()  # -2: while Python was still starting
        assert child.returncode == -2 or b"Traceback" not in stderr, stderr.decode()
        mounted = mountinfo.at(mountinfo.read(), place) is not None
        assert mounted == (child.returncode == 0) == bool(states(place))
        if mounted:
            unmount.umount(place)
        assert not place.exists()


@pytest.mark.slow
def test_the_store_reads_the_mount_like_any_folder(tar, place):
    """The data set's own reader, over a mount and pickled."""
    from bevformer.data.store import open_store

    do_mount([tar], place)
    store = pickle.loads(pickle.dumps(open_store([str(place)])))
    assert store.names("samples") == sorted(FILES)
    assert store.read("samples/CAM_FRONT/11.jpg") == FILES["samples/CAM_FRONT/11.jpg"]
    os.kill(daemon_of(place), signal.SIGKILL)
    _until(lambda: mountinfo.is_dead(place))
    from bevformer.errors import DataError as StoreError

    with pytest.raises(StoreError, match="died"):
        store.read("samples/CAM_FRONT/12.jpg")


@pytest.mark.slow
def test_infos_that_are_written_anew_into_the_overlay_are_seen_anew(tar, tmp_path, place):
    """With the timeouts that suit archives they were seen as they had been, for an hour."""
    mount(plan_for(Wanted((tar,), place, tmp_path / "overlay")), lambda text: None)
    for text in ("first", "second, longer", "3rd"):
        (tmp_path / "overlay/new").write_text(text)
        os.replace(tmp_path / "overlay/new", tmp_path / "overlay/infos.pkl")
        _until(lambda text=text: (place / "infos.pkl").read_text() == text)


@pytest.mark.parametrize("tries", [1, pytest.param(5, marks=pytest.mark.slow)])
def test_two_mounts_at_once_at_one_place_make_one(tgz, place, tries):
    """Two whole commands: one mounts, the other says that it is mounted."""
    command = [sys.executable, "-m", "bevrepro", "data", "mount", str(tgz), str(place)]
    for _ in range(tries):
        both = [
            subprocess.Popen(command, stdout=-1, stderr=-1, cwd=Path(__file__).parents[2], text=True)
            for _ in range(2)
        ]
        said = [one.communicate(timeout=60)[1] for one in both]
        assert sorted(one.returncode for one in both) == [0, 5], said
        assert any("already mounted" in text for text in said)
        assert [mount.mountpoint for mount in mountinfo.read()].count(str(place)) == 1
        assert (place / "samples/CAM_FRONT/07.jpg").read_bytes() == FILES["samples/CAM_FRONT/07.jpg"]
        unmount.umount(place)


@pytest.mark.slow
def test_an_archive_that_is_deleted_or_replaced_while_mounted_is_told(tar, tmp_path, place):
    """The daemon holds the old file open: what was mounted stays readable until umount."""
    do_mount([tar], place)
    whole = tar.read_bytes()
    tar.unlink()
    (one,) = [one for one in status() if one.mountpoint == str(place)]
    assert (one.state, one.missing_archives) == ("mounted", (str(tar),))
    assert (place / "samples/CAM_FRONT/07.jpg").read_bytes() == FILES["samples/CAM_FRONT/07.jpg"]
    tar.write_bytes(whole)
    (one,) = [one for one in status() if one.mountpoint == str(place)]
    assert one.changed_archives == (str(tar),)
    unmount.umount(place)


@pytest.mark.slow
def test_it_is_mounted_again_after_its_program_was_killed(tar, tmp_path, place):
    mount(plan_for(Wanted((tar,), place, tmp_path / "overlay")), lambda text: None)
    os.kill(daemon_of(place), signal.SIGKILL)
    _until(lambda: mountinfo.is_dead(place))
    (wanted,) = wanted_again(place)
    mount(plan_for(wanted), lambda text: None)
    assert states(place) == ["mounted"]
    unmount.umount(place)
    assert not place.exists() and (tmp_path / "overlay").is_dir()


@pytest.mark.slow
def test_a_program_that_does_not_answer_is_told_and_taken_away_on_request(tar, place, monkeypatch):
    monkeypatch.setattr(mountinfo, "ANSWERS_WITHIN_S", 0.5)
    do_mount([tar], place)
    daemon = daemon_of(place)
    os.kill(daemon, signal.SIGSTOP)
    try:
        assert states(place) == ["stuck"]
        unmount.umount(place)
        assert states(place) == [] and mountinfo.at(mountinfo.read(), place) is None
    finally:
        os.kill(daemon, signal.SIGKILL)


@pytest.mark.slow
def test_the_doctor_tells_what_became_of_a_mount(tar, place, capsys):
    """Killed, and its archive rewritten: the command as typed."""
    from bevrepro.cli import main

    do_mount([tar], place)
    os.utime(tar, ns=(1, 1))
    os.kill(daemon_of(place), signal.SIGKILL)
    _until(lambda: mountinfo.is_dead(place))
    assert main(["doctor", "data", str(place)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "mount-lost" in said and "mount-archives" in said and "bevrepro data mount" in said


@pytest.mark.slow
def test_the_seek_points_of_a_larger_archive_are_found_in_its_index(tmp_path):
    archive = recognise(
        write_tar(tmp_path / "large.tgz", {f"samples/{n}": os.urandom(1 << 20) for n in range(10)})
    )
    assert archive.size_bytes > 8 << 20 and ensure(archive) and not ensure(archive)
