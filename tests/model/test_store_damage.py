"""What ratarmount lets through is an error here: cut, flipped, broken and hostile archives."""

import errno
import io
import os
import random
import tarfile
import zipfile

import pytest

from bevformer.data.store import open_store
from bevformer.data.store_roots import is_dead
from bevformer.errors import DataError

RNG = random.Random(3)
FILES = {f"samples/{i:02d}.jpg": RNG.randbytes(3000 + i) for i in range(20)}


def tar_bytes(files, mode="w", **kwargs):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, **kwargs) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def zip_bytes(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


WHOLE = {"a.tar": tar_bytes(FILES), "a.tgz": tar_bytes(FILES, "w:gz"), "a.zip": zip_bytes(FILES)}


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Write bytes under a name and open them."""
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))

    def write(name, data):
        (tmp_path / name).write_bytes(data)
        return open_store([str(tmp_path / name)])

    return write


def refused(opened, name, data, match):
    with pytest.raises(DataError, match=match) as caught:
        opened(name, data)
    assert name in caught.value.seen


END_BLOCKS = len(FILES) * 512 + sum(-(-len(data) // 512) * 512 for data in FILES.values())


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_cut_archive_is_refused_wherever_it_is_cut(opened, kind, share):
    data = WHOLE[kind]
    size = END_BLOCKS if kind == "a.tar" else len(data)  # tar pads with zeros behind its end blocks
    refused(opened, kind, data[: int(size * share)], "cut short|damaged|cannot be read|neither")


@pytest.mark.parametrize("end", [0, 1, 512, 513, 1023])
def test_a_tar_without_its_end_blocks_is_refused(opened, end):
    refused(opened, "a.tar", WHOLE["a.tar"][: END_BLOCKS + end], "cut short")


@pytest.mark.parametrize("missing", [1, 4, 8, 9, 20])
def test_a_tgz_cut_inside_its_trailer_is_refused(opened, missing):
    refused(opened, "a.tgz", WHOLE["a.tgz"][:-missing], "cut short|damaged")


@pytest.mark.parametrize("seed", range(12))
def test_flipped_bytes_anywhere_in_a_tgz_are_refused(opened, seed):
    data = bytearray(WHOLE["a.tgz"])
    place = random.Random(seed).randrange(20, len(data) - 64)
    for index in range(place, place + 64):
        data[index] ^= 0x55
    refused(opened, "a.tgz", bytes(data), "damaged|cut short|broken header|neither|no files")


def test_a_header_broken_in_the_middle_is_refused(opened):
    data = bytearray(WHOLE["a.tar"])
    with tarfile.open(fileobj=io.BytesIO(bytes(data))) as tar:
        start = tar.getmembers()[10].offset
    data[start + 20] ^= 1
    refused(opened, "a.tar", bytes(data), f"broken header at byte {start}")
    data[start : start + 512] = bytes(512)
    refused(opened, "a.tar", bytes(data), "broken header")


def test_flipped_bytes_in_a_zip_are_found_when_the_file_is_read(opened):
    data = bytearray(WHOLE["a.zip"])
    place = data.index(FILES["samples/05.jpg"]) + 100
    data[place] ^= 1
    store = opened("a.zip", bytes(data))
    assert store.read("samples/04.jpg") == FILES["samples/04.jpg"]
    with pytest.raises(DataError, match="samples/05.jpg.*CRC"):
        store.read("samples/05.jpg")


def test_an_archive_cut_while_it_is_open_gives_no_short_file(opened):
    store = opened("a.tar", WHOLE["a.tar"])
    os.truncate(store.roots[0].path, 40_000)
    with pytest.raises(DataError, match="samples/19.jpg.*0 of 3019 bytes"):
        store.read("samples/19.jpg")


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "samples/../../evil", "a\\..\\b"])
@pytest.mark.parametrize("kind", ["a.tar", "a.tgz", "a.zip"])
def test_a_name_that_leaves_the_root_is_refused(opened, kind, name):
    files = {"samples/ok.jpg": b"1", name: b"evil"}
    pack = {"a.tar": tar_bytes, "a.tgz": lambda f: tar_bytes(f, "w:gz"), "a.zip": zip_bytes}[kind]
    refused(opened, kind, pack(files), "entry named")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_counted_and_never_followed(opened, kind):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("samples/link")
        entry.type, entry.linkname = kind, "/etc/passwd"
        tar.addfile(entry)
        entry = tarfile.TarInfo("samples/a")
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"1"))
    store = opened("a.tar", out.getvalue())
    assert store.names("") == ["samples/a"] and store.describe()["roots"][0]["not_followed"] == 1
    with pytest.raises(DataError, match="samples/link"):
        store.read("samples/link")


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_every_tar_format_are_read(opened, layout):
    long = "samples/" + "d" * 90 + "/" + "x" * 80 + ".jpg"
    files = {long: b"long", "./samples//./plain.jpg": b"plain"}
    store = opened("a.tar", tar_bytes(files, format=layout))
    assert store.read(long) == b"long" and store.names("") == sorted([long, "samples/plain.jpg"])


def test_names_outside_ascii_and_sizes_in_pax_headers_are_read(opened):
    store = opened("a.tar", tar_bytes({"samples/Zürich–1.jpg": b"x" * 700, "samples/b": b"b"}))
    assert store.read("samples/Zürich–1.jpg") == b"x" * 700 and store.read("samples/b") == b"b"


@pytest.mark.parametrize(
    "data, match",
    [
        (b"", "is empty"),
        (b"hello, I am a text file" * 100, "neither a tar"),
        (bytes(10240), "holds no files"),
        (b"\x1f\x8b" + b"no gzip at all" * 100, "damaged|cut short"),
        (zip_bytes({}), "holds no files"),
        (tar_bytes({}, "w:gz"), "holds no files"),
    ],
    ids=["empty", "text", "zeros", "gzip's first bytes", "zip", "tgz"],
)
def test_what_is_no_archive_is_refused(opened, data, match):
    refused(opened, "a.tar", data, match)


def test_a_gzip_that_holds_no_tar_is_refused(opened):
    import gzip

    refused(opened, "a.tgz", gzip.compress(b"only text" * 1000), "broken header|cut short")


def test_a_missing_path_and_an_empty_list_are_refused(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        open_store([str(tmp_path / "nope.tgz")])
    with pytest.raises(DataError, match="no data root"):
        open_store([])


def test_the_name_of_an_archive_does_not_matter(opened):
    assert opened("wrong.zip", WHOLE["a.tgz"]).describe()["roots"][0]["kind"] == "tgz"


DYING = {errno.ENOTCONN: True, errno.ECONNABORTED: True, errno.EIO: False}


@pytest.mark.parametrize("code, dead", DYING.items(), ids=map(errno.errorcode.get, DYING))
def test_a_read_cut_off_by_the_death_of_a_mount_says_so(tmp_path, monkeypatch, code, dead):
    """ECONNABORTED: the read was under way. EIO from a living disk is damage."""
    (tmp_path / "a.jpg").write_bytes(b"1")
    store = open_store([str(tmp_path)])

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("builtins.open", fail)
    with pytest.raises(DataError, match="has died" if dead else "Input/output error"):
        store.read("a.jpg")


def test_eio_from_a_mount_that_no_longer_answers_is_its_death(tmp_path, monkeypatch):
    def gone(path):
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    monkeypatch.setattr("os.statvfs", gone)
    assert is_dead(str(tmp_path), OSError(errno.EIO, ""))
    assert not is_dead(str(tmp_path), OSError(errno.EACCES, ""))
