"""The compact list of files and its place in the cache: small, quick, and never believed without a look."""

import hashlib
import os
import random
import sys
import tarfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from packed import FILES, PICTURE, make  # noqa: E402

from bevformer.data import index_cache, store_archives  # noqa: E402
from bevformer.data.index_cache import Index  # noqa: E402
from bevformer.data.members import Collector, Members  # noqa: E402
from bevformer.data.store import open_store  # noqa: E402
from bevformer.data.tar_index import PlainSource, scan  # noqa: E402
from bevformer.errors import DataError  # noqa: E402

KINDS = ("a.tar", "a.tgz")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "index"


@pytest.fixture(params=KINDS)
def archive(request, tmp_path):
    return make(tmp_path / request.param)


def kept(cache):
    (one,) = cache.iterdir()
    return one


def members(*names):
    found = Collector()
    for number, name in enumerate(names):
        found.add(name, 512 * number, 7, number)
    return found.members("x")


def test_every_name_is_found_and_no_other():
    names = [f"a/{i}" for i in range(1000)] + ["ä", "b\nc", "\udcff"]
    found = members(*names)
    assert sorted(found) == sorted(names) and len(found) == 1003
    assert all(found[name].offset == 512 * i for i, name in enumerate(names))
    assert all(found.row(name) < 0 for name in ("", "a", "a/", "a/1000", "\ud800", "b"))
    found.check(512 * 1003)


def test_names_made_to_collide_are_refused(monkeypatch):
    monkeypatch.setattr("bevformer.data.members.crc32", lambda data: 5)
    with pytest.raises(DataError, match="slow to look up"):
        members(*(str(i) for i in range(2000)))


def test_an_index_from_the_cache_reads_the_same_without_scanning(archive, monkeypatch):
    open_store([str(archive)])
    for name in ("bevformer.data.store_archives.scan", "bevformer.data.gzip_tar._build"):
        monkeypatch.setattr(name, lambda *args: pytest.fail("indexed again"))
    store = open_store([str(archive)])
    assert {name: store.read(name) for name in store.names("")} == FILES


@pytest.mark.parametrize("seed", range(10))
def test_a_cached_index_with_a_flipped_or_missing_byte_is_made_again(archive, cache, seed):
    open_store([str(archive)])
    whole = bytearray(kept(cache).read_bytes())
    rng = random.Random(seed)
    damaged = whole[: rng.randrange(len(whole))] if seed % 3 == 0 else whole
    if seed % 3:
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    kept(cache).write_bytes(damaged)
    assert open_store([str(archive)]).read(PICTURE) == FILES[PICTURE]
    again = kept(cache).read_bytes()
    stamp = index_cache.stamp_of(os.stat(archive))
    assert index_cache.load(str(kept(cache)), stamp) is not None and len(again) > 1000


def forged(path, change):
    """An index with a fitting digest whose content `change` has altered."""
    stamp = index_cache.stamp_of(os.stat(path))
    with open(path, "rb") as file:
        found = scan(PlainSource(file.fileno()), str(path))
    block = bytearray(found.files.block)
    change(found.files, block)
    return Index(Members(bytes(block), len(found.files)), stamp, 0, 0, stamp[0])


