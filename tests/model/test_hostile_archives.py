"""Hostile archives through every door that opens them: nothing outside the target is ever touched.

TRIES: every hostile entry through five doors (reader, repack, --keyframes-only; .tar and .tgz): 75 in all.
"""

import gzip
import io
import os
import random
import struct
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from packed import make, tar_bytes  # noqa: E402
from peak import rise_kib  # noqa: E402

from bevformer.data import repack, repack_job, seek_points  # noqa: E402
from bevformer.data.store import open_store  # noqa: E402
from bevformer.errors import DataError  # noqa: E402

GOOD = {"samples/a.jpg": b"good" * 999, "samples/b.jpg": b"fine" * 500}


def entry(name, kind=tarfile.REGTYPE, link="", data=b"", **fields):
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, link, len(data)
    for field, value in fields.items():
        setattr(made, field, value)
    return made, data


REFUSED = {
    "dot dot": entry("../victim", data=b"evil"),
    "dot dot inside": entry("samples/../../victim", data=b"evil"),
    "absolute": entry("/victim", data=b"evil"),
    "a folder outside": entry("../victim/", tarfile.DIRTYPE),
    "a link named outside": entry("../victim", tarfile.SYMTYPE, "x"),
    "dot dot in a pax header": entry("x" * 120 + "/../../../victim", data=b"evil"),
    "a negative size": entry("samples/neg", size=-5),
    "a size beyond everything": entry("samples/huge", size=1 << 60),
}
LEFT_OUT = {
    "symbolic link out": entry("samples/a.lnk", tarfile.SYMTYPE, "../../victim"),
    "absolute link": entry("samples/a.lnk", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link out": entry("samples/a.hard", tarfile.LNKTYPE, "../../victim"),
    "device": entry("samples/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
    "block device": entry("samples/disk", tarfile.BLKTYPE, devmajor=8, devminor=0),
    "pipe": entry("samples/pipe", tarfile.FIFOTYPE),
    "sparse, as pax": entry("samples/sparse", data=b"1\n0\n5\n" + bytes(506) + b"abcde",
                            pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
}  # fmt: skip


def packed(evil, kind):
    """The evil entry between two good ones."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        rows = [entry(name, data=data) for name, data in GOOD.items()]
        for made, data in (rows[0], evil, rows[1]):
            if made.size < 0 or made.size > 1 << 40:
                tar.fileobj.write(made.tobuf(tarfile.GNU_FORMAT))
            else:
                tar.addfile(made, io.BytesIO(data))
    return gzip.compress(out.getvalue()) if kind == "tgz" else out.getvalue()


def through(door, archive, out):
    """What the door lets through: name -> bytes."""
    if door == "reader":
        store = open_store([str(archive)])
    else:
        job = repack_job.plan(str(archive), str(out), door == "thinned")
        repack.repack(job, False, lambda *told: None)
        with tarfile.open(job.out) as tar:
            assert all(member.isreg() or member.isdir() for member in tar)
        store = open_store([job.out])
    return {name: store.read(name) for name in store.names()}


BGZF = b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff\x06\0BC\x02\0"
DOORS = [("reader", "tar"), ("reader", "tgz"), ("repack", "tgz"), ("thinned", "tgz"), ("thinned", "tar")]


@pytest.fixture
def arena(tmp_path, monkeypatch):
    """A file that is not to be touched, and a look afterwards at everything around the target."""
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "work" / "out").mkdir(parents=True)
    yield tmp_path / "work"
    assert (tmp_path / "victim").read_text() == "untouched" and (tmp_path / "victim").stat().st_nlink == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"victim", "work", "cache"}
    assert not os.path.lexists("/victim")


@pytest.mark.parametrize("door, kind", DOORS)
@pytest.mark.parametrize("what", REFUSED)
def test_what_points_outside_or_lies_about_its_size_is_refused(arena, what, door, kind):
    (arena / f"a.{kind}").write_bytes(packed(REFUSED[what], kind))
    with pytest.raises(DataError):
        through(door, arena / f"a.{kind}", arena / "out")
    assert os.listdir(arena / "out") == []


@pytest.mark.parametrize("door, kind", DOORS)
@pytest.mark.parametrize("what", LEFT_OUT)
def test_links_devices_and_sparse_files_are_left_out_and_the_rest_is_right(arena, what, door, kind):
    (arena / f"a.{kind}").write_bytes(packed(LEFT_OUT[what], kind))
    assert through(door, arena / f"a.{kind}", arena / "out") == GOOD
    assert all(path.is_file() and not path.is_symlink() for path in (arena / "out").iterdir())


@pytest.mark.parametrize("door, kind", DOORS)
def test_of_two_entries_of_a_name_the_last_one_counts(arena, door, kind):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for data in (b"first", b"second", b"last!"):
            tar.addfile(*(lambda made: (made[0], io.BytesIO(made[1])))(entry("samples/a", data=data)))
    (arena / f"a.{kind}").write_bytes(gzip.compress(out.getvalue()) if kind == "tgz" else out.getvalue())
    assert through(door, arena / f"a.{kind}", arena / "out") == {"samples/a": b"last!"}


def test_old_gnu_sparse_files_with_a_long_map_do_not_hide_what_follows(arena):
    head = bytearray(entry("samples/sparse", b"S", size=3)[0].tobuf(tarfile.GNU_FORMAT))
    head[482] = 1
    head[148:156] = b"        "
    head[148:156] = b"%06o\0 " % sum(head)
    more, last = bytearray(512), bytearray(512)
    more[504] = 1
    tail = tar_bytes(GOOD)
    (arena / "a.tar").write_bytes(bytes(head) + bytes(more) + bytes(last) + b"abc" + bytes(509) + tail)
    assert through("reader", arena / "a.tar", arena / "out") == GOOD


def test_a_gzip_bomb_is_refused_before_it_fills_memory_or_disk(arena, monkeypatch):
    """300 MB of zeros from 300 KB, with the bound of a GiB lowered to 100 MB."""
    for module in ("bevformer.data.repack", "bevformer.data.gzip_index"):
        monkeypatch.setattr(module + ".BOMB_BYTES", 100 << 20)
    head = entry("samples/zeros")[0]
    head.size = 300 << 20
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    with open(arena / "a.tgz", "wb") as out:
        out.write(squeeze.compress(head.tobuf()))
        for _ in range(300):
            out.write(squeeze.compress(bytes(1 << 20)))
        out.write(squeeze.compress(bytes(1024)) + squeeze.flush())
    with rise_kib() as found, pytest.raises(DataError, match="expands to more than 200 times"):
        through("repack", arena / "a.tgz", arena / "out")
    assert os.listdir(arena / "out") == []
    assert found[0] < 150_000
    from bevformer.data import gzip_index

    with pytest.raises(DataError, match="expands to more than 200 times"):
        gzip_index.build(str(arena / "a.tgz"), str(arena / "index"), 1 << 20)


def test_a_zip_bomb_is_refused_when_it_is_read(arena, monkeypatch):
    monkeypatch.setattr("bevformer.data.store_archives.BOMB_BYTES", 1 << 20)
    with zipfile.ZipFile(arena / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(8 << 20))
        archive.writestr("fine", b"fine" * 100)
    store = open_store([str(arena / "a.zip")])
    assert store.read("fine") == b"fine" * 100
    with pytest.raises(DataError, match="would expand"):
        store.read("bomb")


def members_of_gzip(data, how):
    """The same content as several gzip members."""
    if how == "concatenated":
        return b"".join(gzip.compress(data[i : i + 70_000]) for i in range(0, len(data), 70_000))
    blocks = []
    for i in range(0, len(data), 65_280):  # as bgzip writes them
        part = data[i : i + 65_280]
        squeeze = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = squeeze.compress(part) + squeeze.flush()
        size = (len(body) + 25).to_bytes(2, "little")
        tail = zlib.crc32(part).to_bytes(4, "little") + len(part).to_bytes(4, "little")
        blocks.append(BGZF + size + body + tail)
    return b"".join(blocks) + bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


@pytest.mark.parametrize("how", ["concatenated", "bgzip"])
def test_several_gzip_members_are_read_like_one(arena, how):
    rng = random.Random(5)
    files = {f"samples/{i}.jpg": rng.randbytes(rng.randrange(90_000)) for i in range(40)}
    data = make(arena / "a.tar", files).read_bytes()
    (arena / "a.tgz").write_bytes(members_of_gzip(data, how))
    store = open_store([str(arena / "a.tgz")], 1 << 16)  # seek points close together, so in many members
    assert {name: store.read(name) for name in rng.sample(store.names(), 40)} == files


def test_zeros_that_a_tape_left_behind_the_gzip_are_no_damage_to_repack(arena):
    (arena / "a.tgz").write_bytes(gzip.compress(tar_bytes(GOOD)) + bytes(700))
    assert through("repack", arena / "a.tgz", arena / "out") == GOOD


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("how", ["concatenated", "bgzip"])
def test_a_cut_or_flipped_archive_of_several_members_is_refused(arena, how, seed):
    rng = random.Random(seed)
    data = members_of_gzip(tar_bytes({f"samples/{i}": rng.randbytes(30_000) for i in range(20)}), how)
    if seed % 2:
        data = data[: rng.randrange(100, len(data) - 1500)]
    else:
        place = rng.randrange(100, len(data) - 1500)
        data = data[:place] + bytes([data[place] ^ 0x24]) + data[place + 1 :]
    (arena / "a.tgz").write_bytes(data)
    with pytest.raises(DataError):
        open_store([str(arena / "a.tgz")])


@pytest.mark.parametrize("seed", range(4))
def test_seek_points_start_at_any_bit_and_through_every_kind_of_block(tmp_path, seed, monkeypatch):
    """Stored, fixed and dynamic blocks in turn; every read compared with the content."""
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))
    rng = random.Random(seed)
    skew = bytes(value if value < 200 else value - 200 for value in range(256))
    pieces = {"random": lambda n: rng.randbytes(n), "skewed": lambda n: rng.randbytes(n).translate(skew),
              "text": lambda n: (b"lorem ipsum %d " % n) * (n // 16), "zeros": bytes}  # fmt: skip
    files = {
        f"samples/{i:03d}": pieces[rng.choice(sorted(pieces))](rng.randrange(120_000)) for i in range(60)
    }
    make(tmp_path / "a.tgz", files)
    store = open_store([str(tmp_path / "a.tgz")], 1 << 16)
    assert all(store.read(name) == files[name] for name in rng.sample(sorted(files), 60))
    points = store.roots[0]._points
    assert len({points.before(place).bits for place in range(0, 3 << 20, 1 << 15)}) > 2


@pytest.mark.parametrize("data", [b"", b"x" * 31, bytes(32), bytes(8) + b"gzipindx" + b"\xff" * 40])
def test_seek_points_that_are_none_are_refused(data):
    with pytest.raises((ValueError, struct.error)):
        seek_points.SeekPoints(data)


@pytest.mark.parametrize("mib", [0.0, -1.0, 0.01, 1e9, float("nan")])
def test_a_spacing_that_makes_no_sense_is_said(mib):
    from bevformer.data.gzip_tar import spacing_of

    with pytest.raises(DataError, match="spacing"):
        spacing_of(mib)
    assert spacing_of(0.25) == 1 << 18
