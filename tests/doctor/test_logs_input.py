"""Logs as they come: encodings, junk, huge ones, and files that cannot be read."""

import bz2
import gzip
import io
import lzma
from types import SimpleNamespace

import pytest

from bevrepro.cli.doctor_log import explain_log
from bevrepro.core.errors import DataError
from bevrepro.core.machine import Machine
from bevrepro.doctor.logs.explain import explain_file, explain_stream
from bevrepro.doctor.logs.normalise import clean
from bevrepro.doctor.logs.read import blocks

TEXT = "first\nRuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB\nlast\n"


def told(data: bytes) -> list[tuple[str, tuple[int, ...]]]:
    return [(each.id, each.lines) for each in explain_stream(io.BytesIO(data), Machine())]


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-8-sig"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace("first", "caf\xe9 \xfc").encode("latin-1"),
        TEXT.replace("first", "显存").encode("gb18030"),
        TEXT.replace("first", "\x00\x01\x02\x7f").encode(),
        bytes(range(128, 256)) + TEXT.encode(),
    ],
)
def test_any_encoding_keeps_the_line_number(data):
    assert told(data) == [("GPU-OOM", (2,))]


@pytest.mark.parametrize("data", [b"", b"\n", b"\x00" * 5000, bytes(range(256)) * 300, b"\xff\xfe"])
def test_nothing_readable_tells_nothing(data):
    assert told(data) == []


def test_a_message_across_the_border_of_two_blocks_is_found():
    data = b"x y z %d\n" * 300_000 + TEXT.encode()
    assert told(data) == [("GPU-OOM", (300_002,))]


def test_progress_bars_are_one_line():
    lines = [
        each for block in blocks(io.BytesIO(b"a\r\nb\rc\rd\ne")) for each in zip(block.numbers, block.lines)
    ]
    assert lines == [(1, b"a"), (2, b"b"), (2, b"c"), (2, b"d"), (3, b"e")]


def test_memory_stays_bounded_without_line_ends():
    parts = [block.lines for block in blocks(io.BytesIO(b"z" * 12_000_000))]
    assert max(len(line) for lines in parts for line in lines) < 6_000_000


@pytest.mark.parametrize(
    "line, message",
    [
        (b"[rank0]: ValueError: x", "ValueError: x"),
        (b"0: ValueError: x", "ValueError: x"),
        (b"[1,3]<stderr>:ValueError: x", "ValueError: x"),
        (b"2024-01-02 03:04:05,678 - mmdet - INFO - Epoch [1]", "Epoch [1]"),
        ("│ a    b   │".encode(), "a b"),
        ("‘x’：“y”".encode(), "'x':\"y\""),
        (b"Q: `CUDA out of memory`?", ""),
    ],
)
def test_cleaning(line, message):
    assert clean(line) == message


@pytest.mark.parametrize(
    "pack", [gzip.compress, lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])]
)
def test_gzip_is_read_as_it_is(pack):
    assert told(pack(TEXT.encode())) == [("GPU-OOM", (2,))]
    assert told(pack(TEXT.encode("utf-16"))) == [("GPU-OOM", (2,))]
    assert told(pack(TEXT.encode()) + b"\0\0garbage") == [("GPU-OOM", (2,))]


@pytest.mark.parametrize(
    "data, words",
    [
        (lzma.compress(b"x"), "packed with xz"),
        (bz2.compress(b"x"), "packed with bzip2"),
        (b"PK\x03\x04rest", "packed with zip"),
        (b"\x28\xb5\x2f\xfdrest", "packed with zstd"),
        (gzip.compress(TEXT.encode(), mtime=0)[:-9], "cut off"),
        (b"\x1f\x8b\x08garbage", "damaged"),
    ],
)
def test_what_is_packed_otherwise_is_said_with_a_command(tmp_path, data, words):
    log = tmp_path / "a b.log"
    log.write_bytes(data)
    with pytest.raises(DataError, match=words) as caught:
        explain_file(log, Machine())
    assert f"'{log}' | bevrepro doctor --from-log -" in caught.value.do


def test_a_bomb_is_unpacked_bit_by_bit():
    bomb = gzip.compress(b"x" * 20_000_000)
    assert all(sum(map(len, block.lines)) < 3_000_000 for block in blocks(io.BytesIO(bomb)))


def test_half_a_character_at_the_end_is_no_harm():
    assert told(TEXT.encode("utf-16") + b"x") == [("GPU-OOM", (2,))]


def test_a_failure_inside_a_line_of_megabytes_is_found():
    assert told(b"word " * 300_000 + TEXT.encode()[6:] + b"word " * 300_000) == [("GPU-OOM", (1,))]


def test_colours_and_backspaces_do_not_hide_a_failure():
    text = TEXT.replace("CUDA", "\x1b[31mCU\x1b[0mDA").replace("memory", "memm\x08ory")
    assert told(text.encode()) == [("GPU-OOM", (2,))]


def test_a_closed_or_broken_standard_input_is_said(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(DataError, match="standard input is closed"):
        explain_log("-", False, Machine())

    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=Broken()))
    with pytest.raises(DataError, match="standard input: Input/output error"):
        explain_log("-", False, Machine())


def test_files_that_cannot_be_read_are_data_errors(tmp_path):
    for path in (tmp_path, tmp_path / "absent.log"):
        with pytest.raises(DataError, match="could not read the log"):
            explain_file(path, Machine())


def test_no_permission_is_a_data_error(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        explain_file(tmp_path / "x.log", Machine())


def test_the_command_prints_root_and_exit_code(tmp_path, capsys):
    log = tmp_path / "x.log"
    log.write_text(TEXT)
    assert explain_log(str(log), False, Machine()) == 1
    assert "GPU-OOM" in capsys.readouterr().out
    assert explain_log(str(log), True, Machine()) == 1
    assert '"root": "GPU-OOM"' in capsys.readouterr().out
    log.write_text("all is well\n")
    assert explain_log(str(log), False, Machine()) == 0
    assert "no known failure" in capsys.readouterr().out
