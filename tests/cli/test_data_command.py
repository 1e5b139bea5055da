"""`bevrepro data ...` as typed: exit codes, sentences, JSON."""

import json
import tarfile

import pytest

from bevrepro.cli import main
from bevrepro.data import fuse
from bevrepro.drive import launch


@pytest.fixture(autouse=True)
def no_fuse(tmp_path, monkeypatch):
    """Never mount anything here; tests/data/test_real_mount.py does."""
    monkeypatch.setenv("BEVREPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BEVREPRO_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(fuse, "missing", lambda: ("there is no /dev/fuse",))


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "scene.json").write_text("[]")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "scene.json", "v1.0-mini/scene.json")
    return tmp_path / "a.tar"


@pytest.fixture
def started(monkeypatch):
    """The verbs of the model plane that were started, with their arguments."""
    calls = []

    def run_model(verb, argv, **options):
        calls.append([verb, *argv])
        return {"event": "result", "files": 3, "out": "somewhere"}

    monkeypatch.setattr(launch, "run_model", run_model)
    return calls


def test_mount_without_fuse_says_why_and_remembers(archive, tmp_path, capsys):
    assert main(["data", "mount", str(archive), str(tmp_path / "mnt")]) == 0
    said = capsys.readouterr()
    assert "there is no /dev/fuse" in said.err and "read in-process from a.tar" in said.out
    assert main(["data", "status"]) == 0
    assert "training reads the archives" in capsys.readouterr().out
    assert main(["data", "umount", str(tmp_path / "mnt"), "--dry-run"]) == 0
    assert "would be forgotten" in capsys.readouterr().out
    assert main(["data", "umount", str(tmp_path / "mnt")]) == 0
    assert "is forgotten" in capsys.readouterr().out


def test_mount_without_words_mounts_again_what_is_remembered(archive, tmp_path, capsys):
    assert main(["data", "mount"]) == 0
    assert "Nothing that is remembered" in capsys.readouterr().out
    main(["data", "mount", str(archive), str(tmp_path / "mnt")])
    capsys.readouterr()
    assert main(["data", "mount", str(tmp_path / "mnt"), "--json"]) == 0
    (again,) = json.loads(capsys.readouterr().out)["mounts"]
    assert again["archives"][0]["path"] == str(archive)
    archive.unlink()
    assert main(["data", "mount", str(tmp_path / "mnt")]) == 4
    assert "no archive at" in capsys.readouterr().err


def test_status_says_what_became_of_the_archives(archive, tmp_path, capsys):
    main(["data", "mount", str(archive), str(tmp_path / "mnt")])
    archive.write_bytes(archive.read_bytes() + bytes(10240))
    capsys.readouterr()
    main(["data", "status"])
    assert "CHANGED since" in capsys.readouterr().out
    archive.unlink()
    main(["data", "status"])
    assert "MISSING" in capsys.readouterr().out


def test_mount_json_is_the_plan_and_dry_run_changes_nothing(archive, tmp_path, capsys):
    assert main(["data", "mount", str(archive), str(tmp_path / "mnt"), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["mode"], plan["dry_run"], plan["archives"][0]["kind"]) == ("in-process", True, "tar")
    assert not (tmp_path / "state").exists()


def test_status_json_lists_each_mount(archive, tmp_path, capsys):
    main(["data", "mount", str(archive), str(tmp_path / "mnt")])
    capsys.readouterr()
    assert main(["data", "status", "--json"]) == 0
    mounts = json.loads(capsys.readouterr().out)["mounts"]
    found = [one for one in mounts if one["mountpoint"] == str(tmp_path / "mnt")]
    assert found[0]["archives"] == [str(archive)] and found[0]["state"] == "in-process"


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["mount", "nope.tgz", "mnt"], 4, "no archive at nope.tgz"),
        (["mount", "{archive}", "{folder}"], 5, "is not empty"),
        (["mount", "mnt"], 5, "nothing is remembered for"),
        (["mount", "{archive}"], 5, "without a MOUNTPOINT"),
        (["mount", "mnt", "--overlay", "x"], 2, "name the archives"),
        (["umount", "mnt"], 5, "nothing is mounted"),
        (["prepare", "--data-root", "nope", "--out", "x"], 4, "there is no"),
    ],
)
def test_bad_input_is_a_sentence_and_an_exit_code(archive, tmp_path, capfd, arguments, code, words):
    arguments = [part.format(archive=archive, folder=tmp_path) for part in arguments]
    assert main(["data", *arguments]) == code
    said = capfd.readouterr().err
    assert words in said and "Traceback" not in said


def test_synth_passes_every_option_on(started, tmp_path, capsys):
    arguments = ["--seed", "3", "--scenes", "4", "--samples", "6", "--scale", "0.1", "--force"]
    more = ["--set", "mini", "--weather", "clear", "--sweeps", "0"]
    assert main(["data", "synth", str(tmp_path / "out"), *arguments]) == 0
    assert started == [["synth", str(tmp_path / "out"), *arguments[:-1], *more, "--force"]]
    assert "files: 3" in capsys.readouterr().out


def test_prepare_gives_the_archives_of_a_remembered_mount_point(started, archive, tmp_path, capsys):
    main(["data", "mount", str(archive), str(tmp_path / "mnt")])
    capsys.readouterr()
    chosen = ["--out", str(tmp_path / "infos"), "--version", "v1.0-mini", "--no-can-bus"]
    assert main(["data", "prepare", "--data-root", str(tmp_path / "mnt"), "--json", *chosen]) == 0
    expected = ["prepare", "--data-root", str(archive), *chosen]
    opened = ["store", "--data-root", str(archive)]
    assert started == [opened, expected] and json.loads(capsys.readouterr().out)["files"] == 3


def test_an_archive_the_reader_refuses_is_named_at_once_and_forgotten(archive, tmp_path, monkeypatch, capsys):
    from bevrepro.core.errors import DataError
    from bevrepro.data import remembered
    from bevrepro.drive import launch

    def refuse(verb, argv, **options):
        raise DataError("cut short", do="Fetch it again.")

    monkeypatch.setattr(launch, "run_model", refuse)
    assert main(["data", "mount", str(archive), str(tmp_path / "mnt"), "--in-process"]) == 4
    assert "cut short" in capsys.readouterr().err
    assert remembered.get(tmp_path / "mnt") is None
