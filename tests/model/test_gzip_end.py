"""Zeros behind a .tgz, as tapes and disk images leave them, hide nothing; anything else there is refused."""

import gzip
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from packed import FILES, tar_bytes  # noqa: E402

from bevformer.data import gzip_end, repack, repack_job  # noqa: E402
from bevformer.data.archive_pass import nothing, pass_through  # noqa: E402
from bevformer.data.store import open_store  # noqa: E402
from bevformer.errors import DataError  # noqa: E402

TAR = tar_bytes()
WHOLE = gzip.compress(TAR, 1)
IN_PARTS = b"".join(gzip.compress(TAR[at : at + 300_000], 1) for at in range(0, len(TAR), 300_000))


@pytest.fixture
def opened(tmp_path, monkeypatch):
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))

    def write(data):
        (tmp_path / "a.tgz").write_bytes(data)
        return open_store([str(tmp_path / "a.tgz")])

    return write


@pytest.mark.parametrize("zeros", [1, 4, 7, 512, 10_240, 3_000_000])
@pytest.mark.parametrize("data", [WHOLE, IN_PARTS], ids=["one member", "several"])
def test_zeros_behind_it_are_passed_over(opened, tmp_path, data, zeros):
    store = opened(data + bytes(zeros))
    assert {name: store.read(name) for name in store.names()} == FILES
    path = str(tmp_path / "a.tgz")
    assert set(pass_through(path, "tgz", nothing(), True, lambda done: None).names) == set(FILES)
    repack.repack(repack_job.plan(path, str(tmp_path / "out"), False), False, lambda *told: None)
    assert set(open_store([str(tmp_path / "out/a.tar")]).names()) == set(FILES)


@pytest.mark.parametrize(
    "data",
    [
        WHOLE[:-9] + bytes(4096),  # a download whose space was reserved
        WHOLE[: len(WHOLE) // 2] + bytes(len(WHOLE) // 2),
        WHOLE + b"x" * 600,
        WHOLE + bytes(600) + b"x" * 600,
        WHOLE + bytes(600) + gzip.compress(b"more") + bytes(8),
        IN_PARTS[:-9] + bytes(512),
    ],
    ids=["cut", "half", "text", "zeros and text", "zeros and a member", "several, cut"],
)
def test_what_else_follows_or_is_missing_is_refused(opened, data):
    with pytest.raises(DataError, match="damaged|cut short"):
        opened(data)


def test_only_a_file_that_ends_in_zeros_is_read_through_for_them(tmp_path, monkeypatch):
    monkeypatch.setattr(gzip_end, "walk", lambda path: pytest.fail("read through"))
    (tmp_path / "a.tgz").write_bytes(WHOLE)
    assert gzip_end.padded(str(tmp_path / "a.tgz")) is None


def test_the_front_of_a_file_ends_where_it_is_told(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(100)))
    with gzip_end.Front(str(tmp_path / "a"), 60) as front:
        assert front.read() == bytes(range(60)) and front.read(1) == b""
        assert front.seek(-5, 2) == 55 and front.read(99) == bytes(range(55, 60))
        assert front.seek(3) == 3 and front.seek(1, 1) == 4 and front.read(1) == b"\x04"


def test_a_bomb_with_zeros_behind_it_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(gzip_end, "BOMB_BYTES", 1 << 20)
    (tmp_path / "a.tgz").write_bytes(gzip.compress(bytes(64 << 20), 9) + bytes(512))
    with pytest.raises(DataError, match="expands to more than 200 times"):
        gzip_end.padded(str(tmp_path / "a.tgz"))
