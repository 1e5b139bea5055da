"""Planning and making a mount, on a system that only pretends."""

import os
import sqlite3

import pytest

from bevrepro.core import proc
from bevrepro.core.errors import DataError, MachineError, MountError
from bevrepro.core.machine import Fuse, Host, Machine
from bevrepro.data import fuse, index, mount, mountinfo, proof, remembered

from .conftest import fake_index, write_tar


@pytest.fixture
def place(tmp_path):
    return tmp_path / "mnt"


def done(archives, place, **options):
    return mount.mount(mount.plan(archives, place, **options), lambda text: None)


def test_each_archive_is_indexed_by_a_process_of_its_own_with_bounded_memory(system, tgz, tar, zipped, place):
    done([tgz, tar, zipped], place)
    indexing = [call for call in system.calls if "--no-mount" in call]
    assert [call[-1] for call in indexing] == [str(tgz), str(tar)]
    assert all(call[1:6] == ["-gs", "1", "-P", "1", "--verify-mtime"] for call in indexing)


def test_the_mount_is_read_only_ours_and_a_union_in_order(system, tgz, zipped, place):
    done([tgz, zipped], place)
    (call,) = [call for call in system.calls if "-o" in call]
    options = call[call.index("-o") + 1].split(",")
    assert {"ro", "fsname=bevrepro", "subtype=ratarmount", "kernel_cache"} <= set(options)
    assert call[-3:] == [str(tgz), str(zipped), str(place)] and call[1:3] == ["-gs", "1"]


def test_a_fresh_index_is_not_made_again_and_a_changed_archive_is(system, tar, place):
    index.ensure(mount.recognise(tar))
    assert not index.ensure(mount.recognise(tar))
    os.utime(tar, ns=(1, 1))
    assert index.ensure(mount.recognise(tar))


def test_nothing_is_written_beside_the_data(system, tgz, tmp_path, place):
    before = set(os.listdir(tmp_path))
    done([tgz], place)
    assert set(os.listdir(tmp_path)) - before == {"mnt", "home"}


def test_it_is_remembered(system, tgz, zipped, place):
    done([tgz, zipped], place)
    kept = remembered.get(place)
    assert (kept.archives, kept.mode, kept.made_folder) == ((str(tgz), str(zipped)), "fuse", True)


def test_dry_run_changes_nothing_and_shows_the_commands(system, tgz, place, home):
    plan = mount.plan([tgz], place)
    assert [command[-1] for command in plan.commands] == [str(tgz), str(place)]
    assert not place.exists() and not home.exists() and system.calls == []


@pytest.mark.parametrize("fill", ["file", "full", "mounted"])
def test_a_mount_point_in_use_is_refused(system, tgz, place, fill):
    if fill == "file":
        place.write_text("x")
    else:
        place.mkdir()
        (place / "keep.txt").write_text("x") if fill == "full" else system.add_mount(place)
    with pytest.raises(MountError, match="mount point|not empty|already mounted"):
        mount.plan([tgz], place)


def test_a_dead_mount_of_ours_is_cleaned_and_mounted_again(system, tgz, place, monkeypatch):
    place.mkdir()
    system.add_mount(place)
    monkeypatch.setattr(mountinfo, "is_dead", lambda path: True)
    plan = mount.plan([tgz], place)
    said = []
    mount.mount(plan, said.append)
    assert any("dead mount" in text for text in said)
    assert system.programs() == ["ratarmount", "umount", "ratarmount", system.programs()[-1]]


def test_what_is_missing_is_said_and_the_archives_are_remembered(system, tgz, place, monkeypatch):
    monkeypatch.setattr(fuse, "missing", lambda: ("there is no /dev/fuse",))
    made = done([tgz], place)
    assert (made.mode, made.missing) == ("in-process", ("there is no /dev/fuse",))
    assert remembered.get(place).archives == (str(tgz),)
    assert system.calls == [] and not place.exists()


@pytest.mark.parametrize("says", ["fusermount3: mount failed: Operation not permitted", "Permission denied"])
def test_a_refused_mount_falls_back_and_leaves_no_folder(system, tgz, place, says):
    system.mount_says = proc.Done(1, "", says)
    made = done([tgz], place)
    assert made.mode == "in-process" and says in made.missing[0] and not place.exists()


