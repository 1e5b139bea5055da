"""Patches on a tree: all or nothing, from any state, and never outside it."""

import os
import shutil
import stat
import subprocess
import sys
import time

import pytest

from bevrepro.core.errors import ConfigError, DiskError
from bevrepro.env import patch_tree, patching, patchset
from tests.env.patch_sets import BEFORE, contents, make_set, make_tree
from tests.probe.unprivileged import as_nobody

ALL = ("0001-gate.patch", "0002-names.patch", "0003-end.patch")


@pytest.fixture
def given(tmp_path):
    """(the set, a tree that it fits)."""
    return patchset.read(make_set(tmp_path / "sets")), make_tree(tmp_path / "tree")


def crlf(tree):
    for path in tree.rglob("*.py"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def test_applied_verified_and_taken_back(given):
    found, tree = given
    before = contents(tree)
    assert set(patching.state(found, tree).values()) == {"absent"}
    done = patching.apply(found, tree)
    assert done.patches == ALL and done.already == () and set(done.files) == set(BEFORE)
    assert b"dtype=int)" in contents(tree)["pkg/names.py"]
    assert set(patching.state(found, tree).values()) == {"applied"}
    assert patching.revert(found, tree).patches == ALL
    assert contents(tree) == before


def test_what_is_applied_has_the_promised_hashes(given):
    found, tree = given
    patching.apply(found, tree)
    for path, sha256 in patching.patched_files(found).items():
        content = patch_tree.read_file(tree, path)
        assert content is not None and content.sha256 == sha256


def test_a_second_time_nothing_is_written(given):
    found, tree = given
    patching.apply(found, tree)
    times = {path: path.stat().st_mtime_ns for path in tree.rglob("*.py")}
    done = patching.apply(found, tree)
    assert (done.patches, done.already, done.files) == ((), ALL, ())
    assert times == {path: path.stat().st_mtime_ns for path in tree.rglob("*.py")}


@pytest.mark.parametrize("action", [patching.apply, patching.revert])
def test_a_dry_run_says_the_same_and_writes_nothing(given, action):
    found, tree = given
    if action is patching.revert:
        patching.apply(found, tree)
    before = contents(tree)
    would = action(found, tree, dry_run=True)
    assert contents(tree) == before
    done = action(found, tree)
    assert (would.patches, would.files) == (done.patches, done.files)


def test_crlf_stays_crlf_and_comes_back(given):
    found, tree = given
    crlf(tree)
    before = contents(tree)
    patching.apply(found, tree)
    for content in contents(tree).values():
        assert content.count(b"\r\n") == content.count(b"\n") > 0
    assert set(patching.state(found, tree).values()) == {"applied"}
    patching.revert(found, tree)
    assert contents(tree) == before


def test_mixed_line_ends_are_refused(given):
    found, tree = given
    place = tree / "pkg/gate.py"
    place.write_bytes(place.read_bytes().replace(b"\n", b"\r\n", 2))
    with pytest.raises(ConfigError, match="gate.py, hunk 1"):
        patching.apply(found, tree)


def test_one_patch_and_what_it_stands_on(given):
    found, tree = given
    assert patching.apply(found, tree, ("1",)).patches == ("0001-gate.patch",)
    with pytest.raises(ConfigError, match="0003-end.patch needs 0002-names.patch applied first"):
        patching.apply(found, tree, ("0003",))
    patching.apply(found, tree, ("0002", "0003-end"))
    with pytest.raises(ConfigError, match="0002-names.patch needs 0003-end.patch reverted too"):
        patching.revert(found, tree, ("0002",))
    assert patching.revert(found, tree, ("3",)).patches == ("0003-end.patch",)
    assert patching.state(found, tree) == dict(zip(ALL, ("applied", "applied", "absent")))
    with pytest.raises(ConfigError, match="no patch '9'"):
        patching.apply(found, tree, ("9",))


@pytest.mark.parametrize("path", sorted(BEFORE))
@pytest.mark.parametrize("action", [patching.apply, patching.revert])
def test_a_half_applied_set_is_finished_either_way(given, tmp_path, path, action):
    found, tree = given
    whole = make_tree(tmp_path / "whole")
    patching.apply(found, whole)
    shutil.copy(whole / path, tree / path)
    assert "half" in patching.state(found, tree).values()
    action(found, tree)
    wanted = whole if action is patching.apply else make_tree(tmp_path / "fresh")
    assert contents(tree) == contents(wanted)


@pytest.mark.parametrize("action", [patching.apply, patching.revert])
def test_killed_at_any_write_a_rerun_finishes(given, tmp_path, action):
    """Each child dies by SIGKILL at its n-th file operation; the tree is then never torn."""
    found, tree = given
    folder = tmp_path / "sets" / "pkg-1.0"
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from bevrepro.env import patching, patch_tree, patchset\n"
        "left = int(sys.argv[3])\n"
        "def mortal(work):\n"
        "    def step(*args, **keys):\n"
        "        global left\n"
        "        left -= 1\n"
        "        if left < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return work(*args, **keys)\n"
        "    return step\n"
        "for name in ('replace', 'fsync', 'utime', 'open'): setattr(os, name, mortal(getattr(os, name)))\n"
        "getattr(patching, sys.argv[4])(patchset.read(Path(sys.argv[1])), Path(sys.argv[2]))\n"
    )
    done, fresh = make_tree(tmp_path / "done"), make_tree(tmp_path / "fresh")
    patching.apply(found, done)
    good = {path: {text.encode(), contents(done)[path]} for path, text in BEFORE.items()}
    killed = 0
    for left in range(40):
        shutil.rmtree(tree)
        shutil.copytree(done if action is patching.revert else fresh, tree)
        argv = [sys.executable, "-c", code, str(folder), str(tree), str(left), action.__name__]
        rc = subprocess.run(argv, capture_output=True).returncode
        for path, versions in good.items():
            assert (tree / path).read_bytes() in versions
        if rc == 0:
            break
        killed += 1
        assert rc == -9
        action(found, tree)
        assert contents(tree) == contents(done if action is patching.apply else fresh)
    assert killed > 8 and rc == 0


