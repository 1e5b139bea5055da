"""A pack of a small target: equal bytes each time, and nothing in it that the lock does not know."""

import errno
import hashlib
import io
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from bevrepro.core.errors import ConfigError, DataError, DiskError
from bevrepro.env import downloads, pack, plan, target
from bevrepro.env.bundle import MANIFEST, Manifest, Packed, _header, write_bundle
from bevrepro.env.index import Index
from bevrepro.env.interpreter import Interpreter
from bevrepro.env.tree import sha256_of

HERE = Interpreter(sys.executable, "3.11.7", "CPython", "linux-x86_64", sys.executable)


def wheel(folder: Path, name: str) -> str:
    """sha256 of a wheel of one module."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(f"{name}.py"), f"{name} = 1\n")
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        archive.writestr(zipfile.ZipInfo(f"{name}-1.0.dist-info/METADATA"), text)
        wheel = "Wheel-Version: 1.0\nTag: py3-none-any\nRoot-Is-Purelib: true\n"
        archive.writestr(zipfile.ZipInfo(f"{name}-1.0.dist-info/WHEEL"), wheel)
        archive.writestr(zipfile.ZipInfo(f"{name}-1.0.dist-info/RECORD"), "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """(small target, index): a lock of two wheels that lie in a folder."""
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))
    folder, envs = tmp_path / "shop", tmp_path / "envs"
    folder.mkdir()
    (envs / "locks").mkdir(parents=True)
    (envs / "targets").mkdir()
    lines = [f"{name}==1.0 \\\n    --hash=sha256:{wheel(folder, name)}\n" for name in ("a", "b")]
    (envs / "locks/small.txt").write_text("".join(lines))
    (envs / "targets/small.toml").write_text('name = "small"\n')
    for module in (plan, pack):
        monkeypatch.setattr(module, "envs_dir", lambda: envs)
    cpu = target.load("cpu")
    small = replace(cpu, name="small", torch=None, path=envs / "targets/small.toml")
    return small, Index(no_index=True, find_links=(str(folder),))


@pytest.fixture
def packed(shop, tmp_path):
    small, index = shop
    return pack.pack(pack.plan(small, HERE, index), tmp_path / "out.tar")


def test_it_holds_target_locks_and_wheels_and_opens_again(shop, packed, tmp_path):
    with pack.unpacked(packed.path, shop[0], tmp_path) as bundle:
        assert sorted(path.name for path in bundle.wheels.iterdir()) == [
            "a-1.0-py3-none-any.whl", "b-1.0-py3-none-any.whl",
        ]  # fmt: skip
        assert (bundle.root / "locks/small.txt").is_file() and bundle.cuda is None
        assert pack.manifest_of(packed.path, shop[0]).python == "3.11.7"
    assert not bundle.root.exists()


def test_the_same_input_gives_the_same_bytes(shop, packed, tmp_path):
    shutil.rmtree(tmp_path / "cache")
    again = pack.pack(pack.plan(shop[0], HERE, shop[1]), tmp_path / "again.tar")
    assert again.sha256 == packed.sha256 == sha256_of(again.path)
    assert again.path.read_bytes() == packed.path.read_bytes()


@pytest.mark.parametrize("spot", [0, 300, 700, 5000, 9000, -5000, -1])
def test_a_changed_byte_is_refused_and_leaves_nothing(shop, packed, tmp_path, spot):
    content = bytearray(packed.path.read_bytes())
    content[spot] ^= 1
    packed.path.write_bytes(content)
    with pytest.raises(DataError), pack.unpacked(packed.path, shop[0], tmp_path / "into"):
        pass
    assert list((tmp_path / "into").iterdir()) == []


def forge(path: Path, files: dict[str, bytes], inputs: str, **changes) -> Path:
    """A pack whose manifest holds, whatever it says."""
    rows = [Packed(name, len(text), hashlib.sha256(text).hexdigest()) for name, text in sorted(files.items())]
    told = dict(
        target="small", python="3.11.7", platform="linux-x86_64", cuda=None, bevrepro="0", inputs=inputs
    )
    with open(path, "wb") as out:
        write_bundle(
            Manifest(**{**told, "files": tuple(rows), **changes}), lambda name: io.BytesIO(files[name]), out
        )
    return path


def content(shop, packed, tmp_path) -> dict[str, bytes]:
    with pack.unpacked(packed.path, shop[0], tmp_path) as bundle:
        return {each.path: (bundle.root / each.path).read_bytes() for each in packed.manifest.files}


WHEEL = "packages/a-1.0-py3-none-any.whl"


@pytest.mark.parametrize(
    ("edit", "error", "word"),
    [
        (lambda files: {**files, WHEEL: b"evil"}, DataError, "not a file of the lock"),
        (
            lambda files: {**files, "packages/c-1.0-py3-none-any.whl": b"evil"},
            DataError,
            "not a file of the lock",
        ),
        (lambda files: {key: value for key, value in files.items() if key != WHEEL}, DataError, "lacks a"),
        (lambda files: {**files, "locks/small.txt": b"c==1\n"}, ConfigError, "another locks/small.txt"),
        (lambda files: {**files, "patches/x-1/series.toml": b""}, ConfigError, "another patches"),
        (lambda files: {**files, "cuda/nvcc": b"evil"}, DataError, "the target has none"),
        (lambda files: {**files, "other/file": b""}, DataError, "which no pack does"),
        (lambda files: {**files, "packages/deep/er/file": b""}, DataError, "not a file of the lock"),
    ],
)
def test_a_forged_pack_with_a_whole_manifest_is_refused(shop, packed, tmp_path, edit, error, word):
    forged = forge(tmp_path / "forged.tar", edit(content(shop, packed, tmp_path)), packed.manifest.inputs)
    with pytest.raises(error, match=word), pack.unpacked(forged, shop[0], tmp_path):
        pass


@pytest.mark.parametrize(
    ("changes", "error", "word"),
    [
        ({"target": "a100"}, ConfigError, "of the target a100"),
        ({"python": "../3"}, DataError, "for Python"),
        ({"python": 3}, DataError, "for Python"),
        ({"inputs": "0" * 64}, ConfigError, "another targets/small.toml"),
    ],
)
def test_a_pack_of_something_else_is_refused(shop, packed, tmp_path, changes, error, word):
    forged = forge(
        tmp_path / "forged.tar",
        content(shop, packed, tmp_path),
        **{"inputs": packed.manifest.inputs, **changes},
    )
    with pytest.raises(error, match=word), pack.unpacked(forged, shop[0], tmp_path):
        pass


def test_claims_larger_than_the_disk_are_refused_before_anything_is_written(shop, packed, tmp_path):
    huge = tuple(
        replace(each, size_b=1 << 60) if "whl" in each.path else each for each in packed.manifest.files
    )
    text = replace(packed.manifest, files=huge)
    with open(tmp_path / "huge.tar", "wb") as out:
        content = text.to_bytes()
        out.write(_header(MANIFEST, len(content), False) + content)
        out.write(b"\0" * (-len(content) % 512))
    with (
        pytest.raises(DiskError, match="unpacks to 2097152 TiB"),
        pack.unpacked(tmp_path / "huge.tar", shop[0], tmp_path),
    ):
        pass


def test_a_full_disk_is_told_and_leaves_nothing(shop, packed, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device", "x")

    monkeypatch.setattr(pack, "_create", full)
    with (
        pytest.raises(DiskError, match="No space left"),
        pack.unpacked(packed.path, shop[0], tmp_path / "into"),
    ):
        pass
    assert list((tmp_path / "into").iterdir()) == []
    monkeypatch.setattr(pack, "write_bundle", full)
    with pytest.raises(DiskError, match="No space left"):
        pack.pack(pack.plan(shop[0], HERE, shop[1]), packed.path)
    assert sha256_of(packed.path) == packed.sha256 and not list(tmp_path.glob(".out*"))


def test_a_tampered_wheel_in_the_shop_or_in_the_cache_is_never_packed(shop, tmp_path):
    small, index = shop
    planned = pack.plan(small, HERE, index)
    path = tmp_path / "shop/a-1.0-py3-none-any.whl"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="not the file that was locked"):
        pack.pack(planned, tmp_path / "out.tar")
    assert not (tmp_path / "out.tar").exists()


def test_no_file_and_no_regular_file_get_a_sentence(shop, tmp_path):
    for path in (tmp_path / "nothing.tar", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            pack.manifest_of(path, shop[0])


def test_the_index_is_asked_once_for_everything(shop, monkeypatch):
    asked = []
    run = downloads.proc.run
    monkeypatch.setattr(downloads.proc, "run", lambda argv, **more: asked.append(argv) or run(argv, **more))
    assert len(pack.plan(shop[0], HERE, shop[1]).packages) == 2 and len(asked) == 1