def test_a_refusal_in_a_container_says_what_may_forbid_it(system, tgz, place, monkeypatch):
    monkeypatch.setattr(mount, "probe_host", lambda: Host(container="docker"))
    system.mount_says = proc.Done(1, "", "fuse: mount failed: Operation not permitted")
    assert "apparmor=unconfined" in done([tgz], place).missing[0]


def test_a_library_that_cannot_be_loaded_falls_back(system, tgz, place, monkeypatch):
    text = "[Warning] Exception was: libfuse: no such file\n[Error] Did not find any FUSE installation"
    monkeypatch.setattr(system, "_index", lambda argv: proc.Done(1, text, ""))
    made = done([tgz], place)
    assert made.mode == "in-process" and "libfuse: no such file" in made.missing[0]


@pytest.mark.parametrize(
    "rc, says, match",
    [(1, "[Error] boom", "exit code 1: .*boom"), (0, "", "nothing is mounted"), (-9, "", "exit code -9")],
)
def test_a_mount_that_does_not_appear_is_an_error(system, tgz, place, monkeypatch, rc, says, match):
    """`-o max_read=...` with libfuse3 gives exit code 0 and no mount."""
    monkeypatch.setattr(proof, "APPEARS_WITHIN_S", 0.0)
    monkeypatch.setattr(system, "_mount", lambda place: proc.Done(rc, "", says))
    with pytest.raises(MountError, match=match):
        done([tgz], place)
    assert not place.exists() and remembered.load() == []


def test_a_mount_that_gives_other_bytes_is_taken_away(system, tgz, place):
    system.probe_says = "17"
    with pytest.raises(MountError, match="should have 929 bytes, got 17"):
        done([tgz], place)
    assert system.mounted == [] and not place.exists() and remembered.load() == []


