"""Logs as they come: encodings, junk, huge ones, and files that cannot be read."""

import io
import time

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


def test_24_mb_take_at_most_two_seconds():
    line = b"2022-08-30 20:01:19,004 - mmdet - INFO - Epoch [1][%d/3517]\tlr: 1.2e-4, loss: %d.5, time: 1\n"
    data = b"".join(line % (i % 3517, i) for i in range(290_000))[:24_000_000] + TEXT.encode()
    start = time.process_time()
    assert told(data)[0][0] == "GPU-OOM"
    assert time.process_time() - start <= 2


def test_files_that_cannot_be_read_are_data_errors(tmp_path):
    locked = tmp_path / "locked.log"
    locked.write_text("x")
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
