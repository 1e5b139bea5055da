"""What is said of each installed file, without a disk."""

import stat

import pytest

from bevrepro.env.bytecode import Header
from bevrepro.env.record_file import Record, Row
from bevrepro.env.tree import Entry
from bevrepro.env.verify_files import Files, Patched, judge_files

SITE = "lib/python3.11/site-packages"
WHOLE, OTHER, MADE = "a" * 64, "b" * 64, "c" * 64


def entry(path, digest=WHOLE, size=1, mode=stat.S_IFREG | 0o644, link=None):
    return Entry(f"{SITE}/{path}", mode, size, 0, digest, link)


def files(*entries, owned=("m.py",), patched=None, headers=None, second=None):
    rows = [Row(f"{SITE}/{path}", "sha256", WHOLE, 1) for path in owned]
    records = [Record("m-1.dist-info", f"{SITE}/m-1.dist-info/RECORD", tuple(rows), ())]
    if second:
        records.append(Record("n-1.dist-info", "", (Row(f"{SITE}/m.py", "sha256", second, 1),), ()))
    changed = {f"{SITE}/{path}": Patched("m-1", digest) for path, digest in (patched or {}).items()}
    return Files({e.path: e for e in entries}, tuple(records), (SITE,), headers or {}, changed, {})


@pytest.mark.parametrize(
    ("seen", "kinds"),
    [
        (files(entry("m.py")), []),
        (files(entry("m.py", OTHER)), ["edited"]),
        (files(entry("m.py", WHOLE, size=2)), ["edited"]),
        (files(), ["gone"]),
        (files(entry("m.py", None)), ["unreadable"]),
        (files(entry("m.py", None, mode=stat.S_IFLNK | 0o777, link="x")), ["edited"]),
        (files(entry("m.py"), entry("sitecustomize.py")), ["extra"]),
        (files(entry("m.py"), entry("evil.pth")), ["extra"]),
        (files(entry("m.py"), entry("_virtualenv.py")), []),
        (files(entry("m.py"), entry("pipe", None, mode=stat.S_IFIFO | 0o644)), ["extra", "odd"]),
        (files(entry("m.py", MADE), patched={"m.py": MADE}), ["patched"]),
        (files(entry("m.py", OTHER), patched={"m.py": MADE}), ["patch-edited"]),
        (files(entry("m.py"), patched={"m.py": MADE}), ["unpatched"]),
        (files(entry("m.py"), second=WHOLE), []),
        (files(entry("m.py"), second=OTHER), ["clash"]),
        (files(entry("m.py", MADE), second=OTHER), ["edited"]),
    ],
)
def test_each_state_of_a_file_has_its_name(seen, kinds):
    assert [each.kind for each in judge_files(seen)] == kinds


@pytest.mark.parametrize(
    ("path", "header", "kinds"),
    [
        ("__pycache__/m.cpython-311.pyc", Header(False, False, 0, 1), []),
        ("__pycache__/m.cpython-311.opt-1.pyc", Header(False, True, 0, 1), []),
        ("__pycache__/m.cpython-311.pyc", Header(True, True, 0, 1), ["bytecode"]),
        ("__pycache__/gone.cpython-311.pyc", Header(False, False, 0, 1), ["bytecode"]),
        ("m.pyc", Header(False, False, 0, 1), ["bytecode"]),
    ],
)
def test_bytecode_is_let_pass_only_where_its_source_decides(path, header, kinds):
    seen = files(entry("m.py"), entry(path, None), headers={f"{SITE}/{path}": header})
    assert [each.kind for each in judge_files(seen)] == kinds
