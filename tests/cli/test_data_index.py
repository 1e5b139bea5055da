"""`bevrepro data index` as typed, with the reader's own pass; nothing is mounted."""

import io
import json
import os
import random
import tarfile
from pathlib import Path

import pytest

from bevrepro.cli import main


def write(path, size=3000, files=40):
    rng = random.Random(path.name)
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for number in range(files):
            entry = tarfile.TarInfo(f"samples/CAM_FRONT/{number:03}.jpg")
            entry.size = size
            tar.addfile(entry, io.BytesIO(rng.randbytes(size)))
    return path


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    pytest.importorskip("rapidgzip", reason="the reader's pass over a .tgz needs rapidgzip")
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BEVREPRO_STATE", str(tmp_path / "state"))
    (tmp_path / "downloads").mkdir()
    for name in ("a.tgz", "b.tgz"):
        write(tmp_path / "downloads" / name)
    return tmp_path / "downloads"


def run(capfd, *words):
    code = main(["data", "index", *map(str, words), "--json"])
    return code, json.loads(capfd.readouterr().out)


def states(answer):
    return {Path(one["path"]).name: one["state"] for one in answer["archives"]}


def test_what_was_indexed_is_not_indexed_again(downloads, capfd):
    assert states(run(capfd, downloads / "a.tgz", "--for", "reader")[1]) == {"a.tgz": "indexed"}
    code, answer = run(capfd, downloads, "--for", "reader")
    assert code == 0 and states(answer) == {"a.tgz": "was done", "b.tgz": "indexed"}
    assert sorted(os.listdir(downloads)) == ["a.tgz", "b.tgz"]


def test_dry_run_says_what_it_would_take_and_writes_nothing(downloads, tmp_path, capfd):
    code, answer = run(capfd, downloads, "--for", "reader", "--dry-run")
    assert code == 0 and [Path(one["path"]).name for one in answer["to_do"]] == ["a.tgz", "b.tgz"]
    assert 50e6 < answer["forecast"]["memory_bytes"] < 256e6 and answer["refused"] is None
    assert not (tmp_path / "cache").exists()
    main(["data", "index", str(downloads), "--for", "reader", "--dry-run"])
    assert "MB of memory" in capfd.readouterr().out


def test_a_damaged_archive_is_named_and_does_not_stop_the_others(downloads, capfd):
    data = bytearray((downloads / "a.tgz").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    (downloads / "a.tgz").write_bytes(data)
    code, answer = run(capfd, downloads, "--for", "reader")
    assert code == 4 and states(answer) == {"a.tgz": "failed", "b.tgz": "indexed"}
    assert "a.tgz" in answer["archives"][0]["error"]


def test_a_machine_without_the_memory_is_refused(downloads, tmp_path, monkeypatch, capfd):
    from bevrepro.core.machine import Host
    from bevrepro.drive import indexing

    small = Host(wsl=2, memory_available_b=64 << 20, memory_total_b=256 << 20)
    monkeypatch.setattr(indexing, "probe_host", lambda: small)
    for more in ([], ["--dry-run"]):
        assert main(["data", "index", str(downloads), "--for", "reader", *more]) == 3
        assert "memory=4GB" in capfd.readouterr().err
    assert not (tmp_path / "cache").exists()
