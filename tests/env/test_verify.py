"""A small environment, built in a moment, then tampered with in every way."""

import base64
import hashlib
import json
import os
import py_compile
import random
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from bevrepro.core.errors import ConfigError
from bevrepro.env import patching, patchset
from bevrepro.env import verify as verifying
from bevrepro.env.digest import digest_at
from bevrepro.env.layout import RECEIPT
from bevrepro.env.receipt import Receipt, write_receipt
from bevrepro.env.toolkit_tree import tree_digest
from bevrepro.env.verify import verify

FOLDER = "0123456789abcdef"
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
VERSION = ".".join(map(str, sys.version_info[:3]))
SITE = f"lib/python{MINOR}/site-packages"


def record_row(root: Path, path: str) -> str:
    content = (root / SITE / path).read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
    return f"{path},sha256={digest},{len(content)}\n"


def install(root: Path, name: str, version: str, files: dict[str, str]) -> None:
    info = f"{name}-{version}.dist-info"
    files = {**files, f"{info}/METADATA": f"Name: {name}\nVersion: {version}\n", f"{info}/INSTALLER": "uv"}
    for path, text in files.items():
        (root / SITE / path).parent.mkdir(parents=True, exist_ok=True)
        (root / SITE / path).write_text(text)
    rows = [record_row(root, path) for path in files] + [f"{info}/RECORD,,\n"]
    (root / SITE / info / "RECORD").write_text("".join(rows))


