"""The receipt, the digest and the places that a plan is made of."""

import json
import stat
from dataclasses import replace

import pytest

from bevrepro.core.errors import ConfigError
from bevrepro.env.digest import digest_of
from bevrepro.env.receipt import Receipt, read_receipt, write_receipt
from bevrepro.env.tree import Entry
from bevrepro.env.verify_receipt import SEAL, seal

TOLD = Receipt(
    target="cpu", title="t", stack="torch2", prefix="/p", path="/p.builds/x", python={"version": "3.11.7"},
    inputs_digest="a" * 64, digest="b" * 64, locks={"locks/cpu.txt": "c"}, packages={"six": "1"}, built=(),
    patches=({"set": "s", "sha256": "d"},), cuda=None, environment={"Ä": "ü"}, selftest=({"name": "torch"},),
    steps=({"name": "venv"},), built_at="2026-11-21T00:00:00Z", bevrepro="0", evidence=None,
)  # fmt: skip


def test_a_receipt_is_read_as_it_was_written_and_sealed(tmp_path):
    write_receipt(TOLD, tmp_path)
    assert read_receipt(tmp_path) == TOLD
    told = json.loads((tmp_path / "bevrepro-env.json").read_text(encoding="utf-8"))
    assert told[SEAL] == seal(told)


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "{}", '{"schema": 2}', '{"schema": 1}', '{"schema": 1, "target": 3}']
)
def test_what_is_no_receipt_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "bevrepro-env.json").write_text(text)
    with pytest.raises(ConfigError):
        read_receipt(tmp_path)


def entry(path, sha256="0", mode=0o644, link=None):
    return Entry(path, (stat.S_IFLNK if link else stat.S_IFREG) | mode, 1, 0, None if link else sha256, link)


def digest(*entries):
    return digest_of({each.path: each for each in entries})


def test_bytecode_and_the_builders_notes_are_in_no_digest():
    one = entry("lib/a.py")
    noise = (
        "lib/a.pyc",
        "lib/__pycache__/a.txt",
        "bevrepro-env.json",
        "bevrepro-env.log",
        "bevrepro-steps/1.json",
    )
    assert (
        digest(one)
        == digest(one, *map(entry, noise))
        == digest(replace(one, mtime_s=9, mode=one.mode & ~0o044))
    )


@pytest.mark.parametrize(
    "other",
    [
        [entry("lib/b.py")],
        [entry("lib/a.py", "1")],
        [entry("lib/a.py", mode=0o755)],
        [entry("lib/a.py", link="x")],
        [entry("lib/a.py"), entry("lib/bevrepro-env.log")],
        [],
    ],
)  # fmt: skip
def test_anything_else_changes_it(other):
    assert digest(*other) != digest(entry("lib/a.py"))
