"""The small part of a data set as a folder."""

import errno
import tarfile
from pathlib import Path

import pytest

from bevformer.data import extract_main
from bevformer.errors import ConfigError, DataError, DiskError


def roots(synth):
    return [word for path in synth.archives for word in ("--data-root", path)]


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def test_tables_maps_and_can_data_come_out_of_the_archives(synth, heard, tmp_path):
    extract_main.main([*roots(synth), "--out", str(tmp_path / "out")], heard)
    small = {name: data for name, data in files(synth.root).items() if not name.startswith("samples/")}
    assert files(tmp_path / "out") == small
    assert heard.results[0]["files"] == len(small)
    assert heard.results[0]["bytes"] == sum(len(data) for data in small.values())


def test_only_takes_what_is_named(synth, heard, tmp_path):
    extract_main.main([*roots(synth), "--out", str(tmp_path / "out"), "--only", "can_bus"], heard)
    assert {name.split("/")[0] for name in files(tmp_path / "out")} == {"can_bus"}
    with pytest.raises(ConfigError, match="below elsewhere"):
        extract_main.main([*roots(synth), "--out", str(tmp_path / "b"), "--only", "elsewhere"], heard)


def test_a_dry_run_writes_nothing(synth, heard, tmp_path):
    extract_main.main([*roots(synth), "--out", str(tmp_path / "out"), "--dry-run"], heard)
    assert heard.results[0]["dry_run"] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "make", [lambda p: p.write_text(""), lambda p: (p.mkdir(), (p / "x").write_text(""))]
)
def test_what_is_there_is_not_overwritten(synth, heard, tmp_path, make):
    make(tmp_path / "out")
    with pytest.raises(DataError, match="is not an empty folder"):
        extract_main.main([*roots(synth), "--out", str(tmp_path / "out")], heard)


@pytest.mark.parametrize("trouble", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_interruption_leaves_nothing(synth, heard, tmp_path, monkeypatch, trouble):
    monkeypatch.setattr(extract_main.os, "sync", lambda: (_ for _ in ()).throw(trouble))
    with pytest.raises(DiskError if isinstance(trouble, OSError) else KeyboardInterrupt):
        extract_main.main([*roots(synth), "--out", str(tmp_path / "out")], heard)
    assert not list(tmp_path.iterdir())


def test_an_archive_without_tables_is_refused(tmp_path, heard):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("samples/x"))
    with pytest.raises(DataError, match="neither tables, maps nor CAN data"):
        extract_main.main(["--data-root", str(tmp_path / "a.tar"), "--out", str(tmp_path / "out")], heard)
