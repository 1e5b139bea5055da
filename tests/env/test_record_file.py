"""RECORD files, whole and damaged."""

import base64
import hashlib
from pathlib import Path

import pytest

from bevrepro.env.record_file import forget_origin, read_record

GOOD = base64.urlsafe_b64encode(hashlib.sha256(b"x").digest()).decode().rstrip("=")
SITE = "lib/python3.11/site-packages"


def record(tmp_path: Path, text: str | bytes):
    path = tmp_path / SITE / "a-1.dist-info" / "RECORD"
    path.parent.mkdir(parents=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_record(tmp_path, f"{SITE}/a-1.dist-info/RECORD")


def test_paths_become_relative_to_the_environment(tmp_path):
    read = record(
        tmp_path, f'../../../bin/a,sha256={GOOD},1\n"a,b.py",sha256={GOOD},1\na-1.dist-info/RECORD,,\n'
    )
    assert [row.path for row in read.rows] == ["bin/a", f"{SITE}/a,b.py", f"{SITE}/a-1.dist-info/RECORD"]
    assert read.rows[0].digest == hashlib.sha256(b"x").hexdigest() and read.wrong == ()


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("a.py,sha256=short,1", "the hash"),
        (f"a.py,sha256={GOOD[:-1]}F,1", "the hash"),  # decodes to the same digest
        (f"a.py,md5={GOOD},1", "of the kind 'md5'"),
        (f"a.py,sha256={GOOD},one", "the size"),
        ("a.py,,", "no hash"),
        ("a.py", "not PATH"),
        (f"../../../../etc/passwd,sha256={GOOD},1", "outside"),
        (f"/etc/passwd,sha256={GOOD},1", "outside"),
        (f"a.py,sha256={GOOD},1\na.py,sha256={GOOD},2", "second time"),
    ],
)
def test_each_damaged_line_is_named(tmp_path, line, word):
    (wrong,) = record(tmp_path, line + "\n").wrong
    assert word in wrong


def test_bytes_that_are_no_text_are_told(tmp_path):
    assert "no list of files" in record(tmp_path, b"\xff\xfe\x00").wrong[0]


def test_bytecode_without_a_hash_and_repeated_lines_are_as_pip_writes_them(tmp_path):
    read = record(tmp_path, "__pycache__/a.cpython-311.pyc,,\n" * 2)
    assert len(read.rows) == 1 and read.wrong == ()


def test_what_uv_notes_of_a_wheels_file_is_forgotten(tmp_path):
    read = f"a.py,sha256={GOOD},1\na-1.dist-info/uv_cache.json,sha256={GOOD},1\na-1.dist-info/RECORD,,\n"
    record(tmp_path, read)
    note = tmp_path / SITE / "a-1.dist-info/uv_cache.json"
    note.write_text("{}")
    forget_origin(tmp_path)
    rows = read_record(tmp_path, f"{SITE}/a-1.dist-info/RECORD").rows
    assert not note.exists() and [row.path for row in rows] == [
        f"{SITE}/a.py",
        f"{SITE}/a-1.dist-info/RECORD",
    ]
    forget_origin(tmp_path)
