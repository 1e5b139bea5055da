"""A glance into archives: bounded whatever the file says."""

import gzip
import io
import os
import tarfile
import zipfile

import pytest

from bevrepro.probe.inside import MOST_NAMES, family, is_tar_header, isizes, peek

NAMES = [f"samples/CAM_FRONT/{number:03}.jpg" for number in range(200)]


def tar_bytes(names=NAMES, size=700):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = size
            tar.addfile(entry, io.BytesIO(os.urandom(size)))
    return raw.getvalue()


def looked(tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    return peek(path)


def test_first_names_of_a_tar_and_of_a_tgz(tmp_path):
    for content in (tar_bytes(), gzip.compress(tar_bytes())):
        found = looked(tmp_path, content)
        assert list(found.names) == NAMES[:MOST_NAMES] and found.tail is None


def test_all_names_of_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        for name in NAMES:
            archive.writestr(name, "x")
    found = peek(tmp_path / "file")
    assert (found.form, len(found.names), found.tail) == ("zip", 200, None)


@pytest.mark.parametrize("kept", [1000, 60_000, 100_001])
def test_a_cut_tar_has_no_end(tmp_path, kept):
    assert looked(tmp_path, tar_bytes()[:kept]).tail is not None


def test_a_cut_tgz_ends_in_a_length_that_no_tar_has(tmp_path):
    whole = gzip.compress(tar_bytes())
    told = [looked(tmp_path, whole[:-cut]).tail is not None for cut in range(1, 200)]
    assert sum(told) >= 198  # one in 512 passes by chance, of those few that deflate could have made


def test_a_cut_zip_has_no_directory(tmp_path):
    with zipfile.ZipFile(tmp_path / "whole", "w") as archive:
        archive.writestr("can_bus/a.json", "[]" * 1000)
    content = (tmp_path / "whole").read_bytes()
    assert looked(tmp_path, content[:-30]).tail == "its end is missing"


@pytest.mark.parametrize("zeros", [9, 100, 512, 10_240, 900_000])
def test_zeros_of_a_tape_behind_a_tgz_hide_nothing(tmp_path, zeros):
    whole = gzip.compress(tar_bytes())
    assert looked(tmp_path, whole + bytes(zeros)).tail is None
    cut = whole[:-20] + b"\x07" * 16 + bytes(zeros)
    assert "download that never finished" in looked(tmp_path, cut).tail


def test_nothing_but_zeros_at_the_end_is_no_archive_s_end(tmp_path):
    assert "never finished" in looked(tmp_path, gzip.compress(tar_bytes()) + bytes(3 << 20)).tail


@pytest.mark.parametrize(
    "isize, zeros", [(0x12800, 0), (0x12800, 20), (0x100, 512), (0x81000000, 9), (0x12345678, 600), (0, 0)]
)
def test_isize_is_looked_for_in_front_of_padding(isize, zeros):
    content = b"\x11" * 96 + isize.to_bytes(4, "little") + bytes(zeros)
    found = isizes(io.BytesIO(content), len(content))
    assert found[isize] == 100 and (zeros or isize == 0 or len(found) == 1)


@pytest.mark.parametrize(
    "content, form",
    [
        (b"", "empty"),
        (bytes(4096), "zeros"),
        (b"<!DOCTYPE html><html>", "html"),
        (b"  <?xml version='1.0'?><Error><Code>AccessDenied", "html"),
        (b"not found", "text"),
        (b"BZh91AY&SY", "bz2"),
        (b"\x1f\x8b", "tgz"),
        (b"\x1f\x8b\x08\x00" + b"\xff" * 600, "tgz"),
        (b"PK\x05\x06" + b"\xff" * 18, "zip"),
        (b"\x7fELF" + bytes(600), "other"),
    ],
)
def test_what_is_no_archive_is_told_and_never_raised(tmp_path, content, form):
    found = looked(tmp_path, content)
    assert found.form == form and found.names == ()


def test_a_bomb_is_inflated_for_a_megabyte_only(tmp_path):
    found = looked(tmp_path, gzip.compress(tar_bytes(["bomb"], 64 << 20)[:512] + bytes(64 << 20)))
    assert found.names == ("bomb",)


def test_a_zip_that_promises_an_endless_directory_is_not_read(tmp_path):
    end = b"PK\x05\x06" + bytes(8) + (0xFFFFFFF0).to_bytes(4, "little") + bytes(6)
    assert "far too long" in looked(tmp_path, b"PK\x03\x04" + bytes(600) + end).tail


def test_headers_that_point_nowhere_end_the_look(tmp_path):
    header = bytearray(tar_bytes(["a"])[:512])
    header[124:136] = b"\x80" + b"\xff" * 11
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 256)
    assert is_tar_header(bytes(header))
    assert looked(tmp_path, bytes(header) + bytes(2048)).names == ("a",)


def test_a_pipe_and_a_missing_file_are_errors_in_words(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert peek(tmp_path / "pipe").error == "no ordinary file"
    assert peek(tmp_path / "nothing").error == "No such file or directory"


def test_a_file_with_holes_says_how_much_of_it_is_there(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        file.write(gzip.compress(tar_bytes()))
        file.truncate(1 << 30)
    found = peek(tmp_path / "file")
    assert found.size_b == 1 << 30 and found.allocated_b < 1 << 22


def test_folders_above_are_looked_through():
    found = family(["./data/nuscenes/samples/CAM_FRONT/a.jpg", "data/nuscenes/v1.0-mini/scene.json"])
    assert found.samples == {"CAM"} and found.versions == {"v1.0-mini"}
