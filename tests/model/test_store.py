"""One reader over folders and archives: right bytes, or a sentence."""

import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from packed import FILES, PICTURE, make  # noqa: E402

from bevformer.data.store import open_store  # noqa: E402
from bevformer.errors import DataError  # noqa: E402


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


KINDS = ("folder", "a.tar", "a.tgz", "a.zip")


@pytest.fixture(params=KINDS)
def store(request, tmp_path):
    return open_store([str(make(tmp_path / request.param))])


def test_every_kind_gives_the_same_bytes(store):
    assert {name: store.read(name) for name in store.names("")} == FILES
    assert store.describe()["files"] == len(FILES)


def test_names_are_those_under_a_folder_and_not_those_that_begin_alike(tmp_path):
    files = {"a/1": b"1", "a/b/2": b"2", "ab/3": b"3", "a.txt": b"4", "a0": b"5"}
    for kind in KINDS:
        store = open_store([str(make(tmp_path / kind, files))])
        assert store.names("a/") == store.names("a") == store.names("./a") == ["a/1", "a/b/2"], kind
        assert store.names("nope/") == []


def test_missing_file_names_itself_and_the_archives(store):
    assert not store.exists("samples/nope.jpg")
    with pytest.raises(DataError, match="samples/nope.jpg") as caught:
        store.read("samples/nope.jpg")
    assert store.roots[0].path in caught.value.seen


@pytest.mark.parametrize("name", ["../etc/passwd", "/etc/passwd", "samples/../../x", "a\0b"])
def test_a_request_never_leaves_the_root(store, name):
    for ask in (store.read, store.exists, store.local_path):
        with pytest.raises(DataError, match="outside"):
            ask(name)


def test_the_last_root_wins(tmp_path):
    old = make(tmp_path / "old.tgz", {"a": b"old", "only_old": b"1"})
    new = make(tmp_path / "new.zip", {"a": b"new"})
    store = open_store([str(old), str(new)])
    assert (store.read("a"), store.read("only_old"), store.names("")) == (b"new", b"1", ["a", "only_old"])
    assert open_store([str(new), str(old)]).read("a") == b"old"


def test_only_a_folder_has_a_local_path(tmp_path):
    folder, tar = make(tmp_path / "folder", {"a": b"1"}), make(tmp_path / "a.tar", {"b": b"2"})
    store = open_store([str(folder), str(tar)])
    assert store.local_path("a") == str(folder / "a") and store.local_path("b") is None


def test_a_pickled_store_reads_on(store):
    again = pickle.loads(pickle.dumps(store))
    assert again.read(PICTURE) == FILES[PICTURE] and again.names("") == store.names("")


def test_forked_children_and_their_parent_read_right_bytes(store):
    store.read(PICTURE)  # handles are open before the fork: the hazard
    children = [_forked_reader(store, seed) for seed in range(3)]
    _read_at_random(store, 99)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]


def _read_at_random(store, seed, times=200):
    rng, names = random.Random(seed), sorted(FILES)
    for _ in range(times):
        name = rng.choice(names)
        assert store.read(name) == FILES[name]


def _forked_reader(store, seed):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _read_at_random(store, seed)
        code = 0
    finally:
        os._exit(code)


def test_a_forked_child_that_reads_tgz_ends_like_any_other(tmp_path):
    """rapidgzip's threads do not survive a fork; a child that ends the usual way must not wait for them."""
    archive = make(tmp_path / "a.tgz")
    program = (
        "import os, sys; from bevformer.data.store import open_store\n"
        f"s = open_store([{str(archive)!r}]); s.read({PICTURE!r}); pid = os.fork(); s.read({PICTURE!r})\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if pid else 0)"
    )
    env = dict(os.environ, PYTHONPATH="model")
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, timeout=60, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_threads_share_a_store(store):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: _read_at_random(store, seed, 50), range(4)))


def test_the_seek_points_are_kept_in_the_cache_and_nothing_beside_the_data(tmp_path, cache):
    archive = make(tmp_path / "data.tgz")
    open_store([str(archive)])
    kept = {path: path.stat().st_mtime_ns for path in (cache / "index").iterdir()}
    assert len(kept) == 1 and sorted(os.listdir(tmp_path)) == ["cache", "data.tgz"]
    open_store([str(archive)])
    assert {path: path.stat().st_mtime_ns for path in (cache / "index").iterdir()} == kept


def test_a_changed_archive_is_indexed_again(tmp_path):
    archive = make(tmp_path / "data.tgz", {"a": b"1"})
    assert open_store([str(archive)]).read("a") == b"1"
    make(archive, {"a": b"2"})
    os.utime(archive, ns=(1, 1))
    assert open_store([str(archive)]).read("a") == b"2"


def test_an_unwritable_cache_is_said(tmp_path, monkeypatch):
    from bevformer.errors import DiskError

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "file"))
    with pytest.raises(DiskError, match="seek points") as caught:
        open_store([str(make(tmp_path / "a.tgz"))])
    assert "BEVREPRO_CACHE" in caught.value.do


def test_without_rapidgzip_the_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidgzip", None)
    with pytest.raises(DataError, match="rapidgzip") as caught:
        open_store([str(make(tmp_path / "a.tgz"))])
    assert "pip install" in caught.value.do


@pytest.mark.parametrize("mib", ["0.25", "1", "4"])
def test_the_spacing_of_seek_points_is_chosen_and_each_keeps_its_own_index(tmp_path, cache, heard, mib):
    from bevformer.data.store_main import main

    archive = make(tmp_path / "a.tgz")
    assert main(["--data-root", str(archive), "--spacing", mib, "--check"], heard) == 0
    assert heard.results[0]["checked"] == len(FILES)
    assert [path.suffix for path in (cache / "index").iterdir()] == [".gz%d" % (float(mib) * 2**20)]
