"""From a folder of wheels to a pack, from the pack to an environment without a network, verified."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bevrepro.cli import main
from bevrepro.core import paths

ROOT = Path(__file__).parents[2]
MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
TARGET = f"""
name = "small"
title = "two wheels"
stack = "torch2"
source = "this test"
checked = "2026-11-21"
hardware.kind = "cpu"
python = {{ order = ["{MINOR}"] }}
platform = {{ verified = ["linux-x86_64"] }}
disk = {{ needs_gib = 0.1 }}
requirements = {{ model = ["a"] }}
selftest = {{ checks = [] }}
"""
CLOSED = "http://127.0.0.1:9"  # the port "discard": nobody listens


def row(path: str, text: str) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
    return f"{path},sha256={digest},{len(text)}\n"


def wheel(folder: Path, name: str) -> str:
    """sha256 of a wheel of one module."""
    path, info = folder / f"{name}-1.0-py3-none-any.whl", f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": f"{name} = 1\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\nRoot-Is-Purelib: true\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in {**files, f"{info}/RECORD": "".join(map(row, *zip(*files.items())))}.items():
            archive.writestr(zipfile.ZipInfo(member), text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A bevrepro with one small target, and a folder `shop` with its wheels."""
    shop, envs = tmp_path / "shop", tmp_path / "envs"
    for folder in (shop, envs / "locks", envs / "targets"):
        folder.mkdir(parents=True)
    (envs / "interpreters.py").symlink_to(ROOT / "envs/interpreters.py")
    (tmp_path / "model").symlink_to(ROOT / "model")
    (envs / "targets/small.toml").write_text(TARGET)
    lines = [f"{name}==1.0 \\\n    --hash=sha256:{wheel(shop, name)}\n" for name in "ab"]
    (envs / "locks/small.txt").write_text("".join(lines))
    monkeypatch.setattr(paths, "PACKAGE_DIR", tmp_path / "bevrepro")
    for name in ("CACHE", "DATA"):
        monkeypatch.setenv(f"BEVREPRO_{name}", str(tmp_path / name.lower()))
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path


def digest_of_build(place: Path, bundle: Path) -> str:
    argv = ["env", "build", "--target", "small", "--prefix", str(place / "e é"), "--offline", str(bundle)]
    assert main(argv) == 0
    return json.loads((place / "e é/bevrepro-env.json").read_text())["digest"]


def test_a_pack_builds_where_there_is_no_network_and_the_result_verifies(place, monkeypatch, capsys):
    bundle = place / "small.tar"
    assert main(["env", "pack", "--target", "small", str(bundle), "--find-links", str(place / "shop")]) == 0
    (place / "shop").rename(place / "closed")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, CLOSED)
    monkeypatch.setenv("UV_CACHE_DIR", str(place / "uv"))
    digest = digest_of_build(place, bundle)
    python = place / "e é/bin/python"
    said = subprocess.run([python, "-c", "import a, b; print(a.a + b.b)"], capture_output=True, text=True)
    assert said.stdout == "2\n", said.stderr
    verify = ["env", "verify", "--prefix", str(place / "e é")]
    assert main(verify) == 0
    module = next((place / "e é").glob("lib/python3*/site-packages/a.py"))
    module.write_text("a = 2\n")
    capsys.readouterr()
    assert main([*verify, "--json"]) == 1
    kinds = {each["id"] for each in json.loads(capsys.readouterr().out)["findings"]}
    assert kinds == {"verify-edited", "verify-receipt-digest"}
    assert main(["env", "remove", "--target", "small", "--prefix", str(place / "e é")]) == 0
    assert digest_of_build(place, bundle) == digest


def test_a_tampered_pack_builds_nothing(place, capsys):
    bundle = place / "small.tar"
    assert main(["env", "pack", "--target", "small", str(bundle), "--find-links", str(place / "shop")]) == 0
    content = bytearray(bundle.read_bytes())
    content[content.index(b"a = 1")] ^= 1
    bundle.write_bytes(content)
    argv = ["env", "build", "--target", "small", "--prefix", str(place / "e"), "--offline", str(bundle)]
    assert main(argv) == 4
    assert "a-1.0-py3-none-any.whl is damaged" in capsys.readouterr().err
    assert not (place / "e").exists()


def test_a_tampered_wheel_in_the_cache_is_fetched_again_or_refused(place, capsys):
    argv = ["env", "pack", "--target", "small", str(place / "small.tar")]
    assert main([*argv, "--find-links", str(place / "shop")]) == 0
    for path in (place / "cache/packages").rglob("*.whl"):
        path.write_bytes(b"evil")
    assert main([*argv, "--find-links", str(place / "shop")]) == 0
    for path in (place / "shop").iterdir():
        path.write_bytes(path.read_bytes() + b"evil")
    for path in (place / "cache/packages").rglob("*.whl"):
        path.write_bytes(b"evil")
    assert main([*argv, "--find-links", str(place / "shop")]) in (3, 4)


def test_a_dry_run_fetches_nothing(place, capsys):
    argv = ["env", "pack", "--target", "small", str(place / "small.tar"), "--dry-run"]
    assert main([*argv, "--find-links", str(place / "shop"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["file"] for each in told["packages"]] == ["a-1.0-py3-none-any.whl", "b-1.0-py3-none-any.whl"]
    assert not (place / "small.tar").exists() and not (place / "cache").exists()


def test_a_lock_with_paths_is_exported_from_a_pack(place, monkeypatch, capsys):
    from packaging.pylock import Pylock

    from bevrepro.facts import tomllib

    bundle = place / "small.tar"
    assert main(["env", "pack", "--target", "small", str(bundle), "--find-links", str(place / "shop")]) == 0
    out = place / "pylock.small.toml"
    argv = ["env", "export", "--format", "pylock", "--target", "small", "--out", str(out)]
    assert main([*argv, "--pack", str(bundle)]) == 0
    lock = Pylock.from_dict(tomllib.loads(out.read_text()))
    assert [each.wheels[0].path for each in lock.packages] == [
        "packages/a-1.0-py3-none-any.whl", "packages/b-1.0-py3-none-any.whl",
    ]  # fmt: skip
    out.write_text("mine = true\n")
    assert main([*argv, "--pack", str(bundle)]) == 6 and out.read_text() == "mine = true\n"
    assert main(["env", "export", "--format", "conda", "--target", "small", "--pack", str(bundle)]) == 2