def put(members, block, column, row, value):
    start = {"offsets": 0, "sizes": -(-8 * len(members) // 8) * 8}[column]
    block[start + 8 * row : start + 8 * row + 8] = value.to_bytes(8, "little", signed=True)


FORGERIES = {
    "beyond the end": lambda m, b: put(m, b, "offsets", 3, 1 << 40),
    "below the start": lambda m, b: put(m, b, "offsets", 3, -512),
    "too large": lambda m, b: put(m, b, "sizes", 3, 1 << 62),
    "negative": lambda m, b: put(m, b, "sizes", 3, -1),
    "a name outside": lambda m, b: b.__setitem__(
        slice(-len(m.name(len(m) - 1)), None),
        b"../../../../../../../../../../../../"[: len(m.name(len(m) - 1))],
    ),
    "an absolute name": lambda m, b: b.__setitem__(m._names_start, ord("/")),
    "names out of order": lambda m, b: b.__setitem__(m._names_start, ord("~")),
    "slots of nothing": lambda m, b: b.__setitem__(
        slice(m._names_start - 4096 // 4, m._names_start), b"\xff" * 1024
    ),
    "slots beyond": lambda m, b: b.__setitem__(
        slice(m._names_start - 4, m._names_start), b"\xff\xff\xff\x7f"
    ),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_a_forged_index_with_a_fitting_digest_is_made_again(tmp_path, cache, what):
    archive = make(tmp_path / "a.tar")
    where = index_cache.place(str(archive))
    index_cache.keep(where, lambda out: index_cache.write(forged(archive, FORGERIES[what]), out))
    assert index_cache.load(where, index_cache.stamp_of(os.stat(archive))) is None
    store = open_store([str(archive)])
    assert {name: store.read(name) for name in store.names("")} == FILES


def test_an_index_that_others_could_write_or_that_is_a_link_is_not_used(archive, cache):
    open_store([str(archive)])
    stamp, one = index_cache.stamp_of(os.stat(archive)), kept(cache)
    one.chmod(0o666)
    assert index_cache.load(str(one), stamp) is None
    one.chmod(0o600)
    assert index_cache.load(str(one), stamp) is not None
    os.symlink(one, cache / "link")
    assert index_cache.load(str(cache / "link"), stamp) is None
    os.mkfifo(cache / "pipe")
    assert index_cache.load(str(cache / "pipe"), stamp) is None


def test_a_header_count_of_a_million_million_costs_no_memory(tmp_path):
    out = tmp_path / "index"
    head = index_cache._HEAD.pack(index_cache._MAGIC, 1, 2, 3, 1 << 40, 8, 0, 0, 0, 9, 0) + bytes(8)
    out.write_bytes(head + hashlib.sha256(head).digest())
    out.chmod(0o600)
    assert index_cache.load(str(out), (1, 2, 3)) is None


@pytest.mark.parametrize("field", ["size", "time", "inode"])
def test_an_archive_of_another_size_time_or_inode_is_indexed_again(tmp_path, field):
    archive = make(tmp_path / "a.tar", {"a": b"1"})
    open_store([str(archive)])
    old, before = index_cache.place(str(archive)), os.stat(archive)
    if field == "time":
        os.utime(archive, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    elif field == "size":
        archive.write_bytes(archive.read_bytes() + bytes(512))
        os.utime(archive, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        archive.rename(tmp_path / "old")
        archive.write_bytes((tmp_path / "old").read_bytes())
        os.utime(archive, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert index_cache.load(old, index_cache.stamp_of(os.stat(archive))) is None
    assert open_store([str(archive)]).read("a") == b"1"


def test_another_archive_behind_the_same_size_time_and_inode_is_noticed(tmp_path):
    archive = make(tmp_path / "a.tar", {"a": b"1", "b": b"2"})
    open_store([str(archive)])
    before = os.stat(archive)
    make(archive, {"c": b"3", "d": b"4"})
    os.utime(archive, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert open_store([str(archive)]).names() == ["c", "d"]


def test_without_a_cache_a_tar_is_read_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "file"))
    assert open_store([str(make(tmp_path / "a.tar"))]).read(PICTURE) == FILES[PICTURE]


def test_what_a_killed_writer_left_goes_with_the_next_index_and_one_at_work_stays(tmp_path, cache):
    archive = make(tmp_path / "a.tar")
    place = index_cache.place(str(archive))
    pid = os.fork()
    if not pid:
        index_cache.keep(place, lambda out: os._exit(9))
    os.waitpid(pid, 0)
    (left,) = Path(place).parent.glob("part-*")

    def meanwhile(out):
        assert open_store([str(archive)]).read(PICTURE) == FILES[PICTURE]
        Path(out).write_bytes(b"mine")

    index_cache.keep(place + ".other", meanwhile)
    assert Path(place + ".other").read_bytes() == b"mine" and os.path.exists(place)
    assert not left.exists() and not list(Path(place).parent.glob("part-*"))


@pytest.fixture
def all_looked_at(monkeypatch):
    """Files as small as those here too."""
    monkeypatch.setattr(store_archives, "LOOKED_AT_B", 1)


def test_a_view_is_the_file_and_stays_when_the_archive_goes(tmp_path, all_looked_at):
    archive = make(tmp_path / "a.tar")
    store = open_store([str(archive)])
    view = store.view(PICTURE)
    assert view.readonly and isinstance(view.obj, store_archives.mmap.mmap)  # no copy
    archive.unlink()
    del store
    assert bytes(view) == FILES[PICTURE]


def test_a_small_file_is_copied(tmp_path):
    files = {"samples/small": b"s" * 999, "samples/big": b"b" * 99_999}
    store = open_store([str(make(tmp_path / "a.tar", files))])
    assert store.view("samples/small").obj == b"s" * 999
    assert isinstance(store.view("samples/big").obj, store_archives.mmap.mmap)


def test_where_the_system_cannot_tell_what_is_in_memory_pread_is_used(tmp_path, monkeypatch, all_looked_at):
    store = open_store([str(make(tmp_path / "a.tar"))])

    def refuses(*args):
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "preadv", refuses)
    assert store.view(PICTURE).obj == FILES[PICTURE]


def test_a_tar_that_lost_its_end_is_a_sentence_not_a_signal(tmp_path, all_looked_at):
    archive = make(tmp_path / "a.tar")
    store = open_store([str(archive)])
    whole = {name: bytes(store.view(name)) for name in store.names()}  # every page is mapped
    os.truncate(archive, 4096)
    for name in whole:
        try:
            assert bytes(store.view(name)) == whole[name]
        except DataError as error:
            assert "of %d bytes" % len(whole[name]) in error.seen
    with pytest.raises(DataError):
        store.view(store.names()[-1])


def test_sizes_beyond_eight_gib_are_read(tmp_path):
    big = tarfile.TarInfo("samples/big")
    big.size = 9 << 30
    small = tarfile.TarInfo("samples/small")
    small.size = 5
    with open(tmp_path / "a.tar", "wb") as out:
        out.write(big.tobuf(tarfile.GNU_FORMAT))
        out.seek(big.size, 1)
        out.write(small.tobuf() + b"small" + bytes(507 + 1024))
    store = open_store([str(tmp_path / "a.tar")])
    assert store.read("samples/small") == b"small" and len(store.view("samples/small")) == 5
    assert store.roots[0].members["samples/big"].size == 9 << 30