def test_ctrl_c_after_the_mount_takes_it_away(system, tgz, place, monkeypatch):
    def interrupted(place, archives):
        raise KeyboardInterrupt

    monkeypatch.setattr(proof, "_probe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        done([tgz], place)
    assert system.mounted == [] and not place.exists() and remembered.load() == []


def test_a_folder_that_was_there_stays_when_the_mount_fails(system, tgz, place):
    place.mkdir()
    system.probe_says = "17"
    with pytest.raises(MountError):
        done([tgz], place)
    assert place.is_dir()


def test_a_broken_archive_is_not_mounted(system, tar, place):
    data = bytearray(tar.read_bytes())
    data[512 * 30 + 7] ^= 1  # the 11th header: tarfile and ratarmount stop there without a word
    tar.write_bytes(data)
    with pytest.raises(DataError, match="broken in the middle"):
        done([tar], place)
    assert system.mounted == [] and not place.exists()


def test_an_archive_of_nothing_is_refused(system, tmp_path, place):
    with pytest.raises(DataError, match="holds no files"):
        done([write_tar(tmp_path / "empty.tgz", {})], place)


def test_indexing_that_was_killed_names_memory(system, tgz, place, monkeypatch):
    from bevrepro.core.errors import MachineError

    monkeypatch.setattr(system, "_index", lambda argv: proc.Done(-9, "", ""))
    with pytest.raises(MachineError, match="was killed") as caught:
        done([tgz], place)
    assert "memory" in caught.value.why


def test_a_full_disk_while_indexing_is_a_disk_error(system, tgz, place, monkeypatch):
    from bevrepro.core.errors import DiskError

    says = "sqlite3.OperationalError: database or disk is full"
    monkeypatch.setattr(system, "_index", lambda argv: proc.Done(1, "", says))
    with pytest.raises(DiskError, match="no space left"):
        done([tgz], place)


def test_half_an_index_is_never_kept(system, tgz, place, monkeypatch):
    def interrupted(argv):
        (index.index_folder() / "part-x.sqlite").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(system, "_index", interrupted)
    with pytest.raises(KeyboardInterrupt):
        done([tgz], place)
    assert not index.index_path(mount.recognise(tgz)).exists()


def test_a_folder_over_the_archives_decides_what_the_probe_expects(system, tgz, tmp_path, place):
    over = tmp_path / "over/samples/CAM_FRONT"
    over.mkdir(parents=True)
    (over / "29.jpg").write_bytes(b"mine")
    system.probe_says = "4"
    assert done([tgz, tmp_path / "over"], place).mode == "fuse"


def test_a_folder_in_the_union_is_never_seen_as_it_was_an_hour_ago(system, tgz, tmp_path, place):
    (tmp_path / "infos").mkdir()
    for sources, kept in (([tgz], "3600"), ([tgz, tmp_path / "infos"], "1")):
        options = mount.plan(sources, place).commands[-1]
        assert f"attr_timeout={kept}" in options[options.index("-o") + 1].split(",")


def test_the_overlay_is_made_shown_last_and_remembered(system, tgz, tmp_path, place):
    overlay = tmp_path / "deep/overlay"
    plan = mount.plan_for(mount.Wanted((tgz,), place, overlay))
    assert plan.commands[-1][-3:] == (str(tgz), str(overlay), str(place)) and not overlay.exists()
    mount.mount(plan, lambda text: None)
    assert overlay.is_dir() and remembered.get(place).overlay == str(overlay)
    assert remembered.get(place).archives == (str(tgz), str(overlay))


@pytest.mark.parametrize("overlay", ["mnt", "mnt/below", ".", "v1.0-mini.tgz"])
def test_an_overlay_that_could_not_be_reached_is_refused(system, tgz, tmp_path, place, overlay):
    with pytest.raises(MountError, match="overlay"):
        mount.plan_for(mount.Wanted((tgz,), place, tmp_path / overlay))


def test_other_users_may_read_it_where_the_system_allows_it(system, tgz, place):
    wanted = mount.Wanted((tgz,), place, allow_other=True)
    user = Machine(host=Host(root=False), fuse=Fuse(allow_other=True))
    options = mount.plan_for(wanted, user).commands[-1]
    assert "allow_other" in options[options.index("-o") + 1]
    with pytest.raises(MountError, match="allow-other"):
        mount.plan_for(wanted, Machine(host=Host(root=False), fuse=Fuse(allow_other=False)))


def test_too_little_memory_refuses_before_anything_is_made(system, tgz, place, home):
    plan = mount.plan_for(mount.Wanted((tgz,), place), Machine(host=Host(memory_available_b=1 << 20)))
    with pytest.raises(MachineError, match="memory"):
        mount.mount(plan, lambda text: None)
    assert not place.exists() and not home.exists()


def test_a_second_mount_that_comes_between_is_seen_before_and_after(system, tgz, place, monkeypatch):
    plan = mount.plan([tgz], place)
    system.add_mount(place)
    with pytest.raises(MountError, match="already mounted"):
        mount.mount(plan, lambda text: None)
    assert system.mounted == [str(place)]
    system.mounted.clear()
    system._save()

    def both(where):
        system.add_mount(place)
        system.add_mount(place)
        return proc.Done(0, "", "")

    monkeypatch.setattr(system, "_mount", both)
    with pytest.raises(MountError, match="at the same moment"):
        mount.mount(plan, lambda text: None)
    assert system.mounted == [str(place)] and remembered.load() == []


def test_the_daemon_gives_memory_back_and_keeps_the_rest_of_the_environment(monkeypatch):
    monkeypatch.setenv("FUSE_LIBRARY_PATH", "/lib/libfuse3.so.3")
    found = index.environment()
    assert found["MALLOC_MMAP_THRESHOLD_"] and found["FUSE_LIBRARY_PATH"] == "/lib/libfuse3.so.3"


def test_an_index_that_was_killed_leaves_nothing_that_counts(system, tgz, place):
    archive = mount.recognise(tgz)
    left = index.index_folder() / f"part-{index._digest(archive)}"
    left.mkdir(parents=True)
    (left / "half.sqlite").write_bytes(b"half")
    assert index.ensure(archive) and not left.exists() and not index.ensure(archive)


def test_an_index_without_seek_points_is_made_again(system, tgz):
    """The disk was full when they were written, and ratarmount ended with 0 all the same."""
    with tgz.open("ab") as file:
        file.truncate(9 << 20)
    archive = mount.recognise(tgz)
    index.index_folder().mkdir(parents=True)
    fake_index(tgz, index.index_path(archive))
    assert not index.is_fresh(archive)
    with sqlite3.connect(index.index_path(archive)) as database:
        database.execute("CREATE TABLE gztoolindex (data BLOB)")
        assert not index.is_fresh(archive)
        database.execute("INSERT INTO gztoolindex VALUES (x'00')")
        database.commit()
    assert index.is_fresh(archive)