def test_other_changes_are_refused_or_taken_when_asked(given):
    found, tree = given
    place = tree / "pkg/names.py"
    place.write_text(place.read_text().replace("end = True\n", "end = True\nmine = 1\n"))
    before = contents(tree)
    with pytest.raises(ConfigError, match="names.py has changes of its own"):
        patching.apply(found, tree)
    assert contents(tree) == before
    patching.apply(found, tree, edited=True)
    assert b"mine = 1" in contents(tree)["pkg/names.py"] and b"dtype=int)" in contents(tree)["pkg/names.py"]
    with pytest.raises(ConfigError):
        patching.revert(found, tree)
    patching.revert(found, tree, edited=True)
    assert contents(tree) == before


@pytest.mark.parametrize("edited", [False, True])
def test_a_hunk_that_does_not_fit_is_named_and_nothing_written(given, edited):
    found, tree = given
    place = tree / "pkg/names.py"
    place.write_text("# mine\n" + place.read_text())
    before = contents(tree)
    for action in (patching.apply, patching.revert):
        with pytest.raises(ConfigError, match=r"pkg/names.py, hunk 1, line 1: '# mine' stands where"):
            action(found, tree, edited=edited)
    assert contents(tree) == before
    assert set(patching.state(found, tree).values()) == {"absent", "foreign"}


def test_any_byte_of_a_patched_file_that_changes_is_seen(given):
    found, tree = given
    patching.apply(found, tree)
    place = tree / "pkg/names.py"
    whole = place.read_bytes()
    for at in range(len(whole)):
        place.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        standing = patching.inspect(found, tree)["pkg/names.py"]
        assert standing.position is None or standing.edited
        with pytest.raises(ConfigError):
            patching.apply(found, tree)


def test_a_missing_file_is_named_with_the_patches_that_fit(given):
    found, tree = given
    (tree / "pkg/names.py").unlink()
    with pytest.raises(ConfigError, match="pkg/names.py is missing") as error:
        patching.apply(found, tree)
    assert error.value.do == "To apply what fits: --only 0001"
    assert patching.apply(found, tree, ("0001",)).files == ("pkg/gate.py",)


def test_a_wrong_tree_names_the_right_one(given, tmp_path):
    found, tree = given
    with pytest.raises(ConfigError, match="none of the files of pkg 1.0") as error:
        patching.apply(found, tmp_path)
    assert str(tree) in error.value.do
    with pytest.raises(ConfigError, match="is no folder"):
        patching.state(found, tmp_path / "nothing")
    venv = tmp_path / "a venv"
    make_tree(venv / "lib/python3.11/site-packages")
    with pytest.raises(ConfigError) as error:
        patching.state(found, venv)
    assert error.value.do == f"Is it --tree '{venv}/lib/python3.11/site-packages'?"


def test_a_hard_linked_cache_keeps_the_old_file(given, tmp_path):
    found, tree = given
    cache = tmp_path / "cache.py"
    os.link(tree / "pkg/gate.py", cache)
    patching.apply(found, tree)
    assert cache.read_text() == BEFORE["pkg/gate.py"] and cache.stat().st_nlink == 1
    patching.revert(found, tree)
    assert cache.read_text() == BEFORE["pkg/gate.py"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_symlink_into_a_cache_is_refused(given, tmp_path, what):
    found, tree = given
    linked, cache = tree / ("pkg/gate.py" if what == "file" else "pkg"), tmp_path / "cache"
    linked.rename(cache)
    linked.symlink_to(cache)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match="symbolic link") as error:
        patching.apply(found, tree)
    assert "--link-mode copy" in error.value.do and contents(tmp_path) == before