def receive(root: Path, patches=(), cuda=None) -> None:
    locks = {
        "locks/small.txt": hashlib.sha256((root.parent / "envs/locks/small.txt").read_bytes()).hexdigest()
    }
    receipt = Receipt(
        target="small", title="", stack="torch2", prefix=str(root.parent / "e"), path=str(root),
        python={"version": VERSION}, inputs_digest=FOLDER + "0" * 48, digest=digest_at(root), locks=locks,
        packages={"a": "1.0", "torch": "2.0+cpu"}, built=(), patches=tuple(patches), cuda=cuda,
        environment={}, selftest=(), steps=(), built_at="", bevrepro="0", evidence=None,
    )  # fmt: skip
    write_receipt(receipt, root)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """An environment of two packages with lock and receipt."""
    folder = tmp_path / FOLDER
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    locks = tmp_path / "envs" / "locks"
    locks.mkdir(parents=True)
    (locks / "small.txt").write_text(f"a==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    (locks / "small.torch.txt").write_text(f"torch==2.0+cpu \\\n    --hash=sha256:{'1' * 64}\n")
    monkeypatch.setattr(verifying, "envs_dir", lambda: tmp_path / "envs")
    install(folder, "a", "1.0", {"a/__init__.py": "x = 1\n", "a/data.txt": "data\n"})
    install(folder, "torch", "2.0+cpu", {"torch.py": "y = 2\n"})
    receive(folder)
    return folder


def ids(root: Path, **options) -> set[str]:
    return {each.id.removeprefix("verify-") for each in verify(root, **options).findings}


def test_an_untouched_environment_is_clean_and_stays_so_when_it_is_used(root):
    assert verify(root).clean
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([root / "bin/python", "-c", "import a, torch"], check=True, env=environ)
    assert (root / SITE / "a/__pycache__").is_dir()
    assert verify(root).clean and verify(root, deep=True).clean


def test_flipping_any_byte_of_any_file_is_caught(root, monkeypatch):
    answer = verifying._python(root)
    monkeypatch.setattr(verifying, "_python", lambda root: answer)  # one process start less each time
    rolled = random.Random(5)
    for path in [each for each in root.rglob("*") if each.is_file() and not each.is_symlink()]:
        content = path.read_bytes()
        told = path.stat()
        spots = {0, len(content) - 1, *(rolled.randrange(len(content)) for _ in range(12))} if content else ()
        for spot in sorted(spots):
            other = bytes([content[spot] ^ rolled.randrange(1, 256)])
            path.write_bytes(content[:spot] + other + content[spot + 1 :])
            os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
            assert not verify(root).clean, (path, spot, other)
        path.write_bytes(content)
    assert verify(root).clean


@pytest.mark.parametrize(
    ("path", "text", "wanted"),
    [
        (f"{SITE}/a/__init__.py", "x = 2\n", {"edited", "receipt-digest"}),
        (f"{SITE}/sitecustomize.py", "evil()\n", {"extra", "receipt-digest"}),
        (f"{SITE}/evil.pth", "import evil\n", {"extra", "receipt-digest"}),
        (f"{SITE}/a/evil.pyc", "", {"bytecode"}),
        (f"{SITE}/a/__pycache__/evil.py", "", {"extra"}),
        ("bin/extra", "#!/bin/sh\n", {"receipt-digest"}),
        ("pyvenv.cfg", "home = /\nversion = 3.1.4\n", {"python", "receipt-digest"}),
    ],
)
def test_each_kind_of_tampering_is_named(root, path, text, wanted):
    (root / path).parent.mkdir(exist_ok=True)
    (root / path).write_text(text)
    assert ids(root) == wanted


def test_an_edit_hidden_in_record_too_is_seen_by_the_digest(root):
    (root / SITE / "a/data.txt").write_text("other\n")
    record = root / SITE / "a-1.0.dist-info/RECORD"
    rows = record.read_text().splitlines(keepends=True)
    record.write_text("".join(record_row(root, "a/data.txt") if "data" in row else row for row in rows))
    assert ids(root) == {"receipt-digest"}


def test_what_was_removed_is_named(root):
    (root / SITE / "a/data.txt").unlink()
    (root / SITE / "torch-2.0+cpu.dist-info/RECORD").unlink()
    shutil.rmtree(root / SITE / "a-1.0.dist-info")
    assert ids(root) == {
        "no-record", "extra", "missing", "receipt-packages", "receipt-digest",
    }  # fmt: skip


def test_another_version_and_a_second_one_are_named(root):
    install(root, "a", "2.0", {"a/__init__.py": "x = 1\n"})
    assert {"twice", "version", "receipt-packages", "receipt-digest"} <= ids(root)


def test_links_out_of_the_environment_are_named(root, tmp_path):
    (root / SITE / "a/data.txt").unlink()
    (root / SITE / "a/data.txt").symlink_to("/etc/hostname")
    (root / "gone").symlink_to("nowhere")
    assert {"link-outside", "link-dangling", "edited"} <= ids(root)


def test_an_interpreter_that_is_gone_is_named(root):
    (root / "bin/python").unlink()
    (root / "bin/python").symlink_to("/nowhere/python3")
    assert {"python", "link-dangling"} <= ids(root)


def test_an_interpreter_of_another_version_beneath_is_named(root, monkeypatch):
    done = types.SimpleNamespace(ok=True, stdout='"3.1.4"')
    monkeypatch.setattr(verifying.proc, "run", lambda *args, **kwargs: done)
    assert {"python", "receipt-python"} <= ids(root)


def test_without_a_receipt_files_and_versions_are_still_compared(root):
    (root / RECEIPT).unlink()
    (root / SITE / "a/__init__.py").write_text("x = 2\n")
    assert ids(root, target="small") == {"receipt-no-receipt", "edited"}


def test_a_moved_environment_is_named(root, tmp_path):
    moved = root.rename(tmp_path / ("f" * 16))
    assert {"receipt-moved", "receipt-inputs"} <= ids(moved)


def test_bytecode_that_is_not_of_its_source_is_found_by_a_deep_look(root, tmp_path):
    source = root / SITE / "a/__init__.py"
    told = source.stat()
    forged = tmp_path / "forged.py"
    forged.write_text("x = 9\n")
    os.utime(forged, ns=(told.st_atime_ns, told.st_mtime_ns))
    cached = root / SITE / f"a/__pycache__/__init__.{sys.implementation.cache_tag}.pyc"
    py_compile.compile(str(forged), cfile=str(cached), dfile=str(source))
    said = subprocess.run([root / "bin/python", "-c", "import a; print(a.x)"], capture_output=True, text=True)
    assert said.stdout == "9\n"  # Python does run it
    assert verify(root).clean and ids(root, deep=True) == {"forged"}


def test_patched_files_are_notes_and_edits_on_top_are_findings(root, monkeypatch):
    after = hashlib.sha256(b"x = 3\n").hexdigest()
    wanted = types.SimpleNamespace(name="a-1.0", stage="installed")
    monkeypatch.setattr(patchset, "load", lambda name: wanted)
    monkeypatch.setattr(patchset, "digest", lambda found: "5" * 64)
    monkeypatch.setattr(patching, "patched_files", lambda found: {"a/__init__.py": after})
    source = root / SITE / "a/__init__.py"
    source.write_text("x = 3\n")
    receive(root, [{"set": "a-1.0", "sha256": "5" * 64}])
    report = verify(root)
    assert report.clean and "patched by a-1.0" in report.findings[0].seen
    source.write_text("x = 4\n")
    assert "patch-edited" in ids(root)
    source.write_text("x = 1\n")
    assert "unpatched" in ids(root)


def test_a_toolkit_is_compared_with_its_own_digest_and_may_use_the_machines_compiler(root):
    (root / "cuda/host/bin").mkdir(parents=True)
    (root / "cuda/nvcc").write_text("nvcc")
    (root / "cuda/host/bin/g++").symlink_to("/usr/bin/env")
    cuda = {"version": "11.8", "home": str(root / "cuda"), "digest": tree_digest(root / "cuda")}
    receive(root, cuda=cuda)
    assert verify(root).clean
    (root / "cuda/nvcc").write_text("evil")
    assert ids(root) == {"receipt-cuda", "receipt-digest"}


@pytest.mark.parametrize(
    "make", [lambda path: None, lambda path: path.mkdir(), lambda path: path.write_text("")]
)
def test_what_is_no_environment_gets_a_sentence(tmp_path, make):
    make(tmp_path / "e")
    with pytest.raises(ConfigError, match="no"):
        verify(tmp_path / "e")


def test_the_command_exits_with_one_on_findings_and_writes_json(root, capsys):
    from bevrepro.cli import main

    assert main(["env", "verify", "--prefix", str(root)]) == 0
    (root / SITE / "a/__init__.py").write_text("x = 2\n")
    capsys.readouterr()
    assert main(["env", "verify", "--prefix", str(root), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["clean"] and told["seen"][0]["path"] == f"{SITE}/a/__init__.py"


@pytest.mark.parametrize("value", [None, 5, "x", [], {}, [1], [{}], {"a": 1}, {"version": 3}, True])
def test_a_receipt_of_any_shape_is_a_finding_and_no_crash(root, monkeypatch, value):
    answer = verifying._python(root)
    monkeypatch.setattr(verifying, "_python", lambda root: answer)
    told = json.loads((root / RECEIPT).read_text())
    for key in told:
        edited = {**told, key: value}
        text = json.dumps(edited, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        (root / RECEIPT).write_text(text)
        assert verify(root).clean == (json.dumps(edited) == json.dumps(told)), (key, value)
