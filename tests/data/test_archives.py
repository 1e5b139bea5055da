"""Archives are recognised by what is in them, and their ends are looked at."""

import gzip

import pytest

from bevrepro.core.errors import DataError
from bevrepro.data.archives import check_against_index, recognise

END = 30 * 512 + 30 * 1024  # of the files in the fixtures: 30 headers, each file in two blocks


@pytest.mark.parametrize("wrong_name", ["data.bin", "data.zip", "data"])
def test_the_content_decides_and_not_the_name(tar, tgz, zipped, tmp_path, wrong_name):
    for path, kind in ((tar, "tar"), (tgz, "tgz"), (zipped, "zip")):
        assert recognise(path.rename(tmp_path / wrong_name)).kind == kind
    assert recognise(tmp_path).kind == "folder"


def test_the_path_is_real(tar, tmp_path):
    (tmp_path / "link.tar").symlink_to(tar)
    assert recognise(tmp_path / "link.tar").path == tar.resolve()


@pytest.mark.parametrize(
    "content, match",
    [
        (b"", "is empty"),
        (b"hello" * 300, "neither a tar"),
        (b"\x1f\x8b\x08", "begins like a gzip"),
        (b"PK\x03\x04" + b"x" * 100, "cannot be read as a zip"),
        (b"PK\x05\x06" + bytes(18), "holds no files"),
        (bytes(10240), "neither a tar"),
    ],
)
def test_what_is_no_archive_is_refused(tmp_path, content, match):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(DataError, match=match):
        recognise(tmp_path / "a.tar")


def test_a_missing_archive_and_a_device_are_refused(tmp_path):
    with pytest.raises(DataError, match="no archive at"):
        recognise(tmp_path / "nope.tgz")
    with pytest.raises(DataError, match="neither an archive nor a folder"):
        recognise("/dev/null")


@pytest.mark.parametrize("keep", [END - 1, END - 512, END + 512, END // 2, 700, 100])
def test_a_tar_without_its_end_is_refused_at_once(tar, keep):
    tar.write_bytes(tar.read_bytes()[:keep])
    with pytest.raises(DataError, match="cut short|neither"):
        recognise(tar)


def test_a_whole_archive_agrees_with_its_index(tar, tgz):
    for path in (tar, tgz):
        check_against_index(recognise(path), END)


@pytest.mark.parametrize("end", [END - 10 * 1536, 512, END + 100_000])
def test_an_index_that_ends_elsewhere_is_a_broken_archive(tar, tgz, end):
    """A header broken in the middle, or a file that lost its last part."""
    for path in (tar, tgz):
        with pytest.raises(DataError, match="cut short or broken"):
            check_against_index(recognise(path), end)


def test_a_tgz_of_more_than_4_gib_wraps_its_trailer(tgz):
    check_against_index(recognise(tgz), END + (1 << 32))


def test_a_cut_tgz_disagrees_with_its_trailer(tgz):
    tgz.write_bytes(tgz.read_bytes()[:-40])
    with pytest.raises(DataError, match="cut short"):
        check_against_index(recognise(tgz), END)


def test_a_second_tar_behind_the_end_is_not_lost_silently(tar):
    tar.write_bytes(tar.read_bytes() * 2)
    with pytest.raises(DataError, match="broken in the middle"):
        check_against_index(recognise(tar), END)


def test_json_of_an_archive_is_plain(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"x" * 100))
    assert recognise(tmp_path / "a.gz").to_json()["path"] == str(tmp_path / "a.gz")