def test_a_tree_that_is_itself_a_symlink_is_fine(given, tmp_path):
    found, tree = given
    (tmp_path / "prefix").symlink_to(tree)
    assert patching.apply(found, tmp_path / "prefix").patches == ALL


def test_a_read_only_file_is_refused_and_nothing_written(given):
    found, tree = given
    (tree / "pkg/names.py").chmod(0o444)
    before = contents(tree)
    for dry_run in (True, False):
        with pytest.raises(DiskError, match="names.py is read-only"):
            patching.apply(found, tree, dry_run=dry_run)
    assert contents(tree) == before


def test_the_mode_is_kept_and_no_temporary_file_is_left(given):
    found, tree = given
    (tree / "pkg/gate.py").chmod(0o755)
    patching.apply(found, tree)
    assert stat.S_IMODE((tree / "pkg/gate.py").stat().st_mode) == 0o755
    assert set(contents(tree)) == set(BEFORE)


def test_a_full_disk_leaves_the_tree_as_it_was(given, monkeypatch):
    found, tree = given
    before, calls = contents(tree), []

    def full(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(patch_tree.os, "fsync", full)
    with pytest.raises(DiskError, match="No space left"):
        patching.apply(found, tree)
    assert contents(tree) == before


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_a_rename_that_fails_takes_the_others_back(given, monkeypatch, error):
    found, tree = given
    before, calls, replace = contents(tree), [], os.replace

    def failing(old, new):
        calls.append(new)
        if len(calls) == 2:
            raise error
        replace(old, new)

    monkeypatch.setattr(patch_tree.os, "replace", failing)
    with pytest.raises((DiskError, KeyboardInterrupt)):
        patching.apply(found, tree)
    assert contents(tree) == before


def test_a_file_that_changes_meanwhile_is_not_overwritten(given, monkeypatch):
    found, tree = given
    place, utime = tree / "pkg/gate.py", os.utime

    def edit(*args, **keys):
        place.write_text("mine\n")
        utime(*args, **keys)

    monkeypatch.setattr(patch_tree.os, "utime", edit)
    with pytest.raises(ConfigError, match="changed while"):
        patching.apply(found, tree)
    assert place.read_text() == "mine\n" and set(contents(tree)) == set(BEFORE)


def test_two_at_once_are_kept_apart(given):
    found, tree = given
    with patch_tree.locked(tree), pytest.raises(ConfigError, match="another patch command"):
        patching.apply(found, tree)
    assert patching.apply(found, tree).patches == ALL


def test_python_does_not_run_the_bytecode_of_before(given):
    """Same size, same second: the source's time has to move, or a stale .pyc is taken for fresh."""
    found, tree = given
    place, now = tree / "pkg/gate.py", int(time.time()) + 5
    os.utime(place, (now, now))
    argv = [sys.executable, "-c", "import pkg.gate; print(pkg.gate.MAXIMUM)"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}

    def run():
        return subprocess.run(argv, cwd=tree, env=environment, capture_output=True, text=True).stdout.strip()

    assert run() == "1.7.0" and list(tree.rglob("*.pyc"))
    patching.apply(found, tree, ("0001",))
    assert run() == "1.7.2"
    patching.revert(found, tree, ("0001",))
    assert run() == "1.7.0"


def test_a_series_that_promises_another_result_is_not_written(given, tmp_path):
    found, tree = given
    series = tmp_path / "sets/pkg-1.0/series.toml"
    last = found.patches[-1].changes[0].after
    series.write_text(series.read_text().replace(last, "0" * 64))
    before = contents(tree)
    with pytest.raises(ConfigError, match="does not make of pkg/names.py"):
        patching.apply(patchset.read(series.parent), tree)
    assert contents(tree) == before


def test_prefixes_with_spaces_and_other_letters(given, tmp_path):
    found, _ = given
    tree = make_tree(tmp_path / "mein Bäume 树")
    assert patching.apply(found, tree).patches == ALL


def test_a_folder_that_may_not_be_written_is_refused(given):
    found, tree = given
    (tree / "pkg").chmod(0o555)
    closed = (each for each in tree.parents if each.stat().st_uid == os.getuid() and each.name)
    for folder in (tree, *closed):
        folder.chmod(folder.stat().st_mode | 0o055)
    before = contents(tree)

    def said():
        with pytest.raises(DiskError) as error:
            patching.apply(found, tree)
        return error.value.seen

    assert as_nobody(said).endswith("pkg cannot be written")
    assert contents(tree) == before
